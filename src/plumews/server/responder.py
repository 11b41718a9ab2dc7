"""Responses to a request that is no WebSocket yet, and the log lines of the refused ones.

Each connection gets one response, whatever fails, and ends with it. `process_response` sees the response first. Work
that takes time runs in one task, and is cancelled at the open timeout. The cause of a failure is logged, never sent.

A refused request is one log line at INFO. The first one that an option would prevent is a WARNING that names the
option. The line has neither the query nor a secret of the request. Two more kinds of refusals have log lines elsewhere:
of sockets without a request in `listener`, and by close code in `auth.token_lifetime`.

The work before the response is in `handshake`. A new code of a refusal is a member of `ErrorCode`. It is listed in
`_CODES_WITH_TEXT`, too, if only its text tells the cause.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextvars import Context
from functools import partial
from typing import Any, Final, NamedTuple

from ..conn import closing
from ..conn.connection import Conn
from ..conn.logs import log_extra, request_line
from ..constants import ErrorCode
from ..errors import InvalidHandshake, InvalidHeader, InvalidMessage, InvalidOrigin, Refused
from ..http11.handshake import refusal
from ..http11.headers import Headers
from ..http11.models import Response
from ..http11.origin import seen_by_refusal
from ..http11.redaction import quoted, secrets_of
from ..http11.request import Request, address_of
from ..transport.timers import Deadline
from .context import ServerContext
from .hooks import changed_answer, copy_of, with_context

__all__ = ["HandshakeResponder", "log_untrusted_proxy", "stopping"]

logger = logging.getLogger("plumews.server")


class _Reason(NamedTuple):
    """Code and text of a refusal, without the exception and the frames that it refers to."""

    code: str
    text: str


class HandshakeResponder:
    """Sender of the response of one connection, a part of its `ServerHandshake`.

    Like that, it refers to the connection only until the opening handshake ends.
    """

    __slots__ = ("_asked", "_conn", "_context", "_deadline", "_task", "answered", "rest")

    def __init__(self, context: ServerContext, conn: Conn) -> None:
        self._context = context
        self._conn = conn
        self._asked = False  # process_response was called
        self._task: asyncio.Future[Any] | None = None
        self._deadline: Deadline | None = None
        #: Bytes received behind the head of the request.
        self.rest = bytearray()
        #: True if the response is sent, a 101 included.
        self.answered = False

    def is_over(self) -> bool:
        """Return True if the response is sent, or the client has gone."""
        return self.over()

    def over(self) -> bool:
        """Return the same as :meth:`is_over`, which has no C form: it is passed on as a function."""
        conn = self._conn
        if self.answered or conn._ended or conn._transport is None:
            return True
        try:
            # Over TLS the transport closes only a moment after the peer's end has come.
            over = conn._transport.is_closing()
        except Exception:
            over = bool(closing.ask(conn, "is_closing"))  # which treats the failure
        return over

    def limit_time(self, due: float) -> None:
        """Refuse with 408 at the time ``due`` of the loop's clock, unless the response is sent."""
        self._deadline = self._conn._state.timers.at(due, self._late)

    def accept(self) -> None:
        """Count the response as sent: it is a 101."""
        self.answered = True
        self._forget_deadline()

    def end(self) -> None:
        """Cancel the work that takes time, and the timeout."""
        self._forget_deadline()
        if self._task is not None:
            self._task.cancel()

    # --- work that takes time or fails ------------------------------------------------------------

    def run(self, work: Awaitable[Any], then: Callable[[Any], None]) -> None:
        """Run ``work`` as a task, and then call ``then`` with its result. An exception of either is answered."""
        self._task = self._context.start(with_context(self._conn, work))
        # No closures: compiled ones of one function refer to each other, and would have to be collected.
        self._task.add_done_callback(partial(self._done, then), context=Context())

    def _done(self, then: Callable[[Any], None], task: asyncio.Future[Any]) -> None:
        closing.guard(self._conn, self._conn._run_in_context, self._go_on, then, task)

    def _go_on(self, then: Callable[[Any], None], task: asyncio.Future[Any]) -> None:
        self._task = None
        try:
            exc = task.exception()  # not raised here: its traceback would refer to this frame, and that to it
        except asyncio.CancelledError as cancelled:
            exc = cancelled
        if exc is not None:
            # Over, it was cancelled by the response, or the client has gone.
            if not (isinstance(exc, asyncio.CancelledError) and self.is_over()):
                self.fail(exc)
            return
        try:
            then(task.result())
        except (Exception, asyncio.CancelledError) as failure:
            self.fail(failure)

    def fail(self, exc: BaseException) -> None:
        """Answer ``exc``: a refusal as it is, anything else with 500 and a log entry."""
        if isinstance(exc, InvalidHandshake):
            refused = exc
        else:
            refused = self._failed()
            logger.error("answering a request failed", exc_info=exc, extra=log_extra(self._conn))
        try:
            self.refuse(refused)
        except InvalidHandshake as instead:  # raised by process_response, which is called once
            self.fail(instead)
        except (Exception, asyncio.CancelledError):
            logger.exception("a refusal cannot be told", extra=log_extra(self._conn))
            self.refuse(self._failed(), ask=False)

    def _failed(self) -> InvalidHandshake:
        """Return the refusal for a mistake of the application, in the handshake or in a route."""
        request = self._conn._request
        if request is None or request.wants_websocket:
            return InvalidHandshake("websocket handshake failed", status=500, code=ErrorCode.HANDSHAKE_FAILED)
        return InvalidHandshake("internal server error", status=500, code=ErrorCode.INTERNAL_ERROR)

    # --- the response -----------------------------------------------------------------------------

    def refuse(self, exc: InvalidHandshake, *, ask: bool = True) -> None:
        """Answer with the refusal ``exc``, without ``process_response`` if ``ask`` is False."""
        self.answer(refusal(exc, str(self._conn.id)), _Reason(exc.code, str(exc)), ask=ask)

    def answer(self, response: Response, refused: _Reason | None = None, *, ask: bool = True) -> None:
        """Answer with ``response``, after ``process_response`` has seen it."""
        request, hook = self._conn._request, self._context.process_response
        if not ask or hook is None or request is None or self._asked:
            self.reply(response, refused)
        elif not self.is_over():
            given = copy_of(response)
            self.ask(request, given, lambda returned: self.reply(changed_answer(given, returned), refused))

    def ask(self, request: Request, response: Response, then: Callable[[object], None]) -> None:
        """Call ``process_response``, and then ``then`` with its result."""
        assert self._context.process_response is not None
        self._asked = True
        returned = self._context.process_response(self._conn, request, response)
        if isinstance(returned, Awaitable):
            self.run(returned, then)
        else:
            then(returned)

    def reply(self, response: Response, refused: _Reason | None = None) -> None:
        """Send a response that is no 101, and end the connection."""
        conn = self._conn
        if self.is_over():
            return
        if response.status < 200:
            raise ValueError(f"an answer in place of the WebSocket has a final status, from 200 on: {response.status}")
        wire = _last(response).serialize()
        request = conn._request
        if request is not None and request.method == "HEAD":
            wire = wire[: len(wire) - len(response.body)]
        self.answered = True
        self._forget_deadline()
        done = request is not None and not request.content_length and not self.rest
        self.rest.clear()
        closing.ask(conn, "write", wire)
        closing.ask(conn, "resume_reading")
        closing.close_gently(conn, peer_is_done=done)
        if refused is not None:
            self._context.requests.refused.add(refused.code)
            _log_refusal(conn, response.status, refused, self._context)

    # --- the open timeout -------------------------------------------------------------------------

    def _late(self) -> None:
        closing.guard(self._conn, self._time_out)

    def _time_out(self) -> None:
        self.end()
        late = InvalidHandshake("the request took too long", status=408, code=ErrorCode.HANDSHAKE_TIMEOUT)
        self.refuse(late, ask=False)

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def _last(response: Response) -> Response:
    """Return ``response`` with ``Connection: close``. A copy: a route may return the same object again."""
    if "Connection" in response.headers:
        return response
    headers = Headers(response.headers, ("Connection", "close"))
    return Response(response.status, headers, response.body, response.reason)


