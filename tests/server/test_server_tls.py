"""Servers over TLS: messages, refusals, and handshakes that never end."""

from __future__ import annotations

import asyncio
import contextlib
import ssl

import pytest

import plumews
from support.fakes import echo, tls_contexts
from support.handshake_setup import assert_serves
from support.raw_client import Wire, close, masked, upgrade

SERVER, CLIENT = tls_contexts()


async def test_tls_carries_messages_of_every_size_and_the_close(start):
    ended = asyncio.get_running_loop().create_future()

    async def handler(conn):
        assert conn.request.secure
        await echo(conn)
        ended.set_result((conn.close_code, conn.close_reason))

    server = await start(plumews.serve(handler, "127.0.0.1", 0, ssl=SERVER))
    async with await Wire.open(server, ssl=CLIENT, server_hostname="localhost") as wire:
        for size in (0, 1, 125, 126, 65_535, 65_536, 5_000_000):
            payload = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
            wire.send(masked(2, payload))
            assert await wire.message() == payload
        wire.send(close(1000, "done"))
        assert await wire.closing() == (1000, "")
        await wire.eof()
    assert await ended == (1000, "done")


async def test_tls_messages_behind_a_paused_read_arrive(start):
    """TLS holds decrypted or encrypted bytes while the reader is paused. No later byte of the peer must be needed."""
    got, ended = [], asyncio.get_running_loop().create_future()

    async def handler(conn):
        async for message in conn:
            got.append(message)
            await asyncio.sleep(0)
        ended.set_result((conn.close_code, conn.close_reason))

    server = await start(plumews.serve(handler, "127.0.0.1", 0, ssl=SERVER, max_queue=2, max_queue_bytes=20_000))
    sent = [bytes([number]) * (30_000 if number % 2 else 300) for number in range(100)]
    async with await Wire.open(server, ssl=CLIENT, server_hostname="localhost") as wire:
        wire.send(*(masked(2, message) for message in sent), close(1000, "all"))
        assert await wire.closing() == (1000, "")
        assert await ended == (1000, "all")
    assert got == sent


async def test_sni_callback_chooses_the_context(start):
    other, other_client = tls_contexts()
    asked = []

    def choose(connection, name, given):
        asked.append(name)
        connection.context = other

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sni_callback = choose
    server = await start(plumews.serve(echo, "127.0.0.1", 0, ssl=context))
    await assert_serves(server, ssl=other_client, server_hostname="localhost")
    assert asked == ["localhost"]


def test_tls_context_for_clients_raises():
    with pytest.raises(ValueError, match="ssl must be a context for servers, such as"):
        plumews.serve(echo, "127.0.0.1", 0, ssl=ssl.create_default_context())


@pytest.mark.parametrize("kind", ["none", "by name", "good", "mutual"])
async def test_tls_context_without_certificate_logs_a_warning(start, caplog, kind):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if kind == "by name":
        context.sni_callback = lambda connection, name, given: None
    elif kind in ("good", "mutual"):
        context = SERVER
        context.verify_mode = ssl.CERT_REQUIRED if kind == "mutual" else ssl.CERT_NONE
    try:
        await start(plumews.serve(echo, "127.0.0.1", 0, ssl=context))
    finally:
        context.verify_mode = ssl.CERT_NONE
    said = ["nobody can come in: ssl has no certificate (load_cert_chain)"] if kind == "none" else []
    assert [record.getMessage() for record in caplog.records] == said


async def test_tls_closed_by_the_server_ends_with_its_code(start):
    async def handler(conn):
        await conn.send("x" * 1_000_000)
        await conn.close(4001, "enough")

    server = await start(plumews.serve(handler, "127.0.0.1", 0, ssl=SERVER))
    async with await Wire.open(server, ssl=CLIENT, server_hostname="localhost") as wire:
        assert await wire.message() == "x" * 1_000_000
        assert await wire.closing() == (4001, "enough")
        wire.send(close(4001))
        await wire.eof()


