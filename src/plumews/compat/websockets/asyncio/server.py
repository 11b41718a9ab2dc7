"""Servers with the functions and classes of ``websockets.asyncio.server``, over :func:`plumews.serve`.

`serve` and `unix_serve` take the options of the `websockets` package, with its defaults, and those that only plumews
has. They return a `Server`, which is awaited, or entered with ``async with``.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import functools
import hmac
import http
import logging
import re
import socket
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from .... import limits
from ....conn.connection import Conn
from ....constants import CloseCode, State
from ....server import server as native
from ....server.options import ServerOptions
from ....server.sockets import tcp_sockets
from ..http11 import SERVER, Request, Response
from ..typing import LoggerLike, Origin, PathLike, StatusLike, Subprotocol
from .connection import FOREVER, Connection, broadcast, overridden
from .handshake import Handshakes, plain_response
from .options import check_hook, conn_options, listening_options, takes_path

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Server", "ServerConnection", "basic_auth", "broadcast", "serve", "unix_serve"]

ProcessRequest: TypeAlias = "Callable[[ServerConnection, Request], Awaitable[Response | None] | Response | None]"
ProcessResponse: TypeAlias = (
    "Callable[[ServerConnection, Request, Response], Awaitable[Response | None] | Response | None]"
)
SelectSubprotocol: TypeAlias = "Callable[[ServerConnection, Sequence[Subprotocol]], Subprotocol | None]"


class ServerConnection(Connection):
    """WebSocket connection of a server, as handlers and hooks get it.

    Attributes:
        username: User that :func:`basic_auth` has let in.
        handler: Handler that :func:`plumews.compat.websockets.asyncio.router.route` has found.
        handler_kwargs: Its keyword arguments.
    """

    if TYPE_CHECKING:
        username: str
        handler: Callable[..., Awaitable[object]]
        handler_kwargs: Mapping[str, Any]

    is_client = False
    side = "server"

    def respond(self, status: StatusLike, text: str) -> Response:
        """Return a plain HTTP response, for ``process_request`` and ``process_response``.

        Args:
            status: HTTP status.
            text: body of the response.
        """
        return plain_response(status, text)


class Server:
    """WebSocket server, made by :func:`serve`. Await it, or enter it with ``async with``."""

    def __init__(
        self,
        handshakes: Handshakes,
        logger: LoggerLike,
        serving: Callable[..., native.Serving],
        bind: Callable[[], Awaitable[Sequence[socket.socket]]] | None,
    ) -> None:
        self.logger = logger
        self._handshakes = handshakes
        self._serving = serving
        self._bind = bind
        # Made now, so that wrong options raise now. Bound sockets are not there yet.
        self._begun: native.Serving | None = serving() if bind is None else None
        self._bound: Sequence[socket.socket] = ()
        self._native: native.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        #: Calls of the ``close()`` of subclasses.
        self._closings: set[asyncio.Task[None]] = set()

    @property
    def server(self) -> native.Server:
        """The :class:`plumews.Server`. Reading it raises ``AttributeError`` before the server has started."""
        if self._native is None:
            raise AttributeError("the server has not started: await it, or enter it with async with")
        return self._native

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """Listening sockets; empty after the server is closed."""
        return tuple(self._bound) if self._native is None and self._loop is not None else self.server.sockets

    @property
    def connections(self) -> set[ServerConnection]:
        """Open connections."""
        return {connection for connection in self._handshakes.connections.values() if connection.state is State.OPEN}

    @property
    def websockets(self) -> set[ServerConnection]:
        """Open connections (legacy)."""
        return self.connections

    def close(
        self, close_connections: bool = True, code: CloseCode | int = CloseCode.GOING_AWAY, reason: str = ""
    ) -> None:
        """Stop: refuse new connections, close the others, and wait until their handlers have returned.

        Args:
            close_connections: False leaves the connections open until their clients or handlers close them.
            code: close code of the close frames (default 1001).
            reason: reason of the close frames.
        """
        if self._native is None and self._loop is not None:  # with start_serving=False
            for sock in self._bound:
                sock.close()
            self._bound = ()
            return
        self.server._check_thread()
        if not self.get_loop().is_running():  # between two calls of `run_until_complete`
            self.get_loop().call_soon(self._close, close_connections, int(code), reason)
        else:
            self._close(close_connections, int(code), reason)

    def _close(self, close_connections: bool, code: int, reason: str) -> None:
        server = self.server
        if server._closer is None:
            self.logger.info("server closing")

            def wanted(conn: Conn) -> bool:
                connection = self._handshakes.connections.get(conn)
                if not close_connections or connection is None or not connection._replaces("close"):
                    return close_connections
                task = self.get_loop().create_task(connection.close(code, reason))
                self._closings.add(task)
                task.add_done_callback(self._closings.discard)
                return False

            server._begin_close(FOREVER, 0.0, 0.0, code=code, reason=reason, wanted=wanted)
            assert server._closer is not None
            server._closer.add_done_callback(lambda closer: self.logger.info("server closed"))

    async def wait_closed(self) -> None:
        """Wait until :meth:`close` was called, and all connections and handlers have ended."""
        if self._native is not None or self._bound or self._loop is None:
            await self.server.wait_closed()

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the event loop of the server."""
        if self._loop is None:
            raise AttributeError("the server has not started: await it, or enter it with async with")
        return self._loop

    async def start_serving(self) -> None:
        """Begin to accept connections, with ``start_serving=False``. Otherwise the server has begun."""
        if self._native is None:
            self._begun = self._begun or self._serving(sock=self._bound)
            self._native = await self._begun
            self._begun = None
            for sock in self._native.sockets:
                self.logger.info("server listening on %s", _name_of(sock))

    async def serve_forever(self) -> None:
        """Serve until the server is closed. Cancelling this closes it."""
        await self.start_serving()
        try:
            await self.wait_closed()
        except asyncio.CancelledError:
            if not self.server._foreign:  # else the server goes on in the parent process
                self.close()
                await self.wait_closed()
            raise

    def is_serving(self) -> bool:
        """Return True if new connections are accepted."""
        return self._native is not None and self._native.is_serving()

    async def _start(self) -> Self:
        if self._loop is None:
            if self._bind is None:
                await self.start_serving()
            else:
                self._bound = await self._bind()
            self._loop = asyncio.get_running_loop()
        return self

    def __await__(self) -> Generator[Any, None, Self]:
        return self._start().__await__()

    async def __aenter__(self) -> Self:
        return await self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._native is None or not self._native._foreign:
            self.close()
            await self.wait_closed()


