"""The page about the client: its code does what the text says."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import plumews
from plumews import Conn, ConnConfig
from plumews.client.options import ConnectOptions
from support.fakes import PATIENCE

PAGE = (Path(__file__).parents[2] / "docs" / "client.md").read_text(encoding="utf-8")

Start = Callable[[Any], Any]


def run(heading: str) -> dict[str, Any]:
    """Return the names that the snippet under ``heading`` defines."""
    _, _, section = PAGE.partition(f"## {heading}\n")
    found = re.search(r"^```python\n(.*?)^```$", section.partition("\n## ")[0], re.MULTILINE | re.DOTALL)
    assert found is not None
    namespace: dict[str, Any] = {"__name__": "snippet"}
    exec(compile(found[1], f"client.md: {heading}", "exec"), namespace)
    return namespace


async def uri_of(start: Start, handler: Any, **options: Any) -> str:
    server = await start(plumews.serve(handler, "127.0.0.1", 0, **options))
    return f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


async def echo(conn: Conn) -> None:
    async for message in conn:
        await conn.send(message)


async def test_one_connection(start: Start, capsys: Any) -> None:
    uri = await uri_of(start, echo, subprotocols=["chat.v1"])
    assert await run("One connection")["ask"](uri) == "hello"
    assert capsys.readouterr().out == "hello chat.v1 101\n"


async def test_a_connection_that_comes_back(start: Start) -> None:
    async def once(conn: Conn) -> None:
        await conn.send("news")

    seen: list[Any] = []
    done = asyncio.Event()

    def show(attempt: int, message: str) -> None:
        seen.append((attempt, message))
        if len(seen) == 3:
            done.set()

    task = asyncio.ensure_future(run("A connection that comes back")["follow"](await uri_of(start, once), show))
    await asyncio.wait_for(done.wait(), PATIENCE)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert seen == [(1, "news"), (2, "news"), (3, "news")]


async def test_a_room_that_resumes(start: Start) -> None:
    hub = plumews.Hub(plumews.HubConfig(history=plumews.HistoryLimits()))
    prices: list[int] = []
    done = asyncio.Event()

    def send(price: int) -> None:
        hub.broadcast_room("prices", lambda at: json.dumps({"at": str(at), "price": price}))

    async def handler(conn: Conn) -> None:
        if prices:
            await conn.wait_closed()
        send(1)
        await conn.drain()
        await asyncio.wait_for(first.wait(), PATIENCE)
        conn.abort()
        send(2)
        send(3)

    def show(event: dict[str, Any]) -> None:
        prices.extend([event["price"]] if "price" in event else [])
        first.set()
        if len(prices) == 3:
            done.set()

    first = asyncio.Event()
    auth = plumews.SimpleRoomAuth()
    server = await start(plumews.serve_rooms(hub, auth, "127.0.0.1", 0, handler=handler, recovery=True))
    uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/ws?room=prices"
    task = asyncio.ensure_future(run("A room that resumes")["follow_prices"](uri, show))
    await asyncio.wait_for(done.wait(), PATIENCE)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await hub.shutdown()
    assert prices == [1, 2, 3]


async def test_a_callback_for_each_message(start: Start) -> None:
    async def feed(conn: Conn) -> None:
        assert await conn.recv() == "subscribe"
        for price in ("1", "2", "3"):
            await conn.send(price)
        await conn.wait_closed()

    prices: list[str] = []
    await asyncio.wait_for(run("A callback for each message")["watch"](await uri_of(start, feed), prices), PATIENCE)
    assert prices == ["1", "2", "3"]


async def test_errors(start: Start) -> None:
    def refuse(conn: Conn, request: plumews.Request) -> plumews.Response:
        return plumews.Response.text(403, "no")

    status_of = run("Errors of a client")["status_of"]
    assert await status_of(await uri_of(start, echo)) == 101
    assert await status_of(await uri_of(start, echo, process_request=refuse)) == 403


def test_options_of_the_table_are_all() -> None:
    section = PAGE.partition("## Options\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert named == {field.name for field in dataclasses.fields(ConnectOptions)}
    of_conn = set(re.findall(r"`(\w+)`", section.partition("`plumews.ConnConfig`")[2].partition("and others")[0]))
    assert of_conn <= {field.name for field in dataclasses.fields(ConnConfig)}
