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

#: Host and port; IPv6 has a flow label and a scope behind them.
Address: TypeAlias = "tuple[str, int] | tuple[str, int, int, int]"


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


def check_target(method: str, target: str) -> None:
    # The origin form; stricter than RFC 3986 about nothing else, since browsers send { | } as they are.
    path = target.startswith("/") and target.isascii() and target.isprintable() and not (" " in target or "#" in target)
    if not path and (method, target) != ("OPTIONS", "*"):
        raise InvalidMessage("invalid request target: expected a path in ASCII, such as /chat?room=blue")


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