def _name_of(sock: socket.socket) -> str:
    name = sock.getsockname()
    if not isinstance(name, tuple):
        return str(name)
    return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"


def serve(
    handler: Callable[..., Awaitable[object]],
    host: str | Sequence[str] | None = None,
    port: int | None = None,
    *,
    origins: Sequence[Origin | str | re.Pattern[str] | None] | None = None,
    extensions: None = None,
    subprotocols: Sequence[Subprotocol] | Sequence[str] | None = None,
    select_subprotocol: SelectSubprotocol | None = None,
    compression: Any = "deflate",
    process_request: ProcessRequest | None = None,
    process_response: ProcessResponse | None = None,
    server_header: str | None = SERVER,
    open_timeout: float | None = 10,
    ping_interval: float | None = 20,
    ping_timeout: float | None = 20,
    close_timeout: float | None = 10,
    max_size: int | tuple[int | None, int | None] | None = 2**20,
    max_queue: int | tuple[int | None, int | None] | None = 16,
    write_limit: int | tuple[int, int | None] = 2**15,
    logger: LoggerLike | None = None,
    create_connection: Callable[..., ServerConnection] | None = None,
    **kwargs: Any,
) -> Server:
    """Serve WebSockets on TCP.

    Args:
        handler: ``async def handler(websocket)``, run for each connection; ``handler(websocket, path)`` works, too.
        host: address or name to listen on, or several; ``None`` is all interfaces.
        port: port to listen on, a string of digits, too; ``None`` and 0 take a free one.
        origins: acceptable origins, patterns included; ``None`` in the list accepts requests without one. Without the
            option the pages of all sites may connect.
        extensions: refused; ``compression`` has the parameters of permessage-deflate.
        subprotocols: supported subprotocols, in the order of preference. A client that offers none gets 400.
        select_subprotocol: ``f(websocket, offered)`` in place of ``subprotocols``.
        compression: ``"deflate"`` (default), a :class:`plumews.Deflate`, or ``None``.
        process_request: ``f(websocket, request)``, async or not. A response takes the place of the WebSocket.
        process_response: ``f(websocket, request, response)``, async or not. It may change the response.
        server_header: value of the ``Server`` header, or ``None``.
        open_timeout: seconds for the opening handshake, TLS included, or ``None``.
        ping_interval: seconds between two pings, or ``None``.
        ping_timeout: seconds for a sign of life after a ping, or ``None``.
        close_timeout: seconds for the closing handshake, or ``None``.
        max_size: bytes of the largest message, or ``None``. A tuple may not bound fragments below it.
        max_queue: received messages that wait before reading stops (by default 256, as in plumews). Of a tuple the
            first counts.
        write_limit: bytes that may be queued before a send waits. Of a tuple the first counts.
        logger: logger of the server and its connections (default ``"websockets.server"``).
        create_connection: a subclass of :class:`ServerConnection`, or a function that takes its arguments.
        kwargs: ``ssl``, ``sock``, ``reuse_port``, ``backlog`` and ``start_serving`` of `loop.create_server`, and the
            options of :func:`plumews.serve` that only plumews has.

    Raises:
        TypeError, ValueError: an option is unknown, wrong, or cannot mean the same here.
        OSError: the address is in use. Raised when the result is awaited.
    """
    if extensions is not None:
        kwargs["extensions"] = extensions
    unix, start = kwargs.pop("unix", False), kwargs.pop("start_serving", True)
    path, mode = (kwargs.pop("path", None), kwargs.pop("mode", None)) if unix else (None, None)
    listening = listening_options(kwargs)
    options = conn_options(
        compression=compression,
        open_timeout=open_timeout,
        ping_interval=ping_interval,
        ping_timeout=ping_timeout,
        close_timeout=close_timeout,
        max_size=max_size,
        max_queue=max_queue,
        write_limit=write_limit,
    )
    check_hook("process_request", process_request, "connection", "request")
    check_hook("process_response", process_response, "connection", "request", "response")
    check_hook("select_subprotocol", select_subprotocol, "connection", "subprotocols")
    ServerOptions(subprotocols=subprotocols or ())  # raises for a wrong one
    if takes_path(handler):
        handler = _with_path(handler)
    if logger is None:
        logger = logging.getLogger("websockets.server")
    kind = ServerConnection if create_connection is None else create_connection
    if isinstance(kind, type) and (unused := overridden(kind)):
        raise TypeError(
            f"{kind.__name__} overrides {', '.join(unused)}, which nothing calls here: "
            "override recv, send, ping and close, or use process_request and process_response"
        )
    settings: dict[str, Any] = {
        "ping_interval": ping_interval,
        "ping_timeout": ping_timeout,
        "close_timeout": close_timeout,
        "max_queue": max_queue,
        "write_limit": write_limit,
    }
    handshakes = Handshakes(
        handler=handler,
        create=lambda protocol: kind(protocol, server, **settings),
        logger=logger,
        origins=origins,
        subprotocols=subprotocols or (),
        select_subprotocol=select_subprotocol,
        process_request=process_request,
        process_response=process_response,
        server_header=server_header,
    )
    options |= {**listening, **handshakes.options()}
    bind: Callable[[], Awaitable[Sequence[socket.socket]]] | None = None
    serving: Callable[..., native.Serving]
    if unix:
        if not start:
            raise TypeError("start_serving=False is for TCP: await unix_serve() when it has to begin")
        serving = functools.partial(native.unix_serve, handshakes.handle, path, mode=mode, **options)
    elif options.get("sock") is not None:
        serving = functools.partial(native.serve, handshakes.handle, host, port, **options)
    elif start:
        serving = functools.partial(native.serve, handshakes.handle, host, int(port or 0), **options)
    else:
        reuse_port, backlog = options.pop("reuse_port", None), options.get("backlog", limits.BACKLOG)
        bind = functools.partial(tcp_sockets, host, int(port or 0), reuse_port=reuse_port, backlog=backlog)
        serving = functools.partial(native.serve, handshakes.handle, **options)
    server = Server(handshakes, logger, serving, bind)
    return server


