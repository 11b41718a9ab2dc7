"""The keywords that the doors of a server share, told to type checkers and sorted out (layer 5).

`serve`, `unix_serve` and `serve_rooms` take them as ``**options: Unpack[...]``, so that editors know each name and
type, and no list of them stands in three signatures. Their defaults are those of `ServerContext` and `ConnConfig`.
"""

from __future__ import annotations

import difflib
import socket
import ssl as ssl_module
from collections.abc import Iterable, Sequence
from typing import Any, Final, cast

from ..conn.config import ConnConfig, ConnOptions
from ..http11.headers import HeadersLike
from ..http11.origin import AllowedOrigin
from .context import Endpoint, ServerContext
from .hooks import ProcessRequest, ProcessResponse, SelectSubprotocol
from .routes import Routes

__all__ = ["SiteOptions", "TcpOptions", "site_and_config"]


class SiteOptions(ConnOptions, total=False):
    """Of a server.

    ssl: serve ``wss`` with this context.
    origins: pages of these origins may connect beside the server's own (``"https://example.com"``; ``"*"`` is
        any, ``None`` in the list changes nothing). A pattern, ``re.compile(r"https://[a-z0-9-]+\\.example\\.com")``,
        has to match the whole of the origin, in lower case. A request without ``Origin`` comes from no browser.
    allowed_hosts: names that the ``Host`` header may have (``"*"`` is any); by default the loopback names when
        the server listens on loopback only, else any.
    trusted_proxies: addresses and networks (``"10.0.0.0/8"``) of the proxies in front of the server, ``"unix"`` for
        who comes over a Unix socket: their ``Forwarded`` or ``X-Forwarded-For``, ``-Proto`` and ``-Host`` say who the
        client is; those of others are ignored, and by default those of all.
    subprotocols: those the server speaks, in the order of its preference.
    select_subprotocol: ``f(conn, offered) -> str | None`` in place of ``subprotocols``, a plain function, called once
        the client may come in: one of the offered, ``None`` for none, or an :class:`plumews.InvalidHandshake`.
    process_request: ``f(conn, request)``, async or not, called first: a ``Response`` answers instead of the
        WebSocket, an :class:`plumews.InvalidHandshake` refuses, ``None`` goes on.
    process_response: ``f(conn, request, response)``, async or not, called with the answer to each request that could
        be read, the 101 too, before it is sent: it may change the response or return another one. What it raises
        refuses, as in ``process_request``. A refusal because time is up, or the server stops, does not wait for it.
    extra_headers: added to the 101.
    routes: plain HTTP answers by path, ``f(request) -> Response``, for GET and HEAD, or a :class:`plumews.Route`, for
        other methods, with a body, or ``async def``; everybody is answered, unless the function looks at
        ``request.remote_address`` or at a header first (:mod:`plumews.restricted` does).
    open_timeout: seconds from the accepted connection to the open WebSocket, TLS and authentication included
        (default 10).
    max_head: bytes of the largest request line with its headers, 1 KiB to 1 MiB (default 16 KiB); beyond it 431. It may
        have 100 headers in each 16 KiB. Cookies of a single sign-on may need more; the headers of a connection are
        kept for as long as it lives.
    max_connections: connections in all (default 100,000; ``None``: no bound); beyond it 503.
    max_opening: those of them whose opening handshake is not done (default 10,000; ``None``: no bound); beyond it 503.
    max_connections_per_address: connections of one IPv4 address, or of one /64 network of IPv6; beyond it 429. By
        default 4,096, for addresses of the internet only; another number holds for private networks and this machine,
        too; ``None``: no bound.
    accept_rate: new connections a second, 0.001 to 1,000,000 (default ``None``: no bound), of which those of two
        seconds may come at once; beyond it 429, with the time to wait as ``Retry-After``.
    accept_rate_per_address: the same for each address, those of ten seconds at once. By default 200, for addresses of
        the internet only, as above.
    """

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


class TcpOptions(SiteOptions, total=False):
    """Of a server on TCP: these, those of :class:`SiteOptions`, and those of :class:`plumews.ConnConfig`.

    sock: an existing socket instead of ``host`` and ``port``, or several; they are closed with the server.
    reuse_port: let several processes listen on one port.
    backlog: connections that wait to be accepted (default 1024).
    """

    sock: socket.socket | Sequence[socket.socket] | None
    reuse_port: bool | None
    backlog: int


#: What other packages call it, and what it is here.
_ELSEWHERE: Final = {
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


def site_and_config(endpoints: dict[str | None, Endpoint], options: SiteOptions) -> tuple[ServerContext, ConnConfig]:
    """The site and the settings of its connections that ``options`` describe.

    Raises:
        TypeError, ValueError: an option is unknown, or its value is wrong.
    """
    given = cast("dict[str, Any]", options)
    unknown = given.keys() - SiteOptions.__annotations__.keys()
    if unknown:
        known = ", ".join(sorted(SiteOptions.__annotations__))
        names = ", ".join(map(_with_hint, sorted(unknown)))
        raise TypeError(f"unknown option {names}: there are {known}, and the parameters of the function")
    of_conn = ConnOptions.__annotations__.keys()
    config = ConnConfig(**{name: value for name, value in given.items() if name in of_conn})
    return ServerContext(endpoints, **{name: value for name, value in given.items() if name not in of_conn}), config


def _with_hint(unknown: str) -> str:
    """The name of an option that there is not, and what may have been meant."""
    hint = _ELSEWHERE.get(unknown)
    if hint is None:
        near = difflib.get_close_matches(unknown, TcpOptions.__annotations__, n=1, cutoff=0.75)
        hint = f"do you mean {near[0]}?" if near else ""
    return f"{unknown} ({hint})" if hint else unknown
