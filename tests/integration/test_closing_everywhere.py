"""Connections, rooms and servers that are ended from inside each callback and hook, and hooks that raise.

One client goes through all callbacks. At one of them something is ended, once. Whatever it is, every connection is told
its end once, the counters of the hub add up, other clients are served, and nothing is reported that was not raised.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

import plumews
from plumews import Conn, Hub, HubConfig, HubError, SendBehavior
from support.fakes import failures, until
from support.members import adds_up
from support.raw_client import Wire, close, text, upgrade

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("soon")]

FLOOD = "flood " * 8000


class Broken(Exception):
    pass


class Scene:
    """A server, a hub, and the one action at the one place."""

    def __init__(self, place: str, action: Callable[[Scene], object]) -> None:
        self.place, self.action = place, action
        self.hub = Hub(HubConfig(encode_gap=self.encode_gap, history=plumews.HistoryLimits()))
        self.server: plumews.Server
        self.conn: Conn | None = None  # of the client that goes through all
        self.other: Conn | None = None
        self.acted = False
        self.opened: Counter[Conn] = Counter()
        self.closed: Counter[Conn] = Counter()
        self.told: Counter[Conn] = Counter()
        self.tasks: list[asyncio.Task[Any]] = []
        self.hub.on_join(lambda room, conn: self.at("on_join", conn))
        self.hub.on_leave(lambda room, conn: self.at("on_leave", conn))
        self.hub.on_slow(lambda conn: self.at("on_slow", conn))
        self.hub.on_drop(lambda conn, room, count: self.at("on_drop", conn))
        self.hub.on_gap(lambda conn, gap: self.at("on_gap", conn))
        self.hub.watch_count("room", lambda room, count: self.at("watch_count", self.conn))
        if place in ("handler", "pieces"):
            called: dict[str, Any] = {"handler": self.handler}
        else:
            called = {"on_open": self.on_open, "on_message": self.on_message, "on_close": self.on_close}
        self.serving = plumews.serve(
            **called,
            host="127.0.0.1",
            port=0,
            process_request=lambda conn, request: self.at("process_request", conn),
            process_response=lambda conn, request, response: self.at("process_response", conn),
            select_subprotocol=lambda conn, offered: self.at("select_subprotocol", conn),
            close_timeout=5,
            queue_size=2,
            send_behavior=SendBehavior.DROP,
        )

    # --- callbacks --------------------------------------------------------------------------------

    def at(self, place: str, conn: Conn | None) -> None:
        if conn is not None and conn.request.path == "/actor":
            self.conn = conn
        if place == self.place and not self.acted and conn is not None and conn is self.conn:
            self.acted = True
            self.action(self)

    def enters(self, conn: Conn) -> None:
        conn.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        if conn.request.path == "/other":
            self.other = conn
        conn.add_close_callback(self.ended)
        with contextlib.suppress(HubError, plumews.ConnectionClosed):
            self.hub.join("room", conn)

    def ended(self, conn: Conn) -> None:
        self.told[conn] += 1
        self.at("close_callback", conn)

    def on_open(self, conn: Conn) -> None:
        self.opened[conn] += 1
        self.enters(conn)
        self.at("on_open", conn)

    def on_close(self, conn: Conn) -> None:
        self.closed[conn] += 1
        self.at("on_close", conn)

    def on_message(self, conn: Conn, message: str | bytes) -> None:
        self.at("on_message", conn)
        if message == "flood":
            for _ in range(40):
                self.hub.broadcast_room("room", FLOOD, where=lambda member: member is conn)
        elif message == "recover":
            self.hub.leave("room", conn)
            with contextlib.suppress(HubError, plumews.ConnectionClosed):
                self.hub.recover("room", conn, plumews.Position("", 0), encode_recovered=self.encode_recovered)
        else:
            self.hub.broadcast_room("room", lambda position: self.data(conn, message), where=self.where)

    async def handler(self, conn: Conn) -> None:
        self.opened[conn] += 1
        self.enters(conn)
        conn.add_close_callback(lambda conn: self.closed.update([conn]))
        async for message in conn:
            self.at("handler", conn)
            self.hub.broadcast_room("room", message)
            await conn.send(self.pieces(conn))

    async def pieces(self, conn: Conn) -> AsyncIterator[str]:
        yield "one"
        self.at("pieces", conn)
        yield "two"

    def data(self, conn: Conn, message: str | bytes) -> str | bytes:
        self.at("data", conn)
        return message

    def where(self, conn: Conn) -> bool:
        self.at("where", conn)
        return True

    def encode_gap(self, gap: plumews.Gap) -> str:
        self.at("encode_gap", self.conn)
        return "gap"

    def encode_recovered(self, recovery: plumews.Recovery) -> str:
        self.at("encode_recovered", self.conn)
        return "recovered"

    # --- the clients ------------------------------------------------------------------------------

    async def act(self) -> None:
        """Let the client go through all callbacks, as far as it gets."""
        async with await Wire.connect(self.server, rcvbuf=4096) as wire:
            with contextlib.suppress(ConnectionError, EOFError):
                wire.writer.write(upgrade("/actor", "Sec-WebSocket-Protocol: chat"))
                await wire.read_head()
                if wire.status != 101:
                    return
                wire.send(text("hello"), text("again"))
                if self.place in ("on_slow", "on_drop", "on_gap", "encode_gap"):
                    wire.send(text("flood"))
                    await until(lambda: self.acted or (self.conn is not None and self.conn.dropped_messages))
                    wire.send(text("behind"))
                elif self.place == "encode_recovered":
                    wire.send(text("recover"))
                elif self.place in ("on_leave", "close_callback", "on_close"):
                    wire.send(close())
                reading = asyncio.ensure_future(wire.eof())
                await until(lambda: self.acted or reading.done())
                wire.send(close())
                await reading

    async def speak(self, wire: Wire, message: str) -> None:
        """Check that a member is served."""
        wire.send(text(message))
        while await wire.message() != message:
            pass


# --- actions --------------------------------------------------------------------------------------


def close_nowait(scene: Scene) -> None:
    assert scene.conn is not None
    scene.conn.close_nowait(1000, "here")


def abort(scene: Scene) -> None:
    assert scene.conn is not None
    scene.conn.abort()


def abort_other(scene: Scene) -> None:
    assert scene.other is not None
    scene.other.abort()


def close_twice(scene: Scene) -> None:
    assert scene.conn is not None
    scene.conn.close_nowait(1000, "here")
    scene.conn.close_nowait(1001, "and there")
    scene.conn.abort()
    scene.conn.abort()


def leave(scene: Scene) -> None:
    assert scene.conn is not None
    scene.hub.leave("room", scene.conn)


def remove(scene: Scene) -> None:
    assert scene.conn is not None
    scene.hub.remove(scene.conn)


def leave_and_join(scene: Scene) -> None:
    assert scene.conn is not None
    scene.hub.leave("room", scene.conn)
    with contextlib.suppress(HubError, plumews.ConnectionClosed):
        scene.hub.join("room", scene.conn)


def send(scene: Scene) -> None:
    assert scene.conn is not None
    with contextlib.suppress(plumews.ConnectionClosed, plumews.SendQueueFull, RuntimeError):
        scene.conn.send_nowait("from inside")


def broadcast(scene: Scene) -> None:
    with contextlib.suppress(RuntimeError):  # a function that makes a message may not
        scene.hub.broadcast_room("room", "from inside")


def stop_hub(scene: Scene) -> None:
    scene.tasks.append(asyncio.ensure_future(scene.hub.shutdown(2, spread=0)))


def close_server(scene: Scene) -> None:
    scene.server.close(spread=0)


def fail(scene: Scene) -> None:
    raise Broken(scene.place)


ACTIONS = [
    close_nowait,
    abort,
    abort_other,
    close_twice,
    leave,
    remove,
    leave_and_join,
    send,
    broadcast,
    stop_hub,
    close_server,
    fail,
]

PLACES = [
    "process_request",
    "select_subprotocol",
    "process_response",
    "on_open",
    "on_join",
    "watch_count",
    "on_message",
    "where",
    "data",
    "on_slow",
    "on_drop",
    "on_gap",
    "encode_gap",
    "encode_recovered",
    "on_leave",
    "close_callback",
    "on_close",
    "handler",
    "pieces",
]


def is_ours(exc: BaseException | None) -> bool:
    """Return True for our exception, and for one that it caused."""
    while exc is not None and not isinstance(exc, Broken):
        exc = exc.__cause__ or exc.__context__
    return exc is not None


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.__name__)
@pytest.mark.parametrize("place", PLACES)
async def test_end_inside_a_callback_harms_nothing_else(
    place: str, action: Callable[[Scene], object], caplog: pytest.LogCaptureFixture
) -> None:
    scene = Scene(place, action)
    with failures() as reported:
        async with scene.serving as scene.server, await Wire.open(scene.server, "/other") as other:
            await until(lambda: scene.other is not None)
            await asyncio.wait_for(scene.act(), 30)
            await until(lambda: scene.acted)
            if action not in (abort_other, stop_hub, close_server):
                await asyncio.wait_for(scene.speak(other, "still here"), 30)
            if action is not close_server:
                async with await Wire.open(scene.server, "/newcomer") as newcomer:
                    if action is not stop_hub:
                        await asyncio.wait_for(scene.speak(newcomer, "and I, too"), 30)
        await asyncio.wait_for(asyncio.gather(*scene.tasks), 30)
        await until(lambda: scene.hub.connection_count() == 0)
    assert scene.told == scene.closed == scene.opened == Counter(list(scene.opened))
    assert all(conn.state is plumews.State.CLOSED for conn in scene.opened)
    assert adds_up(scene.hub.metrics())
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    if action is fail:
        assert errors or reported
        assert all(record.exc_info and is_ours(record.exc_info[1]) for record in errors), errors
        assert all(is_ours(context.get("exception")) for context in reported), reported
    else:
        assert errors == reported == []
