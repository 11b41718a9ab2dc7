"""Parser of the head of one HTTP/1.1 request (RFC 9112 sections 2 to 5).

HTTP/1.0 is accepted for the health checks of load balancers. llhttp (`httptools`) parses the request line and the
headers. Stricter and bounded checks run before it: requests are smuggled where two parsers differ.

Invariants: a malformed head is refused at the first chunk that shows it, after ``max_size`` bytes at the latest. The
parser takes time linear in the bytes, however they are cut. It does not read beyond the head.
"""

from __future__ import annotations

from typing import Final

import httptools

from .. import limits
from ..constants import ErrorCode
from ..errors import InvalidHeader, InvalidMessage
from .head_scan import BAD_END, CONTROL, count_lines, find_end, is_plain_get
from .headers import parse_host
from .redaction import SECRET_HEADERS
from .request import HeadLines, Line, Request, check_target, first_in, received_request

__all__ = ["HeadReader", "default_headers"]

_GET: Final = b"GET "
_END: Final = b"\r\n\r\n"
_VERSION: Final = b" HTTP/1."
_TLS_RECORD: Final = b"\x16\x03"  # handshake record (RFC 8446 section 5.1)
_CAPITALS: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ-"

#: Bytes of the longest accepted method name: UPDATEREDIRECTREF is the longest of the registry.
_METHOD_SIZE: Final = 17

#: Digits of the longest accepted Content-Length: more than any body has.
_LENGTH_SIZE: Final = 18

#: Bytes of a header value (RFC 9110 section 5.5): visible ASCII, space, tab, and those from 0x80 on.
_IN_LINE: Final = bytes(range(0x20, 0x7F)) + b"\t" + bytes(range(0x80, 0x100))

