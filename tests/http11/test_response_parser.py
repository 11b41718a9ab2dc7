"""Tests of the parser of responses: heads and bodies however they are cut, and what is refused how soon."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plumews import limits
from plumews.errors import InvalidMessage
from plumews.http11.models import Response
from plumews.http11.response_parser import ResponseReader

OPENED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSet-Cookie: a=1\r\n"
    b"set-cookie: b=2 \t\r\nX-Name: caf\xe9\r\n\r\n"
)
FRAME = b"\x81\x02hi"


def read(data: bytes, *, size: int | None = None, **options: bool) -> tuple[Response, ResponseReader]:
    """Return the response in ``data``, fed in pieces of ``size``, and its reader."""
    reader = ResponseReader(**options)
    step = size or len(data)
    for at in range(0, len(data), step):
        response = reader.feed(data[at : at + step])
        if response is not None:
            reader.rest += data[at + step :]
            return response, reader
    raise AssertionError("the head is not complete")


def refused(data: bytes, **options: int) -> tuple[str, int]:
    """Return the error text, and the number of bytes, one at a time, behind which it came."""
    reader = ResponseReader(**options)
    for at in range(len(data)):
        try:
            response = reader.feed(data[at : at + 1])
        except InvalidMessage as exc:
            return str(exc), at + 1
        assert response is None, "it was accepted"
    return "", 0


@pytest.mark.parametrize("size", [None, 1, 3, 50])
def test_head_is_the_same_however_it_is_cut(size):
    response, reader = read(OPENED + FRAME, size=size)
    assert (response.status, response.reason, response.body) == (101, "Switching Protocols", b"")
    assert list(response.headers.raw_items()) == [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Set-Cookie", "a=1"),
        ("set-cookie", "b=2"),
        ("X-Name", "caf\xe9"),
    ]
    assert reader.rest == FRAME


@given(st.lists(st.integers(0, len(OPENED + FRAME)), max_size=8))
def test_any_cut_gives_the_same_response(cuts):
    data = OPENED + FRAME
    reader, found, rest = ResponseReader(), None, b""
    for start, stop in zip([0, *sorted(cuts)], [*sorted(cuts), len(data)], strict=True):
        if found is None:
            found = reader.feed(data[start:stop])
            rest = reader.rest
        else:
            rest += data[start:stop]
    assert found is not None
    assert (len(found.headers.get_all("Set-Cookie")), rest) == (2, FRAME)


@pytest.mark.parametrize(
    ("line", "status", "reason"),
    [
        (b"HTTP/1.1 101", 101, ""),
        (b"HTTP/1.1 101 ", 101, ""),
        (b"HTTP/1.0 200 Connection established", 200, "Connection established"),
        (b"HTTP/1.1 999 Request denied", 999, "Request denied"),
        (b"HTTP/1.1 403 Verw\xe4hrt\tnow", 403, "Verw\\xe4hrt now"),
    ],
)
def test_status_lines_that_servers_send_are_read(line, status, reason):
    response, _ = read(line + b"\r\nX: y\r\n\r\n")
    assert (response.status, response.reason, response.headers["x"]) == (status, reason, "y")


@pytest.mark.parametrize(
    ("data", "enough", "why"),
    [
        (b"SSH-2.0-OpenSSH\r\n", 1, "begin with HTTP/1.1"),
        (b"HTTP/2 200 OK\r\n\r\n", 6, "begin with HTTP/1.1"),
        (b"\r\nHTTP/1.1 101 OK\r\n\r\n", 1, "begin with HTTP/1.1"),
        (b"HTTP/1.2 101 OK\r\n\r\n", None, "status line"),
        (b"HTTP/1.1 99 OK\r\n\r\n", None, "status line"),
        (b"HTTP/1.1 099 OK\r\n\r\n", None, "status line"),
        (b"HTTP/1.1  101 OK\r\n\r\n", None, "status line"),
        (b"HTTP/1.1 1010 OK\r\n\r\n", None, "status line"),
        (b"HTTP/1.1 101OK\r\n\r\n", None, "status line"),
        (b"HTTP/1.0 101 OK\r\n\r\n", None, "HTTP/1.0"),
        (b"HTTP/1.1 101 O\x01K\r\nX: y\r\n\r\n", 18, "control byte"),
        (b"HTTP/1.1 101 OK\nX: y\r\n\r\n", 16, "CR LF"),
        (b"HTTP/1.1 101 OK\r\nA: b\rC: d\r\n\r\n", 28, "CR LF"),
        (b"HTTP/1.1 101 OK\r\nA: b\r\n c\r\n\r\n", None, "malformed"),
        (b"HTTP/1.1 101 OK\r\nA : b\r\n\r\n", None, "malformed"),
        (b"HTTP/1.1 101 OK\r\n: b\r\n\r\n", None, "malformed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", None, "malformed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", None, "malformed"),
    ],
)
def test_malformed_head_is_refused(data, enough, why):
    text, after = refused(data)
    assert why in text
    assert after == (enough or len(data))


@pytest.mark.parametrize(
    ("data", "why"), [(b"\x15\x03\x01\x00\x02\x02\x50", "wants wss://"), (b"\x00\x00\x12\x04\x00\x00", "HTTP/2")]
)
def test_answers_of_other_protocols_are_named(data, why):
    with pytest.raises(InvalidMessage, match=why):
        ResponseReader().feed(data)


def test_head_larger_than_the_limit_is_refused():
    text, after = refused(b"HTTP/1.1 101 OK\r\nX: " + b"y" * 2000, max_size=1024)
    assert (text, after) == ("response head too large: more than 1024 bytes", 1024)


def test_head_of_exactly_the_limit_is_accepted():
    head = b"HTTP/1.1 101 OK\r\nX: " + b"y" * 1000 + b"\r\n\r\n"
    assert ResponseReader(len(head)).feed(head + FRAME) is not None
    with pytest.raises(InvalidMessage, match="too large"):
        ResponseReader(len(head) - 1).feed(head)


def test_too_many_headers_are_refused():
    head = b"HTTP/1.1 101 OK\r\n" + b"".join(b"X%d: y\r\n" % index for index in range(101))
    with pytest.raises(InvalidMessage, match="too many headers in the response: more than 100"):
        ResponseReader().feed(head)


def test_trickled_head_takes_linear_time():
    data = b"HTTP/1.1 101 OK\r\n" + b"".join(b"X%d: %s\r\n" % (index, b"y" * 1000) for index in range(100))
    began = time.process_time()
    reader = ResponseReader(limits.HEAD_SIZE_MOST)
    for at in range(len(data)):
        assert reader.feed(data[at : at + 1]) is None
    assert time.process_time() - began < 2


# --- bodies ---------------------------------------------------------------------------------------


def body_of(head: bytes, body: bytes, size: int = 7) -> tuple[bytes, int | None]:
    """Return the body that is kept, and the bytes behind which it was complete, ``None`` for never."""
    reader = ResponseReader()
    assert reader.feed(head + b"\r\n") is not None
    if reader.feed_body(reader.rest):
        return reader.body, 0
    for at in range(0, len(body), size):
        if reader.feed_body(body[at : at + size]):
            return reader.body, min(at + size, len(body))
    return reader.body, None


@pytest.mark.parametrize(
    ("head", "body", "kept", "after"),
    [
        (b"HTTP/1.1 403 No\r\nContent-Length: 5\r\n", b"hello", b"hello", 5),
        (b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n", b"", b"", 0),
        (b"HTTP/1.1 204 No\r\n", b"", b"", 0),
        (b"HTTP/1.1 403 No\r\nContent-Length: 3\r\n", b"hello", b"hel", 5),
        (b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n", b"hello", 15),
        (b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n", b"5\r\nhello\r\nzz", b"hello", 12),
        (b"HTTP/1.1 403 No\r\n", b"hello", b"hello", None),
        (b"HTTP/1.0 403 No\r\n", b"hello", b"hello", None),
    ],
)
def test_body_ends_where_its_framing_says(head, body, kept, after):
    assert body_of(head, body) == (kept, after)


def test_body_is_kept_up_to_64_kib():
    kept, after = body_of(b"HTTP/1.1 403 No\r\n", b"x" * 100_000, 1000)
    assert (len(kept), after) == (limits.RESPONSE_BODY, 66_000)


@pytest.mark.parametrize(
    "lengths", [b"Content-Length: 99", b"Transfer-Encoding: chunked\r\nContent-Length: 5", b"Content-Length: many"]
)
def test_lengths_of_a_tunnel_and_of_a_101_mean_nothing(lengths):
    _, reader = read(b"HTTP/1.1 200 OK\r\n" + lengths + b"\r\n\r\nbytes", tunnel=True)
    assert reader.rest == b"bytes"
    _, reader = read(b"HTTP/1.1 101 OK\r\n" + lengths + b"\r\n\r\nbytes")
    assert reader.rest == b"bytes"


def test_tunnel_that_is_refused_has_a_body():
    response, reader = read(b"HTTP/1.1 407 Who\r\nContent-Length: 2\r\n\r\nno", tunnel=True)
    assert response.status == 407
    assert reader.feed_body(reader.rest)
    assert reader.body == b"no"
