"""WebSocket class for uvicorn: ``uvicorn app:app --ws plumews.asgi:PlumeProtocol``.

uvicorn's HTTP protocol hands an upgrade over: it calls ``connection_made``, passes the head of the request to
``data_received``, and makes this object the protocol of the transport. Then the transport is given to the connection,
if it is one of asyncio's or uvloop's own. With any other transport this object stays its protocol and passes the calls
on.

Invariants: the object is in ``server_state.connections`` until the connection is gone. Bytes behind the head wait for
the application to accept, within a bound.
"""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING, Any, ClassVar, Final
from weakref import ReferenceType, WeakKeyDictionary, ref

from .. import limits
from ..conn import closing, receive_backlog
from ..conn.connection import Conn
from ..conn.opening import made, opened, use_deflate
from ..constants import ErrorCode
from ..deflate.config import Agreement, negotiate
from ..errors import InvalidHandshake, Refused
from ..http11.handshake import accepted, check_upgrade, offered_subprotocols, refusal
from ..http11.headers import Headers
from ..http11.origin import check_origin
from ..http11.parser import HeadReader
from ..http11.request import Request, address_of
from .application import Application
from .context import AsgiContext, AsgiOptions, ServerConfig, ServerState, log_access, logger
from .denial import respond
from .foreign_transport import ForeignTransport, is_own
from .scope import Scope, build_scope, note_client

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["PlumeProtocol"]

#: Bytes and headers of a request, which uvicorn has read already.
_HEAD_SIZE: Final = 4 * limits.HEAD_SIZE
_HEADER_COUNT: Final = 256


