"""Parser of the head of one HTTP/1.1 request (RFC 9112 sections 2 to 5).

HTTP/1.0 is read, too, as health checks of load balancers speak it. llhttp (`httptools`) reads the request line and the
fields; in front of it stands our own stricter and bounded rule, because what two parsers read differently is how
requests are smuggled.
Invariant: a head is refused at the first chunk that shows it is wrong, never later than ``max_size`` bytes,
and reading costs time linear in its bytes however they are cut. What stands behind the head is not touched.
"""

from __future__ import annotations

from typing import Final

import httptools

from .. import limits
from ..constants import ErrorCode
from ..errors import InvalidHeader, InvalidMessage
from .headers import Headers, name_of, parse_host, value_of
from .models import Request, check_target

__all__ = ["HeadReader"]

_END: Final = b"\r\n\r\n"
_TLS_RECORD: Final = b"\x16\x03"  # a handshake record (RFC 8446 section 5.1)
_CAPITALS: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ-"

#: Bytes of the longest method name that is waited for; the registry's longest is UPDATEREDIRECTREF.
_METHOD_SIZE: Final = 17

#: Digits of the longest Content-Length that is read as a number: more than any body has.
_LENGTH_SIZE: Final = 18

#: Visible ASCII, space and tab, and from 0x80 on what may stand in the value of a header (RFC 9110 section 5.5).
_IN_LINE: Final = bytes(range(0x20, 0x7F)) + b"\t" + bytes(range(0x80, 0x100))

