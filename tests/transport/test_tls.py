"""TLS transport: records in any pieces, backpressure, the end of a stream, and handshakes that fail."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import random
import shutil
import socket
import ssl
import struct
import weakref
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import plumews
from plumews.conn import closing
from plumews.transport.loop_context import loop_context
from plumews.transport.tls import TLSTransport
from support.fakes import PATIENCE, tls_contexts, until
from support.forged_tls import ALERT, DATA, HANDSHAKE, RecordForger
from support.protocol_above import Above
from support.raw_client import Wire, masked, text, upgrade

SERVER, CLIENT = tls_contexts()
KiB = 1024
RESET = struct.pack("ii", 1, 0)


class Peer:
    """Client in memory: the test decides in which pieces its bytes reach the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, context: ssl.SSLContext) -> None:
        self.reader, self.writer = reader, writer
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")

    async def handshake(self) -> None:
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.writer.write(self.outgoing.read())
                self.incoming.write(await self.reader.read(64 * KiB))
        self.writer.write(self.outgoing.read())

    def records(self, data: bytes) -> bytes:
        """Return ``data`` encrypted."""
        self.tls.write(data)
        return self.outgoing.read()

    def close_notify(self) -> bytes:
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        return self.outgoing.read()

    async def read(self, size: int = 1 << 30) -> bytes:
        """Return ``size`` decrypted bytes, fewer before a close_notify. Raise ``EOFError`` after a FIN without it."""
        got = bytearray()
        while len(got) < size:
            try:
                data = self.tls.read(64 * KiB)
                if not data:
                    break
                got += data
            except ssl.SSLWantReadError:
                data = await self.reader.read(256 * KiB)
                if not data:
                    raise EOFError(bytes(got)) from None
                self.incoming.write(data)
            except ssl.SSLZeroReturnError:
                break
        return bytes(got)


class Link:
    """Server with one TLS connection, and the peer of it."""

    def __init__(self, **options: Any) -> None:
        self.options = {"context": SERVER, **options}
        self.above = Above()
        self.outcome = asyncio.get_running_loop().create_future()
        self.tls: Any = None

    def _make(self) -> TLSTransport:
        context = self.options.pop("context")
        state = loop_context(asyncio.get_running_loop())
        self.tls = TLSTransport(state, self.above, context, self.outcome.set_result, server_side=True, **self.options)
        return self.tls

    @contextlib.asynccontextmanager
    async def open(self, *, client: ssl.SSLContext = CLIENT, shakes: bool = True) -> AsyncIterator[Peer]:
        server = await asyncio.get_running_loop().create_server(self._make, "127.0.0.1", 0)
        try:
            peer = Peer(*await asyncio.open_connection(*server.sockets[0].getsockname()), client)
            if shakes:
                await peer.handshake()
                assert await asyncio.wait_for(asyncio.shield(self.outcome), PATIENCE) is None
            try:
                yield peer
            finally:
                peer.writer.transport.abort()
                if self.above.transport is not None:
                    self.above.transport.abort()
            if self.above.transport is not None:
                await asyncio.wait_for(asyncio.shield(self.above.lost), PATIENCE)
        finally:
            server.close()


def versions() -> list[ssl.SSLContext]:
    """Return contexts of clients that speak TLS 1.2 and 1.3."""
    made = []
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.minimum_version = context.maximum_version = version
        made.append(context)
    return made


def key_log(folder: Path) -> ssl.SSLContext:
    """Return the context of a client that speaks TLS 1.3 and writes its secrets to ``folder / "keys"``."""
    context = versions()[1]
    context.keylog_filename = str(folder / "keys")
    return context


@contextlib.asynccontextmanager
async def forging(link: Link, folder: Path) -> AsyncIterator[tuple[Peer, RecordForger]]:
    """Open ``link`` for a peer whose records are forged."""
    async with link.open(client=key_log(folder)) as peer:
        yield peer, RecordForger(peer.tls, folder / "keys")


