"""Options of a server: one frozen dataclass, and the typed keywords that `serve`, `unix_serve` and `serve_rooms` share.

A new option is a field of :class:`ServerOptions` with a line in its docstring, and its type in :class:`ServerKeywords`.
The server reads it from ``context.options``. The command has a flag for it only if :mod:`plumews.cli.options` lists
one. Its default is then taken from here.
"""

from __future__ import annotations

import dataclasses
import socket
import ssl as ssl_module
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from .. import limits
from ..auth.credentials import AuthKeywords, AuthOptions
from ..conn.config import ConnConfig, ConnOptions
from ..http11.handshake import application_headers
from ..http11.headers import HeadersLike, is_token
from ..http11.origin import AllowedOrigin, allowed_hosts, allowed_origins
from ..http11.proxies import TrustedProxies
from ..validation import (
    check_call,
    check_count,
    check_function,
    check_rate,
    check_time,
    entries_of,
    is_plain_function,
    owned_options,
)
from .hooks import ProcessRequest, ProcessResponse, SelectSubprotocol
from .routes import Route, Routes

__all__ = ["ELSEWHERE", "OWNERS", "ServerKeywords", "ServerOptions", "TcpKeywords", "split_options"]

#: Hooks of the application, and the names of their arguments.
_HOOKS: Final = {
    "process_request": ("conn", "request"),
    "process_response": ("conn", "request", "response"),
    "select_subprotocol": ("conn", "offered"),
}


