"""The door of a server: from the first byte to an open WebSocket, an HTTP answer, or a refusal (layer 5).

RFC 6455 section 4.2 on a live connection. Reads one request head, asks the site what it wants to do with it,
answers once. One absolute deadline covers the head and everything that is asked (slow clients, slow
authentication). Bytes behind the head are kept for the WebSocket; behind any other answer they are discarded.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from . import limits
from .conn import Conn
from .errors import InvalidHandshake, Refused
from .handshake import accept, check_upgrade, choose_subprotocol, offered_subprotocols, refusal
from .headers import HeadersLike
from .http11 import HeadReader, Request, Response
from .origin import check_host, check_origin
from .routes import Routes, answer_route
from .timers import Deadline

__all__ = ["Endpoint", "Opening", "Site"]

logger = logging.getLogger("plumews.server")

ProcessRequest = Callable[[Conn, Request], "Response | Awaitable[Response | None] | None"]


class Endpoint(Protocol):
    """What a site does with the WebSockets of one path."""

    def admit(self, conn: Conn, request: Request) -> Awaitable[None] | None:
        """Raise :class:`InvalidHandshake` to refuse; return an awaitable if it takes time."""

    def opened(self, conn: Conn) -> None:
        """The connection is open. Called before the first frame is looked at, right behind the 101."""


@dataclass
class Site:
    """What a server offers, and to whom."""

    endpoints: dict[str | None, Endpoint]  # by path; None is any path
    routes: Routes = field(default_factory=dict)
    origins: Collection[str | None] | None = None
    allowed_hosts: Collection[str] | None = None
    subprotocols: Sequence[str] = ()
    process_request: ProcessRequest | None = None
    extra_headers: HeadersLike = ()
    open_timeout: float = limits.OPEN_TIMEOUT
    secure: bool = False
    closing: bool = False
    #: Requests that are being answered asynchronously; the loop itself keeps no strong reference to tasks.
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    #: Connections from accept to their end.
    connections: set[Conn] = field(default_factory=set)

    def endpoint(self, path: str) -> Endpoint:
        endpoint = self.endpoints.get(path) or self.endpoints.get(None)
        if endpoint is None:
            raise InvalidHandshake("not found", status=404, code="NOT_FOUND")
        return endpoint


class Opening:
    """The door of one connection (a :class:`plumews.link.Door`)."""

    __slots__ = ("_answered", "_conn", "_deadline", "_reader", "_rest", "_site", "_task")

    def __init__(self, site: Site, conn: Conn) -> None:
        self._site = site
        self._conn = conn
        self._reader: HeadReader | None = HeadReader()
        self._rest = b""
        self._answered = False
        self._task: asyncio.Task[None] | None = None
        self._deadline: Deadline | None = None

    # --- the connection calls ---------------------------------------------------------------------

    def connected(self) -> None:
        self._site.connections.add(self._conn)
        self._conn.add_close_callback(self._site.connections.discard)
        self._deadline = self._conn._state.timers.after(self._site.open_timeout, self._too_late)

    def received(self, data: bytes) -> None:
        if self._reader is None:
            return  # answered, or being answered: one request a connection
        try:
            request = self._reader.feed(data)
        except InvalidHandshake as exc:
            self._reader = None
            self._refuse(exc)
            return
        if request is None:
            return
        self._rest, self._reader = self._reader.rest, None
        request.secure = self._site.secure
        assert self._conn._transport is not None
        self._conn._transport.pause_reading()
        self._guard(lambda: self._decide(request))

    def lost(self) -> None:
        self._cancel_deadline()
        if self._task is not None:
            self._task.cancel()

    # --- the decision -----------------------------------------------------------------------------

    def _guard(self, decide: Callable[[], None]) -> None:
        """Whatever goes wrong becomes an answer."""
        try:
            decide()
        except InvalidHandshake as exc:
            self._refuse(exc)
        except Exception:
            logger.exception("answering a request failed")
            self._refuse(InvalidHandshake("internal error", status=500, code="WEBSOCKET_HANDSHAKE_FAILED"))

    def _decide(self, request: Request) -> None:
        site, conn = self._site, self._conn
        conn.request = request
        if site.closing:
            raise Refused("the server is stopping", status=503, code="WEBSOCKET_STOPPING")
        check_host(request, site.allowed_hosts)
        if site.process_request is None:
            self._admit(request)
            return
        answer = site.process_request(conn, request)
        if isinstance(answer, Awaitable):
            self._run(self._process(answer, request))
        else:
            self._processed(answer, request)

    async def _process(self, answer: Awaitable[Response | None], request: Request) -> None:
        result = await answer
        self._guard(lambda: self._processed(result, request))

    def _processed(self, answer: Response | None, request: Request) -> None:
        if answer is not None:
            self._answer(answer)
        else:
            self._admit(request)

    def _admit(self, request: Request) -> None:
        site, conn = self._site, self._conn
        if "Upgrade" not in request.headers:
            response = answer_route(site.routes, request)
            if response is not None:
                self._answer(response, head=request.method == "HEAD")
                return
        endpoint = site.endpoint(request.path)
        check_upgrade(request)
        check_origin(request, site.origins, secure=request.secure)
        offered_subprotocols(request)
        admission = endpoint.admit(conn, request)
        if admission is None:
            self._accept(endpoint, request)
        else:
            self._run(self._admit_later(admission, endpoint, request))

    async def _admit_later(self, admission: Awaitable[None], endpoint: Endpoint, request: Request) -> None:
        try:
            await admission
        except InvalidHandshake as exc:
            self._refuse(exc)
            return
        self._guard(lambda: self._accept(endpoint, request))

    def _run(self, work: Awaitable[None]) -> None:
        async def guarded() -> None:
            try:
                await work
            except InvalidHandshake as exc:
                self._refuse(exc)
            except Exception:
                logger.exception("answering a request failed")
                self._refuse(InvalidHandshake("internal error", status=500, code="WEBSOCKET_HANDSHAKE_FAILED"))

        self._task = self._conn._loop.create_task(guarded())
        self._site.tasks.add(self._task)
        self._task.add_done_callback(self._site.tasks.discard)

    # --- the answer -------------------------------------------------------------------------------

    def _accept(self, endpoint: Endpoint, request: Request) -> None:
        site, conn = self._site, self._conn
        if site.closing:
            raise Refused("the server is stopping", status=503, code="WEBSOCKET_STOPPING")
        if self._answered or conn._transport is None:
            return
        subprotocol = choose_subprotocol(offered_subprotocols(request), site.subprotocols)
        response = accept(request, subprotocol=subprotocol, headers=site.extra_headers)
        self._answered = True
        self._cancel_deadline()
        conn.response = response
        conn.subprotocol = subprotocol
        transport = conn._transport
        transport.write(response.serialize())
        conn._open()
        transport.resume_reading()
        endpoint.opened(conn)
        if self._rest:
            conn._receive(self._rest)
            self._rest = b""

    def _refuse(self, exc: InvalidHandshake) -> None:
        if self._conn.request is not None:
            logger.info("refused %d %s", exc.status, exc.code)
        self._answer(refusal(exc))

    def _answer(self, response: Response, *, head: bool = False) -> None:
        """Answer with plain HTTP, and end the connection."""
        transport = self._conn._transport
        if self._answered or transport is None:
            return
        self._answered = True
        self._cancel_deadline()
        if "Connection" not in response.headers:
            response.headers.add("Connection", "close")
        wire = response.serialize()
        transport.write(wire[: len(wire) - len(response.body)] if head else wire)
        transport.resume_reading()
        self._conn._close_gently()

    def _too_late(self) -> None:
        if self._task is not None:
            self._task.cancel()
        self._answer(
            refusal(InvalidHandshake("the request took too long", status=408, code="WEBSOCKET_HANDSHAKE_TIMEOUT"))
        )

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
