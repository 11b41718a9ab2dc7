"""Contract with uvicorn: hand-over, shared state, options, and transports of every kind."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import weakref
from typing import Any

import pytest
from websockets.asyncio.client import connect

import plumews
from plumews.asgi import PlumeProtocol
from support.fakes import ticks, tls_contexts, until
from support.raw_client import Wire, close, masked, upgrade
from support.raw_client import text as frame
from support.uvicorn_setup import ACCEPT, CLOSE, echo, errors, flooding, text


def url(server: Any, path: str = "/") -> str:
    return f"ws://127.0.0.1:{server.port}{path}"


# --- hand-over and shared state -------------------------------------------------------------------


async def test_connection_and_task_are_shared_until_the_end(run, http):
    server = await run(echo, http=http)
    async with await Wire.open(server) as wire:
        assert [type(each) for each in server.state.connections] == [PlumeProtocol]
        assert len(server.state.tasks) == 1
        wire.send(frame("one"), masked(2, b"two"))
        assert await wire.message() == "one"
        assert await wire.message() == b"two"
        wire.send(close(1000))
        assert await wire.closing() == (1000, "")
        await wire.eof()
    await until(lambda: not server.state.connections and not server.state.tasks)


async def test_own_transports_are_driven_by_the_connection(run):
    server = await run(echo)
    async with await Wire.open(server):
        (protocol,) = server.state.connections
        assert protocol.transport.get_protocol() is protocol._conn


async def test_a_large_message_is_echoed(run, http):
    server = await run(echo, http=http)
    message = "ab" * 500_000
    async with connect(url(server), proxy=None) as client:
        await client.send(message)
        assert await client.recv() == message


async def test_default_headers_are_read_at_accept_time(run, http):
    go_on = asyncio.Event()

    async def app(scope, receive, send):
        await go_on.wait()
        await send(ACCEPT)
        await receive()

    server = await run(app, http=http)
    async with await Wire.connect(server) as wire:
        wire.writer.write(upgrade())
        await until(lambda: server.state.tasks)
        server.state.default_headers = [(b"date", b"later"), (b"server", b"uvicorn")]
        go_on.set()
        await wire.read_head()
        assert [value for name, value in wire.headers if name in ("date", "server")] == ["later", "uvicorn"]


async def test_headers_of_the_application_follow_those_of_uvicorn(run, http):
    async def app(scope, receive, send):
        await send({**ACCEPT, "headers": [(b"Server", b"mine"), (b"x-one", b"1")]})
        await receive()

    server = await run(app, http=http)
    async with await Wire.open(server) as wire:
        assert [value for name, value in wire.headers if name == "server"] == ["uvicorn", "mine"]
        assert len([name for name, _ in wire.headers if name == "date"]) == 1
        assert wire.header("x-one") == "1"
        (conn,) = server.conns
        assert conn.response.headers["x-one"] == "1"
        assert conn.response.headers.get_all("server") == ["uvicorn", "mine"]


async def test_server_and_date_headers_can_be_turned_off(run):
    server = await run(echo, server_header=False, date_header=False)
    async with await Wire.open(server) as wire:
        assert {"server", "date"} & {name for name, _ in wire.headers} == set()


@pytest.mark.parametrize("reset", [True, False])
async def test_context_variables_are_reset_if_uvicorn_says_so(run, reset):
    variable = contextvars.ContextVar("variable", default="unset")
    variable.set("of the test")
    seen = []

    async def app(scope, receive, send):
        seen.append(variable.get())
        await send(ACCEPT)

    server = await run(app, reset_contextvars=reset)
    async with await Wire.open(server):
        assert seen == ["unset" if reset else "of the test"]


# --- the access log -------------------------------------------------------------------------------


async def test_access_log_has_a_line_for_each_handshake(run, http, caplog):
    async def app(scope, receive, send):
        if scope["path"] == "/no":
            await send(CLOSE)
        elif scope["path"] == "/gone":
            await send({"type": "websocket.http.response.start", "status": 410, "headers": []})
        else:
            await send(ACCEPT)

    server = await run(app, http=http)
    for path in ("/y%20es?a=b", "/no", "/gone"):
        async with await Wire.connect(server) as wire:
            wire.writer.write(upgrade(path))
            await wire.read_head()
    lines = [record.getMessage() for record in caplog.records if "WebSocket" in record.getMessage()]
    assert [line.partition(" - ")[2] for line in lines] == [
        '"WebSocket /y%20es?a=b" [accepted]',
        '"WebSocket /no" 403',
        '"WebSocket /gone" 410',
    ]
    assert all(line.startswith("127.0.0.1:") for line in lines)


async def test_access_log_hides_tokens_of_the_query(run, caplog):
    server = await run(echo)
    async with await Wire.open(server, "/?a=%31&%74oken=s3cret&room_password=hidden"):
        pass
    assert "/?a=%31&%74oken=***&room_password=***" in caplog.text
    assert "s3cret" not in caplog.text
    assert "hidden" not in caplog.text


# --- requests -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (upgrade(key="short"), 400),
        (upgrade().replace(b"Version: 13", b"Version: 11"), 426),
        (upgrade("/", "Sec-WebSocket-Protocol: a b"), 400),
        (upgrade("/", "Sec-WebSocket-Extensions: ;;"), 400),
        (upgrade().replace(b"GET", b"POST"), 405),
    ],
)
async def test_a_bad_handshake_is_refused(run, http, request_head, status):
    called = []

    async def app(scope, receive, send):
        called.append(scope)

    server = await run(app, http=http)
    async with await Wire.connect(server) as wire:
        answered, body = await wire.response(request_head)
        assert answered == status
        assert b'"code"' in body
        assert wire.header("server") == "uvicorn"
    await until(lambda: not server.state.connections)
    assert called == []


async def test_a_refused_head_request_has_no_body(run, http):
    server = await run(echo, http=http)
    async with await Wire.connect(server) as wire:
        assert await wire.response(upgrade().replace(b"GET", b"HEAD")) == (405, b"")


@pytest.mark.parametrize(
    "path", ["/%ff", "/?a=%ff", "/?" + "&".join(f"f{n}=1" for n in range(150)), "/?" + "x" * 30_000]
)
async def test_requests_that_uvicorn_accepts_are_accepted(run, path):
    server = await run(echo)
    async with await Wire.open(server, path) as wire:
        wire.send(frame("hello"))
        assert await wire.message() == "hello"


async def test_frames_before_accept_wait_within_a_bound(run, http):
    go_on = asyncio.Event()

    async def app(scope, receive, send):
        await go_on.wait()
        await echo(scope, receive, send)

    server = await run(app, http=http)
    messages = [f"{number:05}" * 200 for number in range(1000)]
    async with await Wire.connect(server) as wire:
        wire.writer.write(upgrade())
        await until(lambda: server.state.tasks)
        (protocol,) = server.state.connections
        wire.send(*map(frame, messages))
        await until(lambda: protocol._paused)
        await ticks(100)
        assert len(protocol._rest) < 600_000
        go_on.set()
        await wire.read_head()
        assert [await wire.message() for _ in messages] == messages


async def listening(server, then):
    """Listen as an HTTP parser that hands over all that it has read, and then calls ``then(protocol)``."""

    class HandingOver(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport

        def data_received(self, data):
            options = {"config": server.server.config, "server_state": server.state, "app_state": {}}
            protocol = PlumeProtocol(**options)
            protocol.connection_made(self.transport)
            protocol.data_received(data)
            self.transport.set_protocol(protocol)
            then(protocol)

    return await asyncio.get_running_loop().create_server(HandingOver, "127.0.0.1", 0)


async def test_frames_glued_to_the_head_are_not_lost(run):
    """As of a uvicorn that hands over all that it has read: the one of today leaves it out."""
    server = await run(echo)

    listener = await listening(server, lambda protocol: None)
    async with await Wire.connect(listener) as wire:
        wire.send(upgrade(), frame("glued"), frame("to it"))
        await wire.read_head()
        assert [await wire.message(), await wire.message()] == ["glued", "to it"]
        wire.send(close())
        await wire.eof()
    listener.close()
    await listener.wait_closed()


# --- options of uvicorn ---------------------------------------------------------------------------


async def test_a_message_beyond_ws_max_size_ends_with_1009(run, http):
    events = []

    async def app(scope, receive, send):
        await send(ACCEPT)
        events.extend([await receive(), await receive(), await receive()])

    server = await run(app, http=http, ws_max_size=10)
    async with await Wire.open(server) as wire:
        wire.send(frame("0123456789"), frame("0123456789a"))
        code, _ = await wire.closing()
        assert code == 1009
    await until(lambda: not server.state.tasks)
    assert events[1] == {"type": "websocket.receive", "text": "0123456789"}
    assert events[2]["code"] == 1009


async def test_ws_max_queue_stops_reading(run):
    go_on = asyncio.Event()
    received = []

    async def app(scope, receive, send):
        await send(ACCEPT)
        await receive()
        await go_on.wait()
        received.extend([(await receive())["text"] for _ in range(100)])

    server = await run(app, ws_max_queue=4)
    async with await Wire.open(server) as wire:
        (conn,) = server.conns
        messages = [f"{number:04}" for number in range(100)]
        for message in messages:
            wire.send(frame(message))
            await asyncio.sleep(0)
        await until(lambda: conn._reading_paused)
        assert len(conn._inbox) == 4
        go_on.set()
        assert await wire.closing() == (1000, "")
        assert received == messages


async def test_pings_keep_a_connection_that_answers(run):
    server = await run(echo, ws_ping_interval=0.05, ws_ping_timeout=5.0)
    async with connect(url(server), proxy=None, ping_interval=None) as client:
        (conn,) = server.conns
        await until(lambda: conn.latency > 0)
        await client.send("alive")
        assert await client.recv() == "alive"


async def test_a_silent_client_is_closed_with_1011(run, http):
    events = []

    async def app(scope, receive, send):
        await send(ACCEPT)
        events.extend([await receive(), await receive()])

    server = await run(app, http=http, ws_ping_interval=0.05, ws_ping_timeout=0.05)
    async with await Wire.open(server) as wire:
        assert await wire.closing() == (1011, "keepalive ping timeout")
        await wire.eof()
    await until(lambda: not server.state.connections and not server.state.tasks)
    assert events[1] == {"type": "websocket.disconnect", "code": 1006}


@pytest.mark.parametrize("interval", [None, 0.0])
async def test_pings_can_be_turned_off(run, interval):
    server = await run(echo, ws_ping_interval=interval)
    async with await Wire.open(server):
        (conn,) = server.conns
        assert conn.ping_period is None


@pytest.mark.parametrize("wanted", [True, False])
async def test_ws_per_message_deflate_is_obeyed(run, http, wanted):
    server = await run(echo, http=http, **({} if wanted else {"ws_per_message_deflate": False}))
    async with connect(url(server), proxy=None) as client:
        assert [each.name for each in client.protocol.extensions] == (["permessage-deflate"] if wanted else [])
        await client.send("again and " * 1000)
        assert await client.recv() == "again and " * 1000


# --- options of ours ------------------------------------------------------------------------------


async def test_no_origin_is_checked_by_default(run):
    server = await run(echo)
    async with await Wire.open(server, "/", "Origin: https://elsewhere.example"):
        pass


async def test_with_options_checks_origins(run, http, caplog):
    ws = PlumeProtocol.with_options(origins=["https://good.example"])
    server = await run(echo, http=http, ws=ws)
    async with await Wire.open(server, "/", "Origin: https://good.example"):
        pass
    async with await Wire.open(server, "/", "Origin: http://localhost"):
        pass
    async with await Wire.connect(server) as wire:
        status, _ = await wire.response(upgrade("/p", "Origin: https://bad.example"))
        assert status == 403
    assert '"WebSocket /p" 403' in caplog.text


async def test_origin_check_and_scope_agree_about_a_trusted_proxy(run):
    seen = []

    async def app(scope, receive, send):
        seen.append((scope["scheme"], scope["client"]))
        await send(ACCEPT)
        await receive()

    ws = PlumeProtocol.with_options(origins=[])
    lines = ("Origin: https://localhost", "X-Forwarded-Proto: https", "X-Forwarded-For: 203.0.113.9")
    server = await run(app, ws=ws, forwarded_allow_ips="127.0.0.1")
    async with await Wire.open(server, "/", *lines):
        (conn,) = server.conns
        assert seen == [("wss", ("203.0.113.9", 0))]
        assert conn.client_address == "203.0.113.9"
        assert conn.request.secure
    stranger = await run(app, ws=ws, forwarded_allow_ips="10.0.0.1")
    async with await Wire.connect(stranger) as wire:
        status, _ = await wire.response(upgrade("/", *lines))
        assert status == 403
    async with await Wire.open(stranger, "/", *lines[1:]):
        (conn,) = stranger.conns
        assert seen[1:] == [("ws", (conn.remote_address[0], conn.remote_address[1]))]
        assert conn.client_address == "127.0.0.1"
        assert not conn.request.secure


async def test_requests_beyond_max_connections_are_refused(run, caplog):
    server = await run(echo, ws=PlumeProtocol.with_options(max_connections=2))
    async with await Wire.open(server), await Wire.open(server) as other:
        async with await Wire.connect(server) as wire:
            status, body = await wire.response(upgrade("/p"))
            assert status == 503
            assert b"too many connections" in body
            assert wire.header("retry-after") == "5"
        assert '"WebSocket /p" 503' in caplog.text
        other.send(close())
        await other.eof()
        await until(lambda: len(server.state.connections) == 1)
        async with await Wire.open(server):
            pass
    await until(lambda: not server.state.connections)
    (context,) = server.server.config.ws_protocol_class._contexts.values()
    assert context.connections == 0


async def test_with_options_replaces_options_of_uvicorn(run):
    ws = PlumeProtocol.with_options(queue_size=3, max_queue=7).with_options(compression=None)
    server = await run(echo, ws=ws)
    async with connect(url(server), proxy=None) as client:
        (conn,) = server.conns
        assert conn._config.queue_size == 3
        assert conn._config.max_queue == 7
        assert conn.compression is None
        await client.send("hello")
        assert await client.recv() == "hello"
    assert PlumeProtocol._options.given == {}


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"nonsense": 1}, TypeError),
        ({"queue_size": 0}, ValueError),
        ({"origins": ["x"]}, ValueError),
        ({"max_connections": 0}, ValueError),
    ],
)
def test_with_options_refuses_wrong_options(options, error):
    with pytest.raises(error):
        PlumeProtocol.with_options(**options)


# --- flow control ---------------------------------------------------------------------------------


async def sent_without_reader(run: Any, message: str, **options: Any) -> int:
    """The number of messages that an application can send to a client that does not read."""
    sent = []

    async def app(scope, receive, send):
        await send(ACCEPT)
        while True:
            await send(text(message))
            sent.append(1)

    server = await run(app, **options)
    async with await Wire.open(server, rcvbuf=4096):
        (conn,) = server.conns
        await until(lambda: conn._paused)
        await ticks(200)
        before = len(sent)
        await ticks(200)
        assert len(sent) == before
        queued = conn.queued_messages
        conn.abort()
    await until(lambda: not server.state.tasks)
    return queued


async def test_send_waits_for_a_client_that_does_not_read(run):
    assert await sent_without_reader(run, "x" * 50_000) < 20  # which would be a full queue


async def test_send_fills_the_queue_if_it_has_a_size(run):
    ws = PlumeProtocol.with_options(queue_size=5, send_timeout=None)
    assert await sent_without_reader(run, "x" * 50_000, ws=ws) == 5


@pytest.mark.parametrize("options", [{"send_timeout": 0.01}, {"send_behavior": plumews.SendBehavior.DROP}])
async def test_a_full_queue_is_an_error_that_is_no_oserror(run, options):
    failed: list[BaseException] = []
    server = await run(flooding(failed), ws=PlumeProtocol.with_options(queue_size=2, **options))
    async with await Wire.open(server, rcvbuf=4096):
        await until(lambda: failed)
        for conn in server.conns:
            conn.abort()
    assert [type(exc) for exc in failed] == [plumews.SendQueueFull]


# --- transports -----------------------------------------------------------------------------------


async def test_tls_is_wss(run, http):
    seen = []

    async def app(scope, receive, send):
        seen.append(scope["scheme"])
        await echo(scope, receive, send)

    for_server, for_client = tls_contexts()
    server = await run(app, http=http, tls=for_server)
    where = f"wss://localhost:{server.port}"
    async with connect(where, host="127.0.0.1", port=server.port, ssl=for_client, proxy=None) as client:
        (protocol,) = server.state.connections
        assert protocol._conn is not None
        for message in ("small", "large" * 100_000):
            await client.send(message)
            assert await client.recv() == message
        await client.close(3000, "bye")
    await until(lambda: not server.state.tasks)
    assert seen == ["wss"]


@pytest.mark.skipif(sys.platform == "win32", reason="no Unix sockets")
async def test_unix_sockets_have_no_client(run, http, tmp_path, caplog):
    seen = []

    async def app(scope, receive, send):
        seen.append((scope["client"], scope["server"]))
        await echo(scope, receive, send)

    path = str(tmp_path / "uvicorn.sock")
    server = await run(app, http=http, uds=path)
    async with await Wire.open(server) as wire:
        wire.send(frame("hello"))
        assert await wire.message() == "hello"
        (conn,) = server.conns
        assert conn.client_address == ""
    assert seen == [(None, (path, None))]
    assert ' - "WebSocket /" [accepted]' in caplog.text


class Foreign(asyncio.Transport):
    """Transport of another kind, as of a stream of HTTP/2: it frames what is written to it."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner
        self.written = 0

    def write(self, data: Any) -> None:
        self.written += len(data)
        self.inner.write(bytes(data))

    def close(self) -> None:
        self.inner.close()

    def is_closing(self) -> bool:
        return bool(self.inner.is_closing())

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.inner.get_extra_info(name, default)


