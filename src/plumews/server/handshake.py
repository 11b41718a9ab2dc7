"""The door of a server: from the first byte to an open WebSocket, or to what is answered instead (layer 5).

RFC 6455 section 4.2 on a live connection. Reads one request head, and asks the context what to do with it; how an
answer that is no WebSocket is given is in `answering`. One absolute deadline covers TLS, the head and everything that
is asked (slow clients, slow authentication). Bytes behind the head are kept for the WebSocket; behind any other answer
they are discarded. Invariant: once the deadline runs, every path leads to an answer, whatever a hook does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable

from .. import limits
from ..conn.connection import Conn
from ..conn.logs import log_context, request_line
from ..constants import CloseCode
from ..deflate.config import Agreement, negotiate
from ..errors import InvalidMessage, Refused
from ..http11.handshake import accept, accepted, check_upgrade, choose_subprotocol, offered_subprotocols
from ..http11.headers import Headers
from ..http11.models import Request, Response
from ..http11.origin import check_host, check_origin
from ..http11.parser import HeadReader
from ..http11.proxies import address_of
from .admission import ConnectionSlot
from .context import ServerContext
from .endpoints import Endpoint
from .hooks import changed_upgrade, selected_subprotocol
from .refusal_log import log_untrusted_proxy
from .responder import HandshakeResponder, stopping
from .routes import RequestBody, Route, answer_options, answer_route, answer_with_body, takes_body

__all__ = ["ServerHandshake"]

logger = logging.getLogger("plumews.server")


class ServerHandshake(HandshakeResponder):
    """Opening handshake of one connection (a :class:`plumews.conn.closing.OpeningHandshake`)."""

    __slots__ = ("_body", "_due", "_reader", "_visit")

    def __init__(self, context: ServerContext, conn: Conn, visit: ConnectionSlot | None = None) -> None:
        super().__init__(context, conn)
        self._reader: HeadReader | None = HeadReader(context.options.max_head)
        self._body: RequestBody | None = None  # what of that belongs to the request
        self._visit = visit  # None: not admitted yet
        # Made when the connection is accepted, connected when TLS has shaken hands: the time counts from here.
        self._due = conn._loop.time() + context.options.open_timeout

    # --- the connection calls ---------------------------------------------------------------------

    def connected(self) -> None:
        self._context.connections.add(self._conn)
        self._conn.add_close_callback(self._context.connections.discard)
        if self._context.closing:
            self._leave_by(self._visit)
            self.stop()
            return
        try:
            self._leave_by(self._visit or self._enter())
        except Refused as exc:
            self._fail(exc)
            return
        self._deadline = self._conn._state.timers.at(self._due, lambda: self._conn._guard(self._too_late))

    def received(self, data: bytes) -> None:
        if self._answered:
            return  # one request a connection
        if self._reader is None:
            self._keep(data)
            return
        try:
            self._read(data)
        except (Exception, asyncio.CancelledError) as exc:
            self._fail(exc)

    def lost(self) -> None:
        self._end()
        self._rest.clear()  # a hook that takes its time may keep this
        self._reader = None

    def stop(self) -> None:
        """The server stops: who is not in yet is turned away."""
        self._end()
        self._refuse(stopping(), ask=False)

    def _end(self) -> None:
        if self._body is not None:
            self._body.end()
        super()._end()

    # --- admission --------------------------------------------------------------------------------

    def _enter(self) -> ConnectionSlot:
        """Where the loop's own server has accepted: what `listener` does before."""
        return self._context.admission.admit(address_of(self._conn.remote_address) or None, self._conn._loop.time())

    def _leave_by(self, visit: ConnectionSlot | None) -> None:
        """From here on the connection itself tells when it is gone."""
        self._visit = visit
        if visit is not None:
            self._conn.add_close_callback(visit.left)

    def _known_as(self, address: str) -> None:
        """The client's address, as a trusted proxy has told it; raises :class:`Refused` 429 if it has its share."""
        if self._visit is not None and address != address_of(self._conn.remote_address):
            self._visit.known_as(address, self._conn._loop.time())

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
        if self._body is not None:
            self._body.arrived()
        elif len(self._rest) > limits.HEAD_SIZE:
            self._conn._ask_transport("pause_reading")

    # --- the decision -----------------------------------------------------------------------------

    def _decide(self, request: Request) -> None:
        context, conn = self._context, self._conn
        if request.content_length and not takes_body(context.routes, request):
            raise InvalidMessage("request body not allowed")
        request.secure = context.options.ssl is not None
        request.remote_address = conn.remote_address
        request.client_address = address_of(conn.remote_address)
        conn._request = request
        if context.options.trusted_proxies is not None:
            request.client_address, request.secure, request.forwarded_host = context.options.trusted_proxies.client_of(
                request
            )
        log_untrusted_proxy(conn, request, context)
        if request.client_address:
            self._known_as(request.client_address)
        check_host(request, context.allowed_hosts)
        if context.options.process_request is None:
            self._admit(request)
            return
        answer = context.options.process_request(conn, request)
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
        context, conn = self._context, self._conn
        if not request.wants_websocket:
            route = context.routes.get(request.raw_path)
            response: Response | None
            if request.method == "OPTIONS" and not (isinstance(route, Route) and "OPTIONS" in route.methods):
                if route is None and request.target != "*":
                    context.endpoint(request.raw_path)  # else 404
                response = answer_options(route)
            elif isinstance(route, Route):
                self._serve_route(route, request)
                return
            else:
                response = answer_route(context.routes, request)
            if response is not None:
                self._answer(response)
                return
        endpoint = context.endpoint(request.raw_path)
        if not request.wants_websocket:
            # A page is not told why its WebSocket was turned down, and asks for that by plain HTTP.
            check_origin(request, context.options.origins, secure=request.secure)
            check = getattr(endpoint, "check", None)
            if check is not None:
                check(request)
        check_upgrade(request)
        check_origin(request, context.options.origins, secure=request.secure)
        offered_subprotocols(request)
        admission = endpoint.admit(conn, request)
        if admission is None:
            self._accept(endpoint, request)
        else:
            self._later(admission, lambda _: self._accept(endpoint, request))

    def _serve_route(self, route: Route, request: Request) -> None:
        route.check_method(request)
        if request.method not in ("GET", "HEAD"):
            check_origin(request, self._context.options.origins, secure=request.secure)
        self._body = RequestBody(self._rest, self._conn._ask_transport)
        self._later(answer_with_body(route, request, self._body), self._answer)

    # --- the answer -------------------------------------------------------------------------------

    def _accept(self, endpoint: Endpoint, request: Request) -> None:
        context, conn = self._context, self._conn
        if self._is_over():
            return
        subprotocol = None
        if context.options.select_subprotocol is not None:
            subprotocol = selected_subprotocol(context.options.select_subprotocol, conn, request)
        elif context.options.subprotocols:
            subprotocol = choose_subprotocol(offered_subprotocols(request), context.options.subprotocols)
        deflate = conn._config.deflate
        agreement = None
        if deflate is not None:
            agreement = negotiate(request.headers.get_all("Sec-WebSocket-Extensions"), deflate)
        extensions = None if agreement is None else agreement.answer
        if context.options.process_response is None:
            wire = accepted(request, subprotocol=subprotocol, extensions=extensions, headers=context.extra_lines)
            self._open(endpoint, subprotocol, agreement, wire)
            return
        response = accept(
            request, subprotocol=subprotocol, extensions=extensions, headers=context.options.extra_headers
        )
        before = Headers(response.headers)

        def go_on(returned: object) -> None:
            changed = changed_upgrade(before, response, returned)
            if changed.status != 101:
                self._reply(changed)
                return
            wire = changed.serialize()
            conn._response = changed
            self._open(endpoint, subprotocol, agreement, wire)

        self._ask(request, response, go_on)

    def _open(self, endpoint: Endpoint, subprotocol: str | None, agreement: Agreement | None, wire: bytes) -> None:
        context, conn = self._context, self._conn
        if self._is_over():
            return
        self._answered = True
        self._forget_deadline()
        if self._visit is not None:
            self._visit.opened()
        context.requests.opened += 1
        conn._accepted_with = context.options.extra_headers
        conn.subprotocol = subprotocol
        if agreement is not None:
            conn._compress(agreement)
        conn._ask_transport("write", wire)
        conn._ask_transport("resume_reading")
        if conn._ended:
            return  # the transport failed
        conn._open()
        if logger.isEnabledFor(logging.DEBUG):
            _log_opened(conn)
        try:
            work = endpoint.opened(conn, self._due)
            if work is not None:
                context.start(work)
        except (Exception, asyncio.CancelledError):
            logger.exception("opening a connection failed", extra=log_context(conn))
            conn.close_nowait(CloseCode.INTERNAL_ERROR, "the handler failed")
        if self._rest and not conn._ask_transport("is_closing"):
            conn._receive(bytes(self._rest))
        self._rest.clear()


def _log_opened(conn: Conn) -> None:
    logger.debug("opened: %s", request_line(conn), extra=log_context(conn, "opened"))

    def closed(conn: Conn) -> None:
        logger.debug("closed with %s", conn.close_code, extra=log_context(conn, "closed"))

    conn.add_close_callback(closed)
