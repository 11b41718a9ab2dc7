"""Opening handshake of a server: from the first byte to an open WebSocket, or to a response that is none.

RFC 6455 section 4.2 on a live connection. One request head is read and decided on. `responder` sends any response but
the 101. The open timeout bounds TLS, the head, hooks and authentication together. Bytes behind the head are kept for
the WebSocket, or discarded behind any other response.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from functools import partial
from typing import Final

from .. import limits
from ..conn import closing, receive_backlog
from ..conn.connection import Conn
from ..conn.logs import log_extra, request_line
from ..conn.opening import opened, use_deflate
from ..constants import CloseCode
from ..deflate.config import Agreement, negotiate
from ..errors import InvalidMessage, Refused
from ..http11.handshake import accept, accepted, check_upgrade, choose_subprotocol, offered_subprotocols
from ..http11.headers import Headers
from ..http11.models import Response
from ..http11.origin import check_origin
from ..http11.parser import HeadReader
from ..http11.request import Request, address_of
from ..transport.sendmsg import send
from .admission import ConnectionSlot
from .context import ServerContext
from .endpoints import Endpoint
from .hooks import changed_upgrade, selected_subprotocol
from .responder import HandshakeResponder, log_untrusted_proxy, stopping
from .routes import RequestBody, Route, answer_options, answer_route, answer_with_body, takes_body

__all__ = ["ServerHandshake"]

logger = logging.getLogger("plumews.server")
_DEBUG: Final = logging.DEBUG


class ServerHandshake:
    """Opening handshake of one connection (a :class:`plumews.conn.opening.OpeningHandshake`).

    Args:
        context: context of the server.
        conn: the connection.
        slot: slot of an admitted connection. Without it, admission is asked when the connection has a transport.
    """

    __slots__ = ("_body", "_conn", "_context", "_due", "_head", "_key", "_paused", "_reader", "_responder", "_slot")

    def __init__(self, context: ServerContext, conn: Conn, slot: ConnectionSlot | None = None) -> None:
        self._context = context
        self._conn = conn
        self._slot = slot
        self._responder = HandshakeResponder(context, conn)
        self._reader: HeadReader | None = HeadReader(context.max_head, context.max_headers)
        self._head: bytes | None = None
        self._key = ""  # of the client, once it is checked
        self._body: RequestBody | None = None
        self._paused = False
        # The connection is accepted now and gets its transport after the TLS handshake: the time counts from here.
        self._due = (conn._loop.time() if slot is None else slot.since) + context.open_timeout

    # --- called by the connection -----------------------------------------------------------------

    def connected(self) -> None:
        self._context.connections.add(self._conn)
        if self._context.closing:
            self._take_slot(self._slot)
            self.stop()
            return
        try:
            self._take_slot(self._slot or self._admit_address())
        except Refused as exc:
            self._take_slot(None)
            self._responder.fail(exc)
        else:
            self._responder.limit_time(self._due)

    def received(self, data: bytes) -> None:
        if self._responder.answered:
            return  # one request a connection
        if self._reader is None:
            self._keep(data)
            return
        try:
            self._read(data)
        except (Exception, asyncio.CancelledError) as exc:
            self._responder.fail(exc)

    def lost(self) -> None:
        self._responder.end()
        self._responder.rest.clear()  # a hook that takes its time may refer to this object
        self._reader = None

    def stop(self) -> None:
        """Refuse the connection with 503: the server stops."""
        self._responder.end()
        self._responder.refuse(stopping(), ask=False)

    # --- admission --------------------------------------------------------------------------------

    def _admit_address(self) -> ConnectionSlot:
        """Ask admission where the event loop's own server has accepted the connection, instead of `listener`."""
        address = address_of(self._conn.remote_address) or None
        return self._context.admission.admit(address, self._conn._loop.time())

    def _take_slot(self, slot: ConnectionSlot | None) -> None:
        """Free the slot, and forget the connection, when it is closed."""
        self._slot = slot
        connections = self._context.connections
        if slot is None:
            self._conn.add_close_callback(connections.discard)
        else:
            slot.hold(connections)
            self._conn._slot = slot

    # --- reading ----------------------------------------------------------------------------------

    def _read(self, data: bytes) -> None:
        assert self._reader is not None
        request = self._reader.feed(data)
        if request is not None:
            self._responder.rest += self._reader.rest
            self._head = self._reader.head
            self._reader = None
            self._decide(request)

    def _keep(self, data: bytes) -> None:
        """Keep ``data`` while the request takes time. Reading goes on, to notice that the client has gone."""
        self._responder.rest += data
        if self._body is not None:
            self._body.arrived()
        elif len(self._responder.rest) > limits.HEAD_SIZE:
            self._paused = True
            closing.ask(self._conn, "pause_reading")

    # --- the decision -----------------------------------------------------------------------------

    def _decide(self, request: Request) -> None:
        context, conn = self._context, self._conn
        if request._has(b"content-length") and request.content_length and not takes_body(context.routes, request):
            raise InvalidMessage("request body not allowed")
        peer = address_of(conn._peername)
        request.secure = context.secure
        request.remote_address = conn._peername
        request.client_address = peer
        conn._request = request
        if context.trusted_proxies is not None:
            client = context.trusted_proxies.client_of(request)
            request.client_address, request.secure, request.forwarded_host = client
        log_untrusted_proxy(conn, request, context)
        if self._slot is not None and request.client_address not in ("", peer):
            self._slot.known_as(request.client_address, conn._loop.time())
        context.check_host(request)
        if context.process_request is None:
            self._admit(request)
        else:
            self._ask(request)

    def _ask(self, request: Request) -> None:
        """Call ``process_request``, and go on with its result."""
        assert self._context.process_request is not None
        answer = self._context.process_request(self._conn, request)
        if isinstance(answer, Awaitable):
            self._responder.run(answer, lambda answer: self._processed(answer, request))
        else:
            self._processed(answer, request)

    def _processed(self, answer: Response | None, request: Request) -> None:
        if answer is None:
            self._admit(request)
        elif isinstance(answer, Response):
            self._responder.answer(answer)
        else:
            raise TypeError(f"process_request must return a Response or None, not {type(answer).__name__}")

    def _admit(self, request: Request) -> None:
        context, conn = self._context, self._conn
        if not request._asks_websocket():
            if self._answer_by_route(request):
                return
            # A page cannot read why its WebSocket was refused. It may ask by plain HTTP.
            endpoint = context.endpoint(request.raw_path)
            check_origin(request, context.origins, request.secure)
            check = getattr(endpoint, "check", None)
            if check is not None:
                check(request)
        else:
            endpoint = context.endpoint(request.raw_path)
        self._key = check_upgrade(request)
        check_origin(request, context.origins, request.secure)
        offered_subprotocols(request)
        admission = endpoint.admit(conn, request)
        if admission is None:
            self._accept(endpoint, request)
        else:
            self._wait(admission, endpoint, request)

    def _wait(self, admission: Awaitable[None], endpoint: Endpoint, request: Request) -> None:
        """Accept the request when the endpoint has admitted it."""
        self._responder.run(admission, lambda _: self._accept(endpoint, request))

    def _answer_by_route(self, request: Request) -> bool:
        """Answer plain HTTP by a route. Return False if its path has none."""
        route = self._context.routes.get(request.raw_path)
        response: Response | None
        if request.method == "OPTIONS" and not (isinstance(route, Route) and "OPTIONS" in route.methods):
            if route is None and request.target != "*":
                self._context.endpoint(request.raw_path)  # else 404
            response = answer_options(route)
        elif isinstance(route, Route):
            self._serve_route(route, request)
            return True
        else:
            response = answer_route(self._context.routes, request)
        if response is not None:
            self._responder.answer(response)
        return response is not None

    def _serve_route(self, route: Route, request: Request) -> None:
        route.check_method(request)
        if request.method not in ("GET", "HEAD"):
            check_origin(request, self._context.origins, request.secure)
        responder = self._responder
        self._body = RequestBody(responder.rest, partial(closing.ask, self._conn), responder.is_over)
        responder.run(answer_with_body(route, request, self._body), responder.answer)

    # --- the 101 ----------------------------------------------------------------------------------

    def _accept(self, endpoint: Endpoint, request: Request) -> None:
        context, conn = self._context, self._conn
        if self._responder.over():
            return
        subprotocol = None
        if context.select_subprotocol is not None:
            subprotocol = selected_subprotocol(context.select_subprotocol, conn, request)
            if self._responder.over():
                return  # the hook has ended the connection
        elif context.subprotocols:
            subprotocol = choose_subprotocol(offered_subprotocols(request), context.subprotocols)
        deflate = None if conn._config.compression is None else conn._config.deflate
        agreement = None
        if deflate is not None:
            agreement = negotiate(request._values_of(b"sec-websocket-extensions"), deflate)
        extensions = None if agreement is None else agreement.answer
        if context.process_response is None:
            wire = accepted(self._key, subprotocol, extensions, context.extra_lines)
            self._open(endpoint, subprotocol, agreement, wire)
        else:
            headers = context.options.extra_headers
            response = accept(request, subprotocol=subprotocol, extensions=extensions, headers=headers)
            self._ask_about(response, endpoint, request, agreement)

    def _ask_about(self, response: Response, endpoint: Endpoint, request: Request, agreement: Agreement | None) -> None:
        """Call ``process_response`` for a 101, and go on with its result."""
        before = Headers(response.headers)
        subprotocol = response.headers.get("Sec-WebSocket-Protocol")

        def go_on(returned: object) -> None:
            changed = changed_upgrade(before, response, returned)
            if changed.status != 101:
                self._responder.reply(changed)
            elif not self._responder.is_over():
                wire = changed.serialize()
                self._conn._response = changed
                self._open(endpoint, subprotocol, agreement, wire)

        self._responder.ask(request, response, go_on)

    def _open(self, endpoint: Endpoint, subprotocol: str | None, agreement: Agreement | None, wire: bytes) -> None:
        context, conn = self._context, self._conn
        self._responder.accept()
        if self._slot is not None:
            self._slot.opened()
        context.requests.opened += 1
        conn._accepted_with = context.options.extra_headers
        conn._subprotocol = subprotocol
        if agreement is not None:
            use_deflate(conn, agreement)
        if conn._transport is not None:
            try:
                sent = send(conn._fd, [wire]) if conn._fd >= 0 else 0
                if sent >= 0:  # not all of it; in the context of this connection, in which it is called
                    conn._transport.write(wire[sent:])
            except Exception as exc:
                closing.transport_failed(conn, exc)
        if self._paused:
            closing.ask(conn, "resume_reading")
        if conn._ended:
            return  # the transport failed
        opened(conn)
        if logger.isEnabledFor(_DEBUG):
            _log_opened(conn)
        try:
            work = endpoint.opened(conn, self._due)
            if work is not None:
                context.start(work)
        except (Exception, asyncio.CancelledError):
            logger.exception("opening a connection failed", extra=log_extra(conn))
            conn.close_nowait(CloseCode.INTERNAL_ERROR, "the handler failed")
        request = conn._request
        if self._head is not None and request is not None:
            request._keep_only(self._head)
        rest = self._responder.rest
        if rest and not closing.ask(conn, "is_closing"):
            receive_backlog.receive(conn, bytes(rest))
        if rest:
            rest.clear()


def _log_opened(conn: Conn) -> None:
    logger.debug("opened: %s", request_line(conn), extra=log_extra(conn, "opened"))

    def closed(conn: Conn) -> None:
        logger.debug("closed with %s", conn.close_code, extra=log_extra(conn, "closed"))

    conn.add_close_callback(closed)
