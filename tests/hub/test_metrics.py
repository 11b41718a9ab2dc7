"""Tests of metrics that add up, and of snapshots of one member and one room."""

from __future__ import annotations

import dataclasses
import json
import time
from typing import Any

import jwt
import pytest

import plumews
from plumews import Hub, HubConfig, SendBehavior, State, limits
from plumews.hub.membership import REASONS
from support.fakes import clog, fake_conn, pass_time, ticks, until
from support.members import PlainMember, adds_up, crowd, joined, plain_members
from support.raw_client import Wire, text, upgrade

SECRET = b"s3cret" * 8

BEHAVIORS = [behavior.value for behavior in SendBehavior]


# --- metrics --------------------------------------------------------------------------------------


async def test_metrics_are_a_snapshot_of_all_counters():
    hub = Hub(HubConfig(max_connections=10, max_room_connections=5, job_queue_size=7))
    conns = plain_members(hub, "chat", 3)
    hub.join("news", conns[0])
    hub.broadcast_room("chat", "x")
    hub.broadcast_room("", "x")
    with pytest.raises(plumews.InvalidRoomName):
        hub.join("", conns[0])
    metrics = hub.metrics()
    conns[0].end()
    assert metrics == plumews.HubMetrics(
        active_connections=3,
        room_registrations=4,
        rooms=2,
        accepted_total=4,
        rejected_total=1,
        rejected_by={**dict.fromkeys(REASONS, 0), "invalid_room_name": 1},
        max_connections=10,
        max_room_connections=5,
        broadcasts_total=1,
        broadcasts_rejected=1,
        broadcasts_invalid=1,
        broadcasts_stopped=0,
        broadcasts_overloaded=0,
        broadcast_matched=3,
        broadcast_queued=3,
        broadcast_dropped=0,
        broadcast_dropped_by=dict.fromkeys([*BEHAVIORS, "ended", "overloaded", "stopped"], 0),
        broadcast_skipped=0,
        broadcast_pending=0,
        messages_evicted=0,
        messages_replaced=0,
        broadcasts_compressed=0,
        compressed_bytes_before=0,
        compressed_bytes_after=0,
        compression_bytes=0,
        jobs_waiting=0,
        job_queue_size=7,
        queued_messages=0,
        queued_bytes=0,
        largest_queue_messages=0,
        largest_queue_bytes=0,
        backlogged_connections=0,
        oldest_queued_age=0.0,
        websockets_opened=0,
        requests_refused={},
        successful_auths=0,
    )
    assert hub.metrics().active_connections == 2


def test_metrics_without_loop_convert_to_json():
    metrics = dataclasses.asdict(Hub().metrics())
    assert json.loads(json.dumps(metrics)) == metrics


async def test_refused_joins_are_counted_by_reason():
    hub = Hub(HubConfig(max_connections=2, max_room_connections=1, max_rooms_per_connection=2))
    (ann,) = plain_members(hub, "chat", 1)
    plain_members(hub, "news", 1)
    stranger = PlainMember()
    dead, _ = fake_conn()
    dead.abort()
    hub.join("sport", ann)
    refused = [
        ("invalid_room_name", "", ann),
        ("room_full", "news", ann),
        ("too_many_rooms", "weather", ann),
        ("hub_full", "weather", stranger),
        ("connection_closed", "weather", dead),
    ]
    for reason, room, conn in refused:
        before = hub.metrics().rejected_by[reason]
        with pytest.raises(plumews.WebSocketException):
            hub.join(room, conn)
        assert hub.metrics().rejected_by[reason] == before + 1
    with pytest.raises(plumews.HubFull):
        hub.can_join("weather")
    await hub.shutdown(0)
    with pytest.raises(plumews.HubStopped):
        hub.join("weather", stranger)
    metrics = hub.metrics()
    assert (metrics.rejected_by["hub_full"], metrics.rejected_by["hub_stopped"]) == (2, 1)
    assert metrics.rejected_total == sum(metrics.rejected_by.values()) == 7