async def test_a_foreign_transport_gets_all_bytes(run):
    server = await run(echo)
    made = []

    class HandingOver(asyncio.Protocol):
        def connection_made(self, transport):
            self.foreign = Foreign(transport)
            self.protocol = None

        def data_received(self, data):
            if self.protocol is None:
                options = {"config": server.server.config, "server_state": server.state, "app_state": {}}
                self.protocol = PlumeProtocol(**options)
                self.protocol.connection_made(self.foreign)
                made.append(self)
            self.protocol.data_received(data)

        def connection_lost(self, exc):
            self.protocol.connection_lost(exc)

    listener = await asyncio.get_running_loop().create_server(HandingOver, "127.0.0.1", 0)
    message = "ab" * 200_000
    async with connect(
        f"ws://127.0.0.1:{listener.sockets[0].getsockname()[1]}", proxy=None, compression=None
    ) as client:
        await client.send(message)
        assert await client.recv() == message
        (own,) = made
        assert own.foreign.written > len(message)
        assert own.protocol._conn._transport._inner is own.foreign
    await until(lambda: not server.state.connections and not server.state.tasks)
    listener.close()
    await listener.wait_closed()


# --- the end --------------------------------------------------------------------------------------


async def test_calls_after_the_end_do_nothing(run):
    server = await run(echo)
    async with await Wire.open(server):
        (protocol,) = server.state.connections
        conn = protocol._conn
        conn.abort()
        await until(lambda: not server.state.connections)
    protocol.data_received(masked(10))
    protocol.pause_writing()
    protocol.resume_writing()
    protocol.eof_received()
    protocol.shutdown()
    protocol.connection_lost(None)
    assert protocol.transport.is_closing()


