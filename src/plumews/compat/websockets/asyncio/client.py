"""``connect()`` with the options and exceptions of ``websockets.asyncio.client``, over :class:`plumews.connect`.

The connection of plumews gets its state here before it is dialed, as in a server, so that its exceptions are those of
this tree. `async for` follows `websockets`: it connects again after any end, and waits only after failures.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import ssl as ssl_module
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from types import TracebackType
from typing import Any, Final, Literal

from .... import errors
from ....client import connector
from ....conn.connection import Conn
from ..client import ClientProtocol, Retries, backoff, process_exception
from ..datastructures import Headers, HeadersLike
from ..exceptions import (
    InvalidHeader,
    InvalidMessage,
    InvalidProxy,
    InvalidProxyStatus,
    InvalidStatus,
    InvalidUpgrade,
    NegotiationError,
    ProxyError,
    SecurityError,
)
from ..http11 import USER_AGENT, Response, response_of
from ..typing import LoggerLike, PathLike
from .connection import Connection, attribute
from .options import connect_options, is_secure

__all__ = ["ClientConnection", "connect", "unix_connect"]

_SUBPROTOCOL: Final = re.compile(r"chose the subprotocol '(.*)', which was not offered")


class ClientConnection(Connection):
    """WebSocket connection of a client, as :func:`connect` returns it."""

    is_client = True
    side = "client"

    #: Logger of the client, set by :class:`connect`.
    _client_logger: Any = None

    @attribute
    def logger(self) -> LoggerLike:
        """Logger of the client; its records have the connection as ``websocket``."""
        logger = self._client_logger or logging.getLogger("websockets.client")
        return logging.LoggerAdapter(logger, {"websocket": self})  # not kept: it would be a cycle


class _Dialer(connector.connect):
    """The client of plumews, whose connections have the state of this tree."""

    def __init__(self, uri: str, path: str | None, options: dict[str, Any]) -> None:
        self._begin(uri, path, None, None, options)

    def _made(self, conn: Conn) -> None:
        protocol = ClientProtocol(conn)
        protocol.conn = None  # no cycle, should the attempt fail
        conn._rules = protocol
        conn._parser = protocol.parser

    async def dial(self) -> ClientProtocol:
        """Return the state of a new connection, which it has as ``conn``."""
        self._redirects.forget()  # the application does not see them, and judges errors by its URI
        conn = await self._open()
        protocol = conn._rules
        assert isinstance(protocol, ClientProtocol)
        protocol.conn = conn
        return protocol


class connect:  # noqa: N801 - the name of a function: it is called as one
    """Client: ``await connect(uri)``, ``async with connect(uri)``, or ``async for websocket in connect(uri)``.

    Args:
        uri: ``ws`` or ``wss`` URI.
        origin: value of ``Origin``.
        extensions: not supported: ``None``.
        subprotocols: subprotocols to offer, in the order of preference.
        compression: ``"deflate"``, or ``None`` for none.
        additional_headers: headers of the request.
        user_agent_header: value of ``User-Agent``, ``None`` for no such header.
        proxy: URL of a proxy. True asks the environment, ``None`` uses none.
        process_exception: ``f(exc)`` for a failure in ``async for``: ``None`` tries again, an exception is raised.
        open_timeout: seconds to the open connection, ``None`` for no limit.
        ping_interval: seconds between two pings, ``None`` for none.
        ping_timeout: seconds for the answer, ``None`` for no limit.
        close_timeout: seconds for the closing handshake, ``None`` for no limit.
        reconnect_delays: function that returns the seconds to wait after failures, one after the other.
        max_size: bytes of the largest message, ``None`` for no limit.
        max_queue: messages that wait for ``recv()``, ``None`` for no limit.
        write_limit: bytes in the send queue above which ``send()`` waits.
        logger: logger (default ``websockets.client``).
        create_connection: a subclass of :class:`ClientConnection`, or a function that takes its arguments.
        options: ``ssl``, ``server_hostname``, ``host``, ``port``, ``sock``, ``local_addr``, and options that only
            :func:`plumews.connect` has.

    Raises:
        InvalidURI, InvalidProxy: ``uri`` or ``proxy`` is malformed, or has a user without a password.
        TypeError, ValueError: an option is unknown, or its value is wrong.

    ``await`` raises:
        OSError: the network failed; it is the error of the system, such as ``ConnectionRefusedError``.
        TimeoutError: there was no connection after ``open_timeout``.
        InvalidHandshake, InvalidProxy: the server or the proxy refused, or its answer is wrong.
    """

    def __init__(
        self,
        uri: str,
        *,
        origin: str | None = None,
        extensions: None = None,
        subprotocols: Any = None,
        compression: Any = "deflate",
        additional_headers: HeadersLike | None = None,
        user_agent_header: str | None = USER_AGENT,
        proxy: str | Literal[True] | None = True,
        process_exception: Callable[[Exception], Exception | None] = process_exception,
        open_timeout: float | None = 10,
        ping_interval: float | None = 20,
        ping_timeout: float | None = 20,
        close_timeout: float | None = 10,
        reconnect_delays: Callable[[], Iterator[float]] = backoff,
        max_size: int | tuple[int | None, int | None] | None = 2**20,
        max_queue: int | tuple[int | None, int | None] | None = 16,
        write_limit: int | tuple[int, int | None] = 2**15,
        logger: LoggerLike | None = None,
        create_connection: Callable[..., ClientConnection] | None = None,
        unix: bool = False,
        path: PathLike | None = None,
        ssl: ssl_module.SSLContext | bool | None = False,
        **options: Any,
    ) -> None:
        self.uri = uri
        self.logger: Any = logger or logging.getLogger("websockets.client")
        self.process_exception = process_exception
        self.reconnect_delays = reconnect_delays
        self._create = create_connection or ClientConnection
        self._settings: dict[str, Any] = {
            "ping_interval": ping_interval,
            "ping_timeout": ping_timeout,
            "close_timeout": close_timeout,
            "max_queue": max_queue,
            "write_limit": write_limit,
        }
        secure = is_secure(uri, proxy)
        if not secure and ssl:
            raise ValueError("ssl argument is incompatible with a ws:// URI")
        if secure and ssl is None:
            raise ValueError("ssl=None is incompatible with a wss:// URI")
        given = connect_options(
            options,
            ssl=ssl,
            extensions=extensions,
            additional_headers=additional_headers,
            compression=compression,
            open_timeout=open_timeout,
            max_size=max_size,
            of_request={
                "origin": origin,
                "subprotocols": subprotocols,
                "user_agent_header": user_agent_header,
                "proxy": proxy,
            },
            **self._settings,
        )
        self._dialer = _Dialer(uri, os.fspath(path) if unix and path is not None else None, given)  # type: ignore[arg-type]

    def __await__(self) -> Generator[Any, None, ClientConnection]:
        return self._connect().__await__()

    async def _connect(self) -> ClientConnection:
        try:
            protocol = await self._dialer.dial()
        except (errors.WebSocketException, OSError) as exc:
            translated = self._translated(exc)
            if translated is exc:
                raise
            raise translated from translated.__cause__
        conn = protocol.conn
        try:
            connection = self._create(protocol, **self._settings)
        except BaseException:
            if conn is not None:
                conn.abort()
            raise
        connection._client_logger = self.logger
        return connection

    def _translated(self, exc: Exception) -> Exception:
        return translated(exc)

    async def __aenter__(self) -> ClientConnection:
        if hasattr(self, "connection"):
            raise RuntimeError("connect() isn't reentrant")
        self.connection = await self
        return await self.connection.__aenter__()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        try:
            await self.connection.__aexit__(exc_type, exc, tb)
        finally:
            del self.connection

    async def __aiter__(self) -> AsyncIterator[ClientConnection]:
        retries = Retries(self.process_exception, self.reconnect_delays, self.logger)
        while True:
            try:
                async with self as connection:
                    yield connection
            except Exception as exc:  # noqa: PERF203
                await asyncio.sleep(retries.failed(exc))
            else:
                retries.succeeded()


def unix_connect(path: PathLike | None = None, uri: str | None = None, **options: Any) -> connect:
    """Connect over a Unix socket.

    Args:
        path: path of the socket.
        uri: URI of the request (default ``ws://localhost/``, with ``ssl`` ``wss://localhost/``).
        options: as for :class:`connect`.
    """
    if path is None and options.get("sock") is None:
        raise ValueError("path was not specified, and no sock specified")
    if uri is None:
        uri = "wss://localhost/" if options.get("ssl") else "ws://localhost/"
    return connect(uri, unix=True, path=path, **options)


def translated(exc: Exception) -> Exception:
    """Return the exception of this tree for one of :class:`plumews.connect`, with its cause if that is another one."""
    if isinstance(exc, errors.ConnectTimeout):
        return _caused(TimeoutError("timed out during opening handshake"), exc)
    if isinstance(exc, errors.ProxyError):
        if exc.status is None:
            return ProxyError(str(exc))
        return InvalidProxyStatus(Response(exc.status, "", Headers(exc.headers)))
    if isinstance(exc, errors.RedirectError):
        return SecurityError(str(exc))
    if isinstance(exc, errors.InvalidURI):  # that of the server is parsed before
        return InvalidProxy("the URL", str(exc))
    if isinstance(exc, errors.InvalidStatus):
        return InvalidStatus(response_of(exc.response))
    if isinstance(exc, errors.ConnectError):
        if isinstance(exc.__cause__, Exception):
            return exc.__cause__
        return _invalid_message(EOFError(str(exc))) if exc.step == "handshake" else exc
    return _malformed(exc)


def _caused(exc: Exception, cause: Exception) -> Exception:
    exc.__cause__ = cause
    return exc


def _invalid_message(cause: Exception) -> Exception:
    return _caused(InvalidMessage("did not receive a valid HTTP response"), cause)


def _malformed(exc: Exception) -> Exception:
    text = str(exc)
    if isinstance(exc, errors.InvalidUpgrade):
        return InvalidUpgrade("Connection" if "Connection:" in text else "Upgrade")
    if isinstance(exc, errors.InvalidHeader):
        if "Sec-WebSocket-Accept" in text:
            return InvalidHeader("Sec-WebSocket-Accept", None if "without" in text else "wrong or repeated")
        found = _SUBPROTOCOL.search(text)
        return NegotiationError(f"unsupported subprotocol: {found[1]}" if found else text)
    if isinstance(exc, errors.InvalidMessage):
        return _invalid_message(exc)
    return exc