@pytest.mark.parametrize("behavior", [SendBehavior.DROP, SendBehavior.CLOSE])
async def test_losses_of_full_member_are_counted_by_behavior(behavior):
    hub = Hub()
    (conn,), (transport,) = joined(hub, "chat", 1, queue_size=2, send_behavior=behavior)
    transport.fill()
    for _ in range(3):
        hub.broadcast_room("chat", "x")
    metrics = hub.metrics()
    assert metrics.broadcast_dropped_by[behavior.value] == metrics.broadcast_dropped == conn.dropped_messages == 1
    assert adds_up(metrics)


@pytest.mark.parametrize("behavior", [SendBehavior.DROP_OLDEST, SendBehavior.CONFLATE])
async def test_losses_behind_message_in_pieces_are_counted_by_behavior(behavior):
    hub = Hub()
    (conn,), (transport,) = joined(hub, "chat", 1, queue_size=2, send_behavior=behavior)
    transport.fill()
    for _ in range(3):
        hub.broadcast_room("chat", "x")
    for _ in range(2):
        hub.broadcast_room("chat", "x", key="key")
    replaced = 1 if behavior is SendBehavior.CONFLATE else 0
    metrics = hub.metrics()
    assert (metrics.broadcast_dropped, metrics.messages_evicted, metrics.messages_replaced) == (
        0,
        3 - replaced,
        replaced,
    )
    conn._in_pieces = True
    hub.broadcast_room("chat", "x")
    metrics = hub.metrics()
    assert metrics.broadcast_dropped_by[behavior.value] == metrics.broadcast_dropped == 1
    assert adds_up(metrics)


async def test_losses_of_block_member_are_counted_by_cause():
    hub = Hub()
    conns, transports = joined(hub, "chat", 2, queue_size=1, send_timeout=1000)
    for transport in transports:
        transport.fill()
    hub.broadcast_room("chat", "queued")
    hub.broadcast_room("chat", "waits")
    conns[0].abort()
    await ticks()
    pass_time(1000)
    await until(lambda: not hub.metrics().broadcast_pending)
    metrics = hub.metrics()
    assert (metrics.broadcast_dropped_by["block"], metrics.broadcast_dropped_by["ended"]) == (1, 1)
    assert adds_up(metrics)


async def test_losses_by_overload_and_stop_are_counted_by_cause(monkeypatch):
    monkeypatch.setattr(limits, "FAN_OUT_SLICE", 0.0)
    hub = Hub(1, 2)
    plain_members(hub, "chat", 300)
    results = [hub.broadcast_room("chat", "x") for _ in range(10)]
    metrics = hub.metrics()
    assert (metrics.jobs_waiting, metrics.job_queue_size) == (2, 2)
    overloaded = sum(result.overloaded for result in results)
    assert metrics.broadcasts_overloaded == metrics.broadcasts_rejected == overloaded > 0
    assert metrics.broadcast_dropped_by["overloaded"] == overloaded * 300
    await hub.shutdown(0)
    hub.broadcast_room("chat", "x")
    hub.broadcast_room(None, "x")
    metrics = hub.metrics()
    assert metrics.broadcast_dropped_by["stopped"] > 0
    assert (metrics.broadcasts_stopped, metrics.broadcasts_invalid, metrics.jobs_waiting) == (1, 1, 0)
    assert metrics.broadcasts_rejected == overloaded + 2
    assert adds_up(metrics)


async def test_metrics_add_up_the_send_queues():
    hub = Hub()
    conns, transports = joined(hub, "chat", 3)
    hub.join("news", conns[0])  # a member of two rooms has one queue
    for transport in transports[:2]:
        transport.fill()
    for conn, messages in zip(conns, [["x"], ["long" * 100, "y"], ["z"]], strict=True):
        for message in messages:
            conn.send_nowait(message)
    await ticks()
    began = time.monotonic()
    metrics = hub.metrics()
    assert metrics.queued_messages == 3
    assert metrics.queued_bytes == sum(conn.queued_bytes for conn in conns) > 400
    assert (metrics.largest_queue_messages, metrics.largest_queue_bytes) == (2, conns[1].queued_bytes)
    assert metrics.backlogged_connections == 2
    await until(lambda: hub.metrics().oldest_queued_age > metrics.oldest_queued_age >= 0)
    assert hub.metrics().oldest_queued_age <= time.monotonic() - began + metrics.oldest_queued_age
    for transport in transports[:2]:
        transport.drain()
    metrics = hub.metrics()
    assert (metrics.queued_messages, metrics.queued_bytes, metrics.largest_queue_bytes) == (0, 0, 0)
    assert (metrics.backlogged_connections, metrics.oldest_queued_age) == (0, 0.0)