class PlumeProtocol(asyncio.Protocol):
    """Protocol of one WebSocket under uvicorn.

    Args:
        config: ``uvicorn.Config``.
        server_state: state that all connections of the server share.
        app_state: state of the lifespan.
    """

    __slots__ = (
        "__weakref__",
        "_agreement",
        "_app_state",
        "_application",
        "_conn",
        "_context",
        "_key",
        "_own",
        "_paused",
        "_reader",
        "_rest",
        "_server_state",
        "transport",
    )

    _options: ClassVar[AsgiOptions] = AsgiOptions({})
    _contexts: ClassVar[WeakKeyDictionary[Any, AsgiContext]] = WeakKeyDictionary()
    #: The context of the newest connection: mostly there is one server.
    _newest: ClassVar[ReferenceType[AsgiContext] | None] = None

    def __init__(
        self,
        config: ServerConfig,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        if not config.loaded:
            config.load()
        newest = self._newest
        context = None if newest is None else newest()
        if context is None or context.config() is not config:
            context = self._context_of(config)
        self._context = context
        self._server_state = server_state
        self._app_state = app_state
        self.transport: asyncio.BaseTransport | None = None
        self._conn: Conn | None = None
        self._application: Application | None = None
        self._reader: HeadReader | None = HeadReader(_HEAD_SIZE, _HEADER_COUNT, any_target=True, rebuilt=True)
        self._key = ""  # of the client
        self._agreement: Agreement | None = None
        self._rest: bytearray | None = None
        self._own = False  # the transport is one of asyncio's or uvloop's own
        self._paused = False

    @classmethod
    def _context_of(cls, config: ServerConfig) -> AsgiContext:
        context = cls._contexts.get(config)
        if context is None:
            context = cls._contexts[config] = AsgiContext(config, cls._options)
        cls._newest = ref(context)
        return context

    @classmethod
    def with_options(cls, **options: Any) -> type[PlumeProtocol]:
        """Return a class for ``--ws`` with options of ours: ``ws = PlumeProtocol.with_options(origins=[...])``.

        Args:
            options: ``origins``, whose pages may connect beside the server's own, as in :func:`plumews.serve` (default:
                no origin is checked). ``max_connections``, WebSockets of the server at a time, beyond which requests
                are refused with 503 (default: no limit). All options of :class:`plumews.ConnConfig` replace those of
                uvicorn. With one of ``queue_size``, ``queue_bytes``, ``send_timeout`` and ``send_behavior``, ``send``
                returns when a message is queued. By default it waits until the transport takes more.

        Raises:
            TypeError, ValueError: an option does not exist, or has a wrong value.
        """
        checked = AsgiOptions({**cls._options.given, **options})
        members: dict[str, Any] = {
            "__slots__": (),
            "__doc__": cls.__doc__,
            "_options": checked,
            "_contexts": WeakKeyDictionary(),
            "_newest": None,
        }
        return type(cls.__name__, (cls,), members)

    # --- calls of uvicorn and of the transport ----------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._server_state.connections.add(self)
        self.transport = transport
        conn = self._conn = Conn(self._context.conn_config)
        conn._handshake = self
        self._own = is_own(transport)
        made(conn, transport if self._own else ForeignTransport(transport))

    def data_received(self, data: bytes) -> None:
        conn = self._conn
        if conn is None or conn._transport is None:
            return
        if conn._handshake is None:
            conn.data_received(data)
            return
        try:
            self.received(bytes(data))
        except BaseException as exc:
            closing.fail(conn, exc)

    def eof_received(self) -> bool | None:
        return None if self._conn is None else self._conn.eof_received()

    def pause_writing(self) -> None:
        if self._conn is not None:
            self._conn.pause_writing()

    def resume_writing(self) -> None:
        if self._conn is not None:
            self._conn.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._conn is not None:
            self._conn.connection_lost(exc)
        self._server_state.connections.discard(self)

    def shutdown(self) -> None:
        """Close the connection, because the server stops."""
        conn = self._conn
        if conn is not None:
            self._context.shutdown_queue.add(self._stop, conn._loop)

    def _stop(self) -> None:
        if self._application is not None:
            self._application.stop()
        elif self._conn is not None:  # no request has come, or it was refused
            closing.close_gently(self._conn)
            closing.hasten(self._conn, self._context.close_timeout)

    # --- calls of the connection, while it is opening ---------------------------------------------

    def connected(self) -> None:
        """Do nothing: the request comes by :meth:`data_received`."""

    def received(self, data: bytes) -> None:
        """Read the head of the request. Keep what is behind it, until the application has accepted."""
        if self._reader is None:
            self._keep(data)
            return
        try:
            request = self._reader.feed(data)
            if request is not None:
                self._begin(request)
        except InvalidHandshake as exc:
            self._refuse(exc)

    def lost(self, conn: Conn | None = None) -> None:
        """Forget the connection, which is gone."""
        self._server_state.connections.discard(self)
        application, self._application = self._application, None
        self._conn = self._reader = self._rest = None
        if application is not None:
            self._context.connections -= 1
            application.gone()

    left = lost  # called by an open connection, whose slot this object is

    def _keep(self, data: bytes) -> None:
        if self._application is None or self._conn is None:
            return  # the request was refused
        if self._rest is None:
            self._rest = bytearray()
        self._rest += data
        if len(self._rest) > limits.HEAD_SIZE and not self._paused:
            self._paused = True
            closing.ask(self._conn, "pause_reading")

    # --- the request ------------------------------------------------------------------------------

    def _begin(self, request: Request) -> None:
        """Check the request, and start the application."""
        assert self._conn is not None
        assert self._reader is not None
        context, conn, reader = self._context, self._conn, self._reader
        self._reader = None
        conn._request = request
        request.remote_address = conn._peername
        request.client_address = address_of(conn._peername)
        request.secure = conn._fd < 0 and bool(conn.get_extra_info("sslcontext"))  # a plain socket costs no question
        self._key = check_upgrade(request)
        subprotocols = offered_subprotocols(request)
        if context.deflate is not None:
            self._agreement = negotiate(request._values_of(b"sec-websocket-extensions"), context.deflate)
        scope = build_scope(context, conn, request, subprotocols, self._app_state)
        if context.options.checks:
            self._check_options(request, scope)
        if reader.head is not None:
            request._keep_only(reader.head)
        tasks = self._server_state.tasks
        self._application = application = Application(context, self, conn, scope, tasks)
        context.connections += 1
        if reader.rest:
            self._keep(reader.rest)
        create_task = conn._loop.create_task
        work = application.run()
        task = contextvars.Context().run(create_task, work) if context.reset_contextvars else create_task(work)
        application.task = task
        tasks.add(task)

    def _check_options(self, request: Request, scope: Scope) -> None:
        """Refuse a request of a foreign page, and one beyond the limit of connections, if the options say so."""
        context, options = self._context, self._context.options
        if options.max_connections is not None and context.connections >= options.max_connections:
            log_access(scope, "503")
            raise Refused.busy("too many connections", ErrorCode.TOO_MANY_CONNECTIONS)
        if options.origins is not None:
            seen = context.behind_proxies(scope)
            request.secure = seen["scheme"] == "wss"
            try:
                check_origin(request, options.origins, request.secure)
            except InvalidHandshake as exc:
                log_access(seen, f"{exc.status}")
                raise

    def _refuse(self, exc: InvalidHandshake) -> None:
        """Answer a request that is refused before the application sees it."""
        self._reader = None
        conn = self._conn
        if conn is not None:
            logger.info("WebSocket request refused with %d: %s", exc.status, exc)
            response = refusal(exc, str(conn.id))
            response.headers = Headers(self.default_headers(), response.headers)
            respond(conn, response)

    # --- calls of the application -----------------------------------------------------------------

    def default_headers(self) -> Headers:
        """Return the headers that the server adds to each response."""
        return self._context.defaults(self._server_state)[0]

    def hand_over(self) -> None:
        """Give the transport to the connection, if it is one of asyncio's or uvloop's own."""
        conn = self._conn
        if self._own and conn is not None and conn._transport is not None:
            try:
                conn._transport.set_protocol(conn)
            except Exception as exc:
                closing.transport_failed(conn, exc)

    def accept(self, scope: Scope, subprotocol: str | None, headers: Headers | None) -> bool:
        """Write the 101. Return False if the client has gone.

        Args:
            scope: scope of the request, in which a middleware may have put what a trusted proxy says.
            subprotocol: chosen subprotocol.
            headers: headers of the application, ``None`` without any.
        """
        context, conn = self._context, self._conn
        if conn is None or conn._request is None or conn._transport is None:
            return False
        note_client(conn._request, scope)
        added, lines = context.defaults(self._server_state)
        if headers is not None:
            added, lines = Headers(added, headers), lines + headers.serialize()[:-2]
        agreement = self._agreement
        wire = accepted(self._key, subprotocol, None if agreement is None else agreement.answer, lines)
        conn._accepted_with = added
        conn._subprotocol = subprotocol
        if agreement is not None:
            use_deflate(conn, agreement)
        try:
            conn._transport.write(wire)
        except Exception as exc:
            closing.transport_failed(conn, exc)
        return not conn._ended

    def opened(self, on_open: Callable[[Conn], None] | None) -> None:
        """Open the connection, behind the 101, call ``on_open(conn)``, and handle the bytes that came before."""
        conn = self._conn
        assert conn is not None
        if self._paused:
            closing.ask(conn, "resume_reading")
        conn._slot = self
        conn._end_waiters += 1  # without a reader the peer's close is answered at once
        opened(conn)
        if on_open is not None:
            on_open(conn)
        rest, self._rest = self._rest, None
        if rest:
            receive_backlog.receive(conn, bytes(rest))
