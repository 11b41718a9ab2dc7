"""Stand-ins that make tests of the wire exact: a loop whose clock stands still, a transport that takes what it is told.

`FakeLoop` is what `Timers` asks of an event loop, and moves only when the test says so. `FakeTransport` keeps what is
written to it, call by call, and asks its protocol to pause when the test says so. `linked` is the real thing: a
server's connection and the raw client at its other end.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import errno
import functools
import logging
import socket
import ssl
import tempfile
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

import plumews
from plumews.conn.opening import opened
from plumews.conn.receiver import deliver_to
from plumews.constants import Opcode
from plumews.protocol.codec import Parser
from plumews.transport import sendmsg as wire_module
from plumews.transport.loop_context import loop_context
from support.raw_client import Wire

#: Seconds for what happens soon, on a machine that others use; less than the defaults for opening and closing (10 s),
#: so that who heeds those and not what was configured is still found out.
PATIENCE = 9.0


class FakeHandle:
    def __init__(self, when: float, callback: Callable[[], object]) -> None:
        self.when = when
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self.callback = None


class FakeLoop:
    """Time that passes by :meth:`advance` alone."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        self.handles: list[FakeHandle] = []
        self.wakes = 0
        self.failures: list[dict[str, Any]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], object], *, context: Any = None) -> FakeHandle:
        handle = FakeHandle(when, callback)
        self.handles.append(handle)
        return handle

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.failures.append(context)

    @property
    def armed(self) -> list[float]:
        """When the loop would wake up."""
        return sorted(handle.when for handle in self.handles if handle.callback is not None)

    def advance(self, seconds: float) -> None:
        """Let time pass, waking up at each time that was asked for."""
        end = self.now + seconds
        while self.armed and self.armed[0] <= end:
            self.now = max(self.now, self.armed[0])
            self.wake()
        self.now = end

    def stall(self, seconds: float) -> None:
        """Let time pass at one go: what was due in the meantime is late."""
        self.now += seconds
        self.wake()

    def wake(self) -> None:
        due = [handle for handle in self.handles if handle.callback is not None and handle.when <= self.now]
        self.handles = [handle for handle in self.handles if handle not in due and handle.callback is not None]
        for handle in due:
            if handle.callback is not None:
                self.wakes += 1
                handle.callback()


class FakeTransport:
    """Keeps what is written, one entry a call. It is full when :meth:`fill` says so."""

    def __init__(self, protocol: Any = None) -> None:
        self.protocol = protocol
        self.writes: list[bytes] = []
        self.full_after: int | None = None
        self.held = 0
        self.reading = True
        self.closing = False
        self.aborted = False
        self.eof_written = False
        self.limits: list[int] = []

    @property
    def wire(self) -> bytes:
        return b"".join(self.writes)

    def events(self) -> list[tuple[int, Any]]:
        """Return the events that a client would parse from all written bytes."""
        parser = Parser(client=True, max_size=None)
        events = parser.feed(self.wire)
        assert parser.error is None, parser.error
        return events

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("192.0.2.1", 4711), "sockname": ("192.0.2.2", 80)}.get(name, default)

    def set_write_buffer_limits(self, high: int) -> None:
        self.limits.append(high)

    def is_closing(self) -> bool:
        return self.closing

    def get_write_buffer_size(self) -> int:
        return self.held

    def write(self, data: bytes | memoryview) -> None:
        assert not self.eof_written, "a write after the end"
        assert not self.closing, "a write to a transport that is closing"
        self.writes.append(bytes(data))
        if self.full_after is not None:
            self.full_after -= 1
            if self.full_after <= 0:
                self.fill()

    def writelines(self, buffers: list[bytes | memoryview]) -> None:
        self.write(b"".join(buffers))

    def fill(self) -> None:
        self.full_after = None
        self.protocol.pause_writing()

    def drain(self) -> None:
        """There is room again, and the tick in which the protocol is told so ends."""
        self.protocol.resume_writing()
        if isinstance(self.protocol, plumews.Conn):
            self.protocol._flush()

    def pause_reading(self) -> None:
        assert self.reading, "paused twice"
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading, "resumed twice"
        self.reading = True

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.eof_written = True

    def close(self) -> None:
        self._end()

    def abort(self) -> None:
        self.aborted = True
        self._end()

    def _end(self) -> None:
        if not self.closing:
            self.closing = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)