@dataclasses.dataclass(frozen=True)
class ServerOptions:
    """Options of a server. A wrong value is an error of the call that gives it, not of the first handshake.

    Args:
        ssl: serve ``wss`` with this context.
        origins: origins whose pages may connect beside the server's own (``"https://example.com"``; ``"*"`` is any,
            ``None`` in the list changes nothing). A pattern (``re.compile(r"https://[a-z0-9-]+\\.example\\.com")``)
            matches the whole origin, in lower case. A request without ``Origin`` does not come from a browser.
        allowed_hosts: names that the ``Host`` header may have (``"*"`` is any). The default is the loopback names when
            the server listens on loopback only, else any.
        trusted_proxies: addresses and networks (``"10.0.0.0/8"``) of the proxies in front of the server, ``"unix"`` for
            clients of a Unix socket. Their ``Forwarded`` or ``X-Forwarded-For``, ``-Proto`` and ``-Host`` tell the
            client. These headers of others are ignored (default: of all).
        subprotocols: supported subprotocols, in the order of preference.
        select_subprotocol: ``f(conn, offered) -> str | None`` in place of ``subprotocols``, a plain function, called
            after authentication. It returns one of the offered, ``None`` for none, or raises
            :class:`plumews.InvalidHandshake`.
        process_request: ``f(conn, request)``, async or not, called first. A ``Response`` is sent instead of the
            WebSocket, :class:`plumews.InvalidHandshake` refuses, ``None`` goes on.
        process_response: ``f(conn, request, response)``, async or not, called before the response to a readable request
            is sent, 101 included. It may change the response or return another one, or raise as ``process_request``.
            Refusals at the timeout and at the stop of the server do not wait for it.
        extra_headers: headers added to the 101.
        routes: plain HTTP responses by path: ``f(request) -> Response`` for GET and HEAD, or a :class:`plumews.Route`
            for other methods, a body, or ``async def``. Every client gets them, unless the function checks the request
            first, as :func:`plumews.restricted` does.
        open_timeout: seconds from the accepted connection to the open WebSocket, TLS and authentication included
            (default 10).
        max_head: bytes of the largest request line with its headers, 1 KiB to 1 MiB (default 16 KiB); a larger one gets
            431. Each 16 KiB allow 100 headers. The headers of a connection are kept for its lifetime.
        max_connections: connections at a time (default 100,000; ``None``: no bound); further ones get 503.
        max_opening: connections in their opening handshake (default 10,000; ``None``: no bound); further ones get 503.
        max_connections_per_address: connections of one IPv4 address, or of one /64 network of IPv6; further ones get
            429. The default of 4,096 is for addresses of the internet only. Another number bounds private networks
            and this machine, too; ``None``: no bound.
        accept_rate: new connections a second, 0.001 to 1,000,000 (default ``None``: no bound). A burst of two seconds
            is accepted at once; further ones get 429 with ``Retry-After``.
        accept_rate_per_address: the same for each address, with a burst of ten seconds. The default of 200 is for
            addresses of the internet only, as above.
        sock: listening socket or sockets, instead of an address or a path. They are closed with the server.
        reuse_port: let several processes listen on one TCP port.
        backlog: connections that wait to be accepted (default 1024).

    Raises:
        TypeError, ValueError: an option is of the wrong kind, or out of range.
    """

    ssl: ssl_module.SSLContext | None = None
    origins: Collection[AllowedOrigin] | None = None
    allowed_hosts: Collection[str] | None = None
    trusted_proxies: TrustedProxies | None = None
    subprotocols: Sequence[str] = ()
    select_subprotocol: SelectSubprotocol | None = None
    process_request: ProcessRequest | None = None
    process_response: ProcessResponse | None = None
    extra_headers: HeadersLike = ()
    routes: Routes = dataclasses.field(default_factory=dict)
    open_timeout: float = limits.OPEN_TIMEOUT
    max_head: int = limits.HEAD_SIZE
    max_connections: int | None = limits.MAX_CONNECTIONS
    max_opening: int | None = limits.MAX_OPENING
    max_connections_per_address: int | None = limits.CONNECTIONS_PER_ADDRESS
    accept_rate: float | None = None
    accept_rate_per_address: float | None = limits.ACCEPT_RATE_PER_ADDRESS
    sock: socket.socket | Sequence[socket.socket] | None = None
    reuse_port: bool | None = None
    backlog: int = limits.BACKLOG

    def __post_init__(self) -> None:
        self._set("origins", allowed_origins(self.origins))
        self._set("allowed_hosts", allowed_hosts(self.allowed_hosts))
        if not isinstance(self.trusted_proxies, (TrustedProxies, type(None))):
            self._set("trusted_proxies", TrustedProxies(self.trusted_proxies))
        self._set("extra_headers", application_headers(self.extra_headers))
        if self.ssl is not None:
            _check_tls(self.ssl)
        self._check_hooks()
        self._check_subprotocols()
        self._check_routes()
        check_time("open_timeout", self.open_timeout)
        check_count("max_head", self.max_head, least=limits.HEAD_SIZE_LEAST, most=limits.HEAD_SIZE_MOST)
        for name in ("max_connections", "max_opening", "max_connections_per_address"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name))
        check_rate("accept_rate", self.accept_rate, None)
        check_rate("accept_rate_per_address", self.accept_rate_per_address, None)

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _check_hooks(self) -> None:
        for name, parameters in _HOOKS.items():
            hook = getattr(self, name)
            if hook is not None:
                check_function(name, hook)
                check_call(name, hook, *parameters)
        if self.select_subprotocol is not None and not is_plain_function(self.select_subprotocol):
            raise TypeError("select_subprotocol must be a plain function: what takes time belongs into process_request")

    def _check_subprotocols(self) -> None:
        # None, as the websockets package says it.
        self._set("subprotocols", entries_of("subprotocols", self.subprotocols or (), '"chat"'))
        for subprotocol in self.subprotocols:
            if not is_token(subprotocol):
                raise ValueError(f"invalid subprotocol {subprotocol!r}: expected a token, such as chat.v1")
        if self.select_subprotocol is not None and self.subprotocols:
            raise TypeError("give either subprotocols or select_subprotocol")

    def _check_routes(self) -> None:
        if not isinstance(self.routes, (Mapping, type(None))):
            raise TypeError(f"routes must be a mapping of paths to functions, not {type(self.routes).__name__}")
        self._set("routes", dict(self.routes or {}))
        for path, route in self.routes.items():
            if isinstance(route, Route):
                continue
            if not is_plain_function(route):
                raise TypeError(
                    f"the route of {path} must be a plain function, which is called on the loop; "
                    "plumews.Route(function) takes an `async def` as well"
                )
            check_call(f"the route of {path}", route, "request")


