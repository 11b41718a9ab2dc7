"""Options of a client: one frozen dataclass, and the typed keywords that `connect` and `unix_connect` share.

A new option is a field of :class:`ConnectOptions` with a line in its docstring, and its type in
:class:`ConnectKeywords`. Options of the ``websockets`` package have the same names here.
"""

from __future__ import annotations

import dataclasses
import functools
import socket
import ssl as ssl_module
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final, Literal, TypeAlias

from .. import limits
from ..conn.config import ConnConfig, ConnOptions
from ..deflate.config import Deflate
from ..http11.headers import Headers, HeadersLike, is_token
from ..validation import (
    check_call,
    check_callback,
    check_count,
    check_time,
    entries_of,
    is_coroutine_function,
    owned_options,
)
from .handshake import USER_AGENT, bearer, check_headers
from .proxy import parse_proxy
from .reconnect import PositionOf
from .uri import WebSocketURI, parse_host_name

__all__ = [
    "AdditionalHeaders",
    "ClientConfig",
    "ConnectKeywords",
    "ConnectOptions",
    "ReconnectDelays",
    "Token",
    "split_options",
]

#: Headers, or a function that is asked for them at each attempt.
AdditionalHeaders: TypeAlias = "HeadersLike | Callable[[], HeadersLike | Awaitable[HeadersLike]] | None"

#: Token, or a function that is asked for it at each attempt.
Token: TypeAlias = "str | Callable[[], str | Awaitable[str]] | None"  # noqa: S105

#: Seconds to wait before each attempt, or a function that returns them anew after each success.
ReconnectDelays: TypeAlias = "Iterable[float] | Callable[[], Iterable[float]] | None"


