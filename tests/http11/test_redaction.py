"""Tests of redaction: text from outside in logs, tracebacks, and the secrets of a request."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import plumews
from plumews.http11.models import Request
from plumews.http11.redaction import printable, quoted, sanitize_for_logging, secrets_of, traceback_without

# --- text from outside ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "most", "shown"),
    [
        ("plain", 0, "plain"),
        (b"plain", -1, "plain"),
        ("", 0, ""),
        ("\x1b[2J\r\nFAKE\x00\x7f\x85", 0, " [2J  FAKE   "),
        ("gr\u00fcn \u2713", 0, "gr\u00fcn \u2713"),
        (b"a\xff\xfe\xfdb\xffc", 0, "a\ufffdb\ufffdc"),
        ("a\ud800\udfffb", 0, "a\ufffdb"),
        (b"cut\xe2\x9c", 0, "cut\ufffd"),
        ("x" * 200, 0, "x" * 200),
        ("x" * 201, 0, "x" * 200 + "..."),
        ("12345", 5, "12345"),
        ("123456", 5, "12345..."),
        ("ab\u2713cd", 4, "ab..."),
        ("ab\u2713cd", 5, "ab\u2713..."),
        ("a\U0001f600b", 3, "a..."),
        (b"ab\xff\xff\xff\xff", 4, "ab\ufffd..."),
        (b"\x80" * 9, 3, "\ufffd..."),
        (bytearray(b"x"), 1, "x"),
        (memoryview(b"xy"), 1, "x..."),
    ],
)
def test_sanitize_makes_one_harmless_line(data, most, shown):
    assert sanitize_for_logging(data, most) == shown


@given(st.binary(max_size=40), st.integers(1, 40))
def test_sanitize_of_any_bytes_has_no_controls_and_is_bounded(data, most):
    shown = sanitize_for_logging(data, most)
    kept = shown.removesuffix("...") if len(data) > most else shown
    assert not any(character < " " or "\x7f" <= character < "\xa0" for character in shown)
    assert "\ufffd\ufffd" not in shown.replace("\xef\xbf\xbd", "") or b"\xef\xbf\xbd" in data
    assert len(kept.replace("\ufffd", "?").encode()) <= most
    shown.encode()  # there is no half of a character


def test_sanitize_of_an_int_raises_type_error():
    with pytest.raises(TypeError, match="not int"):
        sanitize_for_logging(7)


def test_sanitize_for_logging_is_public():
    assert plumews.sanitize_for_logging is sanitize_for_logging


def test_printable_text_is_ascii():
    assert printable("gr\u00fcn\x1b[2J\n\u202e\U0001f600") == "gr\\xfcn [2J \\u202e\\U0001f600"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("127.0.0.1:80", "127.0.0.1:80"),
        ("/chat/a-b_c", "/chat/a-b_c"),
        ("two words", "'two words'"),
        ("] user=admin [", "'] user=admin ['"),
        ("", "''"),
        ("r\u00fcck", "'r\\xfcck'"),
        ("x" * 300, "x" * 200 + "..."),
    ],
)
def test_quoted_value_cannot_imitate_another(value, shown):
    assert quoted(value) == shown


# --- tracebacks -------------------------------------------------------------------------------------

TOKEN = "aGVhZA.cGF5bG9hZA.c2ln"


def told(raising, *secrets):
    try:
        raising()
    except Exception as exc:
        return traceback_without(exc, secrets)
    raise AssertionError("nothing was raised")


def test_traceback_without_secret_is_complete():
    def away():
        raise RuntimeError("the database is away")

    text = told(away, TOKEN, None, "")
    assert text.startswith("Traceback")
    assert text.rstrip().endswith("RuntimeError: the database is away")


def key_error():
    raise KeyError(TOKEN)


def part():
    raise ValueError(f"bad payload {TOKEN.split('.')[1]}")


def cause():
    try:
        key_error()
    except KeyError as exc:
        raise RuntimeError("no session") from exc


def context():
    try:
        key_error()
    except KeyError:
        raise RuntimeError("no session")  # noqa: B904 - that is what is tried


def as_bytes():
    raise ValueError(TOKEN.encode())


@pytest.mark.parametrize("raising", [key_error, part, cause, context, as_bytes])
def test_traceback_with_secret_keeps_only_place_and_class(raising):
    text = told(raising, TOKEN)
    assert raising.__name__ in text
    assert "its text is left out" in text
    assert not any(piece in text for piece in TOKEN.split("."))


def test_traceback_finds_secret_in_its_repr_form():
    odd = "".join(["it's", "\n", "\u20ac"])

    def refuse():
        raise KeyError(odd)

    assert "it's" not in told(refuse, odd)


# --- secrets of a request ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        ("/", {"Authorization": "Bearer s3cret"}),
        ("/", {"Authorization": "s3cret"}),
        ("/", {"X-WebSocket-Room-Password": "s3cret"}),
        ("/", {"Sec-WebSocket-Protocol": "plumews, bearer.s3cret"}),
        ("/", {"Cookie": 'a=b; session="s3cret"'}),
        ("/", {"Cookie": "s3cret"}),
        ("/?token=s3cret", {}),
        ("/?room_password=s3%63ret", {}),
        ("/?token=&token=s3cret", {}),
    ],
)
def test_secrets_are_found_in_every_place_of_a_request(target, headers):
    assert "s3cret" in list(secrets_of(Request("GET", target, list(headers.items()))))


def test_request_without_secrets_has_none():
    request = Request("GET", "/chat?room=blue", [("Host", "localhost"), ("Sec-WebSocket-Protocol", "plumews")])
    assert not any(secrets_of(request))


def test_secrets_of_a_repeated_header_are_all_found():
    request = Request("GET", "/", [("Authorization", "Bearer one"), ("Authorization", "Bearer two")])
    assert {"one", "two"} <= set(secrets_of(request))