def stopping() -> InvalidHandshake:
    """Return the refusal of a server that stops."""
    return Refused("the server is stopping", status=503, code=ErrorCode.STOPPING)


# --- log lines ------------------------------------------------------------------------------------

#: Refusals whose code does not tell the cause.
_CODES_WITH_TEXT: Final = (
    ErrorCode.INVALID_TOKEN,
    ErrorCode.BAD_QUERY,
    ErrorCode.HEAD_TOO_LARGE,
    ErrorCode.INVALID_ROOM,
    ErrorCode.ROOM_FORBIDDEN,
    ErrorCode.TOKEN_SOURCE,
    InvalidMessage.code,
    InvalidHeader.code,
)

#: Refusals that an option would prevent, with its names here and on the command line.
_HINTS: Final = {
    InvalidOrigin.code: "origins (--origin) lists the pages that may connect, trusted_proxies (--trusted-proxy) the "
    "proxies that say what address the server has",
    ErrorCode.FORBIDDEN_HOST: "allowed_hosts (--allowed-host) lists the names of the server",
}

#: Headers in which a proxy describes its clients.
_FORWARDING: Final = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host")
_FORWARDING_KEYS: Final = tuple(name.lower().encode() for name in _FORWARDING)
_UNTRUSTED: Final = "untrusted proxy"