#: Headers by which something here is decided, in lower case, beside all of ``Sec-WebSocket-``: their values are ASCII.
_DECIDING: Final = frozenset(
    (
        *("authorization", "connection", "content-length", "expect", "forwarded", "host", "origin"),
        *("transfer-encoding", "upgrade", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"),
        "x-websocket-room-password",
    )
)

#: Schemes of a target in absolute form.
_SCHEMES: Final = frozenset(("http", "https", "ws", "wss"))

#: More than one line of any of these, and two readers may believe two different things.
_ONCE: Final = ("Host", "Content-Length", "Sec-WebSocket-Key", "Sec-WebSocket-Version")


class HeadReader:
    """Reads exactly one request head out of a stream of bytes.

    ``max_size`` bounds the request line and the headers together, in bytes, the empty line that ends them
    included; ``max_headers`` bounds the lines of the headers (default 100, and more in a larger head).

    After `feed` returned a request, ``rest`` has the bytes behind its head, such as a frame sent right behind it.
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
        self._parsed = 0  # up to here the buffer is complete lines, and llhttp has read them
        self._lines = 0
        self._old = False  # HTTP/1.0
        self._host: str | None = None  # in the target
        self._target = ""
        self._in_line = False  # behind the method, and not between CR and LF
        self.rest = b""

    def feed(self, data: bytes | bytearray | memoryview) -> Request | None:
        """Take the next bytes; the request once its head is complete, ``None`` before.

        Raises `InvalidMessage` or `InvalidHeader` with status 400, and with 431 for a head beyond the bounds;
        after that, or after the request, the reader is spent: ``RuntimeError``.
        """
        if self._parser is None:
            raise RuntimeError("this reader has read its head: make a new one for another request")
        room = self._max_size - len(self._buffer)
        if self._in_line and len(data) < room and not (chunk := bytes(data)).strip(_IN_LINE):
            # From the middle of a line, as when a head comes byte by byte: nothing more to say about it yet.
            self._buffer += chunk
            return None
        try:
            request = self._read(data, room)
        except BaseException:
            self._spend()
            raise
        if request is not None:
            self._spend()
        return request

    def _spend(self) -> None:
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
        """Turn away what cannot become a request, such as a TLS hello, on its first bytes."""
        method, space, _ = self._buffer[: _METHOD_SIZE + 1].partition(b" ")
        if method.translate(None, _CAPITALS) or len(method) > _METHOD_SIZE or (space and not method):
            if self._buffer.startswith(_TLS_RECORD):
                raise InvalidMessage("not an HTTP request, but the beginning of TLS: this server has no certificate")
            raise InvalidMessage("not an HTTP request: it does not begin with a method")

    def _read_lines(self, stop: int, ended: bool) -> None:
        """Check what is new before ``stop``, and let llhttp read the lines that are complete."""
        new = bytes(self._buffer[self._parsed : stop])
        if new.translate(None, _IN_LINE + b"\r\n"):
            raise InvalidMessage("control byte in the request head")
        ends = new.count(b"\r\n")
        if new.count(b"\n") != ends or new.count(b"\r") - new.endswith(b"\r") != ends:
            raise InvalidMessage("request lines must end with CR LF")
        if not ends:
            return
        self._lines += ends
        if self._lines - 1 - ended > self._max_headers:  # less the request line and the empty line
            raise InvalidMessage(
                f"too many headers: more than {self._max_headers}", status=431, code=ErrorCode.HEAD_TOO_LARGE
            )
        first = self._parsed == 0
        # Whole lines only: httptools glues the pieces of a field that comes in pieces, in quadratic time.
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
            pass  # llhttp saw Connection and Upgrade; whether we do is decided in the handshake
        except httptools.HttpParserError as exc:
            raise InvalidMessage(f"malformed request head: {exc}") from exc

    def _check_request_line(self, line: bytes) -> None:
        # llhttp takes several blanks before the target, HTTP/0.9 to 2.0, RTSP and ICE, and a line without version.
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
        if not self._fields.complete:  # we and llhttp would disagree about where the head ends
            raise InvalidMessage("malformed request head")
        headers = Headers.read(self._fields.pairs)
        if not self._buffer.isascii():
            _check_deciding(headers)
        _check_headers(headers, host_required=not self._old)
        if self._host is not None or not headers.get("Host"):  # the Host header does not count then
            others = [pair for pair in headers.raw_items() if pair[0].lower() != "host"]
            headers = Headers.read(others if self._host is None else [("Host", self._host), *others])
        request = Request(self._parser.get_method().decode(), self._target, headers)
        if self._old:
            request.http_version = "1.0"
        _check_body(request)
        return request


class _Fields:
    """What llhttp reads. Apart from the reader, so that no cycle keeps an abandoned one alive."""

    __slots__ = ("complete", "pairs", "target")

    def __init__(self) -> None:
        self.target = b""
        self.pairs: list[tuple[str, str]] = []
        self.complete = False

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        known = name_of(name)
        self.pairs.append((known, value_of(known, value)))  # llhttp leaves blanks behind it (RFC 9112 section 5.1)

    def on_headers_complete(self) -> None:
        self.complete = True


def _check_deciding(headers: Headers) -> None:
    """Refuse bytes from 0x80 on where something is decided. Phones, foreign cookies and CDNs send them elsewhere."""
    for name, value in headers.raw_items():
        if not value.isascii() and (name.lower() in _DECIDING or name.lower().startswith("sec-websocket-")):
            raise InvalidMessage(f"non-ASCII byte in the {name} header")


def _check_headers(headers: Headers, *, host_required: bool) -> None:
    """RFC 9112 section 3.2: one valid Host; and one of each header that must not be ambiguous."""
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
    """A body has a plain length and no other framing (RFC 9112 section 6), and never comes with a WebSocket.

    Whoever has the request decides whether a body is wanted at all.
    """
    length = request.headers.get("Content-Length", "0")
    if "Transfer-Encoding" in request.headers or (length.strip("0") and request.wants_websocket):
        raise InvalidMessage("request body not allowed")
    padded = length.startswith("0") and length.strip("0")  # others may read that as octal
    if padded or not (length.isdecimal() and len(length) <= _LENGTH_SIZE):
        raise InvalidHeader("invalid Content-Length header: expected a number of bytes")


def _host_and_path(method: str, target: str) -> tuple[str | None, str]:
    """Split a target in absolute form (RFC 9112 section 3.2.2); any other is left as it is.

    Without a path and a query it is ``*`` for OPTIONS (section 3.2.4), and ``/`` for any other method.

    Its scheme says nothing: what is secure is known from the socket, and from trusted proxies.
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
