"""Properties of a connection, pings, errors, and calls from other threads."""

from __future__ import annotations

import asyncio
import inspect
import json
import pickle
import socket
import sys
import time
import uuid
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import plumews
from plumews import (
    Conn,
    ConnConfig,
    ConnectionClosedError,
    ConnectionClosedOK,
    Opcode,
    SendBehavior,
    State,
)
from plumews.conn.receiver import deliver_to
from support.fakes import deadlines, fake_conn, feed, linked, ticks, tls_contexts, until
from support.raw_client import Wire, close, masked, text, upgrade

# --- properties -----------------------------------------------------------------------------------


async def test_new_connection_has_empty_properties() -> None:
    conn = Conn(ConnConfig())
    assert conn.state is State.CONNECTING
    assert conn.user_info is None
    assert conn.metadata == {}
    with pytest.raises(RuntimeError, match="no request yet"):
        _ = conn.request
    assert conn.response is None
    assert conn.subprotocol is None
    assert (conn.close_code, conn.close_reason) == (None, None)
    assert conn.latency == 0.0
    assert conn.dropped_messages == conn.queued_messages == conn.queued_bytes == 0


async def test_data_without_a_buffer_is_received() -> None:
    conn, _ = fake_conn()
    received: list[str | bytes] = []
    deliver_to(conn, lambda _, message: received.append(message), lambda _, exc: None)
    long = "a" * (3 * plumews.limits.READ_BUFFER)
    second = text("two")
    conn.data_received(text("one") + second[:3])
    conn.data_received(second[3:] + text(long))
    assert received == ["one", "two", long]


async def test_user_info_of_another_type_is_refused() -> None:
    conn = Conn(ConnConfig())
    conn.user_info = ada = plumews.UserInfo("1", "Ada")
    wrong: Any
    for wrong in ({"id": "1"}, "1", 1, plumews.UserInfo):
        with pytest.raises(TypeError, match=r"user_info must be a plumews\.UserInfo or None, not "):
            conn.user_info = wrong
    assert conn.user_info is ada
    conn.user_info = None
    assert conn.user_info is None


async def test_metadata_is_a_dict_of_its_own() -> None:
    one, other = Conn(ConnConfig()), Conn(ConnConfig())
    one.metadata["room"] = "lobby"
    assert one.metadata == {"room": "lobby"}
    assert one.metadata is one.metadata
    assert other.metadata == {}


async def test_id_is_a_unique_uuid_that_stays() -> None:
    conns = [Conn(ConnConfig()) for _ in range(100)]
    ids = {conn.id for conn in conns}
    assert len(ids) == 100
    assert all(isinstance(conn.id, uuid.UUID) and conn.id in ids for conn in conns)


async def test_addresses_of_the_socket_stay_known_after_the_end(start: Any) -> None:
    async with linked(start) as (conn, wire):
        assert conn.remote_address == wire.writer.get_extra_info("sockname")
        assert conn.local_address == wire.writer.get_extra_info("peername")
        remote = conn.remote_address
        wire.send(close())
        await conn.wait_closed()
        assert conn.remote_address == remote


@pytest.mark.skipif(sys.platform != "linux", reason="wants Unix sockets as Linux has them")
@pytest.mark.parametrize("name", [None, "file", ""], ids=["unnamed", "file", "abstract"])
async def test_remote_address_on_a_unix_socket_is_none(start: Any, tmp_path: Path, name: str | None) -> None:
    async def handler(conn: plumews.Conn) -> None:
        said = [conn.remote_address, conn.request.remote_address, conn.client_address, conn.local_address]
        await conn.write_json(said)

    path = str(tmp_path / "s")
    await start(plumews.unix_serve(handler, path))
    client = socket.socket(socket.AF_UNIX)
    if name is not None:
        client.bind(str(tmp_path / name) if name else "")  # nothing: Linux chooses an abstract name
    client.connect(path)
    client.setblocking(False)
    async with Wire(*await asyncio.open_unix_connection(sock=client)) as wire:
        wire.writer.write(upgrade())
        await wire.read_head()
        assert json.loads(await wire.message()) == [None, None, "", path]


