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
from .headers import Headers, name_of, parse_host, value_of
from .models import Request, check_target
from .redaction import SECRET_HEADERS

__all__ = ["HeadReader"]

_END: Final = b"\r\n\r\n"
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
        *("connection", "content-length", "expect", "forwarded", "host", "origin", "transfer-encoding", "upgrade"),
        *("x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", *map(str.lower, SECRET_HEADERS)),
    )
)

#: Schemes of a target in absolute form.
_SCHEMES: Final = frozenset(("http", "https", "ws", "wss"))

#: Headers that may occur once: two parsers could use different lines.
_ONCE: Final = ("Host", "Content-Length", "Sec-WebSocket-Key", "Sec-WebSocket-Version")


class HeadReader:
    """Reader of exactly one request head of at most ``max_size`` bytes, with the empty line at its end.

    Once `feed` has returned a request, ``rest`` has the bytes behind the head, such as a frame.
    """

    __slots__ = (
        "_buffer",
        "_fields",
        "_host",
        "_in_line",
        "_lines",
        "_max_headers",
        "_max_size",
        "_old",
        "_parsed",
        "_parser",
        "_target",
        "rest",
    )

    def __init__(self, max_size: int = limits.HEAD_SIZE, max_headers: int | None = None) -> None:
        self._max_size = max_size
        if max_headers is None:
            max_headers = limits.HEADER_COUNT * max(max_size, limits.HEAD_SIZE) // limits.HEAD_SIZE
        self._max_headers = max_headers
        self._buffer = bytearray()
        self._fields = _Fields()
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self._fields)
        self._parsed = 0  # bytes of complete lines that llhttp has read
        self._lines = 0
        self._old = False  # HTTP/1.0
        self._host: str | None = None  # from a target in absolute form
        self._target = ""
        self._in_line = False  # True behind the method, but not between CR and LF
        self.rest = b""

    def feed(self, data: bytes | bytearray | memoryview) -> Request | None:
        """Read the next bytes. Return the request once its head is complete, ``None`` before.

        Raises:
            InvalidMessage: 400, the head is malformed. 431, it is larger than the limits.
            InvalidHeader: 400, a header is missing, repeated or invalid.
            RuntimeError: The reader has returned a request or raised before.
        """
        if self._parser is None:
            raise RuntimeError("this reader has read its head: make a new one for another request")
        room = self._max_size - len(self._buffer)
        if self._in_line and len(data) < room and not (chunk := bytes(data)).strip(_IN_LINE):
            # Fast path for the middle of a line, as in a head that arrives byte by byte.
            self._buffer += chunk
            return None
        done = True
        try:
            request = self._read(data, room)
            done = request is not None
            return request
        finally:
            if done:
                self._parser = None
                self._buffer = bytearray()

    def _read(self, data: bytes | bytearray | memoryview, room: int) -> Request | None:
        buffer = self._buffer
        buffer += data[:room]
        self._check_method()
        end = buffer.find(_END, max(0, self._parsed - 2))
        stop = len(buffer) if end < 0 else end + len(_END)
        self._read_lines(stop, ended=end >= 0)
        if end >= 0:
            self.rest = bytes(buffer[stop:]) + bytes(data[room:])
            return self._finish()
        if len(buffer) >= self._max_size:
            raise InvalidMessage(
                f"request head too large: more than {self._max_size} bytes", status=431, code=ErrorCode.HEAD_TOO_LARGE
            )
        self._in_line = buffer.find(b" ", 0, _METHOD_SIZE + 1) >= 0 and not buffer.endswith(b"\r")
        return None

    def _check_method(self) -> None:
        """Refuse data that cannot become a request, such as a TLS hello, on its first bytes."""
        method, space, _ = self._buffer[: _METHOD_SIZE + 1].partition(b" ")
        if method.translate(None, _CAPITALS) or len(method) > _METHOD_SIZE or (space and not method):
            if self._buffer.startswith(_TLS_RECORD):
                raise InvalidMessage("not an HTTP request, but the beginning of TLS: this server has no certificate")
            raise InvalidMessage("not an HTTP request: it does not begin with a method")

    def _read_lines(self, stop: int, ended: bool) -> None:
        """Check the new bytes before ``stop``, and let llhttp parse the complete lines."""
        new = bytes(self._buffer[self._parsed : stop])
        if new.translate(None, _IN_LINE + b"\r\n"):
            raise InvalidMessage("control byte in the request head")
        ends = new.count(b"\r\n")
        if new.count(b"\n") != ends or new.count(b"\r") - new.endswith(b"\r") != ends:
            raise InvalidMessage("request lines must end with CR LF")
        if not ends:
            return
        self._lines += ends
        if self._lines - 1 - ended > self._max_headers:  # without the request line and the empty line
            raise InvalidMessage(
                f"too many headers: more than {self._max_headers}", status=431, code=ErrorCode.HEAD_TOO_LARGE
            )
        first = self._parsed == 0
        # Whole lines only: httptools joins the pieces of a header in quadratic time.
        lines = new[: new.rfind(b"\n") + 1]
        self._parsed += len(lines)
        self._parse(lines)
        if first:
            self._check_request_line(lines[: lines.index(b"\r")])

    def _parse(self, lines: bytes) -> None:
        assert self._parser is not None
        try:
            self._parser.feed_data(lines)
        except httptools.HttpParserUpgrade:
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
        if line[:-1] != b"%b %b HTTP/1." % (method, self._fields.target):
            raise InvalidMessage("malformed request line: expected a method, a target and a version, one space between")
        self._target = self._fields.target.decode()
        if not self._target.startswith("/"):
            self._host, self._target = _host_and_path(method.decode(), self._target)
        check_target(method.decode(), self._target)

    def _finish(self) -> Request:
        assert self._parser is not None
        if not self._fields.complete:  # llhttp disagrees about the end of the head
            raise InvalidMessage("malformed request head")
        headers = Headers.read(self._fields.pairs)
        if not self._buffer.isascii():
            _check_deciding(headers)
        _check_headers(headers, host_required=not self._old)
        if self._host is not None or not headers.get("Host"):  # the Host header is replaced or left out
            others = [pair for pair in headers.raw_items() if pair[0].lower() != "host"]
            headers = Headers.read(others if self._host is None else [("Host", self._host), *others])
        request = Request(self._parser.get_method().decode(), self._target, headers)
        if self._old:
            request.http_version = "1.0"
        _check_body(request)
        return request


