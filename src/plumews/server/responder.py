"""How a request gets its answer, while it is not a WebSocket yet: one answer, whatever fails meanwhile (layer 5).

Plain HTTP, after ``process_response`` has seen it, and then the connection ends. What takes time is one task, and
nobody waits for it beyond the deadline.

Invariants: one answer a connection; whatever is raised becomes one; nothing of a failure but its log line tells why.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextvars import Context, copy_context
from typing import Any

from ..conn.connection import Conn
from ..conn.logs import log_context
from ..constants import ErrorCode
from ..errors import InvalidHandshake, Refused
from ..http11.handshake import refusal
from ..http11.headers import Headers
from ..http11.models import Request, Response
from ..transport.timers import Deadline
from .context import ServerContext
from .hooks import changed_answer, copy_of
from .refusal_log import Why, log_refused_request

__all__ = ["HandshakeResponder", "stopping"]

logger = logging.getLogger("plumews.server")


class HandshakeResponder:
    """The answer of one connection."""

    __slots__ = ("_answered", "_asked", "_conn", "_context", "_deadline", "_rest", "_task")

    def __init__(self, context: ServerContext, conn: Conn) -> None:
        self._context = context
        self._conn = conn
        self._rest = bytearray()  # what came behind the head
        self._answered = False
        self._asked = False  # whether process_response has had its say
        self._task: asyncio.Future[Any] | None = None
        self._deadline: Deadline | None = None

    # --- what takes time, and what fails ----------------------------------------------------------

    def _guard(self, decide: Callable[[], None]) -> None:
        """Whatever is raised becomes an answer."""
        try:
            decide()
        except (Exception, asyncio.CancelledError) as exc:
            self._fail(exc)

    def _fail(self, exc: BaseException) -> None:
        if isinstance(exc, InvalidHandshake):
            refused = exc
        else:
            refused = self._failed()
            logger.error("answering a request failed", exc_info=exc, extra=log_context(self._conn))
        try:
            self._refuse(refused)
        except InvalidHandshake as instead:  # says process_response, which is asked once
            self._fail(instead)
        except (Exception, asyncio.CancelledError):
            logger.exception("a refusal cannot be told", extra=log_context(self._conn))
            self._refuse(self._failed(), ask=False)

    def _later(self, work: Awaitable[Any], then: Callable[[Any], None]) -> None:
        def done(task: asyncio.Future[Any]) -> None:
            self._conn._guard(self._conn._run_in_context, decide, task)

        def decide(task: asyncio.Future[Any]) -> None:
            self._task = None
            try:
                exc = task.exception()  # not raised here: its traceback would refer to this frame, and that to it
            except asyncio.CancelledError as cancelled:
                if self._is_over():
                    return  # because it is answered, or nobody waits
                exc = cancelled
            if exc is None:
                self._guard(lambda: then(task.result()))
            else:
                self._fail(exc)

        self._task = self._context.start(self._answered_by(work))
        self._task.add_done_callback(done, context=Context())

    async def _answered_by(self, work: Awaitable[Any]) -> Any:
        try:
            return await work
        finally:
            self._conn._context = copy_context()  # the handler sees what a hook has set

    # --- the answer -------------------------------------------------------------------------------

    def _refuse(self, exc: InvalidHandshake, *, ask: bool = True) -> None:
        self._answer(refusal(exc, str(self._conn.id)), Why(exc.code, str(exc)), ask=ask)

    def _answer(self, response: Response, refused: Why | None = None, *, ask: bool = True) -> None:
        """Answer with plain HTTP, after ``process_response`` has seen it; ``refused`` is why it is a refusal."""
        request, hook = self._conn._request, self._context.options.process_response
        if not ask or hook is None or request is None or self._asked:
            self._reply(response, refused)
        elif not self._is_over():
            given = copy_of(response)
            self._ask(request, given, lambda returned: self._reply(changed_answer(given, returned), refused))

    def _ask(self, request: Request, response: Response, then: Callable[[object], None]) -> None:
        assert self._context.options.process_response is not None
        self._asked = True
        returned = self._context.options.process_response(self._conn, request, response)
        if isinstance(returned, Awaitable):
            self._later(returned, then)
        else:
            then(returned)

    def _is_over(self) -> bool:
        """Whether there is an answer, or nobody to get it."""
        conn = self._conn
        # Over TLS the transport closes only a moment after the peer's end has come.
        return self._answered or conn._ended or conn._transport is None or bool(conn._ask_transport("is_closing"))

    def _reply(self, response: Response, refused: Why | None = None) -> None:
        """Send a plain answer, and end the connection."""
        conn = self._conn
        if self._is_over():
            return
        if response.status < 200:
            raise ValueError(f"an answer in place of the WebSocket has a final status, from 200 on: {response.status}")
        wire = _last(response).serialize()
        if conn._request is not None and conn._request.method == "HEAD":
            wire = wire[: len(wire) - len(response.body)]
        self._answered = True
        self._forget_deadline()
        request = conn._request
        done = request is not None and not request.content_length and not self._rest
        self._rest.clear()
        conn._ask_transport("write", wire)
        conn._ask_transport("resume_reading")
        conn._close_gently(peer_is_done=done)
        if refused is not None:
            self._context.requests.refused.add(refused.code)
            log_refused_request(conn, response.status, refused, self._context)

    def _failed(self) -> InvalidHandshake:
        """The refusal for a mistake of the application: in the handshake, or in a route."""
        request = self._conn._request
        if request is None or request.wants_websocket:
            return InvalidHandshake("websocket handshake failed", status=500, code=ErrorCode.HANDSHAKE_FAILED)
        return InvalidHandshake("internal server error", status=500, code=ErrorCode.INTERNAL_ERROR)

    # --- the end of the time ----------------------------------------------------------------------

    def _too_late(self) -> None:
        self._end()
        self._refuse(_late(), ask=False)

    def _end(self) -> None:
        """Nobody waits for what is being asked any more."""
        self._forget_deadline()
        if self._task is not None:
            self._task.cancel()

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def _last(response: Response) -> Response:
    """``response`` with the word that nothing comes behind it. A copy: a route may answer the same one again."""
    if "Connection" in response.headers:
        return response
    headers = Headers(response.headers, ("Connection", "close"))
    return Response(response.status, headers, response.body, response.reason)


def _late() -> InvalidHandshake:
    return InvalidHandshake("the request took too long", status=408, code=ErrorCode.HANDSHAKE_TIMEOUT)


def stopping() -> InvalidHandshake:
    """The refusal of a server that stops."""
    return Refused("the server is stopping", status=503, code=ErrorCode.STOPPING)