@pytest.mark.parametrize("ending", ["denied", "returns", "left"])
async def test_a_connection_is_freed_without_the_collector(run, ending):
    async def app(scope, receive, send):
        await receive()
        await send(CLOSE if ending == "denied" else ACCEPT)
        if ending == "left":
            await receive()

    server = await run(app)
    gc.collect()
    gc.disable()
    try:
        async with await Wire.connect(server) as wire:
            wire.send(upgrade())
            await until(lambda: server.conns)
            (protocol,) = server.state.connections
            watched = [weakref.ref(protocol), weakref.ref(protocol._conn)]
            del protocol
            await wire.read_head()
            if ending == "returns":
                await wire.closing()
        await until(lambda: not server.state.connections and not server.state.tasks)
        await until(lambda: [each() for each in watched] == [None, None])
    finally:
        gc.enable()


async def test_a_client_may_leave_before_the_application_begins(run, caplog):
    """As when a reset is read in the iteration of the event loop in which the request was."""
    events = []

    async def app(scope, receive, send):
        events.extend([await receive(), await receive()])

    server = await run(app)

    def leave(protocol):
        protocol.transport.abort()
        protocol.connection_lost(None)

    listener = await listening(server, leave)
    async with await Wire.connect(listener) as wire:
        wire.send(upgrade())
        await wire.eof()
    await until(lambda: events and not server.state.tasks)
    assert [event["type"] for event in events] == ["websocket.connect", "websocket.disconnect"]
    assert errors(caplog) == []
    listener.close()
    await listener.wait_closed()
