"""``connect()`` and ``reconnect()`` of ``websockets.sync.client``, over :class:`plumews.sync.connect`."""

from __future__ import annotations

import logging
import os
import ssl as ssl_module
import time
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Literal, overload

from .... import errors
from ....sync import connector
from ..asyncio.client import translated
from ..asyncio.connection import overridden
from ..asyncio.options import connect_options, is_secure
from ..client import Retries, backoff, process_exception
from ..datastructures import HeadersLike
from ..http11 import USER_AGENT
from ..typing import LoggerLike, PathLike
from .connection import BlockingProtocol, Connection

__all__ = ["ClientConnection", "connect", "reconnect", "unix_connect", "unix_reconnect"]


class ClientConnection(Connection):
    """WebSocket connection of a client, as :func:`connect` returns it."""


class _Dialer(connector.connect):
    """The client of plumews, whose connections have the state of this tree."""

    def __init__(self, uri: str, path: str | None, options: dict[str, Any], settings: Mapping[str, Any]) -> None:
        self._begin(uri, path, options)
        self._settings = settings

    def _new_rules(self) -> BlockingProtocol:
        return BlockingProtocol(self._config.max_size, self._settings)

    def dial(self) -> BlockingProtocol:
        """Return the state of a new connection, which it has as ``native``."""
        self._redirects.forget()  # the application does not see them, and judges errors by its URI
        conn = self.open()
        protocol = conn._rules
        assert isinstance(protocol, BlockingProtocol)
        protocol.native = conn
        return protocol


class reconnect:  # noqa: N801 - the name of a function: it is called as one
    """Client: ``with reconnect(uri) as websocket``, or ``for websocket in reconnect(uri)``.

    ``for`` connects again after each end and each failure that may pass, and closes each connection after its turn.

    Args:
        uri: ``ws`` or ``wss`` URI.
        ssl: TLS context for ``wss`` (default: that of :func:`ssl.create_default_context`).
        origin: value of ``Origin``.
        extensions: not supported: ``None``.
        subprotocols: subprotocols to offer, in the order of preference.
        compression: ``"deflate"``, or ``None`` for none.
        additional_headers: headers of the request.
        user_agent_header: value of ``User-Agent``, ``None`` for no such header.
        proxy: URL of a proxy. True asks the environment, ``None`` uses none.
        process_exception: ``f(exc)`` for a failure in ``for``: ``None`` tries again, an exception is raised.
        open_timeout: seconds to the open connection, ``None`` for no limit.
        ping_interval: seconds between two pings, ``None`` for none.
        ping_timeout: seconds for the answer, ``None`` for no limit.
        close_timeout: seconds for the closing handshake, ``None`` for no limit.
        reconnect_delays: function that returns the seconds to wait after failures, one after the other.
        max_size: bytes of the largest message, ``None`` for no limit.
        max_queue: messages that wait for ``recv()``, ``None`` for no limit.
        logger: logger (default ``websockets.client``).
        create_connection: a subclass of :class:`ClientConnection`, or a function that takes its arguments.
        options: ``sock``, ``server_hostname``, ``address``, ``source_address``, and options that only
            :func:`plumews.sync.connect` has.

    Raises:
        InvalidURI, InvalidProxy: ``uri`` or ``proxy`` is malformed, or has a user without a password.
        TypeError, ValueError: an option is unknown, or its value is wrong.

    Connecting raises:
        OSError: the network failed; it is the error of the system, such as ``ConnectionRefusedError``.
        TimeoutError: there was no connection after ``open_timeout``.
        InvalidHandshake, InvalidProxy: the server or the proxy refused, or its answer is wrong.
    """

    def __init__(
        self,
        uri: str,
        *,
        ssl: ssl_module.SSLContext | None = None,
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
        logger: LoggerLike | None = None,
        create_connection: Callable[..., ClientConnection] | None = None,
        **options: Any,
    ) -> None:
        self.uri = uri
        self.logger: Any = logger or logging.getLogger("websockets.client")
        self.process_exception = process_exception
        self.reconnect_delays = reconnect_delays
        self._create = create_connection or ClientConnection
        if isinstance(self._create, type) and (unused := overridden(self._create)):
            raise TypeError(f"nothing calls {', '.join(unused)} of {self._create.__name__}: override recv or send")
        self._settings: dict[str, Any] = {
            "ping_interval": ping_interval,
            "ping_timeout": ping_timeout,
            "close_timeout": close_timeout,
            "max_queue": max_queue,
        }
        if ssl is None:
            ssl = options.pop("ssl_context", None)  # its former name in `websockets`
        secure = is_secure(uri, proxy)
        if not secure and ssl is not None:
            raise ValueError("ssl argument is incompatible with a ws:// URI")
        unix, path = options.pop("unix", False), options.pop("path", None)
        given = connect_options(
            _native_names(options),
            ssl=ssl,
            extensions=extensions,
            additional_headers=additional_headers,
            compression=compression,
            open_timeout=open_timeout,
            max_size=max_size,
            write_limit=0,
            of_request={
                "origin": origin,
                "subprotocols": subprotocols,
                "user_agent_header": user_agent_header,
                "proxy": proxy,
            },
            **self._settings,
        )
        known = {**self._settings, "logger": self.logger}
        self._dialer = _Dialer(uri, os.fspath(path) if unix and path is not None else None, given, known)

    def connect(self) -> ClientConnection:
        """Connect once. Return the open connection."""
        try:
            protocol = self._dialer.dial()
        except (errors.WebSocketException, OSError) as exc:
            known = translated(exc)
            if known is exc:
                raise
            raise known from known.__cause__
        conn = protocol.native
        assert conn is not None
        try:
            return self._create(conn._channel.sock, protocol, **self._settings)
        except BaseException:
            conn.abort()
            raise

    def __enter__(self) -> ClientConnection:
        if hasattr(self, "connection"):
            raise RuntimeError("connect() isn't reentrant")
        self.connection = self.connect()
        return self.connection.__enter__()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        try:
            self.connection.__exit__(exc_type, exc, tb)
        finally:
            del self.connection

    def __iter__(self) -> Iterator[ClientConnection]:
        retries = Retries(self.process_exception, self.reconnect_delays, self.logger)
        while True:
            try:
                with self as connection:
                    yield connection
            except Exception as exc:  # noqa: PERF203
                time.sleep(retries.failed(exc))
            else:
                retries.succeeded()


