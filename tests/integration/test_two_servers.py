"""Two servers in two contexts on one loop, whose reads come in the same iteration and whose members share a room."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar, copy_context
from typing import Any

import pytest

import plumews
from plumews import Conn, Hub
from support.fakes import until
from support.raw_client import Wire, close, text

pytestmark = pytest.mark.anyio

tenant: ContextVar[str] = ContextVar("tenant", default="none")

TENANTS = ("one", "two")


class Tenant:
    """A server that notes which tenant each of its functions sees."""

    def __init__(self, name: str, hub: Hub) -> None:
        self.name, self.hub = name, hub
        self.seen: set[tuple[str, str]] = set()
        self.ended = 0

    def sees(self, place: str) -> None:
        self.seen.add((place, tenant.get()))

    def serving(self, *, callbacks: bool) -> Any:
        called: dict[str, Any] = {"handler": self.handler}
        if callbacks:
            called = {"on_open": self.on_open, "on_message": self.on_message, "on_close": self.on_close}

        def serve() -> Any:
            tenant.set(self.name)
            return plumews.serve(
                **called, host="127.0.0.1", port=0, process_request=lambda conn, request: self.sees("process_request")
            )

        return copy_context().run(serve)

    def enters(self, conn: Conn) -> None:
        self.hub.join("room", conn)
        conn.add_close_callback(self.on_close)

    def on_open(self, conn: Conn) -> None:
        self.sees("on_open")
        self.enters(conn)

    def on_message(self, conn: Conn, message: str | bytes) -> None:
        self.sees("on_message")
        self.hub.broadcast_room("room", lambda position: self.data(message), where=self.where)

    def on_close(self, conn: Conn) -> None:
        self.sees("on_close")
        self.ended += 1

    async def handler(self, conn: Conn) -> None:
        self.sees("handler")
        self.enters(conn)
        async for message in conn:
            self.sees("a read")
            self.hub.broadcast_room("room", lambda position, message=message: self.data(message), where=self.where)
            self.sees("after a broadcast")
            await asyncio.create_task(self.task())
        self.sees("the end of the handler")

    async def task(self) -> None:
        self.sees("a task")

    def data(self, message: str | bytes) -> str | bytes:
        self.sees("data")
        return message

    def where(self, conn: Conn) -> bool:
        self.sees("where")
        return True


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    async with Hub() as hub:
        yield hub


@pytest.mark.parametrize("ways", [(True, True), (False, False), (True, False)], ids=["callbacks", "handlers", "both"])
async def test_servers_in_two_contexts_see_their_own(
    start: Callable[[Any], Any], hub: Hub, ways: tuple[bool, bool]
) -> None:
    tenants = [Tenant(name, hub) for name in TENANTS]
    servers = [await start(each.serving(callbacks=way)) for each, way in zip(tenants, ways, strict=True)]
    async with await Wire.open(servers[0]) as first, await Wire.open(servers[1]) as second:
        await until(lambda: hub.room_count("room") == 2)
        for number in range(20):
            for wire in (first, second):  # past the transports, so that the loop finds both at once
                os.write(wire.writer.get_extra_info("socket").fileno(), text(str(number)))
            for wire in (first, second):
                assert [await wire.message() for _ in range(2)] == [str(number)] * 2
        for wire in (first, second):
            os.write(wire.writer.get_extra_info("socket").fileno(), close())
        for wire in (first, second):
            await wire.eof()
        await until(lambda: all(each.ended for each in tenants))
    for each in tenants:
        assert {seen for _, seen in each.seen} == {each.name}, each.seen
        assert len(each.seen) >= 6
    assert tenant.get() == "none"