#: Headers that decisions depend on, in lower case, beside ``Sec-WebSocket-*``: their values must be ASCII.
_DECIDING: Final = frozenset(
    (
        *(b"connection", b"content-length", b"expect", b"forwarded", b"host", b"origin", b"transfer-encoding"),
        *(b"upgrade", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto"),
        *(name.lower().encode() for name in SECRET_HEADERS),
    )
)

#: Schemes of a target in absolute form.
_SCHEMES: Final = frozenset(("http", "https", "ws", "wss"))

_new_parser: Final = httptools.HttpRequestParser
_Upgrade: Final = httptools.HttpParserUpgrade

#: Headers that may occur once: two parsers could use different lines.
_ONCE: Final = {
    name.lower(): name.decode() for name in (b"Host", b"Content-Length", b"Sec-WebSocket-Key", b"Sec-WebSocket-Version")
}


def default_headers(max_size: int) -> int:
    """Return the number of headers that a head of at most ``max_size`` bytes may have."""
    return limits.HEADER_COUNT * max(max_size, limits.HEAD_SIZE) // limits.HEAD_SIZE


class HeadReader:
    """Reader of exactly one request head of at most ``max_size`` bytes, with the empty line at its end.

    Once `feed` has returned a request, ``rest`` has the bytes behind the head, such as a frame, and ``head`` the head,
    or ``None`` if the request has other lines than the head. With ``any_target`` a target may have percent escapes that
    are not UTF-8, and any number of fields in its query. With ``rebuilt`` another program has written the
    head from headers that it has parsed: in the usual form it is split, and not parsed again. All checks are the same.
    """

    __slots__ = (
        "_any_target",
        "_buffer",
        "_done",
        "_fields",
        "_host",
        "_in_line",
        "_lines",
        "_max_headers",
        "_max_size",
        "_method",
        "_old",
        "_parsed",
        "_parser",
        "_rebuilt",
        "_target",
        "head",
        "rest",
    )

    def __init__(
        self,
        max_size: int = limits.HEAD_SIZE,
        max_headers: int | None = None,
        *,
        any_target: bool = False,
        rebuilt: bool = False,
    ) -> None:
        self._any_target = any_target
        self._rebuilt = rebuilt
        self._max_size = max_size
        self._max_headers = default_headers(max_size) if max_headers is None else max_headers
        self._buffer: bytearray | None = None  # a head that came in several reads
        self._fields = HeadLines()
        self._parser: httptools.HttpRequestParser | None = None
        self._done = False
        self._parsed = 0  # bytes of complete lines that llhttp has read
        self._lines = 0
        self._old = False  # HTTP/1.0
        self._host: str | None = None  # from a target in absolute form
        self._method = self._target = ""
        self._in_line = False  # True behind the method, but not between CR and LF
        self.rest = b""
        self.head: bytes | None = None

    def feed(self, data: bytes | bytearray | memoryview) -> Request | None:
        """Read the next bytes. Return the request once its head is complete, ``None`` before.

        Raises:
            InvalidMessage: 400, the head is malformed. 431, it is larger than the limits.
            InvalidHeader: 400, a header is missing, repeated or invalid.
            RuntimeError: The reader has returned a request or raised before.
        """
        if self._done:
            raise RuntimeError("this reader has read its head: make a new one for another request")
        room = self._max_size if self._buffer is None else self._max_size - len(self._buffer)
        chunk = data if isinstance(data, bytes) else bytes(data)
        if self._in_line and len(chunk) < room and not chunk.strip(_IN_LINE):
            # Fast path for the middle of a line, as in a head that arrives byte by byte.
            assert self._buffer is not None
            self._buffer += chunk
            return None
        self._done = True
        try:
            request = self._read(chunk, room)
            self._done = request is not None
            return request
        finally:
            if self._done:
                self._parser = self._buffer = None

    def _read(self, data: bytes, room: int) -> Request | None:
        if self._buffer is None:
            stop = find_end(data, room)
            if stop == len(data):  # the whole head and no more, as mostly
                return self._read_whole(data)
            if stop >= 0:
                self.rest = data[stop:]
                return self._read_whole(data[:stop])
            self._buffer = bytearray()
        buffer = self._buffer
        buffer += data[:room]
        self._check_method(bytes(buffer[: _METHOD_SIZE + 1]))
        end = buffer.find(_END, max(0, self._parsed - 2))
        stop = len(buffer) if end < 0 else end + len(_END)
        self._read_lines(bytes(buffer[self._parsed : stop]), end >= 0)
        if end >= 0:
            self.rest = bytes(buffer[stop:]) + data[room:]
            return self._finish(bytes(buffer[:stop]))
        if len(buffer) >= self._max_size:
            raise InvalidMessage(
                f"request head too large: more than {self._max_size} bytes", status=431, code=ErrorCode.HEAD_TOO_LARGE
            )
        self._in_line = buffer.find(b" ", 0, _METHOD_SIZE + 1) >= 0 and not buffer.endswith(b"\r")
        return None

    def _read_whole(self, head: bytes) -> Request:
        self._check_method(head)
        self._read_lines(head, True)
        return self._finish(head)

    def _check_method(self, beginning: bytes) -> None:
        """Refuse data that cannot become a request, such as a TLS hello, on its first bytes."""
        if beginning.startswith(_GET):
            return
        method, space, _ = beginning[: _METHOD_SIZE + 1].partition(b" ")
        if method.translate(None, _CAPITALS) or len(method) > _METHOD_SIZE or (space and not method):
            if beginning.startswith(_TLS_RECORD):
                raise InvalidMessage("not an HTTP request, but the beginning of TLS: this server has no certificate")
            raise InvalidMessage("not an HTTP request: it does not begin with a method")

    def _read_lines(self, new: bytes, ended: bool) -> None:
        """Check the new bytes of the head, and let llhttp parse the complete lines."""
        ends = count_lines(new)
        if ends == CONTROL:
            raise InvalidMessage("control byte in the request head")
        if ends == BAD_END:
            raise InvalidMessage("request lines must end with CR LF")
        if not ends:
            return
        self._lines += ends
        if self._lines - 1 - ended > self._max_headers:  # without the request line and the empty line
            raise InvalidMessage(
                f"too many headers: more than {self._max_headers}", status=431, code=ErrorCode.HEAD_TOO_LARGE
            )
        first = self._parsed == 0
        if first and ended and self._rebuilt and self._fields.split(new):
            self._method, self._target = "GET", self._fields.target.decode()
            return
        # Whole lines only: httptools joins the pieces of a header in quadratic time.
        lines = new if ended else new[: new.rfind(b"\n") + 1]
        self._parsed += len(lines)
        self._parse(lines)
        if first:
            if is_plain_get(lines, self._fields.target):  # as mostly
                self._method, self._target = "GET", self._fields.target.decode()
            else:
                self._check_request_line(lines[: lines.find(b"\r")])

    def _parse(self, lines: bytes) -> None:
        if self._parser is None:
            self._parser = _new_parser(self._fields)
        try:
            self._parser.feed_data(lines)
        except _Upgrade:
            pass  # llhttp found Connection and Upgrade. The handshake checks them itself.
        except httptools.HttpParserError as exc:
            raise InvalidMessage(f"malformed request head: {exc}") from exc

    def _check_request_line(self, line: bytes) -> None:
        # llhttp accepts several blanks before the target, HTTP/0.9 to 2.0, RTSP, ICE, and a line without version.
        assert self._parser is not None
        if not line.isascii():
            raise InvalidMessage("non-ASCII byte in the request line")
        if not line.endswith((b" HTTP/1.1", b" HTTP/1.0")):
            raise InvalidMessage("malformed request line: HTTP/1.1 required")
        self._old = line.endswith(b"0")
        method = self._parser.get_method()
        if line[:-1] != method + b" " + self._fields.target + _VERSION:
            raise InvalidMessage("malformed request line: expected a method, a target and a version, one space between")
        self._method = "GET" if method == b"GET" else method.decode()
        self._target = self._fields.target.decode()
        if not self._target.startswith("/"):
            self._host, self._target = _host_and_path(self._method, self._target)
        check_target(self._method, self._target)

    def _finish(self, head: bytes) -> Request:
        if not self._fields.complete:  # llhttp disagrees about the end of the head
            raise InvalidMessage("malformed request head")
        fields = self._fields
        if not head.isascii():
            _check_deciding(fields.lines)
        has_host = _check_headers(fields, not self._old)
        own_lines = self._host is None and has_host
        if not own_lines:
            fields.replace_host(self._host)
        version = "1.0" if self._old else "1.1"
        request = received_request(self._method, self._target, fields, version, self._any_target)
        _check_body(request)
        if own_lines:
            self.head = head
        return request


def _check_deciding(lines: list[Line]) -> None:
    """Refuse bytes from 0x80 on in headers that decisions depend on. Phones, cookies and CDNs use them elsewhere."""
    for key, name, value in lines:
        if not value.isascii() and (key in _DECIDING or key.startswith(b"sec-websocket-")):
            raise InvalidMessage(f"non-ASCII byte in the {name.decode()} header")


def _check_headers(fields: HeadLines, host_required: bool) -> bool:
    """Require one valid Host (RFC 9112 section 3.2), and at most one line of each header of :data:`_ONCE`.

    Return False if there is no host, which only HTTP/1.0 allows.
    """
    if fields.same_size:  # else no header is repeated
        _check_once(fields.lines)
    host = first_in(fields.lines, b"host")
    if not (host_required or host):
        return False
    if host is None:
        raise InvalidHeader("Host header required")
    _check_host(host)
    return True


def _check_once(lines: list[Line]) -> None:
    seen = set()
    for key, _, _ in lines:
        if key in _ONCE:
            if key in seen:
                raise InvalidHeader(f"more than one {_ONCE[key]} header")
            seen.add(key)


#: Valid host of the newest request: most requests have the same one.
_newest_host = b""


def _check_host(host: bytes) -> None:
    global _newest_host
    if host == _newest_host and host:
        return
    try:
        parse_host(host.decode("latin-1"))
    except ValueError:
        raise InvalidHeader("invalid Host header: expected a name or an address, and maybe a port") from None
    _newest_host = host


def _check_body(request: Request) -> None:
    """Refuse a body with other framing than a length (RFC 9112 section 6), or with a WebSocket handshake."""
    if not (request._has(b"content-length") or request._has(b"transfer-encoding")):
        return
    lengths = request._values_of(b"content-length")
    length = lengths[0] if lengths else "0"
    if request._has(b"transfer-encoding") or (length.strip("0") and request._asks_websocket()):
        raise InvalidMessage("request body not allowed")
    padded = length.startswith("0") and length.strip("0")  # other parsers may read octal
    if padded or not (length.isdecimal() and len(length) <= _LENGTH_SIZE):
        raise InvalidHeader("invalid Content-Length header: expected a number of bytes")


def _host_and_path(method: str, target: str) -> tuple[str | None, str]:
    """Split a target in absolute form (RFC 9112 section 3.2.2) into host and target. Leave others unchanged.

    Without a path and a query the target is ``*`` for OPTIONS (section 3.2.4), and ``/`` for other methods. The scheme
    is ignored: the socket and trusted proxies tell if the client uses TLS.
    """
    scheme, separator, rest = target.partition("://")
    if not separator or scheme.lower() not in _SCHEMES:
        return None, target
    end = min(at for at in (rest.find("/"), rest.find("?"), len(rest)) if at >= 0)
    try:
        parse_host(rest[:end])
    except ValueError:
        raise InvalidMessage("invalid request target: expected a host and maybe a port behind its scheme") from None
    if method == "OPTIONS" and end == len(rest):
        return rest, "*"
    return rest[:end], rest[end:] if rest.startswith("/", end) else f"/{rest[end:]}"
