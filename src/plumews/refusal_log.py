"""What the log says of a request that was refused (layer 5).

A refusal is told to the client in a word and a sentence. Who runs the server wants to know what to change: which origin
or host it was, which paths there are, what is wrong with a token. Invariants: one line, at INFO; nothing of the query,
and no secret of the request.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final, NamedTuple

from .conn import Conn
from .errors import InvalidHeader, InvalidMessage
from .log_text import quoted
from .logs import about, request_line
from .origin import seen_by_refusal
from .request_secrets import secrets_of
from .site import NOT_FOUND

__all__ = ["Why", "log_refused_request"]

logger = logging.getLogger("plumews.server")

#: Refusals whose code does not say enough.
_TELLING: Final = ("WEBSOCKET_INVALID_TOKEN", InvalidMessage.code, InvalidHeader.code)


class Why(NamedTuple):
    """What remains of a refusal: not the exception, which refers to the frames that it went through."""

    code: str
    text: str


def log_refused_request(conn: Conn, status: int, why: Why, paths: Iterable[str | None]) -> None:
    """Log that the request of ``conn`` was refused; ``paths`` are those of the WebSockets there are."""
    if logger.isEnabledFor(logging.INFO):
        more = _more(conn, why, paths)
        asked = f"{request_line(conn)}, {more}" if more else request_line(conn)
        logger.info("refused %d %s: %s", status, why.code, asked, extra=about(conn, f"refused {why.code}"))


def _more(conn: Conn, why: Why, paths: Iterable[str | None]) -> str:
    request = conn._request
    if why.code in _TELLING:
        secrets = () if request is None else secrets_of(request)
        # The text may be that of an application.
        return "" if any(secret and secret in why.text for secret in secrets) else why.text
    if request is None:
        return ""
    if why.code == NOT_FOUND and request.wants_websocket:
        return f"WebSockets are at {', '.join(quoted(path) for path in paths if path is not None)}"
    return seen_by_refusal(request, why.code)
