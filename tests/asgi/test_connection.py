"""`conn()` on our own server, on others, and on the test client of Starlette: rooms, order, ends."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
from typing import Any

import anyio
import litestar
import pytest
from fastapi import FastAPI, WebSocket
from fastapi.testclient import TestClient
from starlette.websockets import WebSocketDisconnect
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

import plumews
from plumews.asgi import conn
from plumews.asgi.connection import opening_events, request_of
from support.asgi_servers import OTHERS, SERVERS, serving, url
from support.fakes import until


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@contextlib.asynccontextmanager
async def endpoint(server: str, function: Any):
    """Serve a FastAPI application whose WebSocket is ``async def function(websocket)``. Gives its URL."""
    app = FastAPI()

    @app.websocket("/ws")
    async def run(websocket: WebSocket) -> None:
        with contextlib.suppress(WebSocketDisconnect):
            await function(websocket)

    async with serving(server, app) as port:
        yield url(port, "/ws")


def client(address: str, **options: Any) -> Any:
    return connect(address, proxy=None, **options)


async def closed_with(websocket: Any) -> tuple[int, str]:
    with pytest.raises(ConnectionClosed):
        await websocket.recv()
    return websocket.close_code, websocket.close_reason


# --- rooms ----------------------------------------------------------------------------------------


async def test_a_broadcast_reaches_members_of_each_server(server):
    hub = plumews.Hub()

    async def join(websocket):
        await websocket.accept()
        hub.join("chat", conn(websocket))
        while True:
            hub.broadcast_room("chat", await websocket.receive_text())

    async with endpoint(server, join) as address, client(address) as first, client(address) as second:
        await until(lambda: hub.room_count("chat") == 2)
        await first.send("hello")
        assert [await first.recv(), await second.recv()] == ["hello"] * 2
        assert all(isinstance(member, plumews.Conn) for member in hub.members("chat"))


async def test_events_and_broadcasts_keep_their_order(server):
    hub = plumews.Hub()

    async def mix(websocket):
        await websocket.accept()
        member = conn(websocket)
        hub.join("chat", member)
        for number in range(0, 40, 4):
            hub.broadcast_room("chat", f"{number}")
            await websocket.send_text(f"{number + 1}")
            hub.broadcast_room("chat", f"{number + 2}".encode())
            await member.send(f"{number + 3}")
        await websocket.close(4000, "done")

    async with endpoint(server, mix) as address, client(address) as websocket:
        got = [await websocket.recv() for _ in range(40)]
        assert await closed_with(websocket) == (4000, "done")
    assert got == [str(number).encode() if number % 4 == 2 else str(number) for number in range(40)]


async def test_an_event_waits_for_a_broadcast_in_slices(server, sliced):
    hub = plumews.Hub()
    ready = anyio.Event()

    async def say(websocket):
        await websocket.accept()
        hub.join("chat", conn(websocket))
        if hub.room_count("chat") == 3:
            hub.broadcast_room("chat", "first")
            await websocket.send_text("second")
            ready.set()
        await websocket.receive_text()

    async with endpoint(server, say) as address, client(address) as a, client(address) as b, client(address) as c:
        await ready.wait()
        assert [await a.recv(), await b.recv()] == ["first"] * 2
        assert [await c.recv(), await c.recv()] == ["first", "second"]


async def test_presence_and_users_work_on_each_server(server):
    hub = plumews.Hub()

    async def join(websocket):
        await websocket.accept()
        member = conn(websocket)
        member.user_info = plumews.UserInfo("42", "Ada")
        hub.join("chat", member)
        await websocket.receive_text()

    async with endpoint(server, join) as address, client(address) as websocket:
        await until(lambda: hub.room_count("chat") == 1)
        assert [user.id for user in hub.presence("chat").users] == ["42"]
        hub.send_to_user("42", "only you")
        assert await websocket.recv() == "only you"
        assert hub.disconnect_user("42", 4003, "banned") == 1
        assert await closed_with(websocket) == (4003, "banned")
        await until(lambda: hub.room_count("chat") == 0)


async def test_missed_messages_are_recovered_on_each_server(server):
    hub = plumews.Hub(plumews.HubConfig(history=plumews.HistoryLimits()))

    async def recover(websocket):
        await websocket.accept()
        hub.recover("chat", conn(websocket), plumews.Position.parse(websocket.query_params["since"]))
        await websocket.receive_text()

    async with endpoint(server, recover) as address:
        hub.position("chat")
        hub.broadcast_room("chat", "missed")
        async with client(address + "?since=start") as websocket:
            assert await websocket.recv() == "missed"


async def test_a_shutdown_of_the_hub_closes_members_of_each_server(server):
    hub = plumews.Hub()

    async def join(websocket):
        await websocket.accept()
        hub.join("chat", conn(websocket))
        await websocket.receive_text()

    async with endpoint(server, join) as address, client(address) as websocket:
        await until(lambda: hub.room_count("chat") == 1)
        hub.broadcast_room("chat", "last")
        report = await hub.shutdown(5, spread=0, reconnect_in=0)
        assert (report.closed, report.undelivered_messages) == (1, 0)
        assert await websocket.recv() == "last"
        assert await closed_with(websocket) == (1001, "")


# --- the connection -------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [{"body": b"no"}, {"more_body": False}])
async def test_a_denied_websocket_ends_its_connection(body):
    async def receive():
        return {"type": "websocket.connect"}

    async def send(event):
        sent.append(event["type"])

    sent = []
    scope = {"type": "websocket", "path": "/", "headers": []}
    extension, _, answer = opening_events(scope, receive, send)
    await answer({"type": "websocket.http.response.start", "status": 401})
    await answer({"type": "websocket.http.response.body", "more_body": True})
    assert not extension.opening._transport.is_closing()
    await answer({"type": "websocket.http.response.body", **body})
    await until(lambda: extension.opening._transport is None)
    assert len(sent) == 3


async def test_a_websocket_has_one_connection(server):
    found = []

    async def look(websocket):
        await websocket.accept()
        found.extend([conn(websocket), conn(websocket), websocket.scope["extensions"]["plumews"]["conn"]])
        await websocket.send_text("looked")

    async with endpoint(server, look) as address, client(address) as websocket:
        await websocket.recv()
    assert found == [found[0]] * 3
    assert found[0].request.path == "/ws"
    assert found[0].client_address == "127.0.0.1"


async def test_before_accept_there_is_no_connection(server):
    async def too_early(websocket):
        try:
            conn(websocket)
        except RuntimeError as exc:
            told = str(exc)
        await websocket.accept()
        await websocket.send_text(told)

    async with endpoint(server, too_early) as address, client(address) as websocket:
        assert "await accept()" in await websocket.recv()


@pytest.mark.parametrize("server", OTHERS)
async def test_a_client_that_has_left_gives_no_member(server):
    told = []

    async def too_late(websocket):
        await websocket.accept()
        await websocket.receive()
        with pytest.raises(RuntimeError, match="the WebSocket is closed"):
            conn(websocket)
        told.append("closed")

    async with endpoint(server, too_late) as address:
        async with client(address):
            pass
        await until(lambda: told)


async def test_a_plain_application_uses_the_connection_alone(server):
    async def app(scope, receive, send):
        if scope["type"] != "websocket":
            return
        await receive()
        await send({"type": "websocket.accept"})
        connection = conn(scope, receive, send)
        async for message in connection:
            await connection.send(message)
            if message == "end":
                await connection.close(4001, "ended")

    async with serving(server, app) as port, client(url(port)) as websocket:
        for message in ("text", b"binary", "", b"", "end"):
            await websocket.send(message)
        assert [await websocket.recv() for _ in range(5)] == ["text", b"binary", "", b"", "end"]
        assert await closed_with(websocket) == (4001, "ended")


async def test_litestar_has_the_same_connection(server):
    hub = plumews.Hub()

    @litestar.websocket("/ws")
    async def join(socket: litestar.WebSocket) -> None:
        await socket.accept()
        hub.join("chat", conn(socket))
        with contextlib.suppress(litestar.exceptions.WebSocketDisconnect):
            while True:
                hub.broadcast_room("chat", await socket.receive_text())
                await socket.send_text("sent")

    app = litestar.Litestar([join], logging_config=None, openapi_config=None)
    async with serving(server, app) as port:
        async with client(url(port, "/ws")) as websocket:
            await websocket.send("hello")
            assert [await websocket.recv(), await websocket.recv()] == ["hello", "sent"]
        await until(lambda: hub.room_count("chat") == 0)


async def test_a_cancelled_receive_loses_no_message(server):
    async def patient(websocket):
        await websocket.accept()
        conn(websocket)
        with anyio.move_on_after(0.01):
            await websocket.receive_text()
        await websocket.send_text("now")
        await websocket.send_text("got " + await websocket.receive_text())

    async with endpoint(server, patient) as address, client(address) as websocket:
        assert await websocket.recv() == "now"
        await websocket.send("it")
        assert await websocket.recv() == "got it"


async def test_long_messages_pass_in_both_directions(server):
    async def echo(websocket):
        await websocket.accept()
        member = conn(websocket)
        await member.send(await websocket.receive_text())
        await websocket.receive_text()

    async with endpoint(server, echo) as address, client(address, max_size=None) as websocket:
        await websocket.send("ä" * 300_000)
        assert await websocket.recv() == "ä" * 300_000


# --- ends -----------------------------------------------------------------------------------------


async def test_a_member_that_never_receives_leaves_with_its_client(server):
    hub = plumews.Hub()

    async def only_listen(websocket):
        await websocket.accept()
        hub.join("news", conn(websocket))
        await conn(websocket).wait_closed()

    async with endpoint(server, only_listen) as address:
        async with client(address):
            await until(lambda: hub.room_count("news") == 1)
        await until(lambda: hub.room_count("news") == 0)


async def test_the_application_gets_one_disconnect_with_the_code(server):
    events = []

    async def listen(websocket):
        await websocket.accept()
        conn(websocket)
        events.extend([await websocket.receive(), await websocket.receive()])
        with pytest.raises((RuntimeError, OSError)):
            await websocket.receive()

    async with endpoint(server, listen) as address:
        websocket = await client(address)
        await websocket.send("last words")
        await websocket.close(4010, "bye")
        await until(lambda: len(events) == 2)
    assert events[0]["text"] == "last words"
    assert events[1]["type"] == "websocket.disconnect"
    told = (1006, None) if server == "hypercorn" else (4010, "bye")  # it tells its applications no code of the client
    assert (events[1]["code"], events[1].get("reason")) == told


async def test_a_send_to_a_client_that_has_gone_is_an_oserror(server):
    raised = []

    async def send(websocket):
        await websocket.accept()
        member = conn(websocket)
        await member.wait_closed()
        with pytest.raises(plumews.ConnectionClosed):
            await member.send("too late")
        try:
            await websocket.send_text("too late")
        except WebSocketDisconnect as exc:  # what Starlette makes of an OSError
            raised.append(exc.code)

    async with endpoint(server, send) as address:
        await (await client(address)).close()
        await until(lambda: raised == [1006])


async def test_an_awaited_event_leaves_before_the_return(server):
    hub = plumews.Hub()

    async def say_bye(websocket):
        await websocket.accept()
        hub.join("chat", conn(websocket))
        hub.broadcast_room("chat", "to all")
        await websocket.send_text("bye")

    async with endpoint(server, say_bye) as address, client(address) as websocket:
        assert [await websocket.recv(), await websocket.recv()] == ["to all", "bye"]


async def test_a_member_leaves_when_its_application_returns(server):
    hub = plumews.Hub()
    stayed = []

    async def come_and_go(websocket):
        await websocket.accept()
        hub.join("chat", conn(websocket))
        await websocket.send_text("in")

    async with endpoint(server, come_and_go) as address, client(address) as websocket:
        assert await websocket.recv() == "in"
        await until(lambda: hub.room_count("chat") == 0)
        stayed.extend(hub.rooms())
    assert stayed == []


@pytest.mark.parametrize("server", OTHERS)
async def test_a_client_that_reads_nothing_costs_its_queue(server):
    hub = plumews.Hub()
    members = []

    async def join(websocket):
        await websocket.accept()
        members.append(conn(websocket, queue_size=4, send_behavior=plumews.SendBehavior.DROP_OLDEST))
        hub.join("chat", members[0])
        await members[0].wait_closed()

    async with contextlib.AsyncExitStack() as stack:
        address = await stack.enter_async_context(endpoint(server, join))
        sock = stack.enter_context(socket.socket())
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        sock.connect(("127.0.0.1", int(address.split(":")[2].partition("/")[0])))
        websocket = await stack.enter_async_context(client(address, max_queue=1, compression=None, sock=sock))
        await until(lambda: bool(members))
        for _ in range(200):
            hub.broadcast_room("chat", bytes(100_000))
            await asyncio.sleep(0)
        await until(lambda: members[0].evicted_messages > 50)
        assert members[0].queued_messages <= 4
        assert members[0]._transport._size < 1_000_000
        hub.broadcast_room("chat", "the newest")
        message: Any = b""
        while message != "the newest":
            message = await websocket.recv()


@pytest.mark.parametrize("server", OTHERS)
async def test_tasks_end_with_the_connection(server):
    async def come_and_go(websocket):
        await websocket.accept()
        await conn(websocket).send("in")
        await websocket.receive_text()

    async with endpoint(server, come_and_go) as address:
        async with client(address) as websocket:
            assert await websocket.recv() == "in"
        await until(lambda: not [task for task in asyncio.all_tasks() if "EventTransport" in repr(task)])


# --- the test client ------------------------------------------------------------------------------


def chat(hub: plumews.Hub) -> FastAPI:
    app = FastAPI()

    @app.websocket("/chat")
    async def enter(websocket: WebSocket) -> None:
        await websocket.accept()
        hub.join("chat", conn(websocket))
        with contextlib.suppress(WebSocketDisconnect):
            while (message := await websocket.receive_text()) != "leave":
                hub.broadcast_room("chat", message)

    return app


def test_the_test_client_of_starlette_has_members():
    hub = plumews.Hub()
    with (
        TestClient(chat(hub)) as tests,
        tests.websocket_connect("/chat") as first,
        tests.websocket_connect("/chat") as second,
    ):
        first.send_text("hello")
        assert [first.receive_text(), second.receive_text()] == ["hello"] * 2
        second.close()
        first.send_text("again")
        assert first.receive_text() == "again"


def test_a_member_of_the_test_client_leaves_at_the_return():
    hub = plumews.Hub()
    with TestClient(chat(hub)) as tests, tests.websocket_connect("/chat") as websocket:
        websocket.send_text("hello")
        assert websocket.receive_text() == "hello"
        websocket.send_text("leave")
        gc.collect()
        for _ in range(200):
            tests.portal.call(asyncio.sleep, 0.005)
            if not hub.room_count("chat"):
                break
        assert hub.room_count("chat") == 0


# --- what it takes --------------------------------------------------------------------------------


async def test_arguments_are_checked():
    with pytest.raises(TypeError, match="FastAPI, Starlette or Litestar"):
        conn("websocket")
    with pytest.raises(TypeError, match="scope, receive and send"):
        conn({"type": "websocket"})
    with pytest.raises(TypeError, match="not a request of type 'http'"):
        conn({"type": "http"}, anyio.sleep, anyio.sleep)
    with pytest.raises(TypeError, match=r"unknown option ping_interval: there are close_timeout, .*"):
        conn({"type": "websocket"}, anyio.sleep, anyio.sleep, ping_interval=3)


def test_a_thread_has_no_connection():
    scope = {"type": "websocket", "headers": []}
    with pytest.raises(RuntimeError, match=r"call conn\(\) in a coroutine"):
        conn(scope, anyio.sleep, anyio.sleep)


def test_a_request_is_read_from_any_scope():
    scope = {
        "type": "websocket",
        "scheme": "wss",
        "path": "/å b",
        "raw_path": None,
        "query_string": b"room=x%20y",
        "headers": [(b"host", b"example.com"), (b"x-name", "å".encode())],
        "client": ["::ffff:10.0.0.1", 5],
    }
    request = request_of(scope)
    assert (request.path, request.raw_path, request.query["room"]) == ("/å b", "/%C3%A5%20b", "x y")
    assert (request.secure, request.client_address, request.headers["Host"]) == (True, "10.0.0.1", "example.com")
