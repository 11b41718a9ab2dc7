"""Runs of applications over real sockets: clients that leave, failures, ends and orders of events."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import random
import sys
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from fastapi import FastAPI, HTTPException, WebSocket
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocketDisconnect
from websockets.asyncio.client import connect

import plumews
from plumews.asgi import ClientDisconnected, PlumeProtocol
from plumews.asgi.application import Application
from support.fakes import ticks, until
from support.raw_client import Wire, close, masked, upgrade
from support.raw_client import text as frame
from support.uvicorn_setup import ACCEPT, CLOSE, echo, errors, flooding, text

BEFORE = "Expected ASGI message 'websocket.accept', 'websocket.close' or 'websocket.http.response.start' but got '{}'."
OPEN = "Expected ASGI message 'websocket.send' or 'websocket.close', but got '{}'."
AFTER = "Unexpected ASGI message '{}', after sending 'websocket.close' or response already completed."


async def ended(server: Any) -> None:
    await until(lambda: not server.state.connections and not server.state.tasks)


# --- events ---------------------------------------------------------------------------------------


async def test_events_have_one_key_for_each_kind_of_message(run):
    events = []

    async def app(scope, receive, send):
        events.append(await receive())
        await send(ACCEPT)
        events.extend([await receive() for _ in range(4)])

    server = await run(app)
    async with await Wire.open(server) as wire:
        wire.send(frame("a"), frame(""), masked(2, b"b"), masked(2, b""))
        assert await wire.closing() == (1000, "")
    assert events == [
        {"type": "websocket.connect"},
        {"type": "websocket.receive", "text": "a"},
        {"type": "websocket.receive", "text": ""},
        {"type": "websocket.receive", "bytes": b"b"},
        {"type": "websocket.receive", "bytes": b""},
    ]


async def test_sent_values_are_judged_by_is_not_none(run):
    async def app(scope, receive, send):
        await send({**ACCEPT, "subprotocol": None, "headers": None})
        await send({"type": "websocket.send", "bytes": None, "text": ""})
        await send({"type": "websocket.send", "bytes": b"", "text": None})
        await send({"type": "websocket.send", "bytes": b""})
        await send({"type": "websocket.send", "bytes": bytearray(b"c")})
        await send({"type": "websocket.close", "code": None, "reason": None})

    server = await run(app)
    async with await Wire.open(server) as wire:
        assert [await wire.message() for _ in range(4)] == ["", b"", b"", b"c"]
        assert await wire.closing() == (1000, "")


@pytest.mark.parametrize(
    "event",
    [
        {"type": "websocket.send"},
        {"type": "websocket.send", "text": None, "bytes": None},
        {"type": "websocket.send", "text": b"bytes"},
        {"type": "websocket.send", "bytes": "text"},
        {"type": "websocket.close", "code": "1000"},
        {"type": "websocket.close", "reason": b"bytes"},
        {"type": "websocket.nonsense"},
    ],
)
async def test_a_wrong_event_is_an_error_of_the_application(run, caplog, event):
    async def app(scope, receive, send):
        await send(ACCEPT)
        with pytest.raises((TypeError, ValueError, RuntimeError), match=r"websocket\."):
            await send(event)
        await send(text("still open"))

    server = await run(app)
    async with await Wire.open(server) as wire:
        assert await wire.message() == "still open"
        assert await wire.closing() == (1000, "")
    assert errors(caplog) == []


async def test_events_in_a_wrong_order_get_the_words_of_uvicorn(run):
    told: list[str] = []

    async def app(scope, receive, send):
        async def wrong(event: dict[str, Any]) -> None:
            with pytest.raises(RuntimeError) as caught:
                await send(event)
            told.append(str(caught.value))

        await wrong(text("early"))
        await send(ACCEPT)
        await wrong(ACCEPT)
        await send(CLOSE)
        await wrong(text("late"))
        await wrong(CLOSE)

    server = await run(app)
    async with await Wire.open(server) as wire:
        assert await wire.closing() == (1000, "")
    assert told == [
        BEFORE.format("websocket.send"),
        OPEN.format("websocket.accept"),
        AFTER.format("websocket.send"),
        AFTER.format("websocket.close"),
    ]


async def test_connect_comes_first_even_after_accept(run):
    events = []

    async def app(scope, receive, send):
        await send(ACCEPT)
        events.extend([await receive(), await receive()])

    server = await run(app)
    async with await Wire.open(server) as wire:
        wire.send(frame("a"))
        await wire.closing()
    assert [event["type"] for event in events] == ["websocket.connect", "websocket.receive"]


async def test_receive_before_accept_gets_the_first_message(run):
    events = []

    async def app(scope, receive, send):
        await receive()
        waiting = asyncio.ensure_future(receive())
        await ticks()
        await send(ACCEPT)
        events.append(await waiting)

    server = await run(app)
    async with await Wire.connect(server) as wire:
        wire.send(upgrade(), b"")
        await wire.read_head()
        wire.send(frame("first"))
        await wire.closing()
    assert events == [{"type": "websocket.receive", "text": "first"}]


# --- the connection in the scope ------------------------------------------------------------------


async def test_the_scope_has_the_connection_after_accept(run):
    async def app(scope, receive, send):
        with pytest.raises(RuntimeError, match="accept"):
            scope["extensions"]["plumews"]["conn"]
        assert "conn" not in scope["extensions"]["plumews"]
        with pytest.raises(KeyError):
            scope["extensions"]["plumews"]["other"]
        await send(ACCEPT)
        conn = scope["extensions"]["plumews"]["conn"]
        assert isinstance(conn, plumews.Conn)
        assert conn.request.path == "/room"
        await send(text("by the event"))
        await conn.send("by the connection")
        await send(text("by the event again"))
        assert (await receive())["type"] == "websocket.connect"
        assert (await receive())["text"] == "one"
        assert await conn.recv() == "two"

    server = await run(app)
    async with await Wire.open(server, "/room") as wire:
        assert [await wire.message() for _ in range(3)] == ["by the event", "by the connection", "by the event again"]
        wire.send(frame("one"), frame("two"))
        assert await wire.closing() == (1000, "")


async def test_a_member_of_a_hub_keeps_the_order_of_both_ways(run):
    async with plumews.Hub() as hub:

        async def app(scope, receive, send):
            await send(ACCEPT)
            hub.join("room", scope["extensions"]["plumews"]["conn"])
            for number in range(50):
                await send(text(f"event {number}"))
                hub.broadcast_room("room", f"room {number}")
            await receive()
            await receive()

        server = await run(app)
        async with await Wire.open(server) as wire:
            expected = [f"{kind} {number}" for number in range(50) for kind in ("event", "room")]
            assert [await wire.message() for _ in range(100)] == expected
            assert hub.room_count("room") == 1
        await until(lambda: hub.room_count("room") == 0)


@pytest.mark.parametrize("unread", [0, 3, 100])
async def test_a_client_of_an_app_that_never_receives_leaves_at_once(run, unread):
    over = asyncio.Event()
    async with plumews.Hub() as hub:

        async def app(scope, receive, send):
            await send(ACCEPT)
            hub.join("room", scope["extensions"]["plumews"]["conn"])
            await over.wait()

        server = await run(app, ws_max_queue=50)
        async with await Wire.open(server) as wire:
            await until(lambda: hub.room_count("room") == 1)
            wire.send(*[frame("unread")] * unread, close(1000))
            started = asyncio.get_running_loop().time()
            await until(lambda: hub.room_count("room") == 0)
            assert asyncio.get_running_loop().time() - started < (0.5 if unread < 50 else 3)
        assert len(server.state.tasks) == 1
        over.set()
        await ended(server)


# --- clients that leave ---------------------------------------------------------------------------


async def test_no_101_and_no_accepted_for_a_client_that_has_left(run, http, caplog):
    go_on = asyncio.Event()
    failed: list[BaseException] = []

    async def app(scope, receive, send):
        await go_on.wait()
        try:
            await send(ACCEPT)
        except OSError as exc:
            failed.append(exc)
            raise

    server = await run(app, http=http)
    for reset in (False, True):
        async with await Wire.connect(server) as wire:
            wire.send(upgrade())
            await until(lambda: server.state.tasks)
            if reset:
                wire.reset()
        await until(lambda: not server.state.connections)
        go_on.set()
        await ended(server)
        go_on.clear()
    assert [type(exc) for exc in failed] == [ClientDisconnected, ClientDisconnected]
    assert "accepted" not in caplog.text
    assert errors(caplog) == []


@pytest.mark.parametrize("event", [ACCEPT, CLOSE, {"type": "websocket.http.response.start", "status": 404}])
async def test_first_events_to_a_gone_client_are_one_oserror(run, caplog, event):
    failed: list[BaseException] = []

    async def app(scope, receive, send):
        assert (await receive())["type"] == "websocket.connect"
        assert await receive() == {"type": "websocket.disconnect", "code": 1006}
        try:
            await send(event)
        except OSError as exc:
            failed.append(exc)

    server = await run(app)
    async with await Wire.connect(server) as wire:
        wire.send(upgrade())
        await until(lambda: server.state.tasks)
    await ended(server)
    assert [type(exc) for exc in failed] == [ClientDisconnected]
    assert errors(caplog) == []
    assert "WebSocket" not in caplog.text


@pytest.mark.parametrize("how", ["close", "eof", "reset"])
@pytest.mark.parametrize("event", [text("x"), text("x" * 100_000), CLOSE])
async def test_events_to_a_gone_client_are_one_oserror(run, caplog, how, event):
    failed: list[BaseException] = []
    gone = asyncio.Event()

    async def app(scope, receive, send):
        await send(ACCEPT)
        await gone.wait()
        for _ in range(2):
            try:
                await send(event)
            except OSError as exc:
                failed.append(exc)

    server = await run(app)
    async with await Wire.open(server) as wire:
        if how == "close":
            wire.send(close(1001))
            await wire.closing()
        elif how == "reset":
            wire.reset()
    await until(lambda: not server.state.connections)
    gone.set()
    await ended(server)
    assert [type(exc) for exc in failed] == [ClientDisconnected] * 2
    assert errors(caplog) == []


async def test_a_send_that_waits_is_ended_by_the_client_that_leaves(run, caplog):
    failed: list[BaseException] = []
    server = await run(flooding(failed))
    wire = await Wire.open(server, rcvbuf=4096)
    (conn,) = server.conns
    await until(lambda: conn._paused)
    wire.reset()
    await ended(server)
    assert [type(exc) for exc in failed] == [ClientDisconnected]
    assert errors(caplog) == []
    wire.writer.close()


async def test_disconnect_comes_once_behind_the_messages(run, caplog):
    events: list[Any] = []
    go_on = asyncio.Event()

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        await go_on.wait()
        events.extend([await receive() for _ in range(3)])
        with pytest.raises(ClientDisconnected):
            await receive()

    server = await run(app)
    async with await Wire.open(server) as wire:
        wire.send(frame("a"), frame("b"), close(4000, "bye"))
        await wire.closing()
        go_on.set()
        await ended(server)
    assert [event.get("text") for event in events[:2]] == ["a", "b"]
    assert events[2] == {"type": "websocket.disconnect", "code": 4000, "reason": "bye"}
    assert errors(caplog) == []


@pytest.mark.parametrize(
    ("sent", "code"),
    [(close(None), 1005), (close(1001), 1001), (b"", 1006), (masked(2, b"", fin=False), 1006)],
    ids=["close", "close 1001", "nothing", "part of a message"],
)
async def test_disconnect_has_the_code_of_the_end(run, sent, code):
    events: list[Any] = []

    async def app(scope, receive, send):
        await send(ACCEPT)
        events.extend([await receive(), await receive()])

    server = await run(app)
    async with await Wire.open(server) as wire:
        wire.send(sent)
    await ended(server)
    assert events[1]["type"] == "websocket.disconnect"
    assert events[1]["code"] == code


async def leave(server: Any, chance: random.Random) -> None:
    """Connect, and leave somewhere in the handshake or behind it, in one of the ways in which clients leave."""
    wire = await Wire.connect(server)
    head = upgrade()
    wire.send(head[: chance.choice([10, len(head), len(head), len(head), len(head)])])
    for _ in range(chance.randrange(25)):
        await asyncio.sleep(0)
    wire.send(*[frame("x" * chance.choice([1, 100, 20_000]))] * chance.randrange(4))
    for _ in range(chance.randrange(10)):
        await asyncio.sleep(0)
    way = chance.randrange(4)
    if way == 0:
        wire.reset()
    elif way == 1:
        wire.send(close(chance.choice([None, 1000, 1001, 4000])))
        with contextlib.suppress(OSError):  # the server may have ended it before
            wire.writer.write_eof()
            await wire.reader.read()
    elif way == 2:
        wire.send(b"\x81\xff" + bytes(4))  # part of a frame
    wire.writer.close()


@pytest.mark.parametrize("seed", range(3))
async def test_clients_that_leave_at_any_moment_leave_nothing(run, caplog, seed):
    chance = random.Random(seed)
    hub = plumews.Hub()

    async def app(scope, receive, send):
        for _ in range(chance.randrange(8)):
            await asyncio.sleep(0)
        if chance.random() < 0.8:
            await receive()
        for _ in range(chance.randrange(8)):
            await asyncio.sleep(0)
        if chance.random() < 0.2:
            await send(CLOSE)
            return
        await send(ACCEPT)
        hub.join("room", scope["extensions"]["plumews"]["conn"])
        while True:
            event = await receive()
            if event["type"] == "websocket.disconnect" and chance.random() < 0.5:
                await send(CLOSE)
            if event["type"] == "websocket.receive":
                hub.broadcast_room("room", event["text"])
                await send(text(event["text"]))

    server = await run(app)
    for _ in range(12):
        await asyncio.gather(*[leave(server, chance) for _ in range(10)])
    await until(lambda: not server.state.tasks and not server.conns)
    assert hub.room_count("room") == 0
    assert errors(caplog) == []
    await hub.stop()


# --- ends of the application ----------------------------------------------------------------------


async def test_an_application_that_returns_closes_with_1000(run, http, caplog):
    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        await send(text("last"))

    server = await run(app, http=http)
    async with await Wire.open(server) as wire:
        assert await wire.message() == "last"
        assert await wire.closing() == (1000, "")
    await ended(server)
    assert errors(caplog) == []


async def test_a_result_of_the_application_is_logged(run, caplog):
    async def app(scope, receive, send):
        await send(ACCEPT)
        return 123

    server = await run(app)
    async with await Wire.open(server) as wire:
        assert await wire.closing() == (1000, "")
    assert errors(caplog) == ["ASGI callable should return None, but returned '123'."]


async def test_an_application_that_fails_closes_with_1011(run, http, caplog):
    async def app(scope, receive, send):
        await send(ACCEPT)
        await send(text("queued"))
        raise ValueError("a mistake")

    server = await run(app, http=http)
    async with await Wire.open(server) as wire, await Wire.open(server) as other:
        assert await wire.message() == "queued"
        assert await wire.closing() == (1011, "the application failed")
        assert await other.closing() == (1011, "the application failed")
    await ended(server)
    assert errors(caplog) == ["Exception in ASGI application\n"] * 2
    assert "ValueError: a mistake" in caplog.text


@pytest.mark.parametrize("fails", [False, True])
async def test_an_application_that_never_accepts_is_500(run, http, caplog, fails):
    async def app(scope, receive, send):
        if fails:
            raise ValueError("a mistake")

    server = await run(app, http=http)
    async with await Wire.connect(server) as wire:
        assert await wire.response(upgrade()) == (500, b"Internal Server Error")
        assert wire.header("connection") == "close"
        assert wire.header("content-length") == "21"
    await ended(server)
    assert len(errors(caplog)) == 1


async def test_the_shortest_echo_writes_nothing_when_clients_leave(run, caplog):
    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        while True:
            await send(text((await receive())["text"]))

    async def fastapi_echo(websocket: WebSocket):
        await websocket.accept()
        while True:
            await websocket.send_text(await websocket.receive_text())

    fastapi = FastAPI()
    fastapi.websocket("/")(fastapi_echo)
    starlette = Starlette(routes=[WebSocketRoute("/", fastapi_echo)])
    for each in (fastapi, starlette):
        server = await run(each)
        for leave in ("close", "eof", "reset"):
            async with await Wire.open(server) as wire:
                wire.send(frame("hello"))
                assert await wire.message() == "hello"
                if leave == "close":
                    wire.send(close())
                    await wire.closing()
                elif leave == "reset":
                    wire.reset()
            await ended(server)
    assert errors(caplog) == []


@pytest.mark.skipif(sys.version_info < (3, 11), reason="groups of exceptions")
async def test_groups_of_disconnects_are_an_ordinary_end(run, caplog):
    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        async with anyio.create_task_group() as group:

            async def forward() -> None:
                while True:
                    await send(text("tick"))
                    await asyncio.sleep(0.001)  # the pace of the ticks

            group.start_soon(forward)
            while (await receive())["type"] != "websocket.disconnect":
                pass
            await asyncio.Event().wait()

    server = await run(app)
    async with await Wire.open(server) as wire:
        assert await wire.message() == "tick"
    await ended(server)
    assert errors(caplog) == []


@pytest.mark.skipif(sys.version_info < (3, 11), reason="groups of exceptions")
async def test_a_group_with_another_error_is_a_failure(run, caplog):
    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        await receive()
        raise builtins.ExceptionGroup("both", [ClientDisconnected(), ValueError("a mistake")])

    server = await run(app)
    async with await Wire.open(server):
        pass
    await ended(server)
    assert errors(caplog) == ["Exception in ASGI application\n"]


async def test_a_disconnect_raised_for_an_open_client_is_a_failure(run, caplog):
    async def app(scope, receive, send):
        await send(ACCEPT)
        raise ClientDisconnected("of another connection")

    server = await run(app)
    async with await Wire.open(server) as wire:
        assert await wire.closing() == (1011, "the application failed")
    assert errors(caplog) == ["Exception in ASGI application\n"]


async def test_a_disconnect_raised_before_accept_is_a_failure(run, caplog):
    async def app(scope, receive, send):
        raise WebSocketDisconnect(1000)

    server = await run(app)
    async with await Wire.connect(server) as wire:
        assert await wire.response(upgrade()) == (500, b"Internal Server Error")
    assert errors(caplog) == ["Exception in ASGI application\n"]


async def test_a_disconnect_behind_an_own_close_is_an_ordinary_end(run, caplog):
    async def app(scope, receive, send):
        await receive()
        await send(CLOSE if scope["path"] == "/no" else ACCEPT)
        if scope["path"] != "/no":
            await send(CLOSE)
        raise WebSocketDisconnect((await receive())["code"])

    server = await run(app)
    async with await Wire.connect(server) as wire:
        assert await wire.response(upgrade("/no")) == (403, b"")
    async with await Wire.open(server) as wire:
        assert await wire.closing() == (1000, "")
    await ended(server)
    assert errors(caplog) == []


@pytest.mark.parametrize("framework", [FastAPI, Starlette])
async def test_an_http_error_after_accept_is_1011(run, caplog, framework):
    async def endpoint(websocket: WebSocket):
        await websocket.accept()
        raise HTTPException(status_code=404, detail="not here")

    app = FastAPI() if framework is FastAPI else Starlette(routes=[WebSocketRoute("/", endpoint)])
    if framework is FastAPI:
        app.websocket("/")(endpoint)
    server = await run(app)
    async with await Wire.open(server) as wire:
        assert await wire.closing() == (1011, "the application failed")
    await ended(server)
    assert errors(caplog) == ["Exception in ASGI application\n"]
    assert "an HTTP response or error can only be sent before accept()" in caplog.text


@pytest.mark.parametrize("exit_by", [SystemExit, KeyboardInterrupt])
async def test_exits_of_an_application_are_treated_as_for_http(run, caplog, exit_by):
    async def app(scope, receive, send):
        if scope["path"] == "/exit" and scope["type"] == "websocket":
            await send(ACCEPT)
        if scope["path"] == "/exit":
            raise exit_by
        await echo(scope, receive, send)

    server = await run(app)
    async with await Wire.open(server) as other:
        async with await Wire.connect(server) as wire:
            status, _ = await wire.response(b"GET /exit HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert status == 500
        async with await Wire.open(server, "/exit") as wire:
            assert await wire.closing() == (1011, "the application failed")
        assert errors(caplog) == ["Exception in ASGI application\n"] * 2
        other.send(frame("alive"))
        assert await other.message() == "alive"


async def test_a_cancelled_application_is_a_failure(run, caplog):
    async def app(scope, receive, send):
        await send(ACCEPT)
        raise asyncio.CancelledError

    server = await run(app)
    async with await Wire.open(server) as wire:
        assert await wire.closing() == (1011, "the application failed")
    await ended(server)
    assert errors(caplog) == ["Exception in ASGI application\n"]


async def test_a_cancellation_behind_an_own_close_loses_nothing(run, caplog):
    async def app(scope, receive, send):
        await send(ACCEPT)
        scope["extensions"]["plumews"]["conn"].send_nowait(bytes(4_000_000))
        await send(CLOSE)
        raise asyncio.CancelledError

    server = await run(app)
    async with await Wire.open(server, rcvbuf=4096) as wire:
        await until(lambda: not server.state.tasks)
        assert len(await wire.message()) == 4_000_000
        assert await wire.closing() == (1000, "")
    assert errors(caplog) == []


def test_a_task_that_is_destroyed_with_its_loop_is_no_error(caplog):
    async def app(scope, receive, send):
        await asyncio.Future(loop=loop)

    loop = asyncio.new_event_loop()
    context = SimpleNamespace(app=app, options=PlumeProtocol._options)
    scope = {"extensions": {"plumews": None}}
    run = Application(context, None, SimpleNamespace(_loop=loop), scope, set()).run()
    run.send(None)
    loop.close()
    run.close()
    assert errors(caplog) == []


async def test_a_task_that_never_began_ends_with_its_connection(run):
    class Cancelled(set):
        def add(self, task):
            super().add(task)
            task.cancel()

    async def app(scope, receive, send):
        raise AssertionError

    server = await run(app)
    server.state.tasks = tasks = Cancelled()
    async with await Wire.connect(server) as wire:
        wire.send(upgrade())
        await until(lambda: any(task.cancelled() for task in tasks))
    await until(lambda: not tasks)


@pytest.mark.parametrize(("event", "answer"), [(ACCEPT, b"101"), (CLOSE, b"403")])
async def test_a_scope_that_cannot_be_logged_still_gets_an_end(run, event, answer):
    async def app(scope, receive, send):
        scope.update(path="/\udcff", query_string=b"\xff", state=None)
        await send(event)
        scope.clear()

    async def broken(scope, receive, send):
        scope["path"] = None
        await send(event)

    for each in (app, broken):
        server = await run(each)
        async with await Wire.connect(server) as wire:
            wire.send(upgrade())
            head = await wire.reader.readuntil(b"\r\n\r\n")
            assert head.split()[1] == answer
            if answer == b"101":
                assert (await wire.closing())[0] == (1000 if each is app else 1011)
            else:
                assert await wire.reader.read() == b""


# --- close ----------------------------------------------------------------------------------------


async def test_a_long_reason_is_cut_at_a_character_with_a_warning(run, caplog):
    async def app(scope, receive, send):
        await send(ACCEPT)
        await send({**CLOSE, "code": 4000, "reason": "a" + "\u20ac" * 60})

    server = await run(app)
    async with await Wire.open(server) as wire:
        assert await wire.closing() == (4000, "a" + "\u20ac" * 40)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    assert "123" in warnings[0]


@pytest.mark.parametrize(
    ("code", "sent"), [(1005, 1000), (1006, 1011), (1015, 1011), (999, 1011), (0, 1011), (70000, 1011)]
)
async def test_a_code_that_may_not_be_sent_is_replaced(run, caplog, code, sent):
    async def app(scope, receive, send):
        await send(ACCEPT)
        await send({**CLOSE, "code": code, "reason": "why"})

    server = await run(app)
    async with await Wire.open(server) as wire:
        assert await wire.closing() == (sent, "why")
    assert f"close code {code} may not be sent" in caplog.text


async def test_receive_after_close_gives_what_came_before(run):
    events: list[Any] = []

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        conn = scope["extensions"]["plumews"]["conn"]
        await until(lambda: len(conn._inbox) == 2)
        await send({**CLOSE, "code": 4001, "reason": "enough"})
        events.extend([await receive(), await receive(), await receive()])

    server = await run(app)
    async with await Wire.open(server) as wire:
        wire.send(frame("a"), frame("b"))
        assert await wire.closing() == (4001, "enough")
        await until(lambda: len(events) == 3)
    assert [event.get("text") for event in events[:2]] == ["a", "b"]
    assert events[2] == {"type": "websocket.disconnect", "code": 4001, "reason": "enough"}


# --- accept ---------------------------------------------------------------------------------------


async def test_an_offered_subprotocol_is_accepted(run, http):
    offered = []

    async def app(scope, receive, send):
        offered.extend(scope["subprotocols"])
        await send({**ACCEPT, "subprotocol": "b"})
        await receive()

    server = await run(app, http=http)
    async with await Wire.open(server, "/", "Sec-WebSocket-Protocol: a, b", "Sec-WebSocket-Protocol: c") as wire:
        assert wire.header("sec-websocket-protocol") == "b"
        (conn,) = server.conns
        assert conn.subprotocol == "b"
    assert offered == ["a", "b", "c"]


@pytest.mark.parametrize(
    "event",
    [
        {"subprotocol": "c"},
        {"subprotocol": ""},
        {"subprotocol": "a", "headers": [(b"sec-websocket-protocol", b"b")]},
        {"headers": [(b"Sec-WebSocket-Protocol", b"a")]},
        {"headers": [(b"sec-websocket-accept", b"x")]},
        {"headers": [(b"upgrade", b"x")]},
        {"headers": [(b"connection", b"x")]},
        {"headers": [(b"content-length", b"0")]},
    ],
)
async def test_a_header_of_the_handshake_is_an_error_that_names_it(run, http, caplog, event):
    name = event["headers"][0][0].decode() if "headers" in event else "Sec-WebSocket-Protocol"

    async def app(scope, receive, send):
        with pytest.raises(ValueError, match=f"(?i){name}"):
            await send({**ACCEPT, **event})
        await send(ACCEPT)
        await receive()

    server = await run(app, http=http)
    async with await Wire.open(server, "/", "Sec-WebSocket-Protocol: a, b") as wire:
        assert wire.header("sec-websocket-protocol") is None


@pytest.mark.parametrize("header", [(b"x", b"a\r\nb: c"), ("x", "str"), (b"x y", b"")])
async def test_a_header_that_cannot_be_sent_is_an_error(run, header):
    async def app(scope, receive, send):
        with pytest.raises((TypeError, ValueError), match="header"):
            await send({**ACCEPT, "headers": [header]})
        await send(ACCEPT)

    server = await run(app)
    async with await Wire.open(server) as wire:
        assert await wire.closing() == (1000, "")


# --- receive that is given up ---------------------------------------------------------------------


async def test_a_receive_that_is_given_up_loses_nothing(run):
    received: list[str] = []

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        while len(received) < 40:
            with contextlib.suppress(asyncio.TimeoutError):
                received.append((await asyncio.wait_for(receive(), 0.002))["text"])
            with anyio.move_on_after(0.002):
                received.append((await receive())["text"])

    server = await run(app)
    async with await Wire.open(server) as wire:
        for number in range(40):
            wire.send(frame(str(number)))
            await asyncio.sleep(0.0015)  # a pace close to the time-outs of the application
        assert await wire.closing() == (1000, "")
    assert received == [str(number) for number in range(40)]


@pytest.mark.parametrize("accepts", [False, True])
async def test_a_second_receive_at_the_same_time_is_an_error(run, accepts):
    async def app(scope, receive, send):
        await receive()
        if accepts:
            await send(ACCEPT)
        first = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="another task is already receiving"):
            await receive()
        if not accepts:
            await send(ACCEPT)
        await send(text("go on"))
        assert (await first)["text"] == "for the first"

    server = await run(app)
    async with await Wire.open(server) as wire:
        assert await wire.message() == "go on"
        wire.send(frame("for the first"))
        assert await wire.closing() == (1000, "")


# --- frameworks -----------------------------------------------------------------------------------


async def test_fastapi_reads_text_bytes_and_json(run, http):
    app = FastAPI()

    @app.websocket("/{name}")
    async def endpoint(websocket: WebSocket, name: str):
        await websocket.accept()
        await websocket.send_text(f"{name} {await websocket.receive_text()}")
        await websocket.send_bytes(await websocket.receive_bytes())
        await websocket.send_json(await websocket.receive_json())
        await websocket.close(4000, "done")

    server = await run(app, http=http)
    async with connect(f"ws://127.0.0.1:{server.port}/ann", proxy=None) as client:
        await client.send("hello")
        assert await client.recv() == "ann hello"
        await client.send(b"\x00")
        assert await client.recv() == b"\x00"
        await client.send('{"a": 1}')
        assert await client.recv() == '{"a":1}'
        await client.wait_closed()
        assert (client.close_code, client.close_reason) == (4000, "done")
