"""Arguments, steps and error texts of a dialing, without I/O, for the asyncio client and the blocking one."""

from __future__ import annotations

import contextlib
import socket
import ssl as ssl_module
from collections.abc import Sequence
from typing import Final

from ..errors import ConnectError, ProxyError
from .proxy import Proxy
from .resolver import AddressInfo
from .uri import Authority, WebSocketURI

__all__ = ["ALPN", "EYEBALLS_DELAY", "NO_SOCKS", "DialSteps", "check_alpn", "peer_name", "socks_target"]

#: Seconds until the next address is tried beside the last one (RFC 8305 section 5).
EYEBALLS_DELAY: Final = 0.25

#: Protocol of the TLS extension ALPN (RFC 7301).
ALPN: Final = "http/1.1"

NO_SOCKS: Final = "SOCKS needs the package python-socks: pip install plumews[socks]"


class DialSteps:
    """One attempt to get a connection.

    Args:
        uri: URI to connect to.
        proxy: Proxy, or ``None`` for a direct connection.
        ssl: TLS context for ``wss`` (default: ours). It is not changed.
        server_hostname: Name that the certificate is checked against, and SNI (default: the host of the URI).
        proxy_ssl, proxy_server_hostname: The same for an ``https`` proxy.
        local_addr: Local host and port to connect from.
        sock: Connected stream socket to use. It is closed with the connection, and if the attempt fails.
        path: Path of a Unix socket to connect to.

    Attributes:
        step: Step that runs: ``"resolve"``, ``"connect"``, ``"proxy"`` or ``"tls"``, and ``"handshake"`` behind them.
        address: Address that is tried.
    """

    def __init__(
        self,
        uri: WebSocketURI,
        *,
        proxy: Proxy | None = None,
        ssl: ssl_module.SSLContext | None = None,
        server_hostname: str | None = None,
        proxy_ssl: ssl_module.SSLContext | None = None,
        proxy_server_hostname: str | None = None,
        local_addr: tuple[str, int] | None = None,
        sock: socket.socket | None = None,
        path: str | None = None,
    ) -> None:
        self._uri = uri
        self._proxy = proxy if sock is None and path is None else None
        self._ssl = ssl
        self._server_hostname = server_hostname
        self._proxy_ssl = proxy_ssl
        self._proxy_server_hostname = proxy_server_hostname
        self._local_addr = local_addr
        self._sock = sock
        self._path = path
        self.step = "connect"
        self.address = ""

    def _place(self) -> Authority:
        """Return the host and port to connect a socket to: those of the proxy if there is one."""
        place: Authority = self._uri if self._proxy is None else self._proxy
        self.address = Authority.__str__(place) if self._proxy is None else str(place)  # with the zone
        return place

    def _resolved(self, place: Authority, addresses: Sequence[AddressInfo]) -> None:
        """Begin to connect to the addresses of ``place``."""
        self.step = "connect"
        if not place.is_address:
            shown = ", ".join(dict.fromkeys(str(info[4][0]) for info in addresses))
            self.address = f"{self.address}, {shown[:200]}"

    def _tls_names(self) -> tuple[str, str]:
        """Return the name of the server in its certificate, and its address in errors."""
        name = self._server_hostname or self._uri.tls_name
        return name, self.address if self._proxy is None else f"{self._uri.netloc} through {self._proxy}"


def check_alpn(chosen: str | None, address: str) -> None:
    """Raise `ConnectError` if the server at ``address`` chose another protocol than HTTP/1.1."""
    if chosen is not None and chosen != ALPN:
        raise ConnectError("tls", address, f"the server chose {chosen!r} by ALPN, but WebSocket needs {ALPN!r}")


def socks_target(addresses: Sequence[AddressInfo], proxy: Proxy) -> str:
    """Return the address to ask the proxy for: SOCKS 4 knows IPv4 alone."""
    for family, _, _, _, address in addresses:
        if family == socket.AF_INET or not proxy.scheme.startswith("socks4"):
            return str(address[0]).partition("%")[0]
    raise ProxyError(str(proxy), "the host has no IPv4 address, and SOCKS 4 knows no other")


def peer_name(sock: socket.socket) -> str:
    """Return the address of the peer of a socket, empty if it is not connected."""
    with contextlib.suppress(OSError):
        name = sock.getpeername()
        if isinstance(name, tuple):
            return Authority(name[0], name[1]).netloc
        return str(name)
    return ""