def _log_refusal(conn: Conn, status: int, reason: _Reason, context: ServerContext) -> None:
    level, kind, hint = logging.INFO, f"refused {reason.code}", ""
    if reason.code in _HINTS and reason.code not in context.logged_hints:
        context.logged_hints.add(reason.code)
        level, hint = logging.WARNING, _HINTS[reason.code]
        kind = f"first {kind} of {id(context)}"  # of its own: a flood of lines of this kind does not hide it
    if logger.isEnabledFor(level):
        more = _cause(conn, reason, context)
        asked = f"{request_line(conn)}, {more}" if more else request_line(conn)
        logger.log(level, "refused %d %s: %s", status, reason.code, asked, extra=log_extra(conn, kind, hint=hint))


def _cause(conn: Conn, reason: _Reason, context: ServerContext) -> str:
    """Return the cause of a refusal for its log line, or an empty text if the code tells it."""
    request = conn._request
    if reason.code in _CODES_WITH_TEXT:
        secrets = () if request is None else secrets_of(request)
        # The text may be that of an application.
        return "" if any(secret and secret in reason.text for secret in secrets) else reason.text
    if request is None:
        return ""
    if reason.code == ErrorCode.NOT_FOUND and request.wants_websocket:
        return f"WebSockets are at {', '.join(quoted(path) for path in context.endpoints if path is not None)}"
    if reason.code == ErrorCode.QUERY_SECRETS:
        return "allow_query_secrets is off"
    return seen_by_refusal(request, reason.code)


def log_untrusted_proxy(conn: Conn, request: Request, context: ServerContext) -> None:
    """Log once that a peer sends headers of a proxy and is not trusted: all its clients share the limits of one."""
    for key in _FORWARDING_KEYS:
        if request._has(key):
            break
    else:
        return
    proxies = context.trusted_proxies
    if _UNTRUSTED in context.logged_hints or (proxies is not None and proxies.trusts_peer(request.remote_address)):
        return
    context.logged_hints.add(_UNTRUSTED)
    peer = address_of(request.remote_address) or "unix"
    hint = f"if it is a proxy of yours, add {peer!r} to trusted_proxies (--trusted-proxy)"
    sent = ", ".join([name for name in _FORWARDING if request._has(name.lower().encode())])
    logger.warning(
        "%s says who its clients are, and is not believed: %s",
        peer,
        sent,
        extra=log_extra(conn, f"{_UNTRUSTED} of {id(context)}", hint=hint),
    )
