"""TLS on an open transport: a handshake that fails or is canceled, and TLS within TLS."""

from __future__ import annotations

import asyncio
import random
import ssl

import pytest

from plumews.transport.loop_context import loop_context
from plumews.transport.tls import TLSTransport
from plumews.transport.tls_upgrade import start_tls
from support.fakes import PATIENCE, tls_contexts, until
from support.protocol_above import Above

SERVER, CLIENT = tls_contexts()


async def test_canceled_handshake_ends_its_connection() -> None:
    loop = asyncio.get_running_loop()
    below = Above()
    server = await loop.create_server(lambda: below, "127.0.0.1", 0)
    transport, _ = await loop.create_connection(asyncio.Protocol, *server.sockets[0].getsockname())
    above = Above()
    starting = asyncio.ensure_future(start_tls(transport, above, CLIENT, server_hostname="localhost"))
    await until(lambda: below.got)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await asyncio.wait_for(below.lost, PATIENCE)
    assert above.calls == []
    server.close()


async def test_client_refuses_a_certificate_it_does_not_know() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0, ssl=SERVER)
    above = Above()
    strict = ssl.create_default_context()
    transport, _ = await loop.create_connection(asyncio.Protocol, *server.sockets[0].getsockname())
    with pytest.raises(ssl.SSLCertVerificationError):
        await start_tls(transport, above, strict, server_hostname="localhost")
    assert above.calls == []
    server.close()


async def test_tls_within_tls_carries_data_both_ways() -> None:
    loop = asyncio.get_running_loop()
    inner, inner_client = tls_contexts()
    ends = []

    def make() -> TLSTransport:
        above = Above()
        above.echoes = True
        ends.append(above)
        state = loop_context(loop)
        within = TLSTransport(state, above, inner, lambda failure: None, server_side=True)
        return TLSTransport(state, within, SERVER, lambda failure: None, server_side=True)

    server = await loop.create_server(make, "127.0.0.1", 0)
    transport, _ = await loop.create_connection(asyncio.Protocol, *server.sockets[0].getsockname())
    outer = await start_tls(transport, Above(), CLIENT, server_hostname="localhost")
    client = Above()
    both = await start_tls(outer, client, inner_client, server_hostname="localhost")
    assert both.get_extra_info("sslcontext") is inner_client
    data = random.Random(5).randbytes(700_000)
    both.write(data)
    await until(lambda: len(client.got) == len(data))
    assert client.got == data
    both.close()
    await asyncio.wait_for(client.lost, PATIENCE)
    await asyncio.wait_for(ends[0].lost, PATIENCE)
    assert ends[0].calls == ["made", "eof", "lost"]
    server.close()