# --- reading --------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("seed", range(6))
async def test_records_arrive_in_order_in_any_pieces(seed: int, version: int) -> None:
    chance = random.Random(seed)
    link = Link()
    async with link.open(client=versions()[version]) as peer:
        peer.writer.transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sent, wire = bytearray(), bytearray()
        for _ in range(40):
            data = chance.randbytes(chance.choice((1, 2, 30, 1000, 16_384, 16_385, 70_000)))
            sent += data
            wire += peer.records(data)
        at = 0
        while at < len(wire):
            size = chance.choice((1, 2, 3, 4, 5, 6, 100, 5000, 16_384 + 22, 40_000, 200_000))
            peer.writer.write(bytes(wire[at : at + size]))
            await peer.writer.drain()
            await asyncio.sleep(0)
            at += size
        await until(lambda: len(link.above.got) >= len(sent))
        assert link.above.got == sent


async def test_each_byte_of_a_record_alone_is_taken() -> None:
    link = Link()
    async with link.open() as peer:
        for byte in peer.records(b"one") + peer.records(b"two") + peer.close_notify():
            link.tls.data_received(bytes([byte]))
        assert (bytes(link.above.got), link.above.calls) == (b"onetwo", ["made", "eof"])


async def test_paused_protocol_gets_nothing_until_it_resumes() -> None:
    link = Link()
    async with link.open() as peer:
        link.above.transport.pause_reading()
        assert not link.above.transport.is_reading()
        sent = random.Random(1).randbytes(500_000)
        peer.writer.write(peer.records(sent))
        link.tls.data_received(b"")
        for _ in range(20):
            await asyncio.sleep(0)
        assert not link.above.got
        assert link.tls._incoming.pending <= 128 * KiB
        link.above.transport.resume_reading()
        await until(lambda: len(link.above.got) == len(sent))
        assert link.above.got == sent


async def test_pause_within_a_read_loses_nothing() -> None:
    link = Link()
    above = link.above
    async with link.open() as peer:
        sent = [bytes([number]) * 1000 for number in range(50)]
        wire = b"".join(map(peer.records, sent))
        taken = above.buffer_updated

        def pausing(nbytes: int) -> None:
            taken(nbytes)
            above.transport.pause_reading()

        above.buffer_updated = pausing  # type: ignore[method-assign]
        above.room = bytearray(1500)
        peer.writer.write(wire + peer.close_notify())
        while len(above.got) < 50_000:
            before = len(above.got)
            await until(lambda before=before: len(above.got) > before)
            assert len(above.got) - before <= 1500
            assert "eof" not in above.calls
            above.transport.resume_reading()
        await until(lambda: "eof" in above.calls)
        assert above.got == b"".join(sent)


@pytest.mark.parametrize("size", [1, 7, 16_384, 100_000])
async def test_buffer_of_any_size_is_filled(size: int) -> None:
    link = Link()
    link.above.room = bytearray(size)
    async with link.open() as peer:
        sent = random.Random(size).randbytes(40_000)
        peer.writer.write(peer.records(sent[:20_000]) + peer.records(sent[20_000:]))
        await until(lambda: len(link.above.got) == len(sent))
        assert link.above.got == sent


async def test_protocol_that_takes_little_at_a_time_lets_one_read_wait() -> None:
    link = Link()
    above = link.above
    above.room = bytearray(16_384)
    async with link.open() as peer:
        taken = above.buffer_updated

        def pausing(nbytes: int) -> None:
            taken(nbytes)
            above.transport.pause_reading()

        above.buffer_updated = pausing  # type: ignore[method-assign]
        sent = random.Random(6).randbytes(1_000_000)
        peer.writer.write(peer.records(sent))
        most = 0
        while len(above.got) < len(sent):
            before = len(above.got)
            await until(lambda before=before: len(above.got) > before)
            most = max(most, link.tls._incoming.pending)
            above.transport.resume_reading()
        assert above.got == sent
        assert most <= 128 * KiB


@pytest.mark.parametrize("alone", [False, True])
async def test_records_without_data_between_data_lose_nothing(tmp_path: Path, alone: bool) -> None:
    link = Link()
    async with forging(link, tmp_path) as (peer, forger):
        wire = b""
        for number in range(40):
            wire += forger.record(DATA, b"") + forger.record(DATA, bytes([number]), padding=number)
            if number % 3 == 0:
                wire += forger.key_update()
        wire += forger.record(ALERT, b"\x01\x00")
        for at in range(0, len(wire), 1 if alone else len(wire)):
            link.tls.data_received(wire[at : at + 1] if alone else wire)
        assert (bytes(link.above.got), link.above.calls) == (bytes(range(40)), ["made", "eof"])
        assert await asyncio.wait_for(peer.read(), PATIENCE) == b""