async def test_own_origin_over_tls_is_https(start):
    server = await start(plumews.serve(echo, "127.0.0.1", 0, ssl=SERVER))
    host = f"localhost:{server.port}"
    for scheme, status in (("https", 101), ("http", 403)):
        async with await Wire.connect(server, ssl=CLIENT, server_hostname="localhost") as wire:
            wire.writer.write(upgrade("/", f"Origin: {scheme}://{host}", host=host))
            await wire.read_head()
            assert wire.status == status


async def test_refusal_over_tls_is_sent_before_the_end(start):
    server = await start(plumews.serve(echo, "127.0.0.1", 0, ssl=SERVER))
    async with await Wire.connect(server, ssl=CLIENT, server_hostname="localhost") as wire:
        status, body = await wire.response(upgrade("/", "Origin: http://evil.com"))
        assert (status, b"forbidden origin" in body) == (403, True)


async def test_plain_http_on_a_tls_port_ends_the_connection(start, caplog):
    server = await start(plumews.serve(echo, "127.0.0.1", 0, ssl=SERVER))
    async with await Wire.connect(server) as wire:
        wire.writer.write(upgrade())
        await wire.reader.read()
    await assert_serves(server, ssl=CLIENT, server_hostname="localhost")
    assert caplog.records == []


async def test_missing_tls_handshake_is_cut_at_the_open_timeout(start, caplog):
    server = await start(plumews.serve(echo, "127.0.0.1", 0, ssl=SERVER, open_timeout=0.1))
    async with await Wire.connect(server) as wire:
        assert await wire.reader.read() == b""
    assert caplog.records == []


async def test_stop_does_not_wait_for_a_tls_handshake():
    async with plumews.serve(echo, "127.0.0.1", 0, ssl=SERVER, open_timeout=2) as server:
        wire = await Wire.connect(server)
        await assert_serves(server, ssl=CLIENT, server_hostname="localhost")  # so that the other is accepted
        cut = asyncio.ensure_future(wire.reader.read())
        server.close()
        await server.wait_closed()
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(cut, 1) == b""
        wire.writer.close()


@pytest.mark.parametrize("tls", [False, True])
async def test_stop_ends_every_stage_of_a_handshake_at_once(tls):
    secure = {"ssl": CLIENT, "server_hostname": "localhost"} if tls else {}
    asked = asyncio.Event()

    async def process_request(conn, request):
        if request.raw_path == "/asks":
            asked.set()
            await asyncio.Event().wait()

    # The answers to a stop may take long, and so may a handshake.
    server = await plumews.serve(
        echo, "127.0.0.1", 0, ssl=SERVER if tls else None, open_timeout=1000, close_timeout=1000,
        process_request=process_request, authenticator=plumews.SimpleRoomAuth(b"s3cret" * 8), require_token=False,
    )  # fmt: skip
    async with contextlib.AsyncExitStack() as stack:
        member, first = [
            await stack.enter_async_context(await Wire.open(server, path, **secure)) for path in ("/", "/?auth=message")
        ]
        silent, halfway, asks, bare = [
            await stack.enter_async_context(await Wire.connect(server, **(secure if number < 3 else {})))
            for number in range(4)
        ]
        halfway.send(upgrade()[:30])
        asks.send(upgrade("/asks"))
        await asked.wait()
        server.close(spread=1000)
        for wire in (silent, halfway, asks):
            assert (await wire.response(b""))[0] == 503
        assert await first.closing() == (1001, "")
        with contextlib.suppress(ConnectionError):
            answer = await bare.reader.read()
            assert answer == b"" if tls else answer.startswith(b"HTTP/1.1 503 ")
        assert not server._closed.done()  # which waits for the others
        for wire in (member, first, silent, halfway, asks, bare):
            wire.writer.transport.abort()
        await server.wait_closed()
