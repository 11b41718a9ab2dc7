"""Connections of the asyncio client: name, TCP (happy eyeballs), proxy and TLS, up to a transport.

Invariant: one owner for a descriptor at any moment. A canceled or failed `Dialing.open` closes what it has opened, and
nothing else.

How a descriptor changes its owner: ``create_connection(sock=)`` is never canceled. On uvloop before 0.23 (0.21 is the
oldest that is supported) a canceled call closes the descriptor in the loop, while the socket object still owns its
number, and closes it again when another connection may have it. Without TLS the call takes two iterations of the loop,
so it runs to its end, and then the transport is aborted. TLS begins on the transport, its only owner.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import os
import socket
import ssl as ssl_module
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar, cast

from ..errors import ConnectError, ProxyError
from ..transport.tls_upgrade import start_tls
from .dial_steps import ALPN, EYEBALLS_DELAY, NO_SOCKS, DialSteps, check_alpn, peer_name, socks_target
from .proxy import Proxy, Tunnel
from .resolver import AddressInfo, Resolver, literal_address, resolver
from .uri import WebSocketURI

__all__ = ["Dialing", "forget_certificates", "tls_context"]

P = TypeVar("P", bound=asyncio.BufferedProtocol)

#: Seconds that python-socks may take: the caller has a deadline.
_FOREVER: Final = 86_400.0

#: Error codes of a connect that has begun.
_UNDER_WAY: Final = frozenset({errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EINTR})

_READ_SIZE: Final = 16 * 1024


def tls_context(given: ssl_module.SSLContext | bool | None = None) -> ssl_module.SSLContext:
    """Return the TLS context for ``given``: itself, or ours for True and ``None``, which offers ``http/1.1`` alone.

    Raises:
        TypeError: ``given`` is something else.
    """
    if given is None or given is True:
        return _default_context()
    if not isinstance(given, ssl_module.SSLContext):
        raise TypeError(f"ssl must be an ssl.SSLContext, True or None, not {given!r}")
    return given


@functools.lru_cache(maxsize=1)  # reading the certificates of the system takes longer than a handshake
def _default_context() -> ssl_module.SSLContext:
    context = ssl_module.create_default_context()
    context.set_alpn_protocols([ALPN])
    return context


def forget_certificates() -> None:
    """Let our TLS context be made anew: those of the system may have changed since they were read."""
    _default_context.cache_clear()


class Dialing(DialSteps):
    """One attempt to get a connection.

    Args:
        uri: URI to connect to.
        names: Resolver (default: that of the process).
        options: Those of `DialSteps`.
    """

    def __init__(
        self,
        uri: WebSocketURI,
        *,
        names: Resolver = resolver,
        **options: Any,
    ) -> None:
        super().__init__(uri, **options)
        self._names = names
        self._loop = asyncio.get_running_loop()
        self._unix = self._path is not None

    async def open(self, factory: Callable[[], P]) -> tuple[asyncio.Transport, P]:
        """Connect. Return the transport, and the protocol that ``factory`` made for it, after ``connection_made()``.

        Raises:
            ConnectError: A step failed. A `ProxyError` has the status of the proxy.
        """
        try:
            sock = await self._connected_socket()
            if self._proxy is not None and self._proxy.socks:
                sock = await self._through_socks(sock, self._proxy)
            if not self._uri.secure and (self._proxy is None or self._proxy.socks):
                transport, protocol = await self._adopt(sock, factory)
                self.step = "handshake"
                return transport, protocol
            transport, early = await self._adopt(sock, _EarlyData)
            try:
                return await self._through_layers(transport, early, factory)
            except BaseException:
                early.transport.abort()  # the newest layer; those below go with it
                transport.abort()
                raise
        except ConnectError:
            raise
        except OSError as exc:
            raise ConnectError.of(self.step, self.address, exc) from exc

    # --- sockets ----------------------------------------------------------------------------------

    async def _connected_socket(self) -> socket.socket:
        if self._sock is not None:
            sock, self._sock = self._sock, None
            self._unix = sock.family == getattr(socket, "AF_UNIX", None)
            self.address = peer_name(sock)
            return sock
        if self._path is not None:
            return await self._unix_socket(self._path)
        place = self._place()
        addresses = await self._resolve(place.host, place.port)
        local = None if self._local_addr is None else await self._resolve(*self._local_addr)
        self._resolved(place, addresses)
        return await self._connect(addresses, local)

    async def _unix_socket(self, path: str) -> socket.socket:
        self.address = path
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            await self._loop.sock_connect(sock, path)
        except BaseException:
            sock.close()
            raise
        return sock

    async def _resolve(self, host: str, port: int) -> Sequence[AddressInfo]:
        self.step = "resolve"
        literal = literal_address(host, port)
        if literal is not None:
            return [literal]
        return await asyncio.wrap_future(self._names.resolve(host, port))

    async def _connect(self, addresses: Sequence[AddressInfo], local: Sequence[AddressInfo] | None) -> socket.socket:
        if len(addresses) == 1 and local is None and "%" not in addresses[0][4][0]:
            return await self._connect_alone(addresses[0])
        from aiohappyeyeballs import start_connection  # not above: a client of a Unix socket needs none

        connecting = start_connection(
            cast("Any", addresses),
            local_addr_infos=cast("Any", local),
            happy_eyeballs_delay=EYEBALLS_DELAY,
            interleave=1,
            loop=self._loop,
        )
        try:
            if len(addresses) == 1:
                return await connecting
            # A race that is canceled at its end may swallow that, and return a socket: a task keeps them apart.
            return await self._in_task(connecting)
        except RuntimeError as exc:  # uvloop raises it in place of some errors
            raise ConnectError(self.step, self.address, str(exc)) from exc

    async def _connect_alone(self, info: AddressInfo) -> socket.socket:
        """Connect to the only address, which has no zone. There is no race, and ``sock_connect`` resolves it again."""
        family, kind, protocol, _, address = info
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            if hasattr(self._loop, "_proactor"):  # of Windows: it has no add_writer()
                await self._loop.sock_connect(sock, address)
                return sock
            error = sock.connect_ex(address)
            if error in _UNDER_WAY:
                await self._writable(sock)
                error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                raise OSError(error, os.strerror(error))
        except BaseException:
            sock.close()
            raise
        return sock

    async def _writable(self, sock: socket.socket) -> None:
        waiter = self._loop.create_future()
        self._loop.add_writer(sock, _wake, waiter)
        try:
            await waiter
        finally:
            self._loop.remove_writer(sock)

    async def _in_task(self, connecting: Coroutine[Any, Any, socket.socket]) -> socket.socket:
        task = self._loop.create_task(connecting)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.cancel()
            task.add_done_callback(_close_result)
            raise

    async def _through_socks(self, sock: socket.socket, proxy: Proxy) -> socket.socket:
        self.step, self.address = "proxy", str(proxy)
        try:
            from python_socks import ProxyError as SocksError
            from python_socks import ProxyType
            from python_socks.async_.asyncio import Proxy as SocksProxy
        except ImportError as exc:
            sock.close()
            raise ProxyError(str(proxy), NO_SOCKS) from exc
        try:
            host = self._uri.host.partition("%")[0]
            if not (proxy.resolves or self._uri.is_address):
                host = socks_target(await self._resolve(host, self._uri.port), proxy)
                self.step = "proxy"
            socks = SocksProxy(
                ProxyType.SOCKS4 if proxy.scheme.startswith("socks4") else ProxyType.SOCKS5,
                proxy.host,
                proxy.port,
                proxy.user,
                proxy.password,
                rdns=proxy.resolves,
                forward=cast("Any", _Connected(sock)),
                loop=self._loop,
            )
            return await socks.connect(host, self._uri.port, timeout=_FOREVER)
        except SocksError as exc:
            sock.close()
            raise ProxyError(str(proxy), f"the proxy refused: {exc}") from exc
        except ValueError as exc:  # a reply that is not SOCKS, or a password that does not fit
            sock.close()
            raise ProxyError(str(proxy), f"malformed reply: {exc}") from exc
        except BaseException:
            sock.close()
            raise

    # --- transports -------------------------------------------------------------------------------

    async def _adopt(self, sock: socket.socket, factory: Callable[[], P]) -> tuple[asyncio.Transport, P]:
        """Return a transport that owns ``sock``. A cancellation waits until it does, and aborts it."""
        loop = self._loop
        create: Callable[..., Any] = loop.create_unix_connection if self._unix else loop.create_connection
        done = loop.create_future()
        _Steps(create(factory, sock=sock), sock, done).run()
        canceled = None
        while not done.done():
            try:
                await asyncio.shield(done)
            except asyncio.CancelledError as exc:  # noqa: PERF203
                canceled = exc
        if canceled is not None:
            if done.exception() is None:
                done.result()[0].abort()
            raise canceled
        transport, protocol = done.result()
        return transport, protocol

    async def _through_layers(
        self, transport: asyncio.Transport, early: _EarlyData, factory: Callable[[], P]
    ) -> tuple[asyncio.Transport, P]:
        proxy = self._proxy
        if proxy is not None and not proxy.socks:
            if proxy.secure:
                name = self._proxy_server_hostname or proxy.tls_name
                transport = await self._start_tls(transport, early, tls_context(self._proxy_ssl), name, str(proxy))
            self.step, self.address = "proxy", str(proxy)
            await early.open_tunnel(Tunnel(self._uri, proxy))
        if self._uri.secure:
            name, address = self._tls_names()
            transport = await self._start_tls(transport, early, tls_context(self._ssl), name, address)
        self.step = "handshake"
        protocol = factory()
        early.hand_over(transport, protocol)
        return transport, protocol

    async def _start_tls(
        self,
        transport: asyncio.Transport,
        early: _EarlyData,
        context: ssl_module.SSLContext,
        name: str,
        address: str,
    ) -> asyncio.Transport:
        self.step, self.address = "tls", address
        early.check_silence(address)
        try:
            upgraded = await start_tls(transport, early, context, server_hostname=name)
        except ssl_module.SSLCertVerificationError:
            forget_certificates()
            raise
        check_alpn(upgraded.get_extra_info("ssl_object").selected_alpn_protocol(), address)
        return cast("asyncio.Transport", upgraded)


class _Steps:
    """Run of ``create_connection(sock=)`` to its end, without a task: a task can be canceled by ``asyncio.run``.

    The result, or the error, becomes that of ``done``.
    """

    __slots__ = ("_connecting", "_done", "_sock", "_waited")

    def __init__(self, connecting: Coroutine[Any, Any, Any], sock: socket.socket, done: asyncio.Future[Any]) -> None:
        self._connecting = connecting
        self._sock = sock
        self._done = done
        self._waited = False

    def run(self, _: asyncio.Future[Any] | None = None) -> None:
        """Go on until the coroutine waits for its transport."""
        try:
            waits_for = self._connecting.send(None)
        except StopIteration as stop:
            self._done.set_result(stop.value)
        except BaseException as exc:
            self._give_up()
            self._done.set_exception(exc)
            self._done.exception()  # seen
            if isinstance(exc, (KeyboardInterrupt, SystemExit)):
                raise
        else:
            self._waited = True
            waits_for._asyncio_future_blocking = False  # as a task does
            waits_for.add_done_callback(self.run)

    def _give_up(self) -> None:
        """Close the descriptor, unless there was a transport, which has closed it."""
        if not self._waited:
            self._sock.close()
        elif type(self._done.get_loop()).__module__.partition(".")[0] == "uvloop":
            self._sock.detach()


class _EarlyData(asyncio.BufferedProtocol):
    """Protocol of a transport until its connection has one: reads the reply of a proxy, and keeps early data.

    It keeps what comes within an iteration or two of the loop, so that the transport need not be paused.
    """

    def __init__(self) -> None:
        # A view: asyncio slices it, and reads into the slice.
        self._buffer = memoryview(bytearray(_READ_SIZE))
        self._kept = bytearray()
        self._tunnel: Tunnel | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self._ended = False
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return the buffer of the next read."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Read the reply of the proxy, or keep the data."""
        self._read(bytes(self._buffer[:nbytes]))

    def eof_received(self) -> bool:
        """Let the transport close: a server ends no connection before it is asked."""
        self._end(None)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end of the transport."""
        self._end(exc)

    async def open_tunnel(self, tunnel: Tunnel) -> None:
        """Send CONNECT. Return once the proxy has opened the tunnel.

        Raises:
            OSError: The connection failed, or the proxy refused (`ProxyError`).
        """
        self._tunnel = tunnel
        self._waiter = asyncio.get_running_loop().create_future()
        self.transport.write(tunnel.request)
        early, self._kept = self._kept, bytearray()
        if early:
            self._read(bytes(early))
        if self._ended:
            self._end(None)
        await self._waiter
        if self._error is not None:
            raise self._error

    def check_silence(self, address: str) -> None:
        """Raise `ConnectError` if data or an end has come before TLS, where a server waits for the client."""
        if self._error is not None:
            raise self._error
        if self._kept or self._ended:
            what = "sent data" if self._kept else "closed the connection"
            raise ConnectError("tls", address, f"the peer {what} before the TLS handshake")

    def hand_over(self, transport: asyncio.Transport, protocol: asyncio.BufferedProtocol) -> None:
        """Make ``protocol`` that of the transport, and pass on the data that has come.

        Raises:
            OSError: The connection has ended.
        """
        if self._ended:
            raise self._error or ConnectionResetError("the connection was closed")
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        data = memoryview(self._kept)
        while data:
            buffer = memoryview(protocol.get_buffer(len(data)))
            size = min(len(data), len(buffer))
            buffer[:size] = data[:size]
            protocol.buffer_updated(size)
            data = data[size:]

    def _read(self, data: bytes) -> None:
        tunnel = self._tunnel
        if tunnel is None:
            self._kept += data
            return
        try:
            if not tunnel.feed(data):
                return
        except ProxyError as exc:
            self._error = exc
        self._kept += tunnel.rest
        self._tunnel = None
        self._wake()

    def _end(self, exc: Exception | None) -> None:
        self._ended = True
        tunnel, self._tunnel = self._tunnel, None
        if self._error is None:
            self._error = exc or (None if tunnel is None else tunnel.feed_eof())
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class _Connected:
    """Proxy in front of a SOCKS proxy, as python-socks sees it: gives the socket that is connected already."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    async def connect(self, **_: object) -> socket.socket:
        """Return the socket."""
        return self._sock


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _close_result(task: asyncio.Task[socket.socket]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().close()
