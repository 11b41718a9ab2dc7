"""HTTP/1.1 request of an opening handshake, and the lines of its head.

Most requests open a WebSocket, and nobody reads their headers after the checks. So the lines stay as llhttp tells
them, and :attr:`Request.headers` is made when it is first read. An open connection keeps the bytes of the head alone.

Invariant: once ``headers`` exists, it has all headers. A hook may change it, and the checks see that.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias
from urllib.parse import parse_qsl, unquote

import httptools

from .. import limits
from ..errors import InvalidMessage
from .head_scan import is_plain_get, split_lines
from .headers import BLANKS, KNOWN_NAMES, Headers, HeadersLike, has_token, name_of, value_of

__all__ = [
    "Address",
    "HeadLines",
    "Line",
    "Request",
    "address_of",
    "check_target",
    "first_in",
    "received_request",
    "values_in",
]

#: Host and port, and for IPv6 the flow label and the scope.
Address: TypeAlias = "tuple[str, int] | tuple[str, int, int, int]"

#: Header line: its name in lower case, its name as sent, and its value without the blanks around it.
Line: TypeAlias = "tuple[bytes, bytes, bytes]"

_GET: Final = b"GET "
_HTTP: Final = b" HTTP/1.1"

_BLANKS: Final = BLANKS.encode()
_BLANK: Final = 0x20

#: Names that occur in handshakes, as clients and servers spell them, in lower case.
_KEYS: Final = {name.encode(): name.lower().encode() for name in KNOWN_NAMES}
_KEYS.update({key: key for key in _KEYS.values()})


class HeadLines:
    """Lines of one head, as llhttp tells them.

    Its callbacks are not methods of the reader: a reference cycle would keep an abandoned one alive.
    """

    __slots__ = ("complete", "lines", "same_size", "sizes", "target")

    def __init__(self) -> None:
        self.target = b""
        self.lines: list[Line] = []
        #: Bit n is set if there is a name of n bytes, bit 0 if there is one of 64 bytes or more.
        self.sizes = 0
        #: True if two names have the same size, as those of repeated lines have.
        self.same_size = False
        self.complete = False

    def on_url(self, url: bytes) -> None:
        """Add a part of the target."""
        self.target = self.target + url if self.target else url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a line."""
        if value and (value[0] <= _BLANK or value[-1] <= _BLANK):
            value = value.strip(_BLANKS)  # llhttp keeps trailing blanks (RFC 9112 section 5.1)
        self.lines.append((_KEYS.get(name) or name.lower(), name, value))
        size = _size_bit(name)
        self.same_size = self.same_size or bool(self.sizes & size)
        self.sizes |= size

    def split(self, head: bytes) -> bool:
        """Take the target and the lines of a whole ``head`` of a GET that was written from parsed headers.

        Return False, and take nothing, unless it has the usual form: a path, and names in lower case before ``": "``.
        """
        lines = split_lines(head)
        target = head[len(_GET) : max(head.find(b"\r\n") - len(_HTTP), 0)]
        if lines is None or not is_plain_get(head, target):
            return False
        self.target = target
        self.lines = lines
        for line in lines:
            name: bytes = line[0]
            size = _size_bit(name)
            self.same_size = self.same_size or bool(self.sizes & size)
            self.sizes |= size
        self.complete = True
        return True

    def replace_host(self, host: str | None) -> None:
        """Put ``host`` in place of the lines with one, or leave them out."""
        self.lines = [line for line in self.lines if line[0] != b"host"]
        if host is not None:
            self.lines.insert(0, (b"host", b"Host", host.encode()))
            self.sizes |= _size_bit(b"host")

    def on_headers_complete(self) -> None:
        """Note the end of the head."""
        self.complete = True


def _size_bit(name: bytes) -> int:
    """Return the bit of :attr:`HeadLines.sizes` for a name."""
    size = len(name)
    bit = 1
    return bit << size if size < 64 else bit


def _lines_of(head: bytes) -> list[Line]:
    """Return the lines of a head that was accepted before."""
    fields = HeadLines()
    try:  # noqa: SIM105 - compiled, a `with` that catches needs a traceback
        httptools.HttpRequestParser(fields).feed_data(head)
    except httptools.HttpParserUpgrade:
        pass  # it stops behind the head of a WebSocket
    return fields.lines


def values_in(lines: list[Line], key: bytes) -> list[str]:
    """Return the values of the lines whose name in lower case is ``key``, in order."""
    values = []
    for line in lines:
        known: bytes = line[0]
        if known == key:
            value: bytes = line[2]
            values.append(value.decode("latin-1"))
    return values


def first_in(lines: list[Line], key: bytes) -> bytes | None:
    """Return the value of the first line whose name in lower case is ``key``, or ``None``."""
    for line in lines:
        known: bytes = line[0]
        if known == key:
            return line[2]
    return None


