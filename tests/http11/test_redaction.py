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
def test_text_from_outside_becomes_one_harmless_line(data, most, shown):
    assert sanitize_for_logging(data, most) == shown


@given(st.binary(max_size=40), st.integers(1, 40))
def test_whatever_bytes_come_the_line_has_no_control_character_and_is_no_longer_than_said(data, most):
    shown = sanitize_for_logging(data, most)
    kept = shown.removesuffix("...") if len(data) > most else shown
    assert not any(character < " " or "\x7f" <= character < "\xa0" for character in shown)
    assert "\ufffd\ufffd" not in shown.replace("\xef\xbf\xbd", "") or b"\xef\xbf\xbd" in data
    assert len(kept.replace("\ufffd", "?").encode()) <= most
    shown.encode()  # there is no half of a character


def test_what_is_neither_text_nor_bytes_is_an_error():
    with pytest.raises(TypeError, match="not int"):
        sanitize_for_logging(7)


def test_it_is_handed_out():
    assert plumews.sanitize_for_logging is sanitize_for_logging


def test_a_printable_text_is_ascii():
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
def test_a_value_in_a_line_cannot_pass_for_another(value, shown):
    assert quoted(value) == shown


# --- tracebacks -------------------------------------------------------------------------------------

TOKEN = "aGVhZA.cGF5bG9hZA.c2ln"


def told(raising, *secrets):
    try:
        raising()
    except Exception as exc:
        return traceback_without(exc, secrets)
    raise AssertionError("nothing was raised")


def test_what_tells_no_secret_is_told_whole():
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
def test_what_tells_a_secret_in_any_way_is_told_by_its_place_and_its_class(raising):
    text = told(raising, TOKEN)
    assert raising.__name__ in text
    assert "its text is left out" in text
    assert not any(piece in text for piece in TOKEN.split("."))


def test_a_secret_that_repr_writes_otherwise_is_found_too():
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
def test_a_secret_is_found_wherever_a_client_can_put_it(target, headers):
    assert "s3cret" in list(secrets_of(Request("GET", target, list(headers.items()))))


def test_of_a_request_without_secrets_nothing_is_one():
    request = Request("GET", "/chat?room=blue", [("Host", "localhost"), ("Sec-WebSocket-Protocol", "plumews")])
    assert not any(secrets_of(request))


def test_a_repeated_header_is_no_error():
    request = Request("GET", "/", [("Authorization", "Bearer one"), ("Authorization", "Bearer two")])
    assert {"one", "two"} <= set(secrets_of(request))