async def test_data_behind_the_handshake_is_delivered() -> None:
    link = Link()
    async with link.open(client=versions()[1], shakes=False) as peer:
        while True:
            try:
                peer.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                peer.writer.write(peer.outgoing.read())
                peer.incoming.write(await peer.reader.read(64 * KiB))
        finished = peer.outgoing.read()
        peer.writer.write(finished + peer.records(b"at once") + peer.close_notify())
        await until(lambda: "eof" in link.above.calls)
        assert (bytes(link.above.got), link.above.calls[:2]) == (b"at once", ["made", "eof"])


# --- writing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [0, 1])
async def test_large_data_comes_back_with_backpressure(version: int) -> None:
    link = Link()
    link.above.echoes = True
    async with link.open(client=versions()[version]) as peer:
        # Else the kernel may take all of it.
        link.above.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * KiB)
        peer.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * KiB)
        sent = random.Random(3).randbytes(6_000_000)

        async def send() -> None:
            for at in range(0, len(sent), 100_000):
                peer.writer.write(peer.records(sent[at : at + 100_000]))
                await peer.writer.drain()

        sender = asyncio.ensure_future(send())
        await until(lambda: link.above.full)  # nothing is read by the peer yet
        assert await asyncio.wait_for(peer.read(len(sent)), PATIENCE) == sent
        await sender


async def test_close_sends_what_waits_then_a_close_notify() -> None:
    link = Link()
    async with link.open() as peer:
        part = random.Random(4).randbytes(1_000_000)
        data = b""
        while not link.above.full:
            link.above.transport.write(part)
            data += part
        link.above.transport.writelines([b"a", bytearray(b"b"), memoryview(b"c")])
        assert link.above.transport.get_write_buffer_size() > 0
        link.above.transport.close()
        assert link.above.transport.is_closing()
        link.above.transport.write(b"too late")
        assert await asyncio.wait_for(peer.read(), PATIENCE) == data + b"abc"
        peer.writer.write(peer.close_notify())
        assert await asyncio.wait_for(asyncio.shield(link.above.lost), PATIENCE) is None


async def test_views_and_large_writes_keep_their_order() -> None:
    link = Link()
    async with link.open() as peer:
        parts = [b"", b"x" * 10, b"y" * 65_536, b"z" * 65_537, b"w" * 300_000]
        for part in parts:
            link.above.transport.write(memoryview(part))
            link.above.transport.write(bytearray(part))
        expected = b"".join(part + part for part in parts)
        assert await asyncio.wait_for(peer.read(len(expected)), PATIENCE) == expected


async def test_peer_that_reads_no_answer_of_tls_is_cut(tmp_path: Path) -> None:
    """Each KeyUpdate asks for another record, and nobody reads them."""
    link = Link()
    async with forging(link, tmp_path) as (_, forger):
        transport = link.above.transport
        transport.set_write_buffer_limits(high=0)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        while not link.above.full:
            transport.write(bytes(100_000))
        held = transport.get_write_buffer_size()
        for _ in range(50):
            link.tls.data_received(b"".join(forger.key_update() + forger.record(DATA, b"x") for _ in range(100)))
            assert transport.get_write_buffer_size() <= held + 80_000
        assert isinstance(await asyncio.wait_for(asyncio.shield(link.above.lost), PATIENCE), ConnectionAbortedError)


async def test_data_that_waits_keeps_no_context() -> None:
    class Value:
        pass

    link = Link()
    async with link.open():
        variable: contextvars.ContextVar[Any] = contextvars.ContextVar("variable")
        context, value = contextvars.copy_context(), Value()
        context.run(variable.set, value)
        while not link.above.full:
            context.run(link.above.transport.write, bytes(1_000_000))
        known = weakref.ref(value)
        del context, value
        gc.collect()
        assert known() is None


class Holding(ssl.SSLObject):
    """TLS in a renegotiation while ``holds`` is True: OpenSSL takes no data. Else it takes 1,000 bytes at a time."""

    holds = False

    def write(self, data: Any) -> int:
        if self.holds:
            raise ssl.SSLWantReadError
        return super().write(bytes(data[:1000]))


