"""Servers: where they listen, what they agree on, and the threads that may use them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket

import pytest

import plumews
from support.fakes import assert_empty, echo
from support.handshake_setup import assert_serves
from support.raw_client import Wire, close, kept_port, text, upgrade

# --- where it listens ------------------------------------------------------------------------------


async def test_port_0_takes_a_free_port(start):
    server = await start(plumews.serve(echo, "127.0.0.1", 0))
    assert server.port == server.sockets[0].getsockname()[1] > 0
    assert server.is_serving()
    await assert_serves(server)


async def test_existing_socket_is_served(start):
    sock = socket.create_server(("127.0.0.1", 0))
    server = await start(plumews.serve(echo, sock=sock))
    assert server.port == sock.getsockname()[1]
    await assert_serves(server)


async def test_two_servers_share_a_port_with_reuse_port(start):
    first = await start(plumews.serve(echo, "127.0.0.1", 0, reuse_port=True))
    second = await start(plumews.serve(echo, "127.0.0.1", first.port, reuse_port=True))
    assert first.port == second.port
    for _ in range(10):
        await assert_serves(first)


async def test_several_hosts_have_a_socket_each(start):
    server = await start(plumews.serve(echo, ["127.0.0.1", "127.0.0.2"], 0))
    assert sorted(sock.getsockname()[0] for sock in server.sockets) == ["127.0.0.1", "127.0.0.2"]
    for sock in server.sockets:
        reader, writer = await asyncio.open_connection(*sock.getsockname())
        async with Wire(reader, writer) as wire:
            wire.writer.write(upgrade())
            await wire.read_head()
            assert wire.status == 101


async def test_ipv6_is_served_and_its_names_are_loopback(start):
    server = await start(plumews.serve(echo, "::1", 0))
    for host, status in (("[::1]", 101), (f"[::1]:{server.port}", 101), ("localhost", 101), ("evil.com", 403)):
        async with await Wire.connect(server) as wire:
            wire.writer.write(upgrade(host=host))
            await wire.read_head()
            assert wire.status == status, host


async def test_unix_socket_is_served_without_a_port(start, tmp_path):
    server = await start(plumews.unix_serve(echo, str(tmp_path / "ws.sock")))
    await assert_serves(server)
    with pytest.raises(RuntimeError, match="Unix socket"):
        _ = server.port


async def test_existing_unix_socket_is_served_by_callbacks(start, tmp_path):
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(tmp_path / "ws.sock"))
    server = await start(plumews.unix_serve(on_message=lambda conn, message: conn.send_nowait(message), sock=sock))
    await assert_serves(server)


async def test_any_host_is_allowed_beyond_loopback(start):
    server = await start(plumews.serve(echo, "0.0.0.0", 0))
    async with await Wire.connect(server) as wire:
        wire.writer.write(upgrade(host="example.com"))
        await wire.read_head()
        assert wire.status == 101


async def test_allowed_hosts_replace_the_loopback_names(start):
    server = await start(plumews.serve(echo, "127.0.0.1", 0, allowed_hosts=["*.example.com"]))
    for host, status in (("a.example.com", 101), ("localhost", 403)):
        async with await Wire.connect(server) as wire:
            wire.writer.write(upgrade(host=host))
            await wire.read_head()
            assert wire.status == status


async def test_address_in_use_raises_and_may_be_tried_again():
    with kept_port() as port:
        async with plumews.serve(echo, "127.0.0.1", port):
            serving = plumews.serve(echo, "127.0.0.1", port)
            for _ in range(2):
                with pytest.raises(OSError, match=r"[Aa]ddress already in use"):
                    await serving
        async with serving as second:
            await assert_serves(second)


@pytest.mark.parametrize(
    ("arguments", "error", "text_"),
    [
        ({}, TypeError, "give a port"),
        ({"host": "127.0.0.1"}, TypeError, "give a port"),
        ({"port": 0, "sock": socket}, TypeError, "give either"),
        ({"host": "127.0.0.1", "sock": socket}, TypeError, "give either"),
        ({"reuse_port": True, "sock": socket}, TypeError, "give either"),
        ({"port": 65536}, ValueError, "port must be 0 to 65535, not 65536"),
        ({"port": -1}, ValueError, "port must be 0 to 65535, not -1"),
    ],
)
def test_invalid_place_to_listen_raises_at_once(arguments, error, text_):
    with pytest.raises(error, match=text_):
        plumews.serve(echo, **arguments)


def test_serve_never_awaited_warns():
    with pytest.warns(RuntimeWarning, match=r"plumews\.serve\(\) was never awaited: nothing was served"):
        plumews.serve(echo, "127.0.0.1", 0)


@pytest.mark.filterwarnings("ignore:plumews.serve.. was never awaited")
def test_servers_attribute_before_the_start_raises_with_a_hint():
    with pytest.raises(
        AttributeError, match=r"'port' before .*: it belongs to the server of `async with plumews\.serve"
    ):
        _ = plumews.serve(echo, "127.0.0.1", 0).port


async def test_serve_awaited_in_vain_does_not_warn(recwarn):
    with kept_port() as port:
        async with plumews.serve(echo, "127.0.0.1", port):
            serving = plumews.serve(echo, "127.0.0.1", port)
            with pytest.raises(OSError, match=r"[Aa]ddress already in use"):
                await serving
            del serving
            gc.collect()
    assert [str(warning.message) for warning in recwarn if "never awaited" in str(warning.message)] == []


@pytest.mark.parametrize("arguments", [{}, {"path": "/x", "sock": socket}])
def test_unix_serve_takes_either_a_path_or_a_socket(arguments):
    with pytest.raises(TypeError, match="give either the path"):
        plumews.unix_serve(echo, **arguments)


# --- subprotocols, headers and options -------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "chosen"),
    [
        ([], None),
        (["Sec-WebSocket-Protocol: soap"], None),
        (["Sec-WebSocket-Protocol: b, a"], "a"),
        (["Sec-WebSocket-Protocol: soap", "Sec-WebSocket-Protocol: b"], "b"),
    ],
    ids=["none", "unknown", "by_our_preference", "on_two_lines"],
)
async def test_subprotocol_is_chosen_in_the_order_of_the_server(start, lines, chosen):
    agreed = []

    async def handler(conn):
        agreed.append(conn.subprotocol)

    server = await start(plumews.serve(handler, "127.0.0.1", 0, subprotocols=["a", "b"]))
    async with await Wire.open(server, "/", *lines) as wire:
        assert wire.header("Sec-WebSocket-Protocol") == chosen
        await wire.closing()
    assert agreed == [chosen]


async def test_extra_headers_are_in_every_101(start):
    server = await start(plumews.serve(echo, "127.0.0.1", 0, extra_headers=iter([("X-Served-By", "plumews")])))
    for _ in range(2):
        async with await Wire.open(server) as wire:
            assert wire.header("X-Served-By") == "plumews"


async def test_connection_options_hold_for_every_connection(start):
    server = await start(plumews.serve(echo, "127.0.0.1", 0, max_size=10))
    async with await Wire.open(server) as wire:
        wire.send(text("x" * 10))
        assert await wire.message() == "x" * 10
        wire.send(text("x" * 11))
        assert (await wire.closing())[0] == 1009


# --- the server object -----------------------------------------------------------------------------


async def test_cancelled_wait_closed_leaves_the_server_running(start):
    server = await start(plumews.serve(echo, "127.0.0.1", 0))
    waiting = asyncio.ensure_future(server.wait_closed())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await assert_serves(server)


async def test_serving_object_starts_one_server():
    serving = plumews.serve(echo, "127.0.0.1", 0)
    async with serving as server:
        with pytest.raises(RuntimeError, match=r"call serve\(\) again"):
            await serving
        async with plumews.serve(echo, "127.0.0.1", 0) as other:
            assert other.port != server.port
            await assert_serves(other)
        await assert_serves(server)


async def test_connections_are_the_open_ones(start):
    server = await start(plumews.serve(echo, "127.0.0.1", 0))
    async with await Wire.connect(server), await Wire.open(server) as wire:
        (conn,) = server.connections
        assert conn.state is plumews.State.OPEN
        wire.send(close())
        await wire.eof()
        await conn.wait_closed()
        assert server.connections == set()


async def test_row_28_a_thousand_connections_leave_nothing():
    async def handler(conn):
        async for message in conn:
            if message == "raise":
                raise RuntimeError("on purpose")
            await conn.send(message)

    server = await plumews.serve(handler, "127.0.0.1", 0)
    for round_ in range(250):
        async with contextlib.AsyncExitStack() as stack:
            closes, resets, raises, stays = [await stack.enter_async_context(await Wire.open(server)) for _ in range(4)]
            closes.send(text("x"), close())
            resets.reset()
            raises.send(text("raise"), close())
            assert await closes.message() == "x"
            assert await raises.closing() in ((1011, "the handler failed"), (1000, "")), round_
            stays.send(text("y"))
            assert await stays.message() == "y"
    server.close()
    await server.wait_closed()
    await assert_empty(server)


# --- other threads ---------------------------------------------------------------------------------


def run_coroutine(coroutine):
    try:
        return coroutine.send(None)
    finally:
        coroutine.close()


@pytest.mark.parametrize(
    "call",
    [
        lambda server: server.close(),
        lambda server: server.connections,
        lambda server: run_coroutine(server.wait_closed()),
        lambda server: run_coroutine(server.serve_forever()),
        lambda server: run_coroutine(server.serve_until_signal()),
    ],
    ids=["close", "connections", "wait_closed", "serve_forever", "serve_until_signal"],
)
async def test_server_used_in_another_thread_raises(start, call):
    server = await start(plumews.serve(echo, "127.0.0.1", 0))
    with pytest.raises(plumews.ConcurrencyError, match="call_soon_threadsafe"):
        await asyncio.to_thread(call, server)
    assert server.is_serving()
