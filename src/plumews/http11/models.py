"""The HTTP/1.1 that an opening handshake needs: one request head in, one response out (layer 1).

RFC 9112 sections 2 to 5; HTTP/1.0 is read, too, as health checks of load balancers speak it. llhttp (`httptools`)
reads the request line and the fields; in front of it stands our own stricter and bounded rule, because what two parsers
read differently is how requests are smuggled.
Invariant: a head is refused at the first chunk that shows it is wrong, never later than ``max_size`` bytes,
and reading costs time linear in its bytes however they are cut. What stands behind the head is not touched.
"""

from __future__ import annotations

import json as json_module
from http import HTTPStatus
from typing import Final, TypeAlias
from urllib.parse import parse_qsl, unquote

import httptools

from .. import limits
from ..constants import ErrorCode
from ..errors import InvalidHeader, InvalidMessage
from .headers import Headers, HeadersLike, has_token, name_of, parse_host, value_of

__all__ = ["Address", "HeadReader", "Request", "Response"]

#: Host and port; IPv6 has a flow label and a scope behind them.
Address: TypeAlias = "tuple[str, int] | tuple[str, int, int, int]"

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


class Request:
    """A request head.

    ``remote_address``, ``client_address``, ``secure``, ``forwarded_host`` and ``body`` are for the caller to set. The
    host in the absolute form of a target takes the place of that in ``Host``.

    Raises `InvalidMessage` if the target is not a path with, maybe, a query (RFC 9112 section 3.2.1), nor the ``*`` of
    ``OPTIONS``, if its percent escapes are not UTF-8, or if the query has more than ``limits.QUERY_FIELDS`` fields.
    """

    __slots__ = {
        "body": 'What came behind the head, for the routes that take a body (else ``b""``).',
        "client_address": "Address of the client, as the outermost trusted proxy saw it.",
        "forwarded_host": "Host that the client asked that proxy for, ``None`` if ``Host`` says it.",
        "headers": "Header lines, as :class:`plumews.Headers`.",
        "http_version": '``"1.1"``, or ``"1.0"``, where there may be no ``Host``, or an empty one, which is left out.',
        "method": "Method, such as ``GET``.",
        "path": "Path without its percent escapes.",
        "query": "First value of each name in the query, without percent escapes.",
        "query_string": "Query as sent, empty if there is none.",
        "raw_path": "Path as sent, by which the server routes.",
        "remote_address": "Address of the peer as the socket tells it, ``None`` on a Unix socket.",
        "repeated": "Names that stand more than once in the query.",
        "secure": "Whether the client came through TLS, as the outermost trusted proxy saw it.",
        "target": "Request target as sent, in visible ASCII, without the scheme and host of the absolute form.",
    }

    def __init__(self, method: str, target: str, headers: HeadersLike = (), *, secure: bool = False) -> None:
        _check_target(method, target)
        self.method = method
        self.http_version = "1.1"
        self.target = target
        self.raw_path, _, self.query_string = target.partition("?")
        self.query: dict[str, str] = {}
        self.repeated: frozenset[str] = frozenset()
        self.headers = headers if isinstance(headers, Headers) else Headers(headers)
        self.secure = secure
        self.remote_address: Address | None = None
        self.client_address = ""
        self.body = b""
        self.forwarded_host: str | None = None
        try:
            self.path = unquote(self.raw_path, errors="strict")
            if self.query_string:
                self._read_query()
        except UnicodeDecodeError:
            raise InvalidMessage("invalid request target: its percent escapes must be UTF-8") from None

    def _read_query(self) -> None:
        try:
            fields = parse_qsl(
                self.query_string, keep_blank_values=True, max_num_fields=limits.QUERY_FIELDS, errors="strict"
            )
        except UnicodeDecodeError:
            raise
        except ValueError:
            raise InvalidMessage(f"query string of more than {limits.QUERY_FIELDS} fields") from None
        for name, value in fields:
            if name in self.query:
                self.repeated |= {name}
            else:
                self.query[name] = value

    @property
    def content_length(self) -> int:
        """The bytes of the body that the head announces (RFC 9112 section 6.2); 0 without one."""
        return int(self.headers.get("Content-Length", "0"))

    @property
    def wants_websocket(self) -> bool:
        """True if the client asks for a WebSocket. Any other ``Upgrade`` is ignored (RFC 9110 section 7.8)."""
        return self.http_version == "1.1" and has_token(self.headers.get_all("Upgrade"), "websocket")

    def __repr__(self) -> str:
        # Without the query, which may carry a token, and without the decoded path, which may carry anything.
        return f"<Request {self.method} {self.target.partition('?')[0]}>"


