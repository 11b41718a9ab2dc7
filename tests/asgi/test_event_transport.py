"""Connections over the events of a server that can be told to wait, to fail, and to end: queues, policies, tasks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

import plumews
from plumews.asgi import conn
from plumews.constants import State
from support.fakes import ticks, until

SCOPE: dict[str, Any] = {
    "type": "websocket",
    "path": "/",
    "headers": [],
    "query_string": b"",
    "client": ("10.0.0.1", 5),
    "server": ("/run/socket", None),
}


class Server:
    """Server that gives the events of a queue, and takes events while its gate is open."""

    def __init__(self) -> None:
        self.incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.sent: list[dict[str, Any]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.failure: Exception | None = None

    def conn(self, **options: Any) -> plumews.Conn:
        return conn({**SCOPE}, self.receive, self.send, **options)

    async def receive(self) -> dict[str, Any]:
        return await self.incoming.get()

    async def send(self, event: Any) -> None:
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        self.sent.append(event)

    def say(self, text: str) -> None:
        self.incoming.put_nowait({"type": "websocket.receive", "text": text})

    def leave(self, **code: Any) -> None:
        self.incoming.put_nowait({"type": "websocket.disconnect", **code})

    @property
    def texts(self) -> list[str]:
        return [event["text"] for event in self.sent if "text" in event]


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    yield server
    server.gate.set()
    server.leave(code=1006)


def tasks() -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if "EventTransport" in repr(task)]


# --- sending --------------------------------------------------------------------------------------


async def test_a_write_while_events_are_sent_waits_in_the_queue(server):
    member = server.conn()
    server.gate.clear()
    await member.send("0")
    await until(tasks)
    for number in range(1, 5):
        member.send_nowait(str(number))
    await asyncio.sleep(0)
    assert member.queued_messages == 4
    assert len(tasks()) == 2  # one writes, one reads
    server.gate.set()
    await member.drain()
    await until(lambda: server.texts == ["0", "1", "2", "3", "4"])
    await until(lambda: len(tasks()) == 1)


async def fill(server: Server, behavior: plumews.SendBehavior, **options: Any) -> tuple[plumews.Hub, plumews.Conn]:
    """A member with a full queue: "first" is being sent, "a" and "b" wait."""
    hub = plumews.Hub()
    member = server.conn(queue_size=2, send_behavior=behavior, **options)
    hub.join("chat", member)
    server.gate.clear()
    hub.broadcast_room("chat", "first")
    await until(lambda: member._paused)
    hub.broadcast_room("chat", "a", key="a")
    hub.broadcast_room("chat", "b", key="b")
    return hub, member


@pytest.mark.parametrize(
    ("behavior", "arrives"),
    [
        (plumews.SendBehavior.DROP, ["first", "a", "b"]),
        (plumews.SendBehavior.DROP_OLDEST, ["first", "b", "new"]),
        (plumews.SendBehavior.CONFLATE, ["first", "a", "new"]),
        (plumews.SendBehavior.BLOCK, ["first", "a", "b", "new"]),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
async def test_each_send_behavior_is_that_of_our_own_server(server, behavior, arrives):
    hub, member = await fill(server, behavior)
    hub.broadcast_room("chat", "new", key="b")
    server.gate.set()
    await until(lambda: server.texts == arrives)
    assert member.dropped_messages == (behavior in (plumews.SendBehavior.DROP, plumews.SendBehavior.DROP_OLDEST))


async def test_close_ends_a_full_member_with_1013(server):
    hub, member = await fill(server, plumews.SendBehavior.CLOSE)
    hub.broadcast_room("chat", "new")
    server.gate.set()
    await member.wait_closed()
    assert server.sent[-1] == {"type": "websocket.close", "code": 1013, "reason": "send queue full"}
    assert hub.room_count("chat") == 0


async def test_block_waits_for_the_send_timeout(server):
    _, member = await fill(server, plumews.SendBehavior.BLOCK, send_timeout=0.01)
    with pytest.raises(plumews.SendTimeout):
        await member.send("new")


async def test_binary_and_fragmented_messages_are_one_event(server):
    member = server.conn()
    await member.send(b"binary")
    await member.send(iter(["in ", "pieces"]))
    await member.send("x" * 200_000)
    await until(lambda: len(server.sent) == 3)
    assert server.sent == [
        {"type": "websocket.send", "bytes": b"binary"},
        {"type": "websocket.send", "text": "in pieces"},
        {"type": "websocket.send", "text": "x" * 200_000},
    ]


# --- receiving ------------------------------------------------------------------------------------


async def test_messages_that_nobody_reads_stay_with_the_server(server):
    member = server.conn(max_queue=4)
    for number in range(50):
        server.say(str(number))
    await until(lambda: server.incoming.qsize() < 50)
    await ticks(100)
    assert server.incoming.qsize() >= 40
    assert [await member.recv() for _ in range(50)] == [str(number) for number in range(50)]


async def test_messages_before_the_disconnect_are_read(server):
    member = server.conn()
    server.say("last")
    server.leave(code=4000, reason="bye")
    assert await member.recv() == "last"
    with pytest.raises(plumews.ConnectionClosedError) as caught:
        await member.recv()
    assert (caught.value.code, caught.value.reason) == (4000, "bye")


@pytest.mark.parametrize(
    ("given", "code"), [({}, 1005), ({"code": 1005}, 1005), ({"code": 1006}, 1006), ({"code": 1001}, 1001)]
)
async def test_the_code_of_a_disconnect_is_the_close_code(server, given, code):
    member = server.conn()
    server.leave(**given)
    await member.wait_closed()
    assert member.close_code == code
    assert server.sent == []  # a client that has gone is sent nothing


# --- ends -----------------------------------------------------------------------------------------


async def test_a_close_leaves_behind_the_queue(server):
    member = server.conn()
    server.gate.clear()
    await member.send("one")
    member.send_nowait("two")
    member.close_nowait(4001, "done")
    server.gate.set()
    await member.wait_closed()
    assert server.texts == ["one", "two"]
    assert server.sent[-1] == {"type": "websocket.close", "code": 4001, "reason": "done"}
    assert member.state is State.CLOSED
    await until(lambda: not tasks())


async def test_a_server_that_takes_no_more_ends_the_connection(server, caplog):
    caplog.set_level(logging.INFO)
    hub = plumews.Hub()
    member = server.conn()
    hub.join("chat", member)
    server.failure = RuntimeError("the client has gone")
    hub.broadcast_room("chat", "lost")
    await member.wait_closed()
    assert hub.room_count("chat") == 0
    await until(lambda: not tasks())
    assert not caplog.records


async def test_a_send_that_never_returns_is_given_up(server):
    hub = plumews.Hub()
    member = server.conn(close_timeout=0.05)
    hub.join("chat", member)
    server.gate.clear()
    hub.broadcast_room("chat", "stuck")
    await until(lambda: member._paused)
    await member.close()
    assert hub.room_count("chat") == 0
    await until(lambda: not tasks())


async def test_a_plain_connection_ends_with_its_task(server):
    async def app() -> plumews.Conn:
        return server.conn()

    member = await asyncio.ensure_future(app())
    await member.wait_closed()
    assert member.close_code == 1006


def test_tasks_that_are_destroyed_with_their_loop_are_no_error(caplog):
    async def begin() -> None:
        server = Server()
        server.receive = fail_at_the_end
        member = server.conn()
        await asyncio.sleep(0)
        (reader,) = tasks()
        kept.extend((member, reader))

    async def fail_at_the_end() -> Any:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            raise RuntimeError("the loop is closed")

    kept: list[Any] = []
    loop = asyncio.new_event_loop()
    loop.run_until_complete(begin())
    loop.close()
    kept[1].get_coro().close()
    kept[1]._log_destroy_pending = False
    assert not caplog.records


async def test_addresses_are_those_of_the_scope(server):
    member = server.conn()
    assert (member.remote_address, member.local_address) == (("10.0.0.1", 5), None)
    assert member.get_extra_info("socket") is None