async def test_metrics_show_member_that_does_not_read(start):
    hub = Hub()
    async with crowd(start, 2, rcvbuf=4096) as (conns, _):
        for conn in conns:
            hub.join("chat", conn)
        clog(conns[0])
        conns[0].send_nowait("waits")
        metrics = hub.metrics()
        assert (metrics.backlogged_connections, metrics.queued_messages) == (1, conns[0].queued_messages)
        assert metrics.queued_bytes == conns[0].queued_bytes > 0
        assert hub.inspect_room("chat").backlogged == 1


async def test_metrics_of_many_members_take_little_time():
    hub = Hub()
    joined(hub, "chat", 2000)
    hub.metrics()
    began = time.thread_time()
    for _ in range(5):
        hub.metrics()
    assert (time.thread_time() - began) / 5 < 0.02  # about 0.2 ms, plain Python 1


# --- requests -------------------------------------------------------------------------------------


async def test_hub_counts_requests_of_its_room_servers(start):
    hub = Hub(HubConfig(max_room_connections=1))
    auth = plumews.SimpleRoomAuth(SECRET, rounds=1)
    auth.set_room_password("vault", "open sesame")
    servers = [await start(plumews.serve_rooms(hub, auth, "127.0.0.1", 0)) for _ in range(2)]
    token = jwt.encode({"sub": "ada"}, SECRET, algorithm="HS256")
    bearer = f"Authorization: Bearer {token}"

    async def status(path: str, *lines: str, server: Any = servers[0], **options: Any) -> int:
        async with await Wire.connect(server) as wire:
            wire.writer.write(upgrade(path, *lines, **options))
            await wire.read_head()
            return wire.status

    assert await status("/ws?room=vault", bearer, "X-WebSocket-Room-Password: open sesame") == 101
    assert await status("/ws?room=b", "Origin: https://evil.example") == 403
    assert await status("/ws?room=b", "Authorization: Bearer x", server=servers[1]) == 403
    assert await status("/ws?room=vault") == 403
    assert await status("/ws?room=%00") == 400
    assert await status("/ws", key="short") == 400
    assert await status("/ws", host="evil.example") == 403
    assert await status("/nowhere") == 404
    async with await Wire.open(servers[0], "/ws?room=vault&auth=message") as wire:
        wire.send(text('{"type": "auth", "password": "wrong"}'))
        assert (await wire.closing())[0] == 4403
    async with await Wire.open(servers[0], "/ws?room=full"):
        assert await status("/ws?room=full") == 429
    metrics = hub.metrics()
    assert metrics.websockets_opened == 3
    assert metrics.successful_auths == 2
    assert metrics.requests_refused == {
        "WEBSOCKET_FORBIDDEN_ORIGIN": 1,
        "WEBSOCKET_INVALID_TOKEN": 1,
        "WEBSOCKET_ROOM_FORBIDDEN": 2,
        "WEBSOCKET_INVALID_ROOM": 1,
        "WEBSOCKET_KEY_INVALID": 1,
        "WEBSOCKET_FORBIDDEN_HOST": 1,
        "NOT_FOUND": 1,
        "WEBSOCKET_JOIN_DENIED": 1,
    }
    assert (metrics.security_rejections, metrics.invalid_ws_keys) == (6, 1)
    assert metrics.rejected_by["room_full"] == 1


async def test_hub_counts_timed_out_and_late_requests(start):
    hub = Hub()
    server = await start(plumews.serve_rooms(hub, plumews.SimpleRoomAuth(), "127.0.0.1", 0, open_timeout=0.5))
    async with await Wire.connect(server) as silent, await Wire.open(server, "/ws?auth=message") as mute:
        await silent.read_head()
        assert silent.status == 408
        assert (await mute.closing())[0] == 4408
    async with await Wire.connect(server) as late:
        await until(lambda: any(conn.state is State.CONNECTING for conn in server._context.connections))
        server.close()
        await late.read_head()
        assert late.status == 503
    assert hub.metrics().requests_refused == {"WEBSOCKET_HANDSHAKE_TIMEOUT": 2, "WEBSOCKET_STOPPING": 1}