def _check_target(method: str, target: str) -> None:
    # The origin form; stricter than RFC 3986 about nothing else, since browsers send { | } as they are.
    path = target.startswith("/") and target.isascii() and target.isprintable() and not (" " in target or "#" in target)
    if not path and (method, target) != ("OPTIONS", "*"):
        raise InvalidMessage("invalid request target: expected a path in ASCII, such as /chat?room=blue")


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
        _check_target(method.decode(), self._target)

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


class Response:
    """A response: ``status``, ``headers``, ``body`` and the ``reason`` beside the status (default: the usual one).

    Raises ``ValueError`` for a status outside 100-999, and for a reason or header that could break its line,
    ``TypeError`` for what is no status, headers or bytes at all.
    """

    __slots__ = {
        "body": "What comes behind the head.",
        "headers": "Header lines, as :class:`plumews.Headers`.",
        "reason": "Text behind the status.",
        "status": "Status code, 100 to 999.",
    }

    def __init__(self, status: int, headers: HeadersLike = (), body: bytes = b"", reason: str | None = None) -> None:
        if not isinstance(status, int):
            raise TypeError(f"the status of a response must be an int, not {type(status).__name__}")
        if isinstance(headers, (str, bytes)):
            raise TypeError(
                "a response is Response(status, headers, body); for text there is Response.text(status, text)"
            )
        if not isinstance(body, bytes):
            raise TypeError(f"the body of a response must be bytes, not {type(body).__name__}: see Response.text")
        self.status = status
        self.headers = headers if isinstance(headers, Headers) else Headers(headers)
        self.body = body
        self.reason = _phrase(status) if reason is None else reason
        self._status_line()

    @classmethod
    def text(cls, status: int, text: str, headers: HeadersLike = ()) -> Response:
        """``text`` as UTF-8, of the ``Content-Type`` that ``headers`` name (default ``text/plain``)."""
        if not isinstance(text, str):
            raise TypeError(f"the text of a response must be a str, not {type(text).__name__}")
        return cls(status, _typed("text/plain; charset=utf-8", headers), text.encode())

    @classmethod
    def html(cls, status: int, text: str, headers: HeadersLike = ()) -> Response:
        """A page: :meth:`text` as ``text/html``."""
        return cls.text(status, text, _typed("text/html; charset=utf-8", headers))

    @classmethod
    def json(cls, status: int, obj: object, headers: HeadersLike = ()) -> Response:
        """``obj`` as one line of JSON, of the ``Content-Type`` that ``headers`` name (default ``application/json``)."""
        body = json_module.dumps(obj).encode() + b"\n"
        return cls(status, _typed("application/json", headers), body)

    def serialize(self) -> bytes:
        """The bytes to send, with the ``Content-Length`` that the body has (none with 1xx, 204 and 304).

        Raises ``ValueError`` for a header of the application that says another length, or ``Transfer-Encoding``.
        """
        headers = self.headers
        bodiless = self.status < 200 or self.status in (204, 304)  # RFC 9110 section 6.4.1
        if bodiless and self.body:
            raise ValueError(f"a response with status {self.status} has no body")
        length = str(len(self.body))
        if "Transfer-Encoding" in headers or headers.get_all("Content-Length") not in ([], [length]):
            raise ValueError(
                f"the length of the body is {length} bytes: leave Content-Length and Transfer-Encoding out"
            )
        if not bodiless and "Content-Length" not in headers:
            headers = Headers(headers, ("Content-Length", length))
        return self._status_line() + headers.serialize() + self.body

    def _status_line(self) -> bytes:
        if not 100 <= self.status <= 999:
            raise ValueError(f"invalid status {self.status}: expected three digits")
        if not (self.reason.isascii() and self.reason.isprintable()):
            raise ValueError(f"invalid reason {self.reason!r}: expected printable ASCII")
        return f"HTTP/1.1 {self.status:d} {self.reason}\r\n".encode()

    def __repr__(self) -> str:
        return f"<Response {self.status} {self.reason}>"


def _typed(content_type: str, headers: HeadersLike) -> Headers:
    """``headers`` with a ``Content-Type``: this one, unless they have another."""
    given = Headers(headers)
    return given if "Content-Type" in given else Headers([("Content-Type", content_type)], given)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
