"""HTTP/1.1 request and response of an opening handshake."""

from __future__ import annotations

import json as json_module
from http import HTTPStatus

from .headers import Headers, HeadersLike
from .request import Address, Request, check_target

__all__ = ["Address", "Request", "Response", "check_target"]


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