class _Fields:
    """Callbacks of llhttp. They are not methods of the reader: a reference cycle would keep an abandoned one alive."""

    __slots__ = ("complete", "pairs", "target")

    def __init__(self) -> None:
        self.target = b""
        self.pairs: list[tuple[str, str]] = []
        self.complete = False

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        known = name_of(name)
        self.pairs.append((known, value_of(known, value)))  # llhttp keeps trailing blanks (RFC 9112 section 5.1)

    def on_headers_complete(self) -> None:
        self.complete = True


def _check_deciding(headers: Headers) -> None:
    """Refuse bytes from 0x80 on in headers that decisions depend on. Phones, cookies and CDNs use them elsewhere."""
    for name, value in headers.raw_items():
        if not value.isascii() and (name.lower() in _DECIDING or name.lower().startswith("sec-websocket-")):
            raise InvalidMessage(f"non-ASCII byte in the {name} header")


def _check_headers(headers: Headers, *, host_required: bool) -> None:
    """Require one valid Host (RFC 9112 section 3.2), and at most one line of each header of :data:`_ONCE`."""
    ambiguous = headers.repeated(_ONCE)
    if ambiguous is not None:
        raise InvalidHeader(f"more than one {ambiguous} header")
    if not host_required and not headers.get("Host"):
        return
    if "Host" not in headers:
        raise InvalidHeader("Host header required")
    try:
        parse_host(headers["Host"])
    except ValueError:
        raise InvalidHeader("invalid Host header: expected a name or an address, and maybe a port") from None


def _check_body(request: Request) -> None:
    """Refuse a body with other framing than a length (RFC 9112 section 6), or with a WebSocket handshake."""
    length = request.headers.get("Content-Length", "0")
    if "Transfer-Encoding" in request.headers or (length.strip("0") and request.wants_websocket):
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
