"""Tests of the parser of request heads: malformed heads, and how soon they are refused."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import plumews
from plumews.errors import InvalidHandshake, InvalidHeader, InvalidMessage
from plumews.http11.models import Request
from plumews.http11.parser import HeadReader
from support.request_heads import assert_refused, read, refused_after, status_of, with_lines


@pytest.mark.parametrize(
    ("data", "enough"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 1),
        (b"\x00\x00\x00", 1),
        (b"\x81\x85", 1),
        (b"get / HTTP/1.1\r\n", 1),
        (b"\r\nGET / HTTP/1.1\r\n", 1),
        (b" GET / HTTP/1.1\r\n", 1),
        (b"\xef\xbb\xbfGET /", 1),
        (b"SSH-2.0-OpenSSH_9.2\r\n", 5),
        (b"GeT / HTTP/1.1\r\n", 2),
        (b"HTTP/1.1 200 OK\r\n", 5),
        (b"GET\t/ HTTP/1.1\r\n", 4),
        (b"A" * 100, 18),
    ],
)
def test_data_that_is_no_request_is_refused_on_first_bytes(data, enough):
    assert refused_after(data) == (400, enough)


@pytest.mark.parametrize(
    "line",
    [
        # The first seven are what llhttp would take: hence the request line is compared with what it read.
        b"GET  / HTTP/1.1", b"GET /  HTTP/1.0", b"GET / HTTP/0.9", b"GET / HTTP/2.0", b"GET /",
        b"DESCRIBE / RTSP/1.0", b"SOURCE / ICE/1.0",
        b"GET / ", b"GET", b"GET ", b"GET HTTP/1.1", b"GET / HTTP/1.1 ", b"GET / HTTP/1.2", b"GET / HTTP/11",
        b"GET / HTTP/1.10", b"GET / http/1.1", b"GET / HTTP/1.1 HTTP/1.1", b"GET /a b HTTP/1.1", b"FOO / HTTP/1.1",
        b"PRI * HTTP/2.0", b"GET \t/ HTTP/1.1", b"GET /\t HTTP/1.1", b"GET / HTTP/1.1\t",
    ],
)  # fmt: skip
def test_invalid_request_line_is_refused_at_its_end(line):
    status, read_bytes = refused_after(line + b"\r\nHost: a\r\n\r\n")
    assert status == 400
    assert read_bytes <= len(line) + 2
    assert_refused(line + b"\r\nHost: a\r\n\r\n")


@pytest.mark.parametrize(
    "target",
    [
        "ftp://a/",
        "http:/a",
        "http:a",
        "://a/",
        "a",
        "a:80",
        "*",
        "?a",
        "",
        "/#x",
        "/a#",
        "/ ",
        "/\t",
        "/\xe4",
        "/\x00",
        "/\x7f",
        "/\r\n",
    ],
)
def test_target_other_than_a_path_in_ascii_is_refused(target):
    with pytest.raises(InvalidMessage, match="expected a path"):
        Request("GET", target)
    assert refused_after(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode("latin-1"))[0] == 400


@pytest.mark.parametrize("method", ["CONNECT", "OPTIONS", "GET"])
def test_target_asterisk_is_accepted_for_options_only(method):
    assert_refused(f"{method} a:80 HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    asterisk = f"{method} * HTTP/1.1\r\nHost: a\r\n\r\n".encode()
    if method == "OPTIONS":
        request = read(asterisk)
        assert (request.target, request.path, request.query) == ("*", "*", {})
    else:
        assert_refused(asterisk)
    assert_refused(f"{method} ** HTTP/1.1\r\nHost: a\r\n\r\n".encode())


@pytest.mark.parametrize("step", [0, 1, 7])
@pytest.mark.parametrize(
    ("absolute", "host", "target"),
    [
        ("http://b/", "b", "/"),
        ("http://b", "b", "/"),
        ("HTTPS://B.example:8443/chat?room=x", "B.example:8443", "/chat?room=x"),
        ("ws://[::1]:80/a//b?http://c/", "[::1]:80", "/a//b?http://c/"),
        ("wss://b?x=1/2", "b", "/?x=1/2"),
    ],
)
def test_absolute_target_gives_path_and_host(absolute, host, target, step):
    request = read(f"GET {absolute} HTTP/1.1\r\nA: 1\r\nhost: a\r\nB: 2\r\n\r\n".encode(), step)
    assert request.target == target
    assert request.headers.get_all("Host") == [host]
    assert [name for name, _ in request.headers.raw_items()] == ["Host", "A", "B"]
    assert read(f"GET {absolute} HTTP/1.0\r\n\r\n".encode(), step).headers["Host"] == host


def test_options_with_absolute_target_without_path_is_asterisk():
    for target, expected in (("http://b:80", "*"), ("http://b/", "/"), ("http://b?", "/?"), ("http://b?x", "/?x")):
        request = read(f"OPTIONS {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        assert (request.target, request.headers["Host"][0]) == (expected, "b")


@pytest.mark.parametrize(
    "target", ["http://", "http:///x", "http://?x", "http://u@b/", "http://u:p@b/", "http://b:x/", "http://b:99999/"]
)
def test_absolute_target_without_valid_host_is_refused(target):
    assert_refused(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())


def test_absolute_target_still_needs_a_valid_host_header():
    for target, host in (
        ("http://b/#x", "a"),
        ("http://b/ x", "a"),
        ("http://b/", "a@b"),
        ("http://b/", "a\r\nHost: a"),
    ):
        assert_refused(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert_refused(b"GET http://b/ HTTP/1.1\r\n\r\n")


@pytest.mark.parametrize("step", [0, 1])
def test_http_1_0_needs_no_host_and_cannot_upgrade(step):
    request = read(b"GET /x HTTP/1.0\r\n\r\n", step)
    assert (request.http_version, request.target, len(request.headers)) == ("1.0", "/x", 0)
    upgrade = b"Upgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 2"
    request = read(b"POST /x HTTP/1.0\r\nHost: a\r\n%b\r\n\r\n" % upgrade, step)
    assert (request.headers["Host"], request.content_length, request.wants_websocket) == ("a", 2, False)
    assert read(with_lines(upgrade[:-19])).http_version == "1.1"
    request = read(b"GET /x HTTP/1.0\r\nA: 1\r\nHost: \r\n\r\n", step)  # as health checks write none
    assert list(request.headers.raw_items()) == [("A", "1")]
    for lines in (b"Host: a\r\nHost: a", b"Host: a@b", b"Host:\r\nHost:", b"Transfer-Encoding: chunked"):
        assert_refused(b"GET / HTTP/1.0\r\n%b\r\n\r\n" % lines)


@pytest.mark.parametrize(
    "line",
    [
        b"Name : x", b"Name\t: x", b": x", b"Name", b"Na me: x", b" folded", b"\tfolded", b" ", b"\t", b"N(: x",
        b"N\xe4: x", b"A: 1\nB: 2", b"A: 1\rB: 2", b"A: 1\r", b"A: 1\n", b"A\n: 1", b"A: \r\r\nB: 2",
        b"A: 1\r\n folded", b"A:\r\n folded", b"A: 1\r\n\tfolded", b"A: 1\r\n \r\nB: 2", b"A: 1\r\n\r",
        b"A: \x00", b"A: \x0b", b"A: \x0c", b"A: \x1c", b"A: \x7f", b"Origin: \x85", b"origin: \xff",
        b"\x0bA: 1", b"\x85A: 1",
        # What str.splitlines takes for the end of a line:
        b"A: 1\x0bHost: b", b"A: 1\x0cHost: b", b"A: 1\x1cHost: b", b"A: 1\x1dHost: b",
    ],
)  # fmt: skip
def test_ambiguous_header_line_is_refused(line):
    assert_refused(with_lines(line))
    assert_refused(b"GET / HTTP/1.1\r\n" + line + b"\r\nHost: a\r\n\r\n")


def test_first_line_end_without_cr_is_refused():
    assert refused_after(b"GET / HTTP/1.1\nHost: a\n\n") == (400, 15)
    assert refused_after(b"GET / HTTP/1.1\rHost: a\r\r") == (400, 16)


@pytest.mark.parametrize("name", [b"Host", b"hOST", b"Sec-WebSocket-Key", b"Sec-WebSocket-Version", b"Content-Length"])
@pytest.mark.parametrize("second", [b"0", b"1"])
def test_repeated_header_that_must_be_single_is_refused(name, second):
    extra = [] if name.lower() == b"host" else [name + b": 0"]
    assert_refused(with_lines(*extra, name.lower() + b": " + second))


def test_missing_or_invalid_host_is_refused():
    assert_refused(b"GET / HTTP/1.1\r\n\r\n")
    for host in (b"", b"a b", b"a@b", b"a/b", b"a, b", b"a:b", b"http://a"):
        assert_refused(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")


@pytest.mark.parametrize(
    "line",
    [
        b"Content-Length: 00001", b"Content-Length: -1", b"Content-Length: +0",
        b"Content-Length: 0x0", b"Content-Length: 0, 0", b"Content-Length:", b"Content-Length: a",
        b"Content-Length: " + b"9" * 5000,
        b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity", b"Transfer-Encoding:", b"transfer-encoding: x",
    ],
)  # fmt: skip
@pytest.mark.parametrize("upgrade", [[], [b"Connection: Upgrade", b"Upgrade: websocket"]], ids=["plain", "upgrade"])
def test_body_with_other_framing_than_a_length_is_refused(line, upgrade):
    assert_refused(with_lines(*upgrade, line))
    assert_refused(with_lines(line, *upgrade))


def test_body_with_length_is_accepted_except_with_an_upgrade():
    request = read(with_lines(b"Content-Length: 5"))
    assert (request.content_length, request.body) == (5, b"")
    assert_refused(with_lines(b"Content-Length: 5", b"Connection: Upgrade", b"Upgrade: websocket"))
    assert_refused(with_lines(b"Upgrade: h2c, websocket", b"Content-Length: 5"))
    assert read(with_lines(b"Upgrade: h2c", b"Content-Length: 5")).content_length == 5


def test_value_with_any_byte_is_accepted_or_400():
    for byte in range(256):
        for value in (b"%c", b"a%c", b"%cb", b"a%cb"):
            data = with_lines(b"X: " + value % byte)
            if byte == 9 or (byte >= 0x20 and byte != 0x7F):
                assert read(data).headers["X"] == (value % byte).decode("latin-1").strip(" \t")
            else:
                assert refused_after(data, len(data))[0] == 400


DECIDING = [
    *("Authorization", "Connection", "Expect", "Forwarded", "Origin", "sec-websocket-x", "Sec-WebSocket-Key"),
    *("Sec-WebSocket-Protocol", "Upgrade", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"),
    "X-WebSocket-Room-Password",
]


@pytest.mark.parametrize("name", DECIDING)
def test_row_15_high_byte_in_a_deciding_header_is_refused(name):
    for byte in range(0x80, 0x100):
        with pytest.raises(InvalidMessage, match=f"^non-ASCII byte in the {name} header$"):
            read(with_lines(name.encode() + b": a" + bytes([byte])))
    for line in (b"Content-Length: 1\xe4", b"Transfer-Encoding: \xe4"):
        assert_refused(with_lines(line))
    assert_refused(b"GET / HTTP/1.1\r\nHost: \xe4\r\n\r\n")
    assert_refused(b"GET /\xe4 HTTP/1.1\r\nHost: a\r\n\r\n")


@pytest.mark.parametrize("step", [0, 1, 3])
def test_row_15_high_bytes_in_other_headers_are_iso_8859_1(step):
    request = read(
        with_lines("User-Agent: MOB\u0130LE \u00c5".encode(), b"X: 1\x85Host: b", b"Cookie: \xa0a=\xff\xa0"), step
    )
    assert request.headers["User-Agent"].encode("latin-1").decode() == "MOB\u0130LE \u00c5"
    assert (request.headers["X"], request.headers["Cookie"]) == ("1\x85Host: b", "\xa0a=\xff\xa0")
    assert request.headers.get_all("Host") == ["a"]


def test_name_with_any_byte_is_a_token_or_400():
    token = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    for byte in range(256):
        for name in (b"%c", b"X%c", b"%cY", b"X%cY"):
            data = with_lines((name % byte) + b": v")
            if byte in token:
                assert read(data).headers[(name % byte).decode()] == "v"
            elif byte == ord(":") and name.startswith(b"X"):
                assert "X" in read(data).headers  # the name ends there
            else:
                assert refused_after(data, len(data))[0] == 400


def test_head_with_any_byte_anywhere_is_accepted_or_400():
    head = with_lines(b"Upgrade: w", b"Content-Length: 0")
    for place in range(len(head)):
        for byte in range(256):
            data = head[:place] + bytes([byte]) + head[place + 1 :]
            assert status_of(data) in (None, 400)


HEAD_PIECES = st.sampled_from(
    [b"GET ", b"/", b" HTTP/1.1", b"\r\n", b"\r", b"\n", b"Host", b": ", b":", b"a", b" ", b"\t", b"\x00", b"\xff",
     b"Upgrade", b"Content-Length: 0", b"Connection: upgrade", b"x" * 50, b"\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n"]
)  # fmt: skip


@given(pieces=st.lists(HEAD_PIECES, max_size=12), cuts=st.lists(st.integers(0, 300), max_size=6))
def test_result_does_not_depend_on_how_a_head_is_cut(pieces, cuts):
    data = b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join(pieces)

    def outcome(edges):
        reader = HeadReader(max_size=400, max_headers=5)
        for start, stop in itertools.pairwise(edges):
            try:
                request = reader.feed(data[start:stop])
            except InvalidHandshake:
                return "refused"
            if request is not None:
                return list(request.headers.raw_items()), reader.rest + data[stop:]
        return "waits"

    whole = outcome([0, len(data)])
    assert outcome(sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})) == whole
    assert outcome(range(len(data) + 1)) == whole


@given(st.binary(max_size=300))
def test_random_bytes_are_refused_or_incomplete(noise):
    for prefix in (b"", b"GET /", b"GET / HTTP/1.1\r\nHost: a\r\n"):
        assert status_of(prefix + noise) in (None, 400, 431)


def test_row_16_no_source_file_uses_splitlines():
    for path in Path(plumews.__file__).parent.rglob("*.py"):
        code = [line for line in path.read_text().split("\n") if ".splitlines(" in line]
        assert code == [], path


def test_refusals_are_invalid_header_or_invalid_message():
    with pytest.raises(InvalidHeader, match="more than one Host"):
        read(with_lines(b"Host: b"))
    with pytest.raises(InvalidMessage, match=r"HTTP/1\.1 required"):
        read(b"GET / HTTP/0.9\r\nHost: a\r\n\r\n")