class Request:
    """HTTP request.

    The creator sets ``remote_address``, ``client_address``, ``forwarded_host`` and ``body``.

    Args:
        method: Method, such as ``GET``.
        target: Path, with or without a query (RFC 9112 section 3.2.1), or ``*`` for ``OPTIONS``.
        headers: Header lines.
        secure: True if the client uses TLS.

    Attributes:
        body: Body, for routes that take one, else ``b""``.
        client_address: Address of the client, as the outermost trusted proxy saw it.
        content_length: Length of the body in bytes (RFC 9112 section 6.2), 0 without a body.
        forwarded_host: Host that the client asked that proxy for, ``None`` if ``Host`` says it.
        headers: Header lines, as :class:`plumews.Headers`.
        http_version: ``"1.1"`` or ``"1.0"``. A request of HTTP/1.0 may have no ``Host``. An empty one is left out.
        method: Method, such as ``GET``.
        path: Path without its percent escapes.
        query: First value of each name in the query, without percent escapes.
        query_string: Query as sent, empty if there is none.
        raw_path: Path as sent, by which the server routes.
        remote_address: Address of the peer as the socket tells it, ``None`` on a Unix socket.
        repeated: Names that occur more than once in the query.
        secure: True if the client uses TLS, as the outermost trusted proxy saw it.
        target: Request target as sent, in visible ASCII, without the scheme and host of the absolute form.
        wants_websocket: True if the client asks for a WebSocket. Any other ``Upgrade`` is ignored (RFC 9110 section
            7.8).

    Raises:
        InvalidMessage: 400, ``target`` is invalid, its percent escapes are not UTF-8, or the query has more than 100
            fields.
    """

    __slots__ = (
        "_head",
        "_headers",
        "_lines",
        "_query",
        "_same_size",
        "_sizes",
        "body",
        "client_address",
        "forwarded_host",
        "http_version",
        "method",
        "path",
        "query_string",
        "raw_path",
        "remote_address",
        "repeated",
        "secure",
        "target",
    )

    def __init__(self, method: str, target: str, headers: HeadersLike = (), *, secure: bool = False) -> None:
        # Compiled functions take no subclass of str, as http.HTTPMethod is one.
        method, target = str.__str__(method), str.__str__(target)
        check_target(method, target)
        self._lines: list[Line] | None = None
        self._sizes = 0  # as of `HeadLines`
        self._same_size = False
        self._headers: Headers | None = headers if isinstance(headers, Headers) else Headers(headers)
        self._prepare(method, target, "1.1", False)
        self.secure = secure

    def _prepare(self, method: str, target: str, http_version: str, any_target: bool) -> None:
        self._head = b""
        self._query: dict[str, str] | None = None
        self.method = method
        self.http_version = http_version
        self.target = target
        self.repeated: frozenset[str] = _NONE
        self.secure = False
        self.remote_address: Address | None = None
        self.client_address = ""
        self.body = b""
        self.forwarded_host: str | None = None
        at = target.find("?")
        self.raw_path = target if at < 0 else target[:at]
        self.query_string = "" if at < 0 else target[at + 1 :]
        self.path = self.raw_path
        if self.query_string or "%" in self.raw_path:
            self._unquote(any_target)

    def _unquote(self, any_target: bool) -> None:
        fields: list[tuple[str, str]] = []
        errors, most = ("replace", None) if any_target else ("strict", limits.QUERY_FIELDS)
        try:
            self.path = unquote(self.raw_path, errors=errors)
            if self.query_string:
                fields = parse_qsl(self.query_string, keep_blank_values=True, max_num_fields=most, errors=errors)
        except UnicodeDecodeError:
            raise InvalidMessage("invalid request target: its percent escapes must be UTF-8") from None
        except ValueError:
            raise InvalidMessage(f"query string of more than {limits.QUERY_FIELDS} fields") from None
        query = self.query
        for name, value in fields:
            if name in query:
                self.repeated |= {name}
            else:
                query[name] = value

    @property
    def query(self) -> dict[str, str]:
        """First value of each name in the query, without percent escapes."""
        if self._query is None:
            self._query = {}
        return self._query

    @query.setter
    def query(self, query: dict[str, str]) -> None:
        self._query = query

    # --- headers ----------------------------------------------------------------------------------

    @property
    def headers(self) -> Headers:
        """Header lines, as :class:`plumews.Headers`."""
        if self._headers is None:
            pairs = []
            for _, raw, value in _lines_of(self._head) if self._lines is None else self._lines:
                name = name_of(raw)
                pairs.append((name, value_of(name, value)))
            self._headers = Headers.read(pairs)
            self._lines, self._head = None, b""
        return self._headers

    @headers.setter
    def headers(self, headers: Headers) -> None:
        self._headers = headers
        self._lines, self._head = None, b""

    def _keep_only(self, head: bytes) -> None:
        """Keep the bytes of the head in place of the lines that were parsed from it."""
        if self._headers is None:
            self._lines, self._head = None, head

    def _raw_lines(self) -> list[tuple[bytes, bytes]]:
        """Return the name in lower case and the value of each header line, as received."""
        if self._lines is None:
            return [(name.lower().encode(), value.encode("latin-1")) for name, value in self.headers.raw_items()]
        return [(line[0], line[2]) for line in self._lines]

    def _values_of(self, key: bytes) -> list[str]:
        """Return the values of all lines of a header, in order. ``key`` is its name in lower case."""
        if self._lines is None:
            return self.headers.get_all(key.decode())
        return values_in(self._lines, key) if self._sizes & _size_bit(key) else []

    def _has(self, key: bytes) -> bool:
        """Return True if there is a line of a header. ``key`` is its name in lower case."""
        if self._lines is None:
            return key.decode() in self.headers
        return bool(self._sizes & _size_bit(key)) and first_in(self._lines, key) is not None

    def _only(self, key: bytes) -> bytes | None:
        """Return the value of a header that has one line. ``key`` is its name in lower case.

        Return ``None`` if it has none or several, or if :attr:`headers` exist, which a hook may have changed.
        """
        if self._lines is None or not self._sizes & _size_bit(key):
            return None
        if self._same_size and len(values_in(self._lines, key)) > 1:
            return None
        return first_in(self._lines, key)

    def _says(self, key: bytes, value: bytes) -> bool:
        """Return True if there is one line of a header, and it has ``value``: the usual case of a list of names."""
        return self._only(key) == value

    def _lists(self, key: bytes, name: str) -> bool:
        """Return True if a header is a list of names that has ``name``, given in lower case, in any case."""
        return has_token(self._values_of(key), name)

    @property
    def content_length(self) -> int:
        """Length of the body in bytes (RFC 9112 section 6.2), 0 without a body."""
        lengths = self._values_of(b"content-length")
        return int(lengths[0]) if lengths else 0

    @property
    def wants_websocket(self) -> bool:
        """True if the client asks for a WebSocket."""
        return self._asks_websocket()

    def _asks_websocket(self) -> bool:
        """Return the same as :attr:`wants_websocket`, a property, which costs more."""
        if self.http_version != "1.1":
            return False
        return self._says(b"upgrade", b"websocket") or self._lists(b"upgrade", "websocket")

    def __reduce__(self) -> tuple[Any, ...]:
        # A compiled class cannot be copied or pickled without this.
        values = {name: getattr(self, name) for name in _FIELDS}
        return _copied, (self.method, self.target, self.headers, values)

    def __repr__(self) -> str:
        # Without the query, which may carry a token, and without the decoded path, which may hold control characters.
        return f"<Request {self.method} {self.target.partition('?')[0]}>"


