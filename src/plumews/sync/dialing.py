"""Connections of the blocking client: name, TCP (happy eyeballs), proxy and TLS, all within one deadline.

The steps are those of :mod:`plumews.client.dial_steps`. The caller's thread waits itself. A failed or
interrupted `Dialing.open` closes what it has opened.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
import ssl as ssl_module
import time
from collections.abc import Sequence
from concurrent.futures import TimeoutError as FutureTimeout
from itertools import chain, zip_longest
from typing import Any, Final, cast

from ..client.dial_steps import EYEBALLS_DELAY, NO_SOCKS, DialSteps, check_alpn, peer_name, socks_target
from ..client.dialing import forget_certificates, tls_context
from ..client.proxy import Proxy, Tunnel
from ..client.resolver import AddressInfo, literal_address, resolver
from ..client.uri import WebSocketURI
from ..errors import ConnectError, ProxyError
from .tls import TlsLayer

__all__ = ["LONGEST_WAIT", "Deadline", "Dialing", "Wire", "deadline_in", "wait_for"]

#: Longest wait in seconds, 23 days: poll() takes no longer time.
LONGEST_WAIT: Final = 2_000_000.0

_READ_SIZE: Final = 16 * 1024
_Selector: Final = getattr(selectors, "PollSelector", selectors.SelectSelector)  # neither needs a descriptor
_PENDING: Final = (0, errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EINTR)


def wait_for(sock: socket.socket, events: int, timeout: float | None) -> bool:
    """Wait until ``sock`` is ready for ``events`` of :mod:`selectors`. Return False after ``timeout`` seconds."""
    with _Selector() as selector:
        selector.register(sock, events)
        return bool(selector.select(timeout))


def deadline_in(seconds: float | None) -> float | None:
    """Return the monotonic time in ``seconds``. It is ``None`` for no limit, and for one above 23 days."""
    return None if seconds is None or seconds > LONGEST_WAIT else time.monotonic() + seconds


class Deadline:
    """Time at which something must be done.

    Args:
        seconds: Seconds from now, or ``None`` for no limit.
    """

    __slots__ = ("_at",)

    def __init__(self, seconds: float | None) -> None:
        self._at = deadline_in(seconds)

    def left(self) -> float | None:
        """Return the seconds that are left, ``None`` without a limit.

        Raises:
            TimeoutError: None is left.
        """
        if self._at is None:
            return None
        seconds = self._at - time.monotonic()
        if seconds <= 0:
            raise TimeoutError
        return seconds


class Wire:
    """Connected socket with its TLS, while the connection opens.

    Attributes:
        sock: Socket.
        tls: TLS above it, or ``None``.
        early: Bytes that came with the reply of a proxy, or with the end of the TLS handshake.
    """

    __slots__ = ("early", "sock", "tls")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.tls: TlsLayer | None = None
        self.early = b""

    def send(self, data: bytes, deadline: Deadline) -> None:
        """Send all of ``data``."""
        self.sock.settimeout(deadline.left())
        self.sock.sendall(data if self.tls is None else self.tls.encrypt(data))

    def receive(self, deadline: Deadline) -> bytes:
        """Return the next bytes, ``b""`` at the end."""
        if self.early:
            data, self.early = self.early, b""
            return data
        while True:
            self.sock.settimeout(deadline.left())
            data = self.sock.recv(_READ_SIZE)
            if self.tls is None or not data:
                return data
            data = self.tls.decrypt(data)
            if data or self.tls.ended:
                return data


class Dialing(DialSteps):
    """One attempt to get a connection.

    Args:
        uri: URI to connect to.
        deadline: End of the attempt.
        options: Those of `DialSteps`.
    """

    def __init__(self, uri: WebSocketURI, deadline: Deadline, **options: Any) -> None:
        super().__init__(uri, **options)
        self._deadline = deadline

    def open(self) -> Wire:
        """Connect. Return the socket with its TLS.

        Raises:
            ConnectError: A step failed. A `ProxyError` has the status of the proxy.
            TimeoutError: The deadline has passed.
        """
        try:
            wire = Wire(self._connected_socket())
            try:
                self._through_layers(wire)
            except BaseException:
                wire.sock.close()
                raise
        except (ConnectError, TimeoutError):
            raise
        except OSError as exc:
            raise ConnectError.of(self.step, self.address, exc) from exc
        self.step = "handshake"
        return wire

    # --- sockets ----------------------------------------------------------------------------------

    def _connected_socket(self) -> socket.socket:
        if self._sock is not None:
            self.address = peer_name(self._sock)
            return self._sock
        if self._path is not None:
            return self._unix_socket(self._path)
        place = self._place()
        addresses = self._resolve(place.host, place.port)
        local = None if self._local_addr is None else self._resolve(*self._local_addr)
        self._resolved(place, addresses)
        return _Race(addresses, local, self._deadline).run()

    def _unix_socket(self, path: str) -> socket.socket:
        self.address = path
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(self._deadline.left())
            sock.connect(path)
        except BaseException:
            sock.close()
            raise
        return sock

    def _resolve(self, host: str, port: int) -> Sequence[AddressInfo]:
        self.step = "resolve"
        literal = literal_address(host, port)
        if literal is not None:
            return [literal]
        try:
            return resolver.resolve(host, port).result(self._deadline.left())
        except FutureTimeout:
            raise TimeoutError from None

    # --- proxy and TLS ----------------------------------------------------------------------------

    def _through_layers(self, wire: Wire) -> None:
        proxy = self._proxy
        if proxy is not None and proxy.socks:
            self._through_socks(wire, proxy)
        elif proxy is not None:
            if proxy.secure:
                name = self._proxy_server_hostname or proxy.tls_name
                self._start_tls(wire, tls_context(self._proxy_ssl), name, str(proxy))
            self.step, self.address = "proxy", str(proxy)
            tunnel = Tunnel(self._uri, proxy)
            wire.send(tunnel.request, self._deadline)
            while True:
                data = wire.receive(self._deadline)
                if not data:
                    raise tunnel.feed_eof()
                if tunnel.feed(data):
                    break
            wire.early = tunnel.rest
        if self._uri.secure:
            name, address = self._tls_names()
            if wire.early:
                raise ConnectError("tls", address, "the peer sent data before the TLS handshake")
            self._start_tls(wire, tls_context(self._ssl), name, address)

    def _through_socks(self, wire: Wire, proxy: Proxy) -> None:
        self.step, self.address = "proxy", str(proxy)
        try:
            from python_socks import ProxyError as SocksError
            from python_socks import ProxyType
            from python_socks.sync import Proxy as SocksProxy
        except ImportError as exc:
            raise ProxyError(str(proxy), NO_SOCKS) from exc
        host = self._uri.host.partition("%")[0]
        if not (proxy.resolves or self._uri.is_address):
            host = socks_target(self._resolve(host, self._uri.port), proxy)
            self.step = "proxy"
        try:
            wire.sock.settimeout(self._deadline.left())
            SocksProxy(
                ProxyType.SOCKS4 if proxy.scheme.startswith("socks4") else ProxyType.SOCKS5,
                proxy.host,
                proxy.port,
                proxy.user,
                proxy.password,
                rdns=proxy.resolves,
                forward=cast("Any", _Connected(wire.sock)),
            ).connect(host, self._uri.port, timeout=self._deadline.left())
        except SocksError as exc:
            raise ProxyError(str(proxy), f"the proxy refused: {exc}") from exc
        except ValueError as exc:  # a reply that is not SOCKS, or a password that does not fit
            raise ProxyError(str(proxy), f"malformed reply: {exc}") from exc

    def _start_tls(self, wire: Wire, context: ssl_module.SSLContext, name: str, address: str) -> None:
        self.step, self.address = "tls", address
        layer = TlsLayer(context, name, wire.tls)
        wire_below = wire.tls
        data, done = layer.handshake(b"")
        while True:
            if data:
                wire.sock.settimeout(self._deadline.left())
                wire.sock.sendall(data)
            if done:
                break
            wire.sock.settimeout(self._deadline.left())
            received = wire.sock.recv(_READ_SIZE)
            if not received or (wire_below is not None and wire_below.ended):
                raise ConnectError("tls", address, "the connection was closed during the TLS handshake")
            try:
                data, done = layer.handshake(received)
            except ssl_module.SSLCertVerificationError:
                forget_certificates()
                raise
        check_alpn(layer.ssl_object.selected_alpn_protocol(), address)
        wire.tls = layer
        wire.early = layer.decrypt(b"")  # it came with the end of the handshake


class _Connected:
    """Proxy in front of a SOCKS proxy, as python-socks sees it: gives the socket that is connected already."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def connect(self, **_: object) -> socket.socket:
        """Return the socket."""
        return self._sock