async def test_extra_info_is_that_of_the_transport(start: Any) -> None:
    async with linked(start) as (conn, wire):
        assert conn.get_extra_info("peername") == conn.remote_address
        sock = conn.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert conn.get_extra_info("peercert") is conn.get_extra_info("nothing") is None
        assert conn.get_extra_info("cipher", "plain") == conn.get_extra_info("nothing", "plain") == "plain"
        wire.send(close())
        await conn.wait_closed()
        assert conn.get_extra_info("peername") == conn.remote_address, "the addresses stay known"
        assert conn.get_extra_info("sockname") == conn.local_address
        assert conn.get_extra_info("socket") is None
        assert conn.get_extra_info("socket", 5) == 5


async def test_extra_info_of_tls_has_the_certificate_of_the_client(start: Any) -> None:
    server_side, client_side = tls_contexts(mutual=True)
    told: list[Any] = []

    def hook(conn: plumews.Conn, request: plumews.Request) -> None:
        told.append(conn.get_extra_info("peercert"))

    async def handler(conn: plumews.Conn) -> None:
        told.extend(conn.get_extra_info(name) for name in ("peercert", "cipher", "ssl_object", "sslcontext"))

    server = await start(plumews.serve(handler, "127.0.0.1", 0, ssl=server_side, process_request=hook))
    async with await Wire.open(server, ssl=client_side, server_hostname="localhost") as wire:
        await wire.closing()
    certificate, again, cipher, ssl_object, context = told
    assert certificate == again
    assert dict(item[0] for item in certificate["subject"]) == {"commonName": "localhost"}
    assert (len(cipher), ssl_object.version(), context) == (3, "TLSv1.3", server_side)


async def test_repr_has_id_state_and_address() -> None:
    conn, _ = fake_conn()
    assert repr(conn) == f"<plumews.Conn {conn.id} OPEN remote=('192.0.2.1', 4711)>"
    conn.abort()
    await conn.wait_closed()
    assert repr(conn) == f"<plumews.Conn {conn.id} CLOSED remote=('192.0.2.1', 4711)>"


async def test_handler_has_request_and_response(start: Any) -> None:
    async with linked(start) as (conn, _):
        assert conn.request is not None
        assert conn.response is not None
        assert conn.request.path == "/"
        assert conn.request.headers["Host"] == "localhost"


async def test_states_follow_each_other(start: Any) -> None:
    async with linked(start) as (conn, wire):
        states = [(conn.state, conn.closed)]
        conn.close_nowait()
        states.append((conn.state, conn.closed))
        wire.send(close())
        await conn.wait_closed()
        states.append((conn.state, conn.closed))
        assert states == [(State.OPEN, False), (State.CLOSING, True), (State.CLOSED, True)]


async def test_settings_can_be_read_from_the_connection() -> None:
    conn, _ = fake_conn(max_size=123, ping_interval=1, ping_timeout=2, send_behavior=SendBehavior.DROP)
    assert conn.read_limit == 123
    assert conn.ping_period == 1
    assert conn.pong_wait == 3
    assert conn.send_behavior is SendBehavior.DROP
    conn.abort()


async def test_the_queue_can_be_watched() -> None:
    conn, transport = fake_conn(queue_size=2, send_behavior=SendBehavior.DROP)
    transport.fill()
    conn.send_nowait("abc")
    assert (conn.queued_messages, conn.queued_bytes, conn.dropped_messages) == (1, 5, 0)
    conn.send_nowait(b"")
    with pytest.raises(plumews.SendQueueFull):
        conn.send_nowait("c")
    assert (conn.queued_messages, conn.queued_bytes, conn.dropped_messages) == (2, 7, 1)
    transport.drain()
    assert (conn.queued_messages, conn.queued_bytes, conn.dropped_messages) == (0, 0, 1)
    conn.abort()


async def test_connection_is_hashable_weakly_referenced_and_strict() -> None:
    conn = Conn(ConnConfig())
    assert {conn: 1}[conn] == 1
    assert weakref.ref(conn)() is conn
    with pytest.raises(AttributeError):
        conn.anything = 1  # type: ignore[attr-defined]
    with pytest.raises(TypeError):
        pickle.dumps(conn)


