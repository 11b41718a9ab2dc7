"""`serve` and `unix_serve`: listen, and make a `Conn` of every WebSocket request.

``async with serve(handler, host, port) as server`` or ``server = await serve(...)``, as in the `websockets`
package. The callbacks ``on_open``, ``on_message`` and ``on_close`` may take the place of the handler. A stop is
graceful. New connections are refused and the others closed with 1001. After the close timeout handlers are cancelled
and connections are cut.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import socket
import threading
import warnings
from collections.abc import Awaitable, Callable, Generator, Iterable, Sequence
from contextvars import Context
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NoReturn

from .. import limits
from ..auth.authentication import Authentication
from ..auth.credentials import AuthOptions
from ..auth.interfaces import TokenAuthenticator
from ..auth.token_lifetime import is_logging_in
from ..conn import closing
from ..conn.config import ConnConfig
from ..conn.connection import Conn
from ..conn.graceful_close import GracefulClose, GracefulShutdown, ShutdownReport, TimeBudget, check_graceful_close
from ..conn.handlers import CallbackEndpoint, Handler, HandlerEndpoint, OnMessage, OnOpenOrClose, cancel, endpoint_for
from ..constants import CloseCode
from ..counters import RequestCounters
from ..errors import ConcurrencyError
from ..http11.origin import LOOPBACK_HOSTS, is_loopback
from ..transport.forks import detach_on_fork, foreign_error, loop_descriptors
from ..transport.safe_calls import call_safely
from ..validation import check_call, check_callback
from .admission import ConnectionSlot
from .context import ServerContext
from .endpoints import TokenEndpoint
from .handshake import ServerHandshake
from .listener import Listener
from .options import ServerKeywords, TcpKeywords, split_options
from .signals import StopSignals
from .sockets import InheritedSocket, UnixPath, check_unix, given_sockets, tcp_sockets, unix_socket

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Server", "Serving", "serve", "unix_serve"]

logger = logging.getLogger("plumews.server")

_INET = (socket.AF_INET, socket.AF_INET6)

#: Seconds for connections that are no members of the hub, after its members: watchers of member counts.
_SHUTDOWN_REST: Final = 1.0

#: Opens the listening sockets.
Listen = Callable[[], Awaitable[Sequence[socket.socket]]]


class Server:
    """Listening server, made by ``serve``."""

    def __init__(self, context: ServerContext, config: ConnConfig, hub: GracefulShutdown | None = None) -> None:
        self._context = context
        self._config = config
        self._hub = hub  # of a room server: its members are closed first
        self._stop_timeout = config.close_timeout
        self._listener: Listener | None = None
        self._closer: asyncio.Task[None] | None = None
        self._foreign = False  # this process is a child of the one that serves
        self._thread = threading.get_ident()
        self._closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """Listening sockets; empty after the server is closed."""
        return () if self._listener is None else self._listener.sockets

    @property
    def port(self) -> int:
        """Port of the first listening TCP socket. Raises ``RuntimeError`` if there is none."""
        self._check_process()
        for sock in self.sockets:
            if sock.family in _INET:
                return int(sock.getsockname()[1])
        raise RuntimeError("this server has no port: it is closed, or listens on a Unix socket")

    @property
    def connections(self) -> set[Conn]:
        """Open connections."""
        self._check_thread()
        return {conn for conn in self._context.connections if not conn.closed}

    def is_serving(self) -> bool:
        """Return True if new connections are accepted."""
        return self._listener is not None and not self._context.closing and not self._foreign

    def close(
        self,
        code: int = CloseCode.GOING_AWAY,
        reason: str = "",
        *,
        spread: float | None = None,
        reconnect_in: float = 0.0,
    ) -> None:
        """Stop: refuse unfinished handshakes (503) and close connections with ``code``. Then :meth:`wait_closed`.

        Queued messages are sent first. Connections and handlers have the close timeout (default 10 seconds) to end.
        Then handlers are cancelled and connections cut. Only the first call counts.

        Args:
            code: close code of the close frames (default 1001).
            reason: reason of the close frames.
            spread: seconds over which they are sent, the close timeout at most (default: one for each 2,000
                connections, a fifth of the close timeout at most).
            reconnect_in: seconds within which clients are told to reconnect, each at a random moment, behind
                ``reason``: ``reconnect in 3.2 s`` (default 0: no hint; 3600 at most).

        Raises:
            ValueError: ``code`` is not allowed in a close frame, ``reason`` with the hint is longer than 123 bytes, or
                a time is out of range.
            TypeError: an argument is of the wrong kind.
        """
        self._check_thread()
        self._begin_close(self._config.close_timeout, spread, reconnect_in, code=code, reason=reason)

    async def wait_closed(self) -> None:
        """Wait until :meth:`close` was called, and all connections and handlers have ended."""
        self._check_thread()
        await asyncio.shield(self._closed)

    async def serve_forever(self) -> None:
        """Wait until the server is closed. Cancelling this closes it."""
        self._check_thread()
        try:
            await asyncio.shield(self._closed)
        except asyncio.CancelledError:
            if self._foreign:
                raise
            self.close()
            await self.wait_closed()
            raise

    async def serve_until_signal(
        self,
        timeout: float = limits.SHUTDOWN_TIMEOUT,
        *,
        spread: float | None = None,
        reconnect_in: float = limits.RECONNECT_IN,
        on_signal: Callable[[int], object] | None = None,
    ) -> ShutdownReport | None:
        """Serve until SIGINT (Ctrl-C) or SIGTERM, then stop in order, as ``plumews serve`` does.

        A room server shuts its hub down first: members get their queued messages, and new clients 503. Then all
        connections are closed with 1001. A second signal ends the process at once, with the exit code 128 plus its
        number. A closed terminal (SIGHUP) is such a signal, too, unless the program handles or ignores it. The previous
        signal handlers are restored at the end. Cancelling this closes the server.

        Args:
            timeout: seconds in which the connections have to end (default 10); then they are cut.
            spread: seconds over which the close frames are sent, ``timeout`` at most (default: one for each 2,000
                connections, a fifth of ``timeout`` at most).
            reconnect_in: seconds within which clients are told to reconnect, each at a random moment (default 5, 3600
                at most; 0: no hint).
            on_signal: called with the number of the first signal, before anything is closed.

        Returns:
            The report of the hub of a room server. ``None`` for other servers, and without a signal.

        Raises:
            RuntimeError: called on another thread than the main one, which alone gets signals.
            ValueError: a time is out of range.
            TypeError: a time is no number, or ``on_signal`` no plain function.
        """
        self._check_thread()
        check_graceful_close(timeout, spread, reconnect_in)
        if on_signal is not None:
            check_callback(on_signal)
            check_call("on_signal", on_signal, "number")
        with StopSignals() as signals:
            signal = asyncio.ensure_future(signals.first())
            try:
                await asyncio.wait((signal, self._closed), return_when=asyncio.FIRST_COMPLETED)
                if not signal.done():
                    return None
                if on_signal is not None:
                    on_signal(signal.result())
                return await self._drain(timeout, spread, reconnect_in)
            except asyncio.CancelledError:
                if not self._foreign:
                    self.close()
                    await self.wait_closed()
                raise
            finally:
                signal.cancel()

    async def __aenter__(self) -> Server:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if not self._foreign:  # else the server goes on in the parent process
            self.close()
            await self.wait_closed()

    # --- inside -----------------------------------------------------------------------------------

    def _check_thread(self) -> None:
        self._check_process()
        if threading.get_ident() != self._thread:
            raise ConcurrencyError(
                "a server belongs to the thread of its event loop: use loop.call_soon_threadsafe(server.close)"
            )

    def _connection(self, slot: ConnectionSlot | None = None, address: Any = None) -> Conn:
        conn = Conn(self._config)
        if isinstance(address, tuple):
            conn._peername = address  # asking the transport for it takes some 2,000 instructions
        conn._context = self._context.context.copy()
        conn._handshake = ServerHandshake(self._context, conn, slot)
        return conn

    async def _start(self, listen: Listen) -> None:
        listener = self._listener = Listener(self._context, await listen(), self._connection)
        if self._context.allowed_hosts is None and _only_loopback(self.sockets):
            self._context.allowed_hosts = LOOPBACK_HOSTS  # before the first request can come
        for reason in filter(None, (doubt() for doubt in self._context.doubts)):
            logger.warning("nobody can come in: %s", reason)
        try:
            await listener.start_serving()
        except BaseException:
            listener.close()
            raise
        detach_on_fork(self)

    def _forked(self) -> Iterable[int]:
        """Close nothing in this process, a child of a fork. Return the descriptors that belong to the parent."""
        self._foreign = True
        assert self._listener is not None
        fds = [*loop_descriptors(self._closed.get_loop()), *self._listener.forked()]
        for conn in self._context.connections:
            fds += closing.disown(conn)
        return fds

    def _check_process(self) -> None:
        if self._foreign:
            raise foreign_error("server")

    def _begin_close(
        self,
        timeout: float,
        spread: float | None,
        reconnect_in: float,
        *,
        code: int = CloseCode.GOING_AWAY,
        reason: str = "",
        wanted: Callable[[Conn], bool] = lambda conn: True,
    ) -> None:
        check_graceful_close(timeout, spread, reconnect_in, code=code, reason=reason)
        self._check_process()
        if self._closer is None:
            self._context.closing = True
            self._stop_timeout = timeout
            limit = TimeBudget(timeout)
            closing = GracefulClose(
                limit, code=code, reason=reason, spread=spread, reconnect_in=reconnect_in, wanted=wanted
            )
            self._closer = Context().run(asyncio.get_running_loop().create_task, self._close(limit, closing))

    async def _drain(self, timeout: float, spread: float | None, reconnect_in: float) -> ShutdownReport | None:
        """Stop in order: the members of the hub first, while the server still answers new clients with 503."""
        if self._hub is None:
            self._begin_close(timeout, spread, reconnect_in)
            await self.wait_closed()
            return None
        limit = TimeBudget(timeout)
        try:
            await self._end_handshakes(GracefulClose(limit, reconnect_in=reconnect_in))
        finally:
            limit.end()
        report = await self._hub.shutdown(timeout, spread=spread, reconnect_in=reconnect_in)
        others = self.connections
        self.close(reconnect_in=reconnect_in)
        await asyncio.wait([self._closed], timeout=_SHUTDOWN_REST)
        if not self._closed.done():
            for conn in others:
                call_safely("closing a connection", conn.abort)
            await self.wait_closed()
        return report

    async def _close(self, limit: TimeBudget, closing: GracefulClose) -> None:
        assert self._listener is not None
        try:
            self._listener.close()
            await self._listener.wait_connected()
            await self._empty(limit, closing)
            await self._listener.wait_rejected()
        finally:
            limit.end()
            self._listener.abort()
            self._closed.set_result(None)

    async def _end_handshakes(self, closing: GracefulClose) -> None:
        """End unfinished handshakes by 503, logins by message by ``closing``, and TLS handshakes without a word.

        A stop does this first. Otherwise these clients would wait for the others, and for their open timeout.
        """
        assert self._listener is not None
        self._listener.end_tls_handshakes()
        conns = list(self._context.connections)
        for conn in conns:
            if isinstance(conn._handshake, ServerHandshake):
                call_safely("closing a connection", conn._handshake.stop)
        await closing.close(filter(is_logging_in, conns), at_once=True)

    async def _empty(self, limit: TimeBudget, closing: GracefulClose) -> None:
        """Wait until all connections and handlers have ended. Cut and cancel them at the limit."""
        context, loop = self._context, asyncio.get_running_loop()
        await self._end_handshakes(closing)
        await closing.close(
            c for c in context.connections if not isinstance(c._handshake, ServerHandshake) and not is_logging_in(c)
        )
        ends = {*context.tasks, *(loop.create_task(conn.wait_closed()) for conn in context.connections)}
        if not ends:
            return
        _, late = await asyncio.wait(ends, timeout=limit.left)
        if not late:
            return
        logger.warning("stopping took longer than %g s: what is left is cut", self._stop_timeout)
        for conn in list(context.connections):
            call_safely("closing a connection", conn.abort)
        for end in late:
            cancel(end)
        await asyncio.wait(late, timeout=limits.END_GRACE)  # a task may ignore its cancellation


class Serving:
    """Result of ``serve``: await it for the server, or enter it with ``async with``.

    If it is neither awaited nor entered, it warns (``RuntimeWarning``) as a coroutine does.
    """

    def __init__(
        self, context: ServerContext, config: ConnConfig, listen: Listen, hub: GracefulShutdown | None = None
    ) -> None:
        self._context = context
        self._config = config
        self._hub = hub
        self._listen = listen
        self._server: Server | None = None
        self._begun = False

    def __del__(self) -> None:
        if not self._begun:
            warnings.warn(
                "plumews.serve() was never awaited: nothing was served; use async with, or await",
                RuntimeWarning,
                stacklevel=2,
                source=self,
            )

    if not TYPE_CHECKING:  # a checker knows the names that are missing

        def __getattr__(self, name: str) -> NoReturn:
            hint = (
                ": it belongs to the server of `async with plumews.serve(...) as server`"
                if hasattr(Server, name)
                else ""
            )
            raise AttributeError(f"plumews.serve() has no attribute {name!r} before it is entered or awaited{hint}")

    def __await__(self) -> Generator[Any, None, Server]:
        return self._start().__await__()

    async def _start(self) -> Server:
        self._begun = True
        if self._server is not None:
            raise RuntimeError("this server was started before: call serve() again for another one")
        server = self._server = Server(self._context, self._config, self._hub)
        try:
            await server._start(self._listen)
        except BaseException:
            self._server = None
            raise
        return server

    async def __aenter__(self) -> Server:
        return await self._start()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        assert self._server is not None
        await self._server.__aexit__(exc_type, exc, tb)


def serve(
    handler: Handler | None = None,
    host: str | Sequence[str] | None = None,
    port: int | None = None,
    *,
    on_open: OnOpenOrClose | None = None,
    on_message: OnMessage | None = None,
    on_close: OnOpenOrClose | None = None,
    authenticator: TokenAuthenticator | None = None,
    **options: Unpack[TcpKeywords],
) -> Serving:
    """Serve WebSockets on TCP.

    Args:
        handler: ``async def handler(conn)``, run for each connection. Its return closes the connection with 1000.
        host: address or name to listen on, or several; ``None`` is all interfaces.
        port: port to listen on; 0 takes a free one (``server.port``).
        on_open: ``f(conn)``, a plain function, called when a connection is open.
        on_message: ``f(conn, message)``, a plain function instead of a handler. It is called straight from the parser
            and answers with ``conn.send_nowait``.
        on_close: ``f(conn)``, a plain function, called when a connection is closed.
        authenticator: verifies the token of each client, such as a :class:`plumews.SimpleRoomAuth`, and sets
            ``conn.user_info`` (default: no client is asked for a token).
        options: options of the server, such as ``ssl``, ``origins``, ``routes``, ``process_request`` and
            ``open_timeout`` (see :class:`plumews.server.options.ServerOptions`); of authentication: ``require_token``,
            ``token_sources``, ``token_cookie`` and ``allow_query_secrets`` (see
            :class:`plumews.auth.credentials.AuthOptions`); and of each connection, such as ``max_size``,
            ``queue_size``, ``send_behavior`` and ``ping_interval`` (see :class:`plumews.ConnConfig`).

    Raises:
        TypeError, ValueError: an option is unknown or wrong.
        OSError: the address is in use. Raised when the result is awaited.
    """
    context, config = _configure(endpoint_for(handler, on_open, on_message, on_close), authenticator, options)
    return serve_on_tcp(context, config, host, port)


def unix_serve(
    handler: Handler | None = None,
    path: UnixPath | None = None,
    *,
    mode: int | None = None,
    on_open: OnOpenOrClose | None = None,
    on_message: OnMessage | None = None,
    on_close: OnOpenOrClose | None = None,
    authenticator: TokenAuthenticator | None = None,
    **options: Unpack[ServerKeywords],
) -> Serving:
    """Serve WebSockets on a Unix socket at ``path``, or on the Unix sockets ``sock``.

    Args:
        handler: as in :func:`serve`, like the callbacks.
        path: path of the socket file. The file of a dead server is replaced. The file is removed when the server stops
            listening, unless another server has replaced it. A path that begins with NUL is an abstract socket (Linux).
        mode: permissions of the file, such as ``0o660``, set before a client can connect (default: by the umask).
        on_open: as in :func:`serve`.
        on_message: as in :func:`serve`.
        on_close: as in :func:`serve`.
        authenticator: as in :func:`serve`.
        options: as in :func:`serve`, without ``reuse_port``.

    Raises:
        TypeError, ValueError: an option is unknown or wrong.
        OSError: a living server has the path (``EADDRINUSE``), or its file is no socket (``EEXIST``). Raised when the
            result is awaited.
    """
    context, config = _configure(endpoint_for(handler, on_open, on_message, on_close), authenticator, options)
    sock, backlog = context.options.sock, context.options.backlog
    if (path is None) == (sock is None):
        raise TypeError("give either the path of the Unix socket or sock")
    if path is None and mode is not None:
        raise TypeError("mode is for the file at path: a sock has its own")
    if context.options.reuse_port is not None:
        raise TypeError("reuse_port is for TCP: a Unix socket has no port")
    name = None if path is None else check_unix(path, mode)
    sockets = [] if sock is None else given_sockets(sock, unix=True)

    async def listen() -> Sequence[socket.socket]:
        return _listening(sockets, backlog) if name is None else [unix_socket(name, mode, backlog)]

    return Serving(context, config, listen)


def serve_on_tcp(
    context: ServerContext,
    config: ConnConfig,
    host: str | Sequence[str] | None,
    port: int | None,
    hub: GracefulShutdown | None = None,
) -> Serving:
    """Serve ``context`` on TCP as :func:`serve` does. At the stop, the members of ``hub`` are closed first."""
    sock, reuse_port, backlog = context.options.sock, context.options.reuse_port, context.options.backlog
    if sock is not None and (host is not None or port is not None or reuse_port is not None):
        raise TypeError("give either host, port and reuse_port or sock")
    if sock is None and port is None:
        raise TypeError("give a port (0 takes a free one) or sock")
    if port is not None and (isinstance(port, bool) or not isinstance(port, int)):
        raise TypeError(f"port must be an int, not {type(port).__name__}")
    if port is not None and not 0 <= port <= 65535:
        raise ValueError(f"port must be 0 to 65535, not {port}")
    if host is not None and not isinstance(host, str) and not host:
        raise ValueError("host must be at least one address or name; None is all interfaces")
    sockets = [] if sock is None else given_sockets(sock)

    async def listen() -> Sequence[socket.socket]:
        if port is None:
            return _listening(sockets, backlog)
        return await tcp_sockets(host, port, reuse_port=reuse_port, backlog=backlog)

    return Serving(context, config, listen, hub)


def _configure(
    inside: HandlerEndpoint | CallbackEndpoint, authenticator: TokenAuthenticator | None, options: ServerKeywords
) -> tuple[ServerContext, ConnConfig]:
    """Return the context of a server of ``inside``, behind the ``authenticator`` if there is one."""
    server_options, auth_options, config = split_options(options)
    if authenticator is None:
        if auth_options.require_token:
            raise TypeError("require_token=True needs an authenticator, such as plumews.SimpleRoomAuth(secret)")
        if dataclasses.replace(auth_options, require_token=None) != AuthOptions():
            raise TypeError("token_sources, token_cookie and allow_query_secrets need an authenticator")
        return ServerContext({None: inside}, server_options), config
    if isinstance(authenticator, type) or not callable(getattr(authenticator, "verify_jwt", None)):
        raise TypeError("authenticator must be a plumews.SimpleRoomAuth(...), or have its method verify_jwt")
    auth_options.check_origins(server_options.origins)
    if auth_options.require_token is None:
        auth_options = dataclasses.replace(auth_options, require_token=True)
    requests = RequestCounters()
    authentication = Authentication(authenticator, auth_options, counters=requests)
    endpoint = TokenEndpoint(authentication, inside)
    return ServerContext({None: endpoint}, server_options, requests, [authentication.doubt]), config


def _listening(sockets: Sequence[socket.socket], backlog: int) -> Sequence[socket.socket]:
    for sock in sockets:
        if not isinstance(sock, InheritedSocket):
            sock.listen(backlog)
    return sockets


def _only_loopback(sockets: Sequence[socket.socket]) -> bool:
    inet = [sock for sock in sockets if sock.family in _INET]
    return bool(inet) and all(is_loopback(sock.getsockname()[0]) for sock in inet)