class _Race:
    """Happy eyeballs: a race to several addresses. Each begins when the one before fails, or 0.25 s after it."""

    def __init__(
        self, addresses: Sequence[AddressInfo], local: Sequence[AddressInfo] | None, deadline: Deadline
    ) -> None:
        self._waiting = _interleaved(addresses)
        self._local = local
        self._deadline = deadline
        self._error: OSError | None = None

    def run(self) -> socket.socket:
        """Return the first connected socket, and close the others."""
        with _Selector() as selector:
            winner: socket.socket | None = None
            try:
                while winner is None:
                    if self._waiting:
                        self._begin(selector, self._waiting.pop(0))
                    running = len(selector.get_map())
                    if not running and not self._waiting:
                        raise self._error or OSError("no address can be connected to")
                    if running:
                        winner = self._wait(selector)
                return winner
            finally:
                for key in list(selector.get_map().values()):
                    if key.fileobj is not winner:
                        cast("socket.socket", key.fileobj).close()

    def _begin(self, selector: Any, info: AddressInfo) -> None:
        family, kind, protocol, _, address = info
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            local = None if self._local is None else next((one for one in self._local if one[0] == family), None)
            if self._local is not None and local is None:
                raise OSError(errno.EADDRNOTAVAIL, "local_addr has no address of this family")
            if local is not None:
                sock.bind(local[4])
            code = sock.connect_ex(address)
            if code not in _PENDING:
                raise OSError(code, os.strerror(code))
            selector.register(sock, selectors.EVENT_WRITE)
        except BaseException as exc:
            sock.close()
            if not isinstance(exc, OSError):
                raise
            self._error = self._error or exc

    def _wait(self, selector: Any) -> socket.socket | None:
        left = self._deadline.left()
        if self._waiting:
            left = EYEBALLS_DELAY if left is None else min(left, EYEBALLS_DELAY)
        for key, _ in selector.select(left):
            sock = cast("socket.socket", key.fileobj)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if not code:
                return sock
            selector.unregister(sock)
            sock.close()
            self._error = self._error or OSError(code, os.strerror(code))
        return None


def _interleaved(addresses: Sequence[AddressInfo]) -> list[AddressInfo]:
    """Return the addresses with their families in turn (RFC 8305 section 4)."""
    if not addresses:
        return []
    first = [info for info in addresses if info[0] == addresses[0][0]]
    others = [info for info in addresses if info[0] != addresses[0][0]]
    return [info for info in chain.from_iterable(zip_longest(first, others)) if info is not None]