async def test_connection_can_be_subclassed() -> None:
    class Named(Conn):
        def __init__(self, config: ConnConfig, name: str) -> None:
            super().__init__(config)
            self.name = name

    conn = Named(ConnConfig(), "lobby")
    assert conn.name == "lobby"
    assert isinstance(conn, Conn)


def test_every_public_name_is_documented() -> None:
    silent = [name for name, member in inspect.getmembers(Conn) if name[0] != "_" and not inspect.getdoc(member)]
    assert silent == []


# --- pinging --------------------------------------------------------------------------------------


async def test_a_ping_gives_its_latency_when_the_pong_arrives(start: Any) -> None:
    async with linked(start) as (conn, wire):
        opened = conn.last_pong
        assert abs(opened - time.time()) < 60
        answer = await conn.ping(b"payload")
        assert await wire.event() == (Opcode.PING, b"payload")
        wire.send(masked(Opcode.PONG, b"something else"))
        await until(lambda: conn.last_pong > opened)
        assert not answer.done()  # type: ignore[attr-defined]
        wire.send(masked(Opcode.PONG, b"payload"))
        latency = await answer
        assert 0 < latency < 30
        assert conn.latency == latency


async def test_ping_payload_is_random_or_str_or_bytes() -> None:
    conn, transport = fake_conn()
    pings = [None, None, "grün", b"bytes", bytearray(b"array"), memoryview(b"view"), b""]
    for payload in pings:
        await conn.ping(payload)
    await ticks()
    sent = [payload for kind, payload in transport.events() if kind == Opcode.PING]
    assert sent[2:] == ["grün".encode(), b"bytes", b"array", b"view", b""]
    assert len(sent[0]) == len(sent[1]) == 4
    assert sent[0] != sent[1]
    conn.abort()


async def test_row_25_ping_with_a_wrong_payload_is_not_sent() -> None:
    conn, transport = fake_conn()
    for payload, error in [
        (5, TypeError),
        (1.5, TypeError),
        ([1], TypeError),
        (b"x" * 126, ValueError),
        ("\ud800", ValueError),
    ]:
        with pytest.raises(error):
            await conn.ping(payload)  # type: ignore[arg-type]
    await conn.ping(b"twice")
    with pytest.raises(ValueError, match="still waiting for its pong"):
        await conn.ping(b"twice")
    await ticks()
    assert [payload for _, payload in transport.events()] == [b"twice"]
    await conn.ping(b"x" * 125)
    conn.abort()


async def test_pings_go_ahead_of_the_messages_that_wait() -> None:
    conn, transport = fake_conn()
    transport.fill()
    conn.send_nowait("waiting")
    await conn.ping(b"urgent")
    transport.drain()
    assert transport.events() == [(Opcode.PING, b"urgent"), (Opcode.TEXT, "waiting")]
    conn.abort()


async def test_unanswered_ping_raises_at_the_end_of_the_connection(start: Any) -> None:
    async with linked(start) as (conn, wire):
        answer = await conn.ping()
        unwatched = await conn.ping()
        wire.send(close(4000, "no answer"))
        with pytest.raises(ConnectionClosedError, match="no answer"):
            await answer
        await conn.wait_closed()
        del unwatched  # nobody looked at it: that is nobody's failure
        with pytest.raises(ConnectionClosedError):
            await conn.ping()


async def test_latency_is_that_of_the_keepalive_too(start: Any) -> None:
    async with linked(start, ping_interval=0.01, ping_timeout=5) as (conn, wire):
        kind, payload = await wire.event()
        assert kind == Opcode.PING
        wire.send(masked(Opcode.PONG, payload))
        await until(lambda: conn.latency > 0)


# --- names and errors -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ping_period", "pong_wait"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "1", True])
async def test_wrong_keepalive_times_are_refused_and_change_nothing(name: str, value: Any) -> None:
    conn, _ = fake_conn()
    with pytest.raises((ValueError, TypeError), match=name):
        setattr(conn, name, value)
    assert (conn.ping_period, conn.pong_wait) == (20, 30)
    conn.abort()