#: How a peer that has gone is told by a call of a transport.
GONE = OSError(errno.ENOTCONN, "Transport endpoint is not connected")
#: All that is called of a transport.
CALLS = (
    "get_extra_info",
    "set_write_buffer_limits",
    "is_closing",
    "get_write_buffer_size",
    "write",
    "writelines",
    "pause_reading",
    "resume_reading",
    "can_write_eof",
    "write_eof",
    "close",
    "abort",
)


def failing(calls: tuple[str, ...], exc: Exception) -> type[FakeTransport]:
    """A transport whose methods ``calls`` raise ``exc`` as soon as it is ``broken``."""

    class Failing(FakeTransport):
        broken = False

        def __getattribute__(self, name: str) -> Any:
            if name in calls and self.broken:

                def fail(*args: object, **options: object) -> None:
                    raise exc

                return fail
            return super().__getattribute__(name)

    return Failing


class SocketTransport(FakeTransport):
    """Has a socket that takes little, past which others may write; its peer reads when the test says :meth:`drain`."""

    def __init__(self, protocol: Any = None) -> None:
        super().__init__(protocol)
        self.socket, self.peer = socket.socketpair()
        self.socket.setblocking(False)
        self.peer.setblocking(False)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self.kept = bytearray()  # what the socket did not take

    @property
    def wire(self) -> bytes:
        self._read()
        return super().wire

    def get_extra_info(self, name: str) -> Any:
        return self.socket if name == "socket" else super().get_extra_info(name)

    def get_write_buffer_size(self) -> int:
        return len(self.kept)

    def write(self, data: bytes | memoryview) -> None:
        assert not self.closing, "a write to a transport that is closing"
        self.kept += data
        self._pass_on()
        if self.kept:
            self.fill()

    def drain(self) -> None:
        """There is room for all that waits."""
        self._read()
        super().drain()
        while self.kept:
            self._pass_on()
            self._read()
            if not self.kept:
                super().drain()

    def close_socket(self) -> None:
        self.socket.close()
        self.peer.close()

    def _pass_on(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self.kept:
                del self.kept[: self.socket.send(self.kept)]

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                self.writes.append(self.peer.recv(1 << 20))


wire_module._PLAIN.add(SocketTransport)


def fake_conn(make: type[FakeTransport] = FakeTransport, /, **config: Any) -> tuple[plumews.Conn, FakeTransport]:
    """An open connection on a transport that is none."""
    conn = plumews.Conn(plumews.ConnConfig(**config))
    transport = make(conn)
    conn.connection_made(transport)  # type: ignore[arg-type]
    opened(conn)
    return conn, transport


def full(**config: Any) -> tuple[plumews.Conn, FakeTransport]:
    """A connection whose socket takes nothing."""
    conn, transport = fake_conn(**{"ping_interval": None, **config})
    transport.fill()
    return conn, transport


def filled(**config: Any) -> tuple[plumews.Conn, FakeTransport]:
    """Return a connection with a full transport, and a send queue that holds "0", "1", and so on."""
    conn, transport = fake_conn(**{"queue_size": 4, **config})
    transport.fill()
    for index in range(conn._config.queue_size):
        conn.send_nowait(str(index))
    return conn, transport


def echo_by_callback(conn: plumews.Conn) -> None:
    """Echo messages in a callback."""
    deliver_to(conn, lambda conn, message: conn.send_nowait(message), lambda conn, exc: None)


async def echo_by_iteration(conn: plumews.Conn) -> None:
    """Echo messages in a handler."""
    async for message in conn:
        await conn.send(message)


def payloads_of(transport: FakeTransport) -> list[Any]:
    """The messages that left."""
    return [payload for kind, payload in transport.events() if kind in (Opcode.TEXT, Opcode.BINARY)]


def feed(conn: plumews.Conn, *frames: bytes) -> None:
    """``frames`` arrive in one read, or in as many as it takes."""
    data = memoryview(b"".join(frames))
    while data:
        room = conn.get_buffer(-1)
        size = min(len(room), len(data))
        room[:size] = data[:size]
        conn.buffer_updated(size)
        data = data[size:]


def deadlines() -> int:
    """Return the number of deadlines of the running loop."""
    return len(loop_context(asyncio.get_running_loop()).timers)


def pass_time(seconds: float) -> None:
    """Bring every deadline of the running loop nearer by ``seconds``, so that a test can have it both ways.

    What has to happen before a deadline has all the time it needs on a busy machine, and nobody waits for the rest.
    """
    timers = loop_context(asyncio.get_running_loop()).timers
    for deadline in timers._heap:
        deadline.when -= seconds
    if timers._heap:
        timers._arm()


async def flushed() -> None:
    """Wait until no queued bytes of this loop iteration wait to be written; many channels may take several slices."""
    state = loop_context(asyncio.get_running_loop())
    while state._dirty or state._gathered or state._flushing:
        await asyncio.sleep(0)


async def ticks(count: int = 3) -> None:
    """Let everything run that is ready to run."""
    for _ in range(count):
        await asyncio.sleep(0)


@contextlib.contextmanager
def failures() -> Iterator[list[dict[str, Any]]]:
    """Collect the calls of the running loop's exception handler."""
    told: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: told.append(context))
    try:
        yield told
    finally:
        loop.set_exception_handler(None)