@pytest.mark.parametrize("closes", [False, True])
async def test_data_waits_for_the_end_of_a_renegotiation(closes: bool) -> None:
    context, client = tls_contexts()
    context.sslobject_class = Holding
    link = Link(context=context)
    async with link.open(client=client) as peer:
        holding, transport = link.tls.get_extra_info("ssl_object"), link.above.transport
        transport.write(b"a" * 2500)
        holding.holds = True
        transport.write(b"b" * 200_000)
        transport.write(b"c")
        assert (link.above.full, transport.get_write_buffer_size()) == (True, 200_001)
        link.tls.pause_writing()
        link.tls.resume_writing()
        assert link.above.full
        peer.writer.write(peer.records(b"goes on"))
        await until(lambda: link.above.got)
        assert link.above.full
        if closes:
            transport.close()
        holding.holds = False
        peer.writer.write(peer.records(b"it is over"))
        expected = b"a" * 2500 + b"b" * 200_000 + b"c"
        assert await asyncio.wait_for(peer.read(len(expected)), PATIENCE) == expected
        if closes:
            assert await asyncio.wait_for(peer.read(), PATIENCE) == b""
        else:
            assert not link.above.full


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the command of OpenSSL")
async def test_key_update_of_the_peer_is_answered() -> None:
    link = Link()
    link.above.echoes = True
    server = await asyncio.get_running_loop().create_server(link._make, "127.0.0.1", 0)
    address = "{}:{}".format(*server.sockets[0].getsockname())
    words = ["openssl", "s_client", "-tls1_3", "-connect", address]
    client = await asyncio.create_subprocess_exec(*words, stdin=-1, stdout=-1, stderr=-2)
    said = b""
    try:
        assert client.stdin is not None
        assert client.stdout is not None
        await asyncio.wait_for(link.outcome, PATIENCE)
        for line, answer in ((b"before\n", b"before"), (b"K\n", b"KEYUPDATE"), (b"behind\n", b"behind")):
            client.stdin.write(line)
            while answer not in said:
                data = await asyncio.wait_for(client.stdout.read(4096), PATIENCE)
                assert data, said
                said += data
            said = said.rpartition(answer)[2]
        assert link.above.got == b"before\nbehind\n"
    finally:
        link.above.transport.abort()
        client.stdin.close()  # type: ignore[union-attr]
        await asyncio.wait_for(client.wait(), PATIENCE)
        server.close()


# --- the end --------------------------------------------------------------------------------------


async def test_data_after_our_close_is_dropped() -> None:
    link = Link()
    async with link.open() as peer:
        link.above.transport.close()
        assert await asyncio.wait_for(peer.read(), PATIENCE) == b""
        for _ in range(3):
            peer.writer.write(peer.records(b"late" * 5000))
            await peer.writer.drain()
        assert not link.above.lost.done()
        peer.writer.write(peer.close_notify())
        assert await asyncio.wait_for(asyncio.shield(link.above.lost), PATIENCE) is None
        assert not link.above.got


async def test_close_with_unread_data_ends_cleanly() -> None:
    link = Link()
    async with link.open() as peer:
        link.above.transport.pause_reading()
        link.tls.data_received(peer.records(b"unread" * 10_000))  # as behind a pause within a read
        link.above.transport.close()
        assert await asyncio.wait_for(peer.read(), PATIENCE) == b""
        peer.writer.write(peer.close_notify())
        assert await asyncio.wait_for(asyncio.shield(link.above.lost), PATIENCE) is None


async def test_missing_close_notify_of_the_peer_is_bounded() -> None:
    link = Link(shutdown_timeout=0.05)
    async with link.open() as peer:
        link.above.transport.close()
        assert await asyncio.wait_for(peer.read(), PATIENCE) == b""
        assert await asyncio.wait_for(asyncio.shield(link.above.lost), PATIENCE) is None


@pytest.mark.parametrize("polite", [True, False])
async def test_peer_that_ends_is_told_once_and_closed(polite: bool) -> None:
    link = Link()
    async with link.open() as peer:
        peer.writer.write(peer.records(b"last") + (peer.close_notify() if polite else b""))
        if not polite:
            peer.writer.write_eof()
        assert await asyncio.wait_for(asyncio.shield(link.above.lost), PATIENCE) is None
        assert (bytes(link.above.got), link.above.calls) == (b"last", ["made", "eof", "lost"])
        assert await asyncio.wait_for(peer.read(), PATIENCE) == b""  # our close_notify came