async def test_keepalive_times_can_be_raised_in_the_right_order() -> None:
    conn, _ = fake_conn()
    with pytest.raises(ValueError, match="set the one that makes room first"):
        conn.ping_period = 60
    conn.pong_wait = 90
    conn.ping_period = 60
    assert (conn.ping_period, conn.pong_wait) == (60, 90)
    conn.ping_period = None
    conn.pong_wait = None
    assert (conn.ping_period, conn.pong_wait) == (None, None)
    conn.abort()


async def test_errors_have_the_documented_phrases() -> None:
    phrases = {
        "connection closed": ConnectionClosedError(None, None),
        "send timeout": plumews.SendTimeout(),
        "send queue full": plumews.SendQueueFull("dropped"),
        "payload too large": plumews.PayloadTooBig("..."),
        "protocol error": plumews.ProtocolError("..."),
        "invalid jwt": plumews.InvalidToken(),
        "jwt expired": plumews.TokenExpired(),
    }
    for phrase, error in phrases.items():
        assert phrase in str(error)
        assert isinstance(error, plumews.WebSocketException)


async def test_close_loses_no_message_of_either_direction(start: Any) -> None:
    """Each direction has its own end."""
    async with linked(start) as (conn, wire):
        wire.send(text("theirs"), close(1000))
        await until(lambda: conn.close_code is not None)
        await conn.send("ours")
        assert await conn.recv() == "theirs"
        with pytest.raises(ConnectionClosedOK):
            await conn.recv()
        assert await wire.event() == (Opcode.TEXT, "ours")
        assert await wire.closing() == (1000, "")


async def test_messages_before_the_first_reader_are_not_lost() -> None:
    conn, _ = fake_conn()
    feed(conn, text("early"))
    await ticks()
    assert await conn.recv() == "early"
    conn.abort()


# --- other threads --------------------------------------------------------------------------------


def run_coroutine(coroutine: Any) -> Any:
    try:
        return coroutine.send(None)
    finally:
        coroutine.close()


def set_to(name: str, value: object) -> Callable[[Any], None]:
    return lambda conn: setattr(conn, name, value)


@pytest.mark.parametrize(
    "call",
    [
        set_to("ping_period", 5),
        set_to("pong_wait", 50),
        set_to("read_limit", 1000),
        lambda conn: conn.add_close_callback(print),
        lambda conn: conn.remove_close_callback(print),
        lambda conn: run_coroutine(conn.wait_closed()),
        lambda conn: run_coroutine(conn.close()),
        lambda conn: run_coroutine(conn.drain()),
        lambda conn: run_coroutine(conn.ping()),
        lambda conn: run_coroutine(conn.send("m")),
        lambda conn: run_coroutine(conn.send(iter(["m"]))),
        lambda conn: run_coroutine(conn.write_many(["m"])),
        lambda conn: run_coroutine(conn.recv()),
        lambda conn: conn.send_nowait("m"),
        lambda conn: conn.abort(),
    ],
)
@pytest.mark.parametrize("closed", [False, True])
async def test_another_thread_is_refused(call: Callable[[Any], Any], closed: bool) -> None:
    conn, transport = fake_conn(ping_interval=20, ping_timeout=20)
    if closed:
        transport.abort()
        await conn.wait_closed()
    before = deadlines()
    with pytest.raises(plumews.ConcurrencyError, match="belongs to the thread of its event loop"):
        await asyncio.to_thread(call, conn)
    assert deadlines() == before
    transport.abort()
    await conn.wait_closed()


async def test_stream_in_another_thread_is_refused() -> None:
    conn, transport = fake_conn()
    feed(conn, masked(Opcode.BINARY, b"all"))
    stream = await conn.read_stream()
    for call in (stream.read, stream.read_all, stream.aclose):
        with pytest.raises(plumews.ConcurrencyError, match="belongs to the thread of its event loop"):
            await asyncio.to_thread(lambda call=call: run_coroutine(call()))
    assert await stream.read_all() == b"all"
    transport.abort()


def test_signature_of_a_connection_is_known() -> None:
    assert list(inspect.signature(Conn).parameters) == ["config", "client"]