@dataclasses.dataclass(frozen=True)
class ConnectOptions:
    """Options of a client. A wrong value is an error of the call that gives it, not of the first attempt.

    Args:
        origin: value of ``Origin`` (default ``None``: no such header).
        subprotocols: subprotocols to offer, in the order of preference.
        additional_headers: headers of the request: a mapping, a list of pairs, or a function, async or not, that is
            called before each attempt and returns them. They replace ``Host``, ``Origin``, ``User-Agent`` and
            ``Authorization``.
        user_agent_header: value of ``User-Agent`` (default: the versions of Python and plumews). ``None`` sends none.
        token: bearer token, sent in ``Authorization``: a ``str``, or a function, async or not, that is called before
            each attempt and returns it. It takes precedence over a user in the URI.
        open_timeout: seconds to the open WebSocket (default 10): name resolution, proxy, TLS, redirects and handshake
            together. ``None`` is no limit.
        ssl: TLS context for ``wss`` (default: that of :func:`ssl.create_default_context`).
        server_hostname: name that the certificate is checked against, and that the server gets by SNI (default: the
            host of the URI).
        proxy: URL of a proxy (``"http://proxy:3128"``). True (default) asks the environment, ``None`` uses none.
        proxy_ssl: TLS context for a proxy with ``https`` (default: as for ``ssl``).
        proxy_server_hostname: name that the certificate of this proxy is checked against, and SNI (default: its host).
        sock: connected socket to use instead of connecting one. It is closed with the connection, and by an attempt
            that fails.
        host: host to connect to instead of that of the URI.
        port: port to connect to instead of that of the URI.
        local_addr: host and port that the socket is bound to.
        process_exception: ``f(exc)``, called when an attempt of ``async for`` fails. It returns ``None`` to try again,
            or an exception to raise (default: try again after network errors, timeouts, and responses that may change).
            It is not asked about a failure at the target of a redirect that was kept: the URI itself comes next.
        reconnect_delays: seconds before each attempt of ``async for``: an iterable, or a function that returns one and
            is called after each success. The default is random, from 0 to a bound that doubles from 1 s to 60 s.
        position_of: function from a message to its position in the history of a room, or to ``None``. The last one is
            the ``since`` of the next attempt of ``async for``, so that a plumews server sends what was missed.
        max_head: bytes of the largest head of a response, 1 KiB to 1 MiB (default 16 KiB).

    Raises:
        TypeError, ValueError: an option is of the wrong kind, or out of range.
    """

    origin: str | None = None
    subprotocols: Sequence[str] = ()
    additional_headers: AdditionalHeaders = dataclasses.field(default=None, repr=False)
    user_agent_header: str | None = USER_AGENT
    token: Token = dataclasses.field(default=None, repr=False)
    open_timeout: float | None = limits.OPEN_TIMEOUT
    ssl: ssl_module.SSLContext | None = None
    server_hostname: str | None = None
    proxy: str | Literal[True] | None = dataclasses.field(default=True, repr=False)
    proxy_ssl: ssl_module.SSLContext | None = None
    proxy_server_hostname: str | None = None
    sock: socket.socket | None = None
    host: str | None = None
    port: int | None = None
    local_addr: tuple[str, int] | None = None
    process_exception: Callable[[Exception], Exception | None] | None = None
    reconnect_delays: ReconnectDelays = None
    position_of: PositionOf | None = None
    max_head: int = limits.HEAD_SIZE

    def __post_init__(self) -> None:
        for name in ("origin", "user_agent_header"):
            value = getattr(self, name)
            if value is not None and value is not USER_AGENT:
                if not isinstance(value, str):
                    raise TypeError(f"{name} must be a str or None, not {type(value).__name__}")
                Headers((name, value))
        object.__setattr__(self, "subprotocols", _subprotocols(self.subprotocols))
        self._check_asked("additional_headers", check_headers)
        self._check_asked("token", bearer)
        if self.open_timeout is not None:
            check_time("open_timeout", self.open_timeout)
        for name in ("ssl", "proxy_ssl"):
            if getattr(self, name) is not None:
                _check_tls(name, getattr(self, name))
        self._check_way()
        if self.process_exception is not None:
            check_callback(self.process_exception, "process_exception")
            check_call("process_exception", self.process_exception, "exc")
        _check_delays(self.reconnect_delays)
        if self.position_of is not None:
            check_callback(self.position_of, "position_of")
            check_call("position_of", self.position_of, "message")
        check_count("max_head", self.max_head, least=limits.HEAD_SIZE_LEAST, most=limits.HEAD_SIZE_MOST)

    def dialed(self, uri: WebSocketURI, first: WebSocketURI) -> WebSocketURI:
        """Return ``uri`` with ``host`` and ``port`` in place of its own, unless it is of another origin than ``first``.

        Args:
            uri: URI of a request.
            first: URI of the client. A redirect may lead away from it.
        """
        if (self.host is None and self.port is None) or uri.origin != first.origin:
            return uri
        host = uri.host if self.host is None else self.host
        return dataclasses.replace(uri, host=host, port=uri.port if self.port is None else self.port)

    def _check_asked(self, name: str, check: Callable[[Any], object]) -> None:
        """Check a value that may be a function, which is asked for it later."""
        value = getattr(self, name)
        if callable(value):
            check_call(name, value)
        elif value is not None:
            checked = check(value)
            if isinstance(checked, Headers):
                object.__setattr__(self, name, checked)  # an iterator can be read once

    def _check_way(self) -> None:
        """Check the options that say where to connect to."""
        for name in ("server_hostname", "proxy_server_hostname", "host"):
            value = getattr(self, name)
            if not isinstance(value, (str, type(None))):
                raise TypeError(f"{name} must be a str, not {type(value).__name__}")
            if value is not None:
                object.__setattr__(self, name, parse_host_name(value, name))
        if self.port is not None:
            check_count("port", self.port, most=65535)
        if self.proxy is not True and not isinstance(self.proxy, (str, type(None))):
            shown = "False: None is no proxy" if self.proxy is False else type(self.proxy).__name__
            raise TypeError(f"proxy must be a URL, True or None, not {shown}")
        if self.proxy is not True and not (self.proxy is not None and parse_proxy(self.proxy).secure):
            for name in ("proxy_ssl", "proxy_server_hostname"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} needs a proxy that begins with https://")
        if self.sock is not None:
            _check_sock(self.sock)
            for name in ("host", "port", "local_addr"):
                if getattr(self, name) is not None:
                    raise TypeError(f"give either sock or {name}")
        address = self.local_addr
        if address is not None:
            if not (isinstance(address, (tuple, list)) and len(address) == 2 and isinstance(address[0], str)):
                raise TypeError("local_addr must be a pair of host and port")
            check_count("the port of local_addr", address[1], least=0, most=65535)
            object.__setattr__(self, "local_addr", (parse_host_name(address[0], "local_addr"), address[1]))


def _subprotocols(given: object) -> tuple[str, ...]:
    subprotocols = entries_of("subprotocols", () if given is None else given, '"chat"')
    for subprotocol in subprotocols:
        if not is_token(subprotocol):
            raise ValueError(f"invalid subprotocol {subprotocol!r}: expected a token, such as chat.v1")
    if len({*subprotocols}) < len(subprotocols):
        raise ValueError("a subprotocol is offered twice (RFC 6455 section 4.1)")
    return subprotocols


def _check_delays(delays: object) -> None:
    if callable(delays):
        check_call("reconnect_delays", delays)
        if is_coroutine_function(delays):
            raise TypeError("reconnect_delays must be a plain function, or an iterable")
    elif delays is not None and (isinstance(delays, (str, bytes)) or not isinstance(delays, Iterable)):
        raise TypeError(f"reconnect_delays must be an iterable of seconds, not {type(delays).__name__}")
    elif isinstance(delays, (list, tuple)):
        for delay in delays:
            check_time("a delay in reconnect_delays", delay, zero=True)


def _check_tls(name: str, context: object) -> None:
    if not isinstance(context, ssl_module.SSLContext):
        raise TypeError(f"{name} must be an ssl.SSLContext, not {type(context).__name__}")
    if context.protocol == ssl_module.PROTOCOL_TLS_SERVER:
        raise ValueError(f"{name} must be a context for clients, such as ssl.create_default_context()")