async def test_reset_within_a_record_ends_the_connection() -> None:
    link = Link()
    async with link.open() as peer:
        peer.writer.write(peer.records(b"whole") + peer.records(b"part" * 1000)[:1000])
        await until(lambda: link.above.got)
        peer.writer.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        peer.writer.transport.abort()
        await asyncio.wait_for(asyncio.shield(link.above.lost), PATIENCE)
        assert bytes(link.above.got) == b"whole"
        assert link.above.calls[-1] == "lost"


@pytest.mark.parametrize("echoes", [False, True])
@pytest.mark.parametrize("what", ["forged", "no record"])
async def test_wrong_record_is_answered_with_an_alert(what: str, echoes: bool) -> None:
    link = Link()
    link.above.echoes = echoes
    async with link.open() as peer:
        good, bad = peer.records(b"good"), bytearray(peer.records(b"bad"))
        if what == "forged":
            bad[-1] ^= 1
        else:
            bad[:5] = b"GET /"
        peer.writer.write(good + bad)
        exc = await asyncio.wait_for(asyncio.shield(link.above.lost), PATIENCE)
        assert isinstance(exc, ssl.SSLError)
        assert bytes(link.above.got) == b"good"
        with pytest.raises(ssl.SSLError, match=r"alert|ALERT"):
            await asyncio.wait_for(peer.read(), PATIENCE)


@pytest.mark.parametrize("kind", [HANDSHAKE, 99])
async def test_message_before_a_wrong_record_hides_no_alert(start: Any, tmp_path: Path, kind: int) -> None:
    """The application answers a message while OpenSSL can send nothing any more."""
    got = []

    def answer(conn: plumews.Conn, message: str | bytes) -> None:
        got.append(message)
        conn.send_nowait(message)

    server = await start(plumews.serve(on_message=answer, host="127.0.0.1", port=0, ssl=SERVER))
    peer = Peer(*await asyncio.open_connection("127.0.0.1", server.port), key_log(tmp_path))
    await peer.handshake()
    forger = RecordForger(peer.tls, tmp_path / "keys")
    peer.writer.write(forger.record(DATA, upgrade()))
    await peer.read(1)
    peer.writer.write(forger.record(DATA, text("before")) + forger.record(kind, b"\x01\0\0\0"))
    with pytest.raises(ssl.SSLError, match="UNEXPECTED_MESSAGE"):
        await asyncio.wait_for(peer.read(), PATIENCE)
    assert got == ["before"]
    peer.writer.close()


async def test_abort_ends_at_once() -> None:
    link = Link()
    async with link.open():
        link.above.transport.abort()
        assert await asyncio.wait_for(asyncio.shield(link.above.lost), PATIENCE) is None
        for call in (link.tls.abort, link.tls.close, link.tls.pause_reading, link.tls.resume_reading):
            call()
        link.tls.write(b"late")
        assert (link.tls.get_write_buffer_size(), link.tls.is_closing()) == (0, True)


async def test_failure_of_the_protocol_above_is_reported() -> None:
    link = Link()
    told = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, problem: told.append(problem["exception"]))
    failure = RuntimeError("above")

    def fails(nbytes: int) -> None:
        raise failure

    async with link.open() as peer:
        link.above.buffer_updated = fails  # type: ignore[method-assign]
        peer.writer.write(peer.records(b"data"))
        assert await asyncio.wait_for(asyncio.shield(link.above.lost), PATIENCE) is failure
    assert told == [failure]


# --- handshakes -----------------------------------------------------------------------------------


async def test_handshake_that_never_ends_is_cut() -> None:
    link = Link(handshake_timeout=0.05)
    async with link.open(shakes=False) as peer:
        assert await asyncio.wait_for(peer.reader.read(), PATIENCE) == b""
        assert isinstance(await link.outcome, ConnectionAbortedError)
    assert link.above.calls == []


@pytest.mark.parametrize("how", ["fin", "reset", "no tls", "abort"])
async def test_failed_handshake_is_told_once(how: str) -> None:
    link = Link()
    async with link.open(shakes=False) as peer:
        await until(lambda: link.tls is not None and link.tls._below is not None)
        if how == "fin":
            peer.writer.close()
        elif how == "reset":
            peer.writer.transport.abort()
        elif how == "no tls":
            peer.writer.write(b"GET / HTTP/1.1\r\n\r\n")
        else:
            link.tls.abort()
        assert isinstance(await asyncio.wait_for(link.outcome, PATIENCE), OSError)
    assert link.above.calls == []


