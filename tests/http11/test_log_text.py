"""What comes from outside, as it may stand in a log."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import plumews
from plumews.http11.log_text import printable, quoted, sanitize_for_logging


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