@overload
def connect(uri: str, *, legacy: Literal[True] | None = None, **options: Any) -> ClientConnection: ...


@overload
def connect(uri: str, *, legacy: Literal[False], **options: Any) -> reconnect: ...


def connect(uri: str, *, legacy: bool | None = None, **options: Any) -> ClientConnection | reconnect:
    """Connect to the server at ``uri``. Return the open connection, for ``with`` or ``close()``.

    Args:
        uri: ``ws`` or ``wss`` URI.
        legacy: False returns a :class:`reconnect`, which is not connected yet.
        options: as for :class:`reconnect`.

    Raises:
        OSError, TimeoutError, InvalidURI, InvalidHandshake, InvalidProxy: as :class:`reconnect`.
    """
    client = reconnect(uri, **options)
    return client if legacy is False else client.connect()


@overload
def unix_connect(
    path: PathLike | None = None, uri: str | None = None, *, legacy: Literal[True] | None = None, **options: Any
) -> ClientConnection: ...


@overload
def unix_connect(
    path: PathLike | None = None, uri: str | None = None, *, legacy: Literal[False], **options: Any
) -> reconnect: ...


def unix_connect(
    path: PathLike | None = None, uri: str | None = None, *, legacy: bool | None = None, **options: Any
) -> ClientConnection | reconnect:
    """Connect over a Unix socket.

    Args:
        path: path of the socket.
        uri: URI of the request (default ``ws://localhost/``, with ``ssl`` ``wss://localhost/``).
        legacy: as for :func:`connect`.
        options: as for :func:`connect`.
    """
    client = unix_reconnect(path, uri, **options)
    return client if legacy is False else client.connect()


def unix_reconnect(path: PathLike | None = None, uri: str | None = None, **options: Any) -> reconnect:
    """Return a client over a Unix socket that connects again.

    Args:
        path: path of the socket.
        uri: URI of the request (default ``ws://localhost/``, with ``ssl`` ``wss://localhost/``).
        options: as for :class:`reconnect`.
    """
    if path is None and options.get("sock") is None:
        raise ValueError("path was not specified, and no sock specified")
    if uri is None:
        uri = "wss://localhost/" if options.get("ssl") else "ws://localhost/"
    return reconnect(uri, unix=True, path=path, **options)


def _native_names(given: dict[str, Any]) -> dict[str, Any]:
    """Return the keywords of ``socket.create_connection`` as options of plumews, with all others.

    Raises:
        TypeError: ``timeout``, which has no equal, is given.
    """
    options = dict(given)
    if options.pop("timeout", None) is not None:
        raise TypeError("timeout is not supported: open_timeout bounds all steps: leave it out")
    address = options.pop("address", None)
    if address is not None:
        options["host"], options["port"] = address
    local = options.pop("source_address", None)
    if local is not None:
        options["local_addr"] = local
    return options
