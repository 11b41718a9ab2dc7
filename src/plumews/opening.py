"""The door of a server: from the first byte to an open WebSocket, an HTTP answer, or a refusal (layer 5).

RFC 6455 section 4.2 on a live connection. Reads one request head, asks the site what it wants to do with it,
answers once. One absolute deadline covers TLS, the head and everything that is asked (slow clients, slow
authentication). Bytes behind the head are kept for the WebSocket; behind any other answer they are discarded.
Invariant: once the deadline runs, every path leads to an answer, whatever a hook does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from . import limits
from .conn import Conn
from .constants import CloseCode
from .errors import InvalidHandshake, Refused
from .handshake import accepted, check_upgrade, choose_subprotocol, offered_subprotocols, refusal
from .headers import Headers
from .http11 import HeadReader, Request, Response
from .negotiation import negotiate
from .origin import check_host, check_origin
from .routes import answer_route
from .site import Endpoint, Site
from .timers import Deadline

__all__ = ["Opening"]

logger = logging.getLogger("plumews.server")


class Opening:
    """The door of one connection (a :class:`plumews.link.Door`)."""

    __slots__ = ("_answered", "_conn", "_deadline", "_due", "_reader", "_rest", "_site", "_task")

    def __init__(self, site: Site, conn: Conn) -> None:
        self._site = site
        self._conn = conn
        self._reader: HeadReader | None = HeadReader()
        self._rest = bytearray()  # what came behind the head
        self._answered = False
        self._task: asyncio.Future[Any] | None = None
        # Made when the connection is accepted, connected when TLS has shaken hands: the time counts from here.
        self._due = conn._loop.time() + site.open_timeout
        self._deadline: Deadline | None = None

    # --- the connection calls ---------------------------------------------------------------------

    def connected(self) -> None:
        self._site.connections.add(self._conn)
        self._conn.add_close_callback(self._site.connections.discard)
        if self._site.closing:
            self.stop()
        else:
            self._deadline = self._conn._state.timers.at(self._due, self._too_late)

    def received(self, data: bytes) -> None:
        if self._answered:
            return  # one request a connection
        if self._reader is None:
            self._keep(data)
            return
        try:
            self._read(data)
        except Exception as exc:
            self._fail(exc)

    def lost(self) -> None:
        self._end()

    def stop(self) -> None:
        """The server stops: who is not in yet is turned away."""
        self._end()
        self._refuse(_stopping())

    def _read(self, data: bytes) -> None:
        assert self._reader is not None
        request = self._reader.feed(data)
        if request is not None:
            self._rest += self._reader.rest
            self._reader = None
            self._decide(request)

    def _keep(self, data: bytes) -> None:
        """While the request takes time: go on reading, to see whether the client still waits; but not for ever."""
        self._rest += data
        if len(self._rest) > limits.HEAD_SIZE and self._conn._transport is not None:
            self._conn._transport.pause_reading()

    # --- the decision -----------------------------------------------------------------------------

    def _guard(self, decide: Callable[[], None]) -> None:
        """Whatever is raised becomes an answer."""
        try:
            decide()
        except Exception as exc:
            self._fail(exc)

    def _fail(self, exc: BaseException) -> None:
        if not isinstance(exc, InvalidHandshake):
            logger.error("answering the request of connection %s failed", self._conn.id, exc_info=exc)
        else:
            logger.debug("refused %d %s", exc.status, exc.code)
            try:
                self._refuse(exc)
                return
            except Exception:
                logger.exception("the refusal of connection %s cannot be told", self._conn.id)
        self._refuse(_failed())

    def _decide(self, request: Request) -> None:
        site, conn = self._site, self._conn
        request.secure = site.ssl is not None
        request.remote_address = conn.remote_address
        conn._request = request
        check_host(request, site.allowed_hosts)
        if site.process_request is None:
            self._admit(request)
            return
        answer = site.process_request(conn, request)
        if isinstance(answer, Awaitable):
            self._later(answer, lambda answer: self._processed(answer, request))
        else:
            self._processed(answer, request)

    def _processed(self, answer: Response | None, request: Request) -> None:
        if answer is None:
            self._admit(request)
        elif isinstance(answer, Response):
            self._answer(answer)
        else:
            raise TypeError(f"process_request must return a Response or None, not {type(answer).__name__}")

    def _admit(self, request: Request) -> None:
        site, conn = self._site, self._conn
        if "Upgrade" not in request.headers:
            response = answer_route(site.routes, request)
            if response is not None:
                self._answer(response)
                return
        endpoint = site.endpoint(request.path)
        check_upgrade(request)
        check_origin(request, site.origins, secure=request.secure)
        offered_subprotocols(request)
        admission = endpoint.admit(conn, request)
        if admission is None:
            self._accept(endpoint, request)
        else:
            self._later(admission, lambda _: self._accept(endpoint, request))

    def _later(self, work: Awaitable[Any], then: Callable[[Any], None]) -> None:
        def done(task: asyncio.Future[Any]) -> None:
            self._task = None
            if task.cancelled():
                self._refuse(_failed())  # unless that was because it is answered, or nobody waits
                return
            exc = task.exception()  # not raised here: its traceback would refer to this frame, and that to it
            if exc is None:
                self._guard(lambda: then(task.result()))
            else:
                self._fail(exc)

        self._task = self._site.start(work)
        self._task.add_done_callback(done)

    # --- the answer -------------------------------------------------------------------------------

    def _accept(self, endpoint: Endpoint, request: Request) -> None:
        site, conn, transport = self._site, self._conn, self._conn._transport
        if self._answered or transport is None or transport.is_closing():
            return
        subprotocol = None
        if site.subprotocols:
            subprotocol = choose_subprotocol(offered_subprotocols(request), site.subprotocols)
        agreement = None
        deflate = conn._config.deflate
        if deflate is not None:
            agreement = negotiate(request.headers.get_all("Sec-WebSocket-Extensions"), deflate)
        extensions = None if agreement is None else agreement.answer
        wire = accepted(request, subprotocol=subprotocol, extensions=extensions, headers=site.extra_lines)
        self._answered = True
        self._forget_deadline()
        site.requests.opened += 1
        conn._accepted_with = site.extra_headers
        conn.subprotocol = subprotocol
        if agreement is not None:
            conn._compress(agreement)
        transport.write(wire)
        conn._open()
        transport.resume_reading()
        try:
            work = endpoint.opened(conn, self._due)
            if work is not None:
                site.start(work)
        except Exception:
            logger.exception("opening connection %s failed", conn.id)
            conn.close_nowait(CloseCode.INTERNAL_ERROR, "the handler failed")
        if self._rest and not transport.is_closing():
            conn._receive(bytes(self._rest))
        self._rest.clear()

    def _refuse(self, exc: InvalidHandshake) -> None:
        if self._answer(refusal(exc)):
            self._site.requests.refused.add(exc.code)

    def _answer(self, response: Response) -> bool:
        """Answer with plain HTTP, and end the connection; False if it has its answer, or nobody is there any more."""
        conn, transport = self._conn, self._conn._transport
        if self._answered or transport is None or transport.is_closing():
            return False
        wire = _last(response).serialize()
        if conn._request is not None and conn._request.method == "HEAD":
            wire = wire[: len(wire) - len(response.body)]
        self._answered = True
        self._forget_deadline()
        self._rest.clear()
        transport.write(wire)
        transport.resume_reading()
        conn._close_gently()
        return True

    def _too_late(self) -> None:
        self._end()
        self._refuse(_late())

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


def _failed() -> InvalidHandshake:
    return InvalidHandshake("internal error", status=500, code="WEBSOCKET_HANDSHAKE_FAILED")


def _late() -> InvalidHandshake:
    return InvalidHandshake("the request took too long", status=408, code="WEBSOCKET_HANDSHAKE_TIMEOUT")


def _stopping() -> InvalidHandshake:
    return Refused("the server is stopping", status=503, code="WEBSOCKET_STOPPING")