#: Attributes that the target and the headers do not tell.
_FIELDS: Final = (
    *("body", "client_address", "forwarded_host", "http_version", "path", "query", "query_string", "raw_path"),
    *("remote_address", "repeated", "secure"),
)


def _copied(method: str, target: str, headers: Headers, values: dict[str, Any]) -> Request:
    request = Request(method, target, headers)
    for name, value in values.items():
        setattr(request, name, value)
    return request


_NONE: Final[frozenset[str]] = frozenset()


def received_request(
    method: str, target: str, fields: HeadLines, http_version: str, any_target: bool = False
) -> Request:
    """Return the request of a head whose target and lines were checked. The list of lines is kept, not copied.

    With ``any_target``, escapes that are not UTF-8 become U+FFFD, and the number of fields in the query has no limit.

    Raises:
        InvalidMessage: As :class:`Request`.
    """
    request = Request.__new__(Request)
    request._lines = fields.lines
    request._sizes = fields.sizes
    request._same_size = fields.same_size
    request._headers = None
    request._prepare(method, target, http_version, any_target)
    return request


def address_of(remote_address: Any) -> str:
    """Return the address of a peer without port, IPv4 in its own form, empty for a Unix socket."""
    if not isinstance(remote_address, tuple):
        return ""
    host: str = remote_address[0]
    return host[7:] if host.startswith("::ffff:") and "." in host else host


def check_target(method: str, target: str) -> None:
    """Raise `InvalidMessage` unless ``target`` is a path in ASCII, or ``*`` for ``OPTIONS``."""
    # Looser than RFC 3986: browsers send { | } without escapes.
    path = target.startswith("/") and target.isascii() and target.isprintable() and not (" " in target or "#" in target)
    if not path and (method, target) != ("OPTIONS", "*"):
        raise InvalidMessage("invalid request target: expected a path in ASCII, such as /chat?room=blue")