def _check_tls(context: object) -> None:
    if not isinstance(context, ssl_module.SSLContext):
        raise TypeError(f"ssl must be an ssl.SSLContext, not {type(context).__name__}")
    try:
        context.wrap_bio(ssl_module.MemoryBIO(), ssl_module.MemoryBIO(), server_side=True)
    except (ValueError, ssl_module.SSLError) as exc:
        raise ValueError(
            "ssl must be a context for servers, such as ssl.create_default_context(ssl.Purpose.CLIENT_AUTH): "
            f"{exc.args[-1]}"
        ) from None


# --- keywords -------------------------------------------------------------------------------------


class ServerKeywords(ConnOptions, AuthKeywords, total=False):
    """Keywords of a server: see :class:`ServerOptions`, :class:`AuthOptions` and :class:`plumews.ConnConfig`."""

    ssl: ssl_module.SSLContext | None
    origins: Iterable[AllowedOrigin] | None
    allowed_hosts: Iterable[str] | None
    trusted_proxies: Iterable[str] | None
    subprotocols: Iterable[str] | None
    select_subprotocol: SelectSubprotocol | None
    process_request: ProcessRequest | None
    process_response: ProcessResponse | None
    extra_headers: HeadersLike
    routes: Routes
    open_timeout: float
    max_head: int
    max_connections: int | None
    max_opening: int | None
    max_connections_per_address: int | None
    accept_rate: float | None
    accept_rate_per_address: float | None
    sock: socket.socket | Sequence[socket.socket] | None
    backlog: int


class TcpKeywords(ServerKeywords, total=False):
    """Keywords of a server that may listen on TCP."""

    reuse_port: bool | None


#: Names that are no options here, and where their subject is found. Many are those of other packages.
ELSEWHERE: Final = {
    "allowed_origins": "here it is origins",
    "auth": "serve calls it authenticator, serve_rooms has it as an argument",
    "authenticator": "serve has it; serve_rooms has auth, its second argument",
    "encode_recovered": "serve_rooms has it",
    "extensions": "here it is compression",
    "heartbeat": "here it is ping_interval",
    "history": "the hub has it: plumews.HubConfig(history=plumews.HistoryLimits())",
    "jwt_secret": "the auth has it: plumews.SimpleRoomAuth(secret)",
    "logger": 'logs go to the logger "plumews.server"',
    "max_header_size": "here it is max_head",
    "max_message_size": "here it is max_size",
    "mode": "unix_serve has it",
    "on_connect": "here it is on_open",
    "on_disconnect": "here it is on_close",
    "path": "unix_serve has it; process_request sees request.path",
    "recovery": "serve_rooms has it",
    "room_passwords": "the auth has them: auth.set_room_password(room, password)",
    "secret": "the auth has it: plumews.SimpleRoomAuth(secret)",
    "server_header": "none is sent: leave it out",
    "ssl_context": "here it is ssl",
    "text_policy": "serve_rooms has it",
    "write_limit": "there are queue_size and queue_bytes",
}

#: Classes of the options. Each keyword is a field of one of them.
OWNERS: Final = (ServerOptions, AuthOptions, ConnConfig)


def split_options(given: Mapping[str, Any]) -> tuple[ServerOptions, AuthOptions, ConnConfig]:
    """Return the keywords ``given`` as the options of the server, of authentication, and of each connection.

    Raises:
        TypeError, ValueError: an option is unknown, or its value is wrong.
    """
    of_server, of_auth, of_conn = owned_options(given, OWNERS, ELSEWHERE)
    return ServerOptions(**of_server), AuthOptions(**of_auth), ConnConfig(**of_conn)
