"""What the log says of a request that was refused (layer 5).

A refusal is told to the client in a word and a sentence. Who runs the server wants to know what to change: which origin
or host it was, which paths there are, what is wrong with a token. Invariants: one line, at INFO, but the first of a
kind that an option would mend is a WARNING that names the option; nothing of the query, and no secret of the request.
"""

from __future__ import annotations

import logging
from typing import Final, NamedTuple

from ..conn.connection import Conn
from ..conn.logs import log_context, request_line
from ..constants import ErrorCode
from ..errors import InvalidHeader, InvalidMessage, InvalidOrigin
from ..http11.models import Request
from ..http11.origin import seen_by_refusal
from ..http11.proxies import address_of
from ..http11.redaction import quoted, secrets_of
from .context import ServerContext

__all__ = ["Why", "log_refused_request", "log_untrusted_proxy"]

logger = logging.getLogger("plumews.server")

#: Refusals whose code does not say enough.
_TELLING: Final = (
    ErrorCode.INVALID_TOKEN,
    ErrorCode.BAD_QUERY,
    ErrorCode.HEAD_TOO_LARGE,
    ErrorCode.INVALID_ROOM,
    ErrorCode.ROOM_FORBIDDEN,
    ErrorCode.TOKEN_SOURCE,
    InvalidMessage.code,
    InvalidHeader.code,
)

#: Refusals that an option would mend, and what it is called here and on the command line.
_HINTS: Final = {
    InvalidOrigin.code: "origins (--origin) lists the pages that may connect, trusted_proxies (--trusted-proxy) the "
    "proxies that say what address the server has",
    ErrorCode.FORBIDDEN_HOST: "allowed_hosts (--allowed-host) lists the names of the server",
}

#: What a proxy says about its clients.
_FORWARDING: Final = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host")
_UNTRUSTED: Final = "untrusted proxy"


class Why(NamedTuple):
    """What remains of a refusal: not the exception, which refers to the frames that it went through."""

    code: str
    text: str


def log_refused_request(conn: Conn, status: int, why: Why, context: ServerContext) -> None:
    """Log that ``context`` refused the request of ``conn``."""
    level, kind, hint = logging.INFO, f"refused {why.code}", ""
    if why.code in _HINTS and why.code not in context.told:
        context.told.add(why.code)
        level, hint = logging.WARNING, _HINTS[why.code]
        kind = f"first {kind} of {id(context)}"  # of its own: a flood of lines of this kind does not hide it
    if logger.isEnabledFor(level):
        more = _more(conn, why, context)
        asked = f"{request_line(conn)}, {more}" if more else request_line(conn)
        logger.log(level, "refused %d %s: %s", status, why.code, asked, extra=log_context(conn, kind, hint=hint))


def log_untrusted_proxy(conn: Conn, request: Request, context: ServerContext) -> None:
    """Log once that somebody speaks like a proxy and is not believed: to limits all of its clients are one."""
    if _UNTRUSTED in context.told or not any(name in request.headers for name in _FORWARDING):
        return
    if context.options.trusted_proxies is not None and context.options.trusted_proxies.trusts_peer(
        request.remote_address
    ):
        return
    context.told.add(_UNTRUSTED)
    peer = address_of(request.remote_address) or "unix"
    hint = f"if it is a proxy of yours, add {peer!r} to trusted_proxies (--trusted-proxy)"
    logger.warning(
        "%s says who its clients are, and is not believed: %s",
        peer,
        ", ".join(name for name in _FORWARDING if name in request.headers),
        extra=log_context(conn, f"{_UNTRUSTED} of {id(context)}", hint=hint),
    )


def _more(conn: Conn, why: Why, context: ServerContext) -> str:
    request = conn._request
    if why.code in _TELLING:
        secrets = () if request is None else secrets_of(request)
        # The text may be that of an application.
        return "" if any(secret and secret in why.text for secret in secrets) else why.text
    if request is None:
        return ""
    if why.code == ErrorCode.NOT_FOUND and request.wants_websocket:
        return f"WebSockets are at {', '.join(quoted(path) for path in context.endpoints if path is not None)}"
    return seen_by_refusal(request, why.code)