async def test_certificate_of_the_client_alpn_and_keys_are_told(tmp_path: Any) -> None:
    server, client = tls_contexts(mutual=True)
    for context in (server, client):
        context.set_alpn_protocols(["http/1.1"])
    server.keylog_filename = str(tmp_path / "keys")
    link = Link(context=server)
    async with link.open(client=client):
        tell = link.above.transport.get_extra_info
        assert tell("peercert")["subject"] == ((("commonName", "localhost"),),)
        assert tell("ssl_object").selected_alpn_protocol() == "http/1.1"
        assert tell("sslcontext") is server
        assert tell("cipher")[1] == "TLSv1.3"
        assert tell("compression", "none") == "none"
        assert tell("peername")[0] == "127.0.0.1"
        assert tell("socket").family == socket.AF_INET
        assert tell("unknown", 1) == 1
        assert link.tls.get_protocol() is link.above
        assert not link.tls.can_write_eof()
        with pytest.raises(NotImplementedError):
            link.tls.write_eof()
        link.tls.set_write_buffer_limits(high=1000)
        assert link.tls.get_write_buffer_limits()[1] == 1000
    assert b"TRAFFIC_SECRET" in (tmp_path / "keys").read_bytes()


# --- with a connection above ----------------------------------------------------------------------


@pytest.mark.parametrize("polite", [True, False])
async def test_messages_behind_a_slow_reader_survive_the_end(start: Any, polite: bool) -> None:
    """The peer sends more than the receive queue holds, then ends without a close frame."""
    got: list[Any] = []
    goes_on = asyncio.Event()
    ended = asyncio.get_running_loop().create_future()

    async def handler(conn: plumews.Conn) -> None:
        await goes_on.wait()
        with contextlib.suppress(plumews.ConnectionClosed):
            while True:
                got.append(await conn.recv())
        await conn.wait_closed()
        ended.set_result(conn.close_code)

    server = await start(plumews.serve(handler, "127.0.0.1", 0, ssl=SERVER, max_queue=4))
    peer = Peer(*await asyncio.open_connection("127.0.0.1", server.port), CLIENT)
    await peer.handshake()
    peer.writer.write(peer.records(upgrade()))
    await peer.read(1)
    sent = [f"{number} {'x' * 300}" for number in range(200)]
    for message in sent:
        peer.writer.write(peer.records(text(message)))
    peer.writer.write(peer.close_notify() if polite else b"")
    peer.writer.write_eof()
    (conn,) = server.connections
    await until(lambda: conn._reading_paused)
    goes_on.set()
    assert await asyncio.wait_for(ended, PATIENCE) == 1006
    assert got == sent
    peer.writer.close()


async def test_peer_that_breaks_the_protocol_gets_a_close_notify(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closing, "_FIN_WAIT", 60.0)  # nothing is waited for
    server = await start(plumews.serve(on_message=lambda conn, message: None, host="127.0.0.1", port=0, ssl=SERVER))
    peer = Peer(*await asyncio.open_connection("127.0.0.1", server.port), CLIENT)
    await peer.handshake()
    peer.writer.write(peer.records(upgrade()))
    await peer.read(1)
    peer.writer.write(peer.records(b"\x81\x00"))  # without a mask
    assert b"\x03\xea" in await asyncio.wait_for(peer.read(), PATIENCE)  # 1002
    peer.writer.write(peer.close_notify())
    await asyncio.wait_for(peer.reader.read(), PATIENCE)
    peer.writer.close()


async def test_several_contexts_serve_side_by_side(start: Any) -> None:
    async def echo(conn: plumews.Conn) -> None:
        async for message in conn:
            await conn.send(message)

    pairs = [tls_contexts() for _ in range(3)]
    servers = [await start(plumews.serve(echo, "127.0.0.1", 0, ssl=pair[0])) for pair in pairs]
    async with contextlib.AsyncExitStack() as stack:
        wires = [
            await stack.enter_async_context(await Wire.open(server, ssl=pair[1], server_hostname="localhost"))
            for server, pair in zip(servers, pairs, strict=True)
            for _ in range(3)
        ]
        for size in (10, 20_000, 200_000):
            for number, wire in enumerate(wires):
                wire.send(masked(2, bytes([number]) * size))
            for number, wire in enumerate(wires):
                assert await wire.message() == bytes([number]) * size