# --- inspect --------------------------------------------------------------------------------------


async def test_inspect_shows_rooms_user_and_queue(start):
    hub = Hub()
    token = jwt.encode({"sub": "42", "name": "Ada", "email": "ada@example.com", "key": "hunter2"}, SECRET)
    before = time.time()
    server = await start(plumews.serve_rooms(hub, plumews.SimpleRoomAuth(SECRET), "127.0.0.1", 0, queue_size=5))
    async with await Wire.open(server, "/ws?room=chat", "Sec-WebSocket-Protocol: plumews, bearer." + token) as wire:
        await until(lambda: hub.room_count("chat"))
        (conn,) = hub.members("chat")
        conn.metadata["password"] = "hunter2"
        hub.join("räume", conn)
        info = hub.inspect(conn)
        assert info.id == conn.id
        assert info.remote_address[:2] == wire.writer.get_extra_info("sockname")[:2]
        assert (info.user_id, info.user_name, info.subprotocol) == ("42", "Ada", "plumews")
        assert info.rooms == ("chat", "räume")
        assert before <= info.since <= time.time()
        assert (info.state, info.send_behavior) == (State.OPEN, SendBehavior.BLOCK)
        assert (info.queued_messages, info.queued_bytes, info.queued_age, info.dropped_messages) == (0, 0, 0.0, 0)
        assert (info.latency, info.last_pong) == (conn.latency, conn.last_pong)
        assert "hunter2" not in repr(info)
        assert token not in repr(info)
        assert repr(info).isascii()
        hub.leave("chat", conn)
        assert (hub.inspect(conn).rooms, hub.inspect(conn).since) == (("räume",), info.since)
        assert info.rooms == ("chat", "räume")


async def test_inspect_shows_full_queue():
    hub = Hub()
    (conn,), (transport,) = joined(hub, "chat", 1, queue_size=2, send_behavior=SendBehavior.DROP)
    transport.fill()
    for _ in range(5):
        hub.broadcast_room("chat", "x")
    await until(lambda: conn.queued_age > 0)
    info = hub.inspect(conn)
    assert (info.queued_messages, info.queued_bytes, info.dropped_messages) == (2, conn.queued_bytes, 3)
    assert info.queued_age > 0
    assert info.user_id is None


async def test_inspect_of_former_member_has_no_rooms():
    hub = Hub()
    conns, _ = joined(hub, "chat", 3)
    stranger, _ = fake_conn()
    assert (hub.inspect(stranger).rooms, hub.inspect(stranger).since) == ((), None)
    hub.leave("chat", conns[0])
    hub.remove(conns[1])
    conns[2].abort()
    await ticks()
    assert [hub.inspect(conn).since for conn in conns] == [None] * 3
    assert hub.inspect(conns[2]).state is State.CLOSED
    assert hub._members.since == {}


async def test_inspect_of_other_types_raises_type_error():
    with pytest.raises(TypeError, match=r"inspect takes a plumews\.Conn or a plumews\.hub\.Member, not str"):
        Hub().inspect("ann")  # type: ignore[arg-type]


# --- inspect_room ---------------------------------------------------------------------------------


async def test_inspect_room_shows_members_and_backlog():
    hub = Hub()
    conns, transports = joined(hub, "chat", 3)
    joined(hub, "news", 2)
    transports[0].fill()
    hub.broadcast_room("chat", "hello")
    await ticks()
    await until(lambda: conns[0].queued_age > 0)
    room = hub.inspect_room("chat")
    assert (room.name, room.members, room.backlogged) == ("chat", 3, 1)
    assert (room.queued_messages, room.queued_bytes) == (1, conns[0].queued_bytes)
    assert room.oldest_queued_age > 0
    assert hub.inspect_room("news") == plumews.RoomInfo("news", 2, 0, 0, 0, 0.0)
    assert hub.inspect_room("nowhere") == plumews.RoomInfo("nowhere", 0, 0, 0, 0, 0.0)
    assert not hub._rooms._snapshots.get("nowhere")
