"""HTTP/1.1 request and response of an opening handshake."""

from __future__ import annotations

import json as json_module
from http import HTTPStatus
from typing import TypeAlias
from urllib.parse import parse_qsl, unquote

from .. import limits
from ..errors import InvalidMessage
from .headers import Headers, HeadersLike, has_token

__all__ = ["Address", "Request", "Response", "check_target"]

#: Host and port, and for IPv6 the flow label and the scope.
Address: TypeAlias = "tuple[str, int] | tuple[str, int, int, int]"


class Request:
    """HTTP request.

    The creator sets ``remote_address``, ``client_address``, ``forwarded_host`` and ``body``.

    Args:
        method: Method, such as ``GET``.
        target: Path, with or without a query (RFC 9112 section 3.2.1), or ``*`` for ``OPTIONS``.
        headers: Header lines.
        secure: True if the client uses TLS.

    Raises:
        InvalidMessage: 400, ``target`` is invalid, its percent escapes are not UTF-8, or the query has more than 100
            fields.
    """

    __slots__ = {
        "body": 'Body, for routes that take one, else ``b""``.',
        "client_address": "Address of the client, as the outermost trusted proxy saw it.",
        "forwarded_host": "Host that the client asked that proxy for, ``None`` if ``Host`` says it.",
        "headers": "Header lines, as :class:`plumews.Headers`.",
        "http_version": '``"1.1"`` or ``"1.0"``. A request of HTTP/1.0 may have no ``Host``. An empty one is left out.',
        "method": "Method, such as ``GET``.",
        "path": "Path without its percent escapes.",
        "query": "First value of each name in the query, without percent escapes.",
        "query_string": "Query as sent, empty if there is none.",
        "raw_path": "Path as sent, by which the server routes.",
        "remote_address": "Address of the peer as the socket tells it, ``None`` on a Unix socket.",
        "repeated": "Names that occur more than once in the query.",
        "secure": "True if the client uses TLS, as the outermost trusted proxy saw it.",
        "target": "Request target as sent, in visible ASCII, without the scheme and host of the absolute form.",
    }

    def __init__(self, method: str, target: str, headers: HeadersLike = (), *, secure: bool = False) -> None:
        check_target(method, target)
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
        fields: list[tuple[str, str]] = []
        try:
            self.path = unquote(self.raw_path, errors="strict")
            if self.query_string:
                most = limits.QUERY_FIELDS
                fields = parse_qsl(self.query_string, keep_blank_values=True, max_num_fields=most, errors="strict")
        except UnicodeDecodeError:
            raise InvalidMessage("invalid request target: its percent escapes must be UTF-8") from None
        except ValueError:
            raise InvalidMessage(f"query string of more than {limits.QUERY_FIELDS} fields") from None
        for name, value in fields:
            if name in self.query:
                self.repeated |= {name}
            else:
                self.query[name] = value

    @property
    def content_length(self) -> int:
        """Length of the body in bytes (RFC 9112 section 6.2), 0 without a body."""
        return int(self.headers.get("Content-Length", "0"))

    @property
    def wants_websocket(self) -> bool:
        """True if the client asks for a WebSocket. Any other ``Upgrade`` is ignored (RFC 9110 section 7.8)."""
        return self.http_version == "1.1" and has_token(self.headers.get_all("Upgrade"), "websocket")

    def __repr__(self) -> str:
        # Without the query, which may carry a token, and without the decoded path, which may hold control characters.
        return f"<Request {self.method} {self.target.partition('?')[0]}>"


def check_target(method: str, target: str) -> None:
    """Raise `InvalidMessage` unless ``target`` is a path in ASCII, or ``*`` for ``OPTIONS``."""
    # Looser than RFC 3986: browsers send { | } without escapes.
    path = target.startswith("/") and target.isascii() and target.isprintable() and not (" " in target or "#" in target)
    if not path and (method, target) != ("OPTIONS", "*"):
        raise InvalidMessage("invalid request target: expected a path in ASCII, such as /chat?room=blue")


class Response:
    """HTTP response.

    Args:
        status: Status code, 100 to 999.
        headers: Header lines.
        body: Body.
        reason: Text behind the status (default: the usual one).

    Raises:
        ValueError: ``status`` is out of range, or ``reason`` or a header contains control characters.
        TypeError: An argument has the wrong type.
    """

    __slots__ = {
        "body": "Body.",
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
        """Return a response with ``text`` in UTF-8, as ``text/plain`` unless ``headers`` have a ``Content-Type``."""
        if not isinstance(text, str):
            raise TypeError(f"the text of a response must be a str, not {type(text).__name__}")
        return cls(status, _typed("text/plain; charset=utf-8", headers), text.encode())

    @classmethod
    def html(cls, status: int, text: str, headers: HeadersLike = ()) -> Response:
        """Return a response with ``text`` as ``text/html``."""
        return cls.text(status, text, _typed("text/html; charset=utf-8", headers))

    @classmethod
    def json(cls, status: int, obj: object, headers: HeadersLike = ()) -> Response:
        """Return a response with ``obj`` as a line of JSON. ``headers`` may have another ``Content-Type``."""
        body = json_module.dumps(obj).encode() + b"\n"
        return cls(status, _typed("application/json", headers), body)

    def serialize(self) -> bytes:
        """Return the bytes to send, with the ``Content-Length`` of the body (none for 1xx, 204 and 304).

        Raises:
            ValueError: A header says another length, or ``Transfer-Encoding``.
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
    """Return ``headers`` with ``content_type``, unless they have a ``Content-Type``."""
    given = Headers(headers)
    return given if "Content-Type" in given else Headers([("Content-Type", content_type)], given)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