def unix_serve(handler: Callable[..., Awaitable[object]], path: PathLike | None = None, **kwargs: Any) -> Server:
    """Serve WebSockets on a Unix socket.

    Args:
        handler: as in :func:`serve`.
        path: path of the socket file.
        kwargs: options of :func:`serve`, and ``mode`` of :func:`plumews.unix_serve`.
    """
    return serve(handler, unix=True, path=path, **kwargs)


def _with_path(handler: Callable[..., Awaitable[object]]) -> Callable[[ServerConnection], Awaitable[object]]:
    """Return a handler of a connection for one that takes the path, too."""

    @functools.wraps(handler)
    def handle(websocket: ServerConnection) -> Awaitable[object]:
        return handler(websocket, websocket.path)

    return handle


# --- basic authentication -------------------------------------------------------------------------

_SCHEME: Final = "basic "


def basic_auth(
    realm: str = "",
    credentials: tuple[str, str] | Iterable[tuple[str, str]] | None = None,
    check_credentials: Callable[[str, str], Awaitable[bool] | bool] | None = None,
) -> Callable[[ServerConnection, Request], Awaitable[Response | None]]:
    """Return a ``process_request`` that asks for a user name and a password (RFC 7617).

    A client that is let in has its name in ``websocket.username``. Others get 401.

    Args:
        realm: scope of the credentials.
        credentials: a pair of user name and password, or several.
        check_credentials: ``f(username, password)``, async or not, in place of ``credentials``.

    Raises:
        TypeError: ``credentials`` are no pairs of ``str``.
        ValueError: both ``credentials`` and ``check_credentials`` are given, or neither.
    """
    if (credentials is None) == (check_credentials is None):
        raise ValueError("provide either credentials or check_credentials")
    check = _checker(credentials) if check_credentials is None else check_credentials

    async def process_request(connection: ServerConnection, request: Request) -> Response | None:
        given = request.headers.get("Authorization")
        if given is None:
            return _unauthorized(realm, "Missing credentials\n")
        parsed = _parsed(given)
        if parsed is None:
            return _unauthorized(realm, "Unsupported credentials\n")
        username, password = parsed
        valid = check(username, password)
        if isinstance(valid, Awaitable):
            valid = await valid
        if not valid:
            return _unauthorized(realm, "Invalid credentials\n")
        connection.username = username
        return None

    return process_request