def _check_sock(sock: object) -> None:
    if not isinstance(sock, socket.socket):
        raise TypeError(f"sock must be a socket.socket, not {type(sock).__name__}")
    if isinstance(sock, ssl_module.SSLSocket):
        raise TypeError("sock must be a socket without TLS: the option ssl and a URI with wss:// start it")
    if sock.type != socket.SOCK_STREAM:
        raise ValueError("sock must be a stream socket")


@dataclasses.dataclass(frozen=True)
class ClientConfig(ConnConfig):
    """Options of a connection of a client: :class:`plumews.ConnConfig` for the other role.

    ``compression="deflate"`` does not ask for ``server_no_context_takeover``: the server chooses, as Tornado's does
    in any case.

    Args:
        send_timeout: as there, but ``None`` by default: a client has one peer to wait for.
    """

    _deflate: ClassVar[Deflate] = Deflate(server_takeover=True)
    _takeover: ClassVar[str] = "client_takeover"

    send_timeout: float | None = None


# --- keywords -------------------------------------------------------------------------------------


class ConnectKeywords(ConnOptions, total=False):
    """Keywords of a client: see :class:`ConnectOptions` and :class:`plumews.ConnConfig`."""

    origin: str | None
    subprotocols: Iterable[str] | None
    additional_headers: AdditionalHeaders
    user_agent_header: str | None
    token: Token
    open_timeout: float | None
    ssl: ssl_module.SSLContext | None
    server_hostname: str | None
    proxy: str | Literal[True] | None
    proxy_ssl: ssl_module.SSLContext | None
    proxy_server_hostname: str | None
    sock: socket.socket | None
    host: str | None
    port: int | None
    local_addr: tuple[str, int] | None
    process_exception: Callable[[Exception], Exception | None] | None
    reconnect_delays: ReconnectDelays
    position_of: PositionOf | None
    max_head: int


#: Names that are no options here, and where their subject is found. Many are those of other packages.
_ELSEWHERE: Final = {
    "auth": "a user and a password stand in the URI; a token in the option token",
    "autoping": "pings are always answered: leave it out",
    "backoff": "here it is reconnect_delays",
    "cookie": "here it is additional_headers={'Cookie': ...}",
    "create_connection": "there is none: pass a connected socket as sock",
    "create_protocol": "there is none: the class of a connection is plumews.Conn",
    "enable_multithread": "leave it out",
    "extensions": "here it is compression",
    "extra_headers": "here it is additional_headers",
    "family": "pass a connected socket as sock",
    "handler": "connect has no handler: use async with, async for or on_message",
    "header": "here it is additional_headers",
    "headers": "here it is additional_headers",
    "heartbeat": "here it is ping_interval",
    "http_proxy_host": "here it is proxy",
    "klass": "there is none: the class of a connection is plumews.Conn",
    "legacy_recv": "leave it out",
    "logger": 'logs go to the logger "plumews.client"',
    "loop": "the running event loop is used: leave it out",
    "max_message_size": "here it is max_size",
    "max_msg_size": "here it is max_size",
    "max_queue_size": "here it is max_queue",
    "on_connect": "there is none: the connection is open when connect returns",
    "path": "unix_connect has it",
    "ping_period": "here it is ping_interval",
    "pong_wait": "here it is ping_timeout",
    "protocols": "here it is subprotocols",
    "proxy_auth": "a user and a password stand in the URL of proxy",
    "read_limit": "there is max_queue_bytes",
    "reconnect": "async for connects again, and reconnect_delays sets the delays",
    "retries": "async for connects again, and reconnect_delays sets the delays",
    "ssl_context": "here it is ssl",
    "sslopt": "here it is ssl, an ssl.SSLContext",
    "timeout": "here it is open_timeout, and close_timeout for the end",
    "user_agent": "here it is user_agent_header",
    "verify": "here it is ssl, an ssl.SSLContext",
    "write_limit": "there are queue_size and queue_bytes",
}

#: Classes of the options. Each keyword is a field of one of them.
_OWNERS: Final = (ConnectOptions, ConnConfig)


#: Options of a client that was given none. Others may have secrets, and are not kept.
_USUAL: Final = ConnectOptions()

#: Clients with the same options share one object, and what connections read from it once.
_shared_config = functools.lru_cache(maxsize=16, typed=True)(ClientConfig)


def _config_of(options: dict[str, Any]) -> ClientConfig:
    try:
        hash((*options.values(),))
    except TypeError:
        return ClientConfig(**options)  # it says what is wrong
    return _shared_config(**options)


def split_options(given: Mapping[str, Any]) -> tuple[ConnectOptions, ConnConfig]:
    """Return the keywords ``given`` as the options of the client, and of its connection.

    Raises:
        TypeError, ValueError: an option is unknown, or its value is wrong.
    """
    of_client, of_conn = owned_options(given, _OWNERS, _ELSEWHERE)
    return ConnectOptions(**of_client) if of_client else _USUAL, _config_of(of_conn)
