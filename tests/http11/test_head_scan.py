"""Tests of the scan of a request head: control characters, ends of lines and of the head, the usual request line."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plumews.http11.head_scan import BAD_END, CONTROL, count_lines, find_end, is_plain_get, split_lines


def expected(data):
    """Return the result by regular expressions."""
    if re.search(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", data):
        return CONTROL
    if re.search(rb"\r[^\n]|(?<!\r)\n", data):
        return BAD_END
    return len(re.findall(rb"\r\n", data))


def test_lines_that_end_are_counted():
    assert [count_lines(data) for data in (b"", b"a", b"a\r\n", b"a\r\n\r\n", b"\r\nb\r\nc", b"a\r")] == [
        0,
        0,
        1,
        2,
        2,
        0,
    ]


@pytest.mark.parametrize("byte", range(256))
def test_each_byte_is_allowed_or_a_control(byte):
    assert count_lines(b"a%cb" % byte) == expected(b"a%cb" % byte)


@given(st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"a", b"\t", b"\x00", b"\x7f", b"\xff", b"name: value"])))
def test_result_is_that_of_regular_expressions(parts):
    assert count_lines(b"".join(parts)) == expected(b"".join(parts))


@given(st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"a"])), st.integers(0, 30))
def test_end_is_behind_the_first_empty_line_within_the_bytes(parts, stop):
    data = b"".join(parts)
    at = data[:stop].find(b"\r\n\r\n")
    assert find_end(data, stop) == (-1 if at < 0 else at + 4)


@pytest.mark.parametrize("byte", range(256))
def test_plain_target_is_visible_ascii_without_a_fragment(byte):
    target = b"/a%cb" % byte
    assert is_plain_get(b"GET %b HTTP/1.1\r\n" % target, target) == (0x20 < byte < 0x7F and byte != ord("#"))


@pytest.mark.parametrize(
    ("line", "target"),
    [
        (b"GET /  HTTP/1.1\r", b"/"),
        (b"GET  / HTTP/1.1\r", b"/"),
        (b"GET / HTTP/1.0\r", b"/"),
        (b"GET / HTTP/1.1", b"/"),
        (b"GET / HTTP/1.1 \r", b"/"),
        (b"GET /a HTTP/1.1\r", b"/b"),
        (b"GET /a HTTP/1.1\r", b"/"),
        (b"GET / HTTP/1.1\r", b""),
        (b"GET * HTTP/1.1\r", b"*"),
        (b"PUT / HTTP/1.1\r", b"/"),
        (b"get / HTTP/1.1\r", b"/"),
        (b"", b"/"),
    ],
)
def test_other_request_line_is_not_plain(line, target):
    assert not is_plain_get(line, target)


_PARTS = [b"a", b"z-9", b"A", b": ", b":", b" ", b"\t", b"\r\n", b"\xff", b"_"]


@given(st.lists(st.sampled_from(_PARTS)))
def test_lines_in_lower_case_are_split_and_no_others(parts):
    lines = [line for line in b"".join(parts).split(b"\r\n") if line]
    expected = [re.fullmatch(rb"([a-z0-9-]+): (.*)", line) for line in lines]
    found = split_lines(b"\r\n".join((b"GET / HTTP/1.1", *lines, b"", b"")))
    triples = [(match[1], match[1], match[2].strip(b" \t")) for match in expected if match]
    assert found == (triples if all(expected) else None)
