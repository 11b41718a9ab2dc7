"""Context variables of connections: their own copies, isolation from each other, and their memory."""

from __future__ import annotations

import asyncio
import asyncio.events
import gc
import weakref
from contextvars import Context, ContextVar, copy_context

import pytest

import plumews
from support.compressed_messages import OFFER, frames, squeezed
from support.fakes import PATIENCE, clog, failures, fake_conn, pass_time, tls_contexts, until
from support.raw_client import Wire, close, text

who = ContextVar("who", default="nobody")


def called_as(name, function, *args, **options):
    """Call ``function`` in a context in which ``who`` is ``name``."""

    def call():
        who.set(name)
        return function(*args, **options)

    return copy_context().run(call)


# --- the class ------------------------------------------------------------------------------------


async def test_call_runs_in_the_context_and_nests():
    conn, _ = fake_conn()
    conn._context = called_as("alice", copy_context)
    assert conn._run_in_context(lambda: (who.get(), conn._run_in_context(who.get))) == ("alice", "alice")
    assert who.get() == "nobody"


async def test_call_keeps_the_variables_that_it_sets():
    conn, _ = fake_conn()
    conn._context = Context()
    conn._run_in_context(who.set, "bob")
    assert conn._run_in_context(who.get) == "bob"


async def test_call_leaves_the_context_on_an_error():
    conn, _ = fake_conn()
    conn._context = called_as("alice", copy_context)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            conn._run_in_context(lambda: 1 // 0)
        assert who.get() == "nobody"
    assert conn._run_in_context(who.get) == "alice"


# --- handlers and callbacks -----------------------------------------------------------------------

WAYS = ["tcp", "unix", "tls", "compressed"]


def serve_by(how, path, *args, **options):
    if how == "unix":
        return plumews.unix_serve(*args, path=str(path / "socket"), **options)
    if how == "tls":
        options["ssl"] = tls_contexts()[0]
    if how == "compressed":
        options["compression"] = "deflate"
    return plumews.serve(*args, host="127.0.0.1", port=0, **options)


async def open_by(how, server, path="/"):
    if how == "tls":
        return await Wire.open(server, path, ssl=tls_contexts()[1], server_hostname="localhost")
    return await Wire.open(server, path, *([OFFER] if how == "compressed" else []))


def say(how, message):
    if how == "compressed":
        return b"".join(frames(1, squeezed(message.encode())))
    return text(message)


@pytest.mark.parametrize("how", WAYS)
async def test_handler_sees_variables_of_its_own_serve(start, tmp_path, how):
    async def handler(conn):
        async for _ in conn:
            await conn.send(who.get())
            who.set("somebody")

    servers = []
    for name in ("alice", "bob"):
        (tmp_path / name).mkdir()
        servers.append(await start(called_as(name, serve_by, how, tmp_path / name, handler)))
    for _ in range(2):
        for name, server in zip(("alice", "bob"), servers, strict=True):
            async with await open_by(how, server) as wire:
                wire.send(say(how, "?"))
                assert await wire.message() == name


@pytest.mark.parametrize("how", WAYS)
async def test_callbacks_of_a_connection_share_their_variables(start, tmp_path, how):
    closed = []

    def on_open(conn):
        who.set(who.get() + conn.request.path)
        conn.add_close_callback(lambda conn: closed.append(("callback", who.get())))

    def on_message(conn, message):
        conn.send_nowait(who.get())
        who.set(who.get() + message)

    def on_close(conn):
        closed.append(("on_close", who.get()))

    server = await start(
        called_as(
            "server", serve_by, how, tmp_path, on_open=on_open, on_message=on_message, on_close=on_close, max_queue=1
        )
    )
    async with await open_by(how, server, "/a") as one, await open_by(how, server, "/b") as two:
        for wire, path in ((one, "/a"), (two, "/b")):
            wire.send(say(how, "1"), say(how, "2"))
            assert [await wire.message(), await wire.message()] == [f"server{path}", f"server{path}1"]
        one.send(say(how, "3"))
        assert await one.message() == "server/a12"
        one.send(close())
        assert await one.closing() == (1000, "")
        await one.eof()
        await until(lambda: len(closed) == 2)
        assert sorted(closed) == [("callback", "server/a123"), ("on_close", "server/a123")]


async def test_callbacks_keep_their_variables_after_a_pause(start):
    def on_message(conn, message):
        who.set(message)
        asyncio.get_running_loop().call_soon(conn._update_reading)

    server = await start(called_as("server", plumews.serve, on_message=on_message, host="127.0.0.1", port=0))
    async with await Wire.open(server) as wire:
        (conn,) = server.connections
        wire.send(text("one"))
        await until(lambda: conn._run_in_context(who.get) == "one")
        transport, conn._reading_paused = conn._transport, True
        transport.pause_reading()
        called_as("a stranger", conn._update_reading)
        assert not conn._reading_paused
        conn._on_message = lambda conn, message: conn.send_nowait(who.get())
        wire.send(text("two"))
        assert await wire.message() == "one"


async def test_backlog_and_waiting_messages_are_in_context(start, monkeypatch):
    monkeypatch.setattr(plumews.limits, "FAN_OUT_SLICE", 0.0)
    seen = []

    def on_open(conn):
        who.set("opened")

    def on_message(conn, message):
        seen.append(who.get())

    server = await start(plumews.serve(on_open=on_open, on_message=on_message, host="127.0.0.1", port=0))
    async with await Wire.open(server) as wire:
        wire.send(*[text("m")] * 50)
        await until(lambda: len(seen) == 50)
    assert set(seen) == {"opened"}


@pytest.mark.parametrize("slow", [False, True])
async def test_hooks_and_handler_share_their_variables(start, slow):
    seen = []

    def note(name):
        seen.append((name, who.get()))
        who.set(name)

    def plain(conn, request):
        note("process_request")

    async def asynchronous(conn, request):
        await asyncio.sleep(0)
        note("process_request")

    def process_response(conn, request, response):
        note("process_response")

    async def handler(conn):
        note("handler")
        await conn.send("done")

    server = await start(
        called_as(
            "server",
            plumews.serve,
            handler,
            "127.0.0.1",
            0,
            process_request=asynchronous if slow else plain,
            process_response=process_response,
            select_subprotocol=lambda conn, offered: note("select_subprotocol"),
        )
    )
    for _ in range(2):
        seen.clear()
        async with await Wire.open(server) as wire:
            assert await wire.message() == "done"
        assert seen == [
            ("process_request", "server"),
            ("select_subprotocol", "process_request"),
            ("process_response", "select_subprotocol"),
            ("handler", "process_response"),
        ]


async def test_routes_see_variables_of_their_own_serve(start):
    async def slow(request):
        return plumews.Response.text(200, who.get())

    def authorize(request):
        assert who.get() == "server"

    routes = {
        "/plain": lambda request: plumews.Response.text(200, who.get()),
        "/slow": plumews.Route(slow, methods=["GET"], authorize=authorize),
    }
    server = await start(called_as("server", plumews.serve, on_message=print, host="127.0.0.1", port=0, routes=routes))
    for path in ("/plain", "/slow"):
        wire = await Wire.connect(server)
        async with wire:
            status, body = await wire.response(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            assert (status, body.strip()) == (200, b"server")


# --- other connections and the loop ---------------------------------------------------------------


async def test_close_callback_sees_nothing_of_others(start):
    ended = []

    async def handler(conn):
        if conn.request.path == "/alice":
            who.set("alice")
            await conn.close()
        else:
            conn.add_close_callback(lambda conn: ended.append(who.get()))
            await conn.wait_closed()

    server = await start(
        plumews.serve(handler, "127.0.0.1", 0, ping_interval=0.1, ping_timeout=0.1, close_timeout=0.02)
    )
    async with await Wire.open(server) as bob, await Wire.open(server, "/alice") as alice:
        assert await alice.closing() == (1000, "")  # and she does not answer, so that a deadline of hers is the next
        await bob.eof()
        await until(lambda: ended)
    assert ended == ["nobody"]


async def test_late_close_callback_is_in_context(start):
    seen = []

    async def handler(conn):
        who.set("handler")
        await conn.recv()

    server = await start(called_as("server", plumews.serve, handler, "127.0.0.1", 0))
    async with await Wire.open(server) as wire:
        (conn,) = server.connections
        wire.reset()
    await conn.wait_closed()
    conn.add_close_callback(lambda conn: seen.append(who.get()))
    assert seen == ["server"]


@pytest.mark.parametrize("anyio_backend", [("asyncio", {})], ids=["asyncio"])
async def test_nothing_on_the_loop_has_a_handlers_variables(start, monkeypatch):
    """Calls and timers of the loop start without them while rooms are busy and members slow."""
    carried = []
    make = asyncio.events.Handle.__init__

    def made(self, callback, args, loop, context=None):
        make(self, callback, args, loop, context)
        owner = getattr(callback, "__self__", None)
        protocol = getattr(owner, "_protocol", None)
        ours = type(owner).__module__.startswith("plumews") or isinstance(protocol, plumews.Conn)
        if ours and self._context.get(who, "nobody") != "nobody":
            carried.append(callback)

    hub = plumews.Hub(plumews.HubConfig(max_queued_bytes=1_000_000, encode_gap=lambda gap: "gap"))
    hub.on_slow(lambda conn: None)
    hub.on_drop(lambda conn, room, count: None)
    hub.watch_count("room", lambda room, count: None)
    held = asyncio.Event()

    async def handler(conn):
        hub.join("room", conn)
        if conn.request.path == "/slow":
            await conn.wait_closed()
            return
        who.set("a talker")
        async for message in conn:
            await hub.publish("room", "x" * 65536)
            hub.broadcast_room("room", message)
            if message == "last":
                held.set()
                await conn.close()

    server = await start(
        plumews.serve(handler, "127.0.0.1", 0, send_behavior=plumews.SendBehavior.DROP, compression="deflate")
    )
    monkeypatch.setattr(asyncio.events.Handle, "__init__", made)
    async with hub, await Wire.open(server, rcvbuf=4096, path="/slow") as slow, await Wire.open(server) as wire:
        conn = next(conn for conn in server.connections if conn.request.path == "/slow")
        clog(conn)
        wire.send(*[text("a word")] * 200, text("last"))
        await asyncio.wait_for(held.wait(), PATIENCE)
        assert await wire.closing() == (1000, "")
        slow.reset()
        await conn.wait_closed()
    assert carried == []


async def test_variables_are_freed_with_their_connection(start):
    class Session:
        """Resource such as a database connection."""

    sessions = []
    session = ContextVar("session")

    async def handler(conn):
        if conn.request.path == "/alice":
            value = Session()
            sessions.append(weakref.ref(value))
            session.set(value)
            del value
            for other in server.connections - {conn}:
                clog(other)  # whose transport waits for its socket from here on
            await conn.close()
        else:
            await conn.wait_closed()

    server = await start(plumews.serve(handler, "127.0.0.1", 0, ping_interval=30, ping_timeout=30, queue_size=1000))
    async with await Wire.open(server, rcvbuf=4096), await Wire.open(server, "/alice") as alice:
        assert await alice.closing() == (1000, "")
        alice.send(close())
        await alice.eof()
        await until(lambda: len(server._context.connections) == 1)
        await until(lambda: gc.collect() >= 0 and sessions[0]() is None)


async def test_accepting_again_keeps_no_variables(start):
    async def handler(conn):
        await conn.send(who.get())

    server = await start(plumews.serve(handler, "127.0.0.1", 0))
    (listening,) = server._listener._sockets
    called_as("a stranger", server._listener._cannot_accept, listening, OSError(24, "no descriptors"))
    pass_time(10)
    async with await Wire.open(server) as wire:
        assert await wire.message() == "nobody"


# --- hubs -----------------------------------------------------------------------------------------


async def test_hub_callbacks_run_where_they_were_registered(start, soon):
    seen, calls = set(), []

    def note(name):
        def callback(*args):
            calls.append(name)
            seen.add((name, who.get()))
            who.set("of another call")

        return callback

    hub = plumews.Hub()
    called_as("on_join", hub.on_join, lambda room, conn: note("on_join")())
    called_as("on_leave", hub.on_leave, lambda room, conn: note("on_leave")())
    called_as("count", hub.watch_count, "room", lambda room, count: note("count")())
    called_as("users", hub.watch_presence, "room", lambda room, joined, left: note("users")())

    async def handler(conn):
        who.set("handler")
        conn.user_info = plumews.UserInfo(id=conn.request.path, name="", claims={})
        hub.join("room", conn)
        await conn.recv()

    server = await start(plumews.serve(handler, "127.0.0.1", 0))
    async with hub:
        for path in ("/a", "/b"):
            told = len(calls)
            async with await Wire.open(server, path) as wire:
                await until(lambda told=told: {"on_join", "count", "users"} <= set(calls[told:]))
                wire.send(close())
                await wire.eof()
            await until(lambda told=told: "on_leave" in calls[told:])
    assert seen == {(name, name) for name in ("on_join", "on_leave", "count", "users")}


async def test_encode_gap_runs_in_the_context_of_its_hub():
    seen = []

    def encode_gap(gap):
        seen.append(who.get())
        return "gap"

    hub = called_as("hub", lambda: plumews.Hub(plumews.HubConfig(encode_gap=encode_gap)))
    conn, transport = fake_conn(queue_size=1, send_behavior=plumews.SendBehavior.DROP)
    transport.fill()
    async with hub:
        hub.join("room", conn)

        def flood():
            for _ in range(3):
                hub.broadcast_room("room", "news")

        called_as("handler", flood)
        transport.drain()
        await until(lambda: seen)
        hub.remove(conn)
    assert set(seen) == {"hub"}


# --- authorizers ----------------------------------------------------------------------------------


class Authorizer:
    """Authorizer that records the context of its calls."""

    def __init__(self):
        self.asked = []

    def verify_jwt(self, token):
        self.asked.append(("verify_jwt", who.get()))
        return {"sub": "u"}

    def seconds_left(self, claims):
        self.asked.append(("seconds_left", who.get()))
        return 3600.0


class Plain(Authorizer):
    def check_room_password(self, room, password):
        self.asked.append(("check_room_password", who.get()))
        who.set("a thread")
        return True


class Asynchronous(Authorizer):
    async def check_room_password(self, room, password):
        self.asked.append(("check_room_password", who.get()))
        who.set("a task")
        return True


class Whole(Authorizer):
    def authorize_room(self, asked):
        self.asked.append(("authorize_room", who.get()))
        who.set("a thread")
        return True


@pytest.mark.parametrize("kind", [Plain, Asynchronous, Whole])
async def test_authorizers_see_variables_of_their_own_serve(start, kind):
    auth, hub = kind(), plumews.Hub()

    server = await start(
        called_as(
            "server",
            plumews.serve_rooms,
            hub,
            auth,
            "127.0.0.1",
            0,
            on_message=lambda conn, message: None,
            allow_query_secrets=True,
        )
    )
    async with hub:
        for name in ("a", "b"):
            async with await Wire.open(server, f"/ws?room={name}&room_password=x&token=t"):
                await until(lambda name=name: hub.room_count(name))
                pass_time(7200)
                loop_time = len(auth.asked)
                await until(lambda count=loop_time: len(auth.asked) > count)
    assert {seen for _, seen in auth.asked} == {"server"}
    assert len({name for name, _ in auth.asked}) == 3


async def test_failed_callback_is_reported_in_its_context(start):
    def on_join(room, conn):
        who.set("inside")
        raise RuntimeError("broken")

    hub = plumews.Hub()
    hub.on_join(on_join)
    conn, _ = fake_conn()
    async with hub:
        with failures() as told:
            hub.join("room", conn)
        hub.remove(conn)
    assert [str(each["exception"]) for each in told] == ["broken"]
    assert who.get() == "nobody"
