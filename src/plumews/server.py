"""`serve` and `unix_serve`: listen, and make a `Conn` of every WebSocket request (layer 5).

``async with serve(handler, host, port) as server`` or ``server = await serve(...)``, as in the `websockets`
package. Beside the handler there is the callback door: ``on_open``, ``on_message``, ``on_close``. Stopping is
graceful: no new connections, 1001 to everybody, handlers get the close timeout, then the rest is cut.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl as ssl_module
from collections.abc import Awaitable, Callable, Collection, Generator, Sequence
from types import TracebackType
from typing import Any

from . import limits
from .conn import Conn
from .constants import CloseCode, SendBehavior
from .endpoints import Handler, HandlerEndpoint, OnMessage, OnOpenOrClose, endpoint_for
from .headers import HeadersLike
from .opening import Endpoint, Opening, ProcessRequest, Site
from .origin import LOOPBACK_HOSTS, is_loopback, validate_allowed
from .protocol import check_close
from .routes import Routes
from .settings import ConnConfig

__all__ = ["Server", "Serving", "serve", "unix_serve"]

logger = logging.getLogger("plumews.server")

#: Makes the listening socket: called with the factory of protocols.
Listen = Callable[[Callable[[], Conn]], Awaitable[asyncio.AbstractServer]]


class Server:
    """A listening server. ``serve`` makes it."""

    def __init__(self, site: Site, config: ConnConfig) -> None:
        self._site = site
        self._config = config
        self._server: asyncio.AbstractServer | None = None
        self._closer: asyncio.Task[None] | None = None
        self._closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """The listening sockets; with ``port=0`` ask ``server.sockets[0].getsockname()[1]``."""
        server = self._server
        return tuple(server.sockets) if isinstance(server, asyncio.Server) else tuple(getattr(server, "sockets", ()))

    @property
    def port(self) -> int:
        """The port of the first listening socket."""
        return int(self.sockets[0].getsockname()[1])

    @property
    def connections(self) -> set[Conn]:
        """The open connections."""
        return {conn for conn in self._site.connections if not conn.closed}

    def is_serving(self) -> bool:
        """Whether new connections are accepted."""
        return self._server is not None and not self._site.closing

    def close(self, code: int = CloseCode.GOING_AWAY, reason: str = "") -> None:
        """Stop: refuse new connections (503), close the others with ``code``. Then :meth:`wait_closed`.

        Handlers get the close timeout (default 10 s) to end, then they are cancelled and what is left is cut.
        Closing twice is harmless.
        """
        check_close(code, reason)
        if self._closer is None:
            self._site.closing = True
            self._closer = asyncio.get_running_loop().create_task(self._close(code, reason))

    async def wait_closed(self) -> None:
        """Until :meth:`close` was called and everything has ended."""
        await asyncio.shield(self._closed)

    async def serve_forever(self) -> None:
        """Until the server is closed; cancelling this closes it."""
        try:
            await asyncio.shield(self._closed)
        except asyncio.CancelledError:
            self.close()
            await self.wait_closed()
            raise

    async def __aenter__(self) -> Server:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()
        await self.wait_closed()

    # --- inside -----------------------------------------------------------------------------------

    def _connection(self) -> Conn:
        conn = Conn(self._config)
        conn._door = Opening(self._site, conn)
        return conn

    async def _listen(self, listen: Listen) -> None:
        self._server = await listen(self._connection)

    async def _close(self, code: int, reason: str) -> None:
        assert self._server is not None
        self._server.close()
        deadline = asyncio.get_running_loop().time() + self._config.close_timeout
        waits = []
        for conn in list(self._site.connections):
            if not conn.closed:
                conn.close_nowait(code, reason)
            waits.append(asyncio.ensure_future(conn.wait_closed()))
        tasks: set[asyncio.Future[Any]] = {*waits, *self._site.tasks}
        for endpoint in self._site.endpoints.values():
            if isinstance(endpoint, HandlerEndpoint):
                tasks |= endpoint.tasks
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=deadline - asyncio.get_running_loop().time())
            for task in late:
                task.cancel()
            for conn in list(self._site.connections):
                conn.abort()
            if late:
                logger.warning("stopping took longer than %g s: %d left", self._config.close_timeout, len(late))
                await asyncio.wait(late)
        with contextlib.suppress(Exception):
            await self._server.wait_closed()
        if not self._closed.done():
            self._closed.set_result(None)


class Serving:
    """What ``serve`` returns: await it for the server, or enter it with ``async with``."""

    def __init__(self, site: Site, config: ConnConfig, listen: Listen) -> None:
        self._site = site
        self._config = config
        self._listen = listen
        self._server: Server | None = None

    def __await__(self) -> Generator[Any, None, Server]:
        return self._start().__await__()

    async def _start(self) -> Server:
        if self._server is not None:
            raise RuntimeError("this server was started before: call serve() again for another one")
        server = self._server = Server(self._site, self._config)
        await server._listen(self._listen)
        if self._site.allowed_hosts is None and _only_loopback(server.sockets):
            self._site.allowed_hosts = LOOPBACK_HOSTS
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
    sock: socket.socket | None = None,
    reuse_port: bool | None = None,
    backlog: int = 1024,
    **options: Any,
) -> Serving:
    """Serve WebSockets on TCP.

    Args:
        handler: ``async def handler(conn)``, run for each connection; its return closes with 1000.
        host, port: where to listen; ``port=0`` takes a free one (``server.port``), ``host=None`` all interfaces.
        on_open, on_message, on_close: instead of a handler, plain functions ``f(conn)``, ``f(conn, message)``,
            ``f(conn)`` that are called straight from the parser; they answer with ``conn.send_nowait``.
        sock: an existing socket instead of ``host`` and ``port``.
        reuse_port: let several processes listen on one port.
        options: see :func:`site_options` for those of the server (``ssl``, ``origins``, ``allowed_hosts``,
            ``subprotocols``, ``process_request``, ``extra_headers``, ``routes``, ``open_timeout``) and
            :class:`plumews.ConnConfig` for those of each connection (``max_size``, ``max_queue``, ``queue_size``,
            ``send_timeout``, ``send_behavior``, ``ping_interval``, ``ping_timeout``, ``close_timeout`` ...).

    Raises:
        TypeError, ValueError: an option is unknown or wrong. OSError: the address is in use, when it is awaited.
    """
    return serve_endpoints(
        {None: endpoint_for(handler, on_open, on_message, on_close)},
        host,
        port,
        sock=sock,
        reuse_port=reuse_port,
        backlog=backlog,
        **options,
    )


def unix_serve(
    handler: Handler | None = None,
    path: str | None = None,
    *,
    on_open: OnOpenOrClose | None = None,
    on_message: OnMessage | None = None,
    on_close: OnOpenOrClose | None = None,
    sock: socket.socket | None = None,
    backlog: int = 1024,
    **options: Any,
) -> Serving:
    """Serve WebSockets on a Unix socket at ``path``. Options as in :func:`serve`."""
    if (path is None) == (sock is None):
        raise TypeError("give either the path of the Unix socket or sock")
    site, config, ssl = site_options({None: endpoint_for(handler, on_open, on_message, on_close)}, **options)

    async def listen(factory: Callable[[], Conn]) -> asyncio.AbstractServer:
        loop = asyncio.get_running_loop()
        return await loop.create_unix_server(factory, path, sock=sock, backlog=backlog, **_tls(ssl, site))

    return Serving(site, config, listen)


def serve_endpoints(
    endpoints: dict[str | None, Endpoint],
    host: str | Sequence[str] | None = None,
    port: int | None = None,
    *,
    sock: socket.socket | None = None,
    reuse_port: bool | None = None,
    backlog: int = 1024,
    **options: Any,
) -> Serving:
    """:func:`serve` with an endpoint for each path (``None`` is any path)."""
    if sock is not None and (host is not None or port is not None):
        raise TypeError("give either host and port or sock")
    if sock is None and port is None:
        raise TypeError("give a port (0 takes a free one) or sock")
    site, config, ssl = site_options(endpoints, **options)

    async def listen(factory: Callable[[], Conn]) -> asyncio.AbstractServer:
        loop = asyncio.get_running_loop()
        tls = _tls(ssl, site)
        if sock is not None:
            return await loop.create_server(factory, sock=sock, backlog=backlog, **tls)
        return await loop.create_server(factory, host, port, reuse_port=reuse_port, backlog=backlog, **tls)

    return Serving(site, config, listen)


def site_options(
    endpoints: dict[str | None, Endpoint],
    *,
    ssl: ssl_module.SSLContext | None = None,
    origins: Collection[str | None] | None = None,
    allowed_hosts: Collection[str] | None = None,
    subprotocols: Sequence[str] = (),
    process_request: ProcessRequest | None = None,
    extra_headers: HeadersLike = (),
    routes: Routes | None = None,
    open_timeout: float = limits.OPEN_TIMEOUT,
    max_size: int | None = limits.READ_LIMIT,
    max_queue: int = limits.MAX_QUEUE,
    max_queue_bytes: int = limits.MAX_QUEUE_BYTES,
    queue_size: int = limits.QUEUE_SIZE,
    queue_bytes: int = limits.QUEUE_BYTES,
    send_timeout: float | None = limits.SEND_TIMEOUT,
    send_behavior: SendBehavior = SendBehavior.BLOCK,
    ping_interval: float | None = limits.PING_INTERVAL,
    ping_timeout: float | None = limits.PING_TIMEOUT,
    close_timeout: float = limits.CLOSE_TIMEOUT,
    fragment_size: int = limits.FRAGMENT_SIZE,
) -> tuple[Site, ConnConfig, ssl_module.SSLContext | None]:
    """The keywords that all doors of a server share.

    Args:
        ssl: serve ``wss`` with this context.
        origins: pages of these origins may connect beside the server's own (``"https://example.com"``; ``"*"`` is
            any, ``None`` in the list changes nothing). A request without ``Origin`` comes from no browser.
        allowed_hosts: names that the ``Host`` header may have (``"*"`` is any); by default the loopback names when
            the server listens on loopback only, else any.
        subprotocols: those the server speaks, in the order of its preference.
        process_request: ``f(conn, request)``, async or not, called first: a ``Response`` answers instead of the
            WebSocket.
        extra_headers: added to the 101.
        routes: plain HTTP answers by path, ``f(request) -> Response``.
        open_timeout: seconds from the accepted connection to the open WebSocket (default 10).
    """
    if isinstance(subprotocols, str):
        raise TypeError("subprotocols must be a sequence of str, not a str")
    if isinstance(open_timeout, bool) or not isinstance(open_timeout, (int, float)) or not open_timeout > 0:
        raise ValueError(f"open_timeout must be more than 0 seconds, not {open_timeout!r}")
    validate_allowed(origins, allowed_hosts)
    config = ConnConfig(
        max_size=max_size,
        max_queue=max_queue,
        max_queue_bytes=max_queue_bytes,
        queue_size=queue_size,
        queue_bytes=queue_bytes,
        send_timeout=send_timeout,
        send_behavior=send_behavior,
        ping_interval=ping_interval,
        ping_timeout=ping_timeout,
        close_timeout=close_timeout,
        fragment_size=fragment_size,
    )
    site = Site(
        endpoints,
        routes=dict(routes or {}),
        origins=origins,
        allowed_hosts=allowed_hosts,
        subprotocols=tuple(subprotocols),
        process_request=process_request,
        extra_headers=extra_headers,
        open_timeout=open_timeout,
        secure=ssl is not None,
    )
    return site, config, ssl


def _tls(ssl: ssl_module.SSLContext | None, site: Site) -> dict[str, Any]:
    return {} if ssl is None else {"ssl": ssl, "ssl_handshake_timeout": site.open_timeout}


def _only_loopback(sockets: Sequence[socket.socket]) -> bool:
    inet = [sock for sock in sockets if sock.family in (socket.AF_INET, socket.AF_INET6)]
    return bool(inet) and all(is_loopback(sock.getsockname()[0]) for sock in inet)