def _is_pair(credentials: Any) -> bool:
    return (
        isinstance(credentials, (tuple, list))
        and len(credentials) == 2
        and isinstance(credentials[0], str)
        and isinstance(credentials[1], str)
    )


def _checker(credentials: Any) -> Callable[[str, str], bool]:
    pairs = [credentials] if _is_pair(credentials) else list(credentials) if isinstance(credentials, Iterable) else []
    if not pairs or not all(map(_is_pair, pairs)):
        raise TypeError("credentials must be a pair (username, password) of str, or several")
    passwords = dict(pairs)

    def check(username: str, password: str) -> bool:
        expected = passwords.get(username)
        given = password.encode(errors="surrogateescape")
        same = hmac.compare_digest((expected or "").encode(errors="surrogateescape"), given)
        return expected is not None and same

    return check


def _parsed(authorization: str) -> tuple[str, str] | None:
    """Return user name and password of an ``Authorization`` header, or ``None`` for another scheme."""
    if not authorization.lower().startswith(_SCHEME):
        return None
    try:
        text = base64.b64decode(authorization[len(_SCHEME) :].strip(), validate=True).decode(errors="surrogateescape")
    except (binascii.Error, ValueError):
        return None
    username, colon, password = text.partition(":")
    return (username, password) if colon else None


def _unauthorized(realm: str, text: str) -> Response:
    quoted = realm.replace("\\", "\\\\").replace('"', '\\"')
    response = plain_response(http.HTTPStatus.UNAUTHORIZED, text)
    response.headers["WWW-Authenticate"] = f'Basic realm="{quoted}", charset="UTF-8"'
    return response