def started(awaitable: Awaitable[Any]) -> asyncio.Future[Any]:
    """It goes on while the test does."""
    return asyncio.ensure_future(awaitable)


async def echo(conn: plumews.Conn) -> None:
    """A handler."""
    async for message in conn:
        await conn.send(message)


def entries(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Return the records that the server has logged."""
    return [record for record in caplog.records if record.name == "plumews.server"]


async def assert_empty(server: plumews.Server) -> None:
    """Nothing is left of whoever came: no connection, no task, no deadline."""
    server.close()
    await server.wait_closed()
    assert server._context.connections == set()
    assert server._context.tasks == set()
    assert deadlines() == 0


async def collect(source: AsyncIterable[Any], into: list[Any]) -> None:
    """Keep what ``source`` gives, also when it ends by an error."""
    async for item in source:
        into.append(item)


async def until(condition: Callable[[], object]) -> None:
    """Let the loop run until ``condition()`` holds; the time limit of the suite is the net."""
    while not condition():
        await asyncio.sleep(0.001)  # there is no event for any condition


@functools.cache
def tls_contexts(mutual: bool = False) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """For a server at localhost, and for a client that knows it; ``mutual``: and shows the same certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    today = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate_pem = certificate.public_bytes(serialization.Encoding.PEM)
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    with tempfile.NamedTemporaryFile() as file:
        file.write(certificate_pem + key_pem)
        file.flush()
        server.load_cert_chain(file.name)
        if mutual:
            client.load_cert_chain(file.name)
            server.load_verify_locations(cadata=certificate_pem.decode())
            server.verify_mode = ssl.CERT_REQUIRED
    client.load_verify_locations(cadata=certificate_pem.decode())
    return server, client


@contextlib.asynccontextmanager
async def linked(
    start: Callable[[Any], Any], *, rcvbuf: int | None = None, tls: bool = False, **options: Any
) -> AsyncIterator[tuple[plumews.Conn, Wire]]:
    """A server's connection and the wire to it. Its handler lasts as long as the connection does."""
    client: dict[str, Any] = {}
    if tls:
        options["ssl"], client["ssl"] = tls_contexts()
        client["server_hostname"] = "localhost"
    opened: list[plumews.Conn] = []  # given away, so that a test can see its connection freed

    async def handler(conn: plumews.Conn) -> None:
        opened.append(conn)
        gone = asyncio.Event()  # who awaits wait_closed() says that nobody reads
        conn.add_close_callback(lambda _: gone.set())
        await gone.wait()

    server = await start(plumews.serve(handler, "127.0.0.1", 0, **options))
    async with await Wire.open(server, rcvbuf=rcvbuf, **client) as wire:
        await until(lambda: opened)
        yield opened.pop(), wire


def clog(conn: plumews.Conn) -> None:
    """Send until the socket takes no more: the peer must not read, and should have a small receive buffer."""
    assert conn._transport is not None
    conn._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    while not conn._paused:
        conn.send_nowait(bytes(32 * 1024))
