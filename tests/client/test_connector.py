"""Tests of `connect()` over real sockets, against our own server: its ways of use, and what its connections do."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import inspect
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import plumews
from plumews import Conn, ConnectError, ConnectionClosedError, ConnectionClosedOK, ConnectTimeout, InvalidStatus, Opcode
from plumews.client.options import ConnectKeywords
from support.fakes import PATIENCE, echo, tls_contexts, until
from support.hostile_server import Peer, hostile
from support.proxies import ConnectProxy, listening

Start = Callable[[Any], Any]


def uri_of(server: plumews.Server, path: str = "/", scheme: str = "ws") -> str:
    host = "localhost" if scheme == "wss" else "127.0.0.1"
    return f"{scheme}://{host}:{server.sockets[0].getsockname()[1]}{path}"


async def echo_server(start: Start, **options: Any) -> str:
    return uri_of(await start(plumews.serve(echo, "127.0.0.1", 0, **options)))


# --- the ways to use it ---------------------------------------------------------------------------


async def test_await_returns_an_open_connection(start: Start) -> None:
    conn = await plumews.connect(await echo_server(start))
    assert type(conn) is Conn
    assert (conn.state, conn.attempt, conn.last_error) == (plumews.State.OPEN, 1, None)
    await conn.send("hello")
    assert await conn.recv() == "hello"
    await conn.close()
    assert conn.close_code == 1000


async def test_unopened_client_says_how_to_open_it() -> None:
    client: Any = plumews.connect("ws://127.0.0.1/")
    with pytest.raises(AttributeError, match=r"no attribute 'send': open a connection with `async with connect\(uri\)"):
        client.send("hello")
    assert not hasattr(client, "anything")


async def test_async_with_closes_at_its_end(start: Start) -> None:
    async with plumews.connect(await echo_server(start)) as conn:
        await conn.send(b"hello")
        assert await conn.recv() == b"hello"
    assert (conn.state, conn.close_code) == (plumews.State.CLOSED, 1000)


async def test_async_with_closes_with_1011_after_an_exception(start: Start) -> None:
    ended: list[Conn] = []
    server = await start(plumews.serve(echo, "127.0.0.1", 0))
    with contextlib.suppress(ZeroDivisionError):
        async with plumews.connect(uri_of(server)) as conn:
            ended.append(conn)
            raise ZeroDivisionError
    assert ended[0].close_code == 1011


async def test_iteration_connects_again_after_each_end(start: Start) -> None:
    codes = iter([1001, 1012, 1000])

    async def handler(conn: Conn) -> None:
        await conn.close(next(codes), "again")

    server = await start(plumews.serve(handler, "127.0.0.1", 0))
    seen = []
    async for conn in plumews.connect(uri_of(server), reconnect_delays=[0, 0, 0]):
        with contextlib.suppress(plumews.ConnectionClosed):
            async for _ in conn:
                pass
        seen.append((conn.attempt, conn.close_code, str(conn.last_error or "")[:40]))
        if len(seen) == 3:
            break
    assert [code for _, code, _ in seen] == [1001, 1012, 1000]
    assert [attempt for attempt, _, _ in seen] == [1, 2, 3]
    assert "1012" in seen[2][2]


async def test_iteration_tries_again_after_network_errors(start: Start) -> None:
    refusals = iter([503, 503])

    def process(conn: Conn, request: plumews.Request) -> plumews.Response | None:
        status = next(refusals, None)
        return None if status is None else plumews.Response.text(status, "busy")

    server = await start(plumews.serve(echo, "127.0.0.1", 0, process_request=process))
    client = plumews.connect(uri_of(server), reconnect_delays=[0, 0, 0])
    async for conn in client:
        assert conn.attempt == client.attempt == 3
        assert isinstance(conn.last_error, InvalidStatus)
        break


async def test_iteration_ends_with_the_error_of_a_refusal(start: Start) -> None:
    def process(conn: Conn, request: plumews.Request) -> plumews.Response:
        return plumews.Response.text(403, "no")

    server = await start(plumews.serve(echo, "127.0.0.1", 0, process_request=process))
    with pytest.raises(InvalidStatus) as caught:
        async for _ in plumews.connect(uri_of(server)):
            pass
    assert (caught.value.status, caught.value.response.body) == (403, b"no")


async def test_client_is_used_by_one_block_at_a_time(start: Start) -> None:
    client = plumews.connect(await echo_server(start))
    for _ in range(2):
        async with client:
            with pytest.raises(plumews.ConcurrencyError, match="call connect"):
                async with client:
                    pass


async def test_client_makes_one_attempt_at_a_time(start: Start) -> None:
    uri = await echo_server(start)

    def process(exc: Exception) -> None:
        """Try again."""

    client = plumews.connect(uri, reconnect_delays=[0], process_exception=process)

    async def iterate() -> None:
        async for _ in client:
            pass

    first = asyncio.ensure_future(client)
    for other in (client, client.__aenter__(), iterate()):
        with pytest.raises(plumews.ConcurrencyError, match="call connect"):
            await asyncio.gather(other)
    await (await first).close()
    await (await client).close()


async def test_break_closes_the_connection_of_an_iteration(start: Start) -> None:
    server = await start(plumews.serve(echo, "127.0.0.1", 0))
    async for conn in plumews.connect(uri_of(server)):  # noqa: B007 - used below
        break
    await asyncio.wait_for(conn.wait_closed(), PATIENCE)
    assert conn.close_code == 1000


async def test_callback_gets_each_message(start: Start) -> None:
    got: list[Any] = []
    closed: list[Conn] = []
    done = asyncio.Event()

    def on_message(conn: Conn, message: str | bytes) -> None:
        got.append(message)
        if len(got) == 2:
            conn.close_nowait()

    def on_close(conn: Conn) -> None:
        closed.append(conn)
        done.set()

    conn = await plumews.connect(await echo_server(start), on_message=on_message, on_close=on_close)
    conn.send_nowait("one")
    conn.send_nowait(b"two")
    await asyncio.wait_for(done.wait(), PATIENCE)
    assert (got, closed) == (["one", b"two"], [conn])


async def test_callback_knows_attempt_and_last_error() -> None:
    seen: list[Any] = []

    async def play(peer: Peer) -> None:
        peer.accept(behind=b"\x81\x02hi")  # it arrives before connect() returns
        peer.writer.close()

    async with hostile(play) as uri:
        async for conn in plumews.connect(
            uri, on_message=lambda conn, _: seen.append((conn.attempt, type(conn.last_error))), reconnect_delays=[0]
        ):
            await asyncio.wait_for(conn.wait_closed(), PATIENCE)
            if len(seen) == 2:
                break
    assert seen == [(1, type(None)), (2, ConnectionClosedError)]


async def test_failing_callback_closes_with_1011(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    def on_message(conn: Conn, message: str | bytes) -> None:
        raise ZeroDivisionError

    conn = await plumews.connect(await echo_server(start), on_message=on_message)
    conn.send_nowait("one")
    await asyncio.wait_for(conn.wait_closed(), PATIENCE)
    assert conn.close_code == 1011
    assert f"a callback failed [connection={conn.id} server=127.0.0.1:" in caplog.text
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert (record.server, record.client) == (f"127.0.0.1:{conn.remote_address[1]}", "-")


@pytest.mark.parametrize("way", ["recv", "iterate", "stream", "callback"])
async def test_frames_behind_the_101_arrive_in_every_way(way: str) -> None:
    frames = b"\x81\x03one" + b"\x82\x03two" + b"\x81"
    opened = asyncio.Event()

    async def play(peer: Peer) -> None:
        peer.accept(behind=frames)
        await opened.wait()
        peer.send(b"\x05three" + b"\x88\x02\x03\xe8")
        await peer.reader.readexactly(8)  # the client's close frame

    got: list[Any] = []
    async with hostile(play) as uri:
        options: Any = {"on_message": lambda conn, message: got.append(message)} if way == "callback" else {}
        conn = await plumews.connect(uri, **options)
        opened.set()
        if way == "recv":
            got += [await conn.recv(), await conn.recv(), await conn.recv()]
        elif way == "iterate":
            got += [message async for message in conn]
        elif way == "stream":
            for _ in range(3):
                async with await conn.read_stream() as stream:
                    chunks = [chunk async for chunk in stream]
                    got.append(b"".join(chunks).decode() if stream.opcode == Opcode.TEXT else b"".join(chunks))
        else:
            await until(lambda: len(got) == 3)
    await asyncio.wait_for(conn.wait_closed(), PATIENCE)
    assert got == ["one", b"two", "three"]
    assert conn.close_code == 1000


async def test_whole_conversation_glued_to_the_101_is_read() -> None:
    async def play(peer: Peer) -> None:
        peer.accept(behind=b"\x81\x03one" + b"\x88\x04\x03\xe8ok")
        peer.writer.write_eof()
        await peer.gone()

    async with hostile(play) as uri:
        conn = await plumews.connect(uri)
        assert await conn.recv() == "one"
        with pytest.raises(ConnectionClosedOK):
            await conn.recv()
        assert (conn.close_code, conn.close_reason) == (1000, "ok")


@pytest.mark.parametrize("way", ["iterate", "callback"])
async def test_next_attempt_tells_the_last_position(start: Start, way: str) -> None:
    since: list[Any] = []

    async def handler(conn: Conn) -> None:
        since.append(conn.request.query.get("since"))
        await conn.send(f"{len(since)}.7")
        await conn.send("none")

    options: Any = {"on_message": lambda conn, message: None} if way == "callback" else {}
    client = plumews.connect(
        uri_of(await start(plumews.serve(handler, "127.0.0.1", 0)), "/?a=b"),
        position_of=lambda message: None if message == "none" else message,
        reconnect_delays=[0] * 5,
        **options,
    )
    async for conn in client:
        await asyncio.wait_for(conn.wait_closed(), PATIENCE)
        if len(since) == 3:
            break
    assert since == [None, "1.7", "2.7"]


async def test_failing_position_of_is_logged_once(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    async with plumews.connect(await echo_server(start), position_of=lambda message: 1 / 0) as conn:
        for _ in range(2):
            await conn.send("x")
            assert await conn.recv() == "x"
    assert caplog.text.count("position_of failed") == 1


# --- the request and its answer -------------------------------------------------------------------


async def test_server_sees_what_the_options_say(start: Start) -> None:
    seen: list[plumews.Request] = []

    async def handler(conn: Conn) -> None:
        seen.append(conn.request)
        await conn.wait_closed()

    server = await start(plumews.serve(handler, "127.0.0.1", 0, subprotocols=["v1"], origins=["https://example.com"]))
    async with plumews.connect(
        uri_of(server, "/a%20b?c=d"),
        origin="https://example.com",
        subprotocols=["v2", "v1"],
        additional_headers={"X-Name": "1"},
        user_agent_header="me",
        token="secret",
    ) as conn:
        assert conn.subprotocol == "v1"
        assert conn.request.target == "/a%20b?c=d"
        assert conn.response is not None
        assert conn.response.status == 101
    request = seen[0]
    assert (request.target, request.headers["X-Name"]) == ("/a%20b?c=d", "1")
    assert (request.headers["User-Agent"], request.headers["Authorization"]) == ("me", "Bearer secret")


async def test_user_in_the_uri_is_basic_authentication(start: Start) -> None:
    seen: list[Any] = []

    async def handler(conn: Conn) -> None:
        seen.append((conn.request.headers["Authorization"], conn.request.headers["Host"]))

    server = await start(plumews.serve(handler, "127.0.0.1", 0))
    client = plumews.connect(uri_of(server).replace("//", "//us%3Aer:p%40ss@".replace("%3A", "%2E")))
    async with client:
        pass
    port = server.sockets[0].getsockname()[1]
    assert seen == [(f"Basic {base64.b64encode(b'us.er:p@ss').decode()}", f"127.0.0.1:{port}")]
    assert "ss" not in repr(client).partition("//")[2]


async def test_functions_are_asked_for_token_and_headers_each_time(start: Start) -> None:
    seen: list[Any] = []
    asked = iter(range(10))

    def process(conn: Conn, request: plumews.Request) -> plumews.Response | None:
        seen.append((request.headers["Authorization"], request.headers["X-Number"]))
        return plumews.Response.text(503, "busy") if len(seen) < 3 else None

    async def token() -> str:
        await asyncio.sleep(0)
        return f"t{next(asked)}"

    server = await start(plumews.serve(echo, "127.0.0.1", 0, process_request=process))
    client = plumews.connect(
        uri_of(server),
        token=token,
        additional_headers=lambda: {"X-Number": str(len(seen))},
        reconnect_delays=[0, 0],
    )
    async for _ in client:
        break
    assert seen == [("Bearer t0", "0"), ("Bearer t1", "1"), ("Bearer t2", "2")]


async def test_function_that_raises_cancelled_error_has_failed(start: Start) -> None:
    async def token() -> str:
        raise asyncio.CancelledError

    with pytest.raises(ConnectError, match=r"cannot connect: token: a function of an option raised CancelledError"):
        await plumews.connect(await echo_server(start), token=token)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (lambda: 1 / 0, "failed: ZeroDivisionError"),
        (lambda: 5, "returned a wrong value: a token must be a str, not int"),
        (lambda: "a b", "returned a wrong value: invalid token: expected visible ASCII, without spaces"),
        (lambda: asyncio.sleep(0), "returned a wrong value: a token must be a str, not NoneType"),
    ],
)
async def test_token_function_that_fails_is_a_failed_attempt(start: Start, value: Any, told: str) -> None:
    with pytest.raises(ConnectError, match=f"^cannot connect: token: the function of the option {told}$"):
        await plumews.connect(await echo_server(start), token=value)


async def test_token_function_that_hangs_ends_with_the_open_timeout(start: Start) -> None:
    release = asyncio.Event()

    async def token() -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await release.wait()
        await release.wait()  # it swallows the cancellation
        return "late"

    began = time.monotonic()
    with pytest.raises(ConnectTimeout, match="token"):
        await plumews.connect(await echo_server(start), token=token, open_timeout=0.05)
    assert time.monotonic() - began < 5
    release.set()


async def test_compression_is_agreed_on_and_used(start: Start) -> None:
    uri = await echo_server(start, compression=plumews.Deflate(server_takeover=True, client_takeover=True))
    deflate = plumews.Deflate(server_takeover=True, client_takeover=True, client_window_bits=10)
    async with plumews.connect(uri, compression=deflate) as conn:
        for _ in range(3):
            await conn.send("abc" * 1000)
            assert await conn.recv() == "abc" * 1000
        info = conn.compression
    assert info is not None
    assert (info.client_window_bits, info.client_takeover, info.server_takeover) == (10, True, True)
    assert (info.sent_messages, info.received_messages) == (3, 3)
    assert info.sent_wire_bytes < 200
    assert info.received_wire_bytes < 200


async def test_long_messages_and_pieces_are_masked_like_short_ones(start: Start) -> None:
    uri = await echo_server(start)
    async with plumews.connect(uri, fragment_size=5000) as conn:
        for message in ("", "x", "\xe9" * 3000, b"y" * 3_000_000, "z" * 200_000):
            await conn.send(message)
            assert await conn.recv() == message

        async def pieces() -> Any:
            for piece in ("ab", "", "cd" * 10_000):
                yield piece

        await conn.send(pieces())
        assert await conn.recv() == "ab" + "cd" * 10_000
        await conn.write_many(["a", b"b", "c"])
        assert [await conn.recv() for _ in range(3)] == ["a", b"b", "c"]


async def test_ping_is_answered_and_measured(start: Start) -> None:
    async with plumews.connect(await echo_server(start)) as conn:
        latency = await (await conn.ping(b"now"))
        assert 0 < latency < PATIENCE
        assert conn.latency == latency


@pytest.mark.parametrize("secure", [False, True])
async def test_https_proxy_is_checked_by_context_and_name(start: Start, secure: bool) -> None:
    theirs, ours = tls_contexts()
    options: dict[str, Any] = {"ssl": theirs} if secure else {}
    uri = uri_of(await start(plumews.serve(echo, "127.0.0.1", 0, **options)), scheme="wss" if secure else "ws")
    given: dict[str, Any] = {"ssl": ours, "proxy_ssl": ours} if secure else {"proxy_ssl": ours}
    async with listening(ConnectProxy(), ssl=theirs) as port:
        proxy = f"https://127.0.0.1:{port}"
        async with plumews.connect(uri, proxy=proxy, proxy_server_hostname="localhost", **given) as conn:
            await conn.send("through")
            assert await conn.recv() == "through"
        with pytest.raises(ConnectError) as caught:
            await plumews.connect(uri, proxy=proxy, proxy_server_hostname="other.test", **given)
    assert (caught.value.step, caught.value.address) == ("tls", proxy)


async def test_keepalive_of_both_sides_keeps_the_connection(start: Start) -> None:
    uri = await echo_server(start, ping_interval=0.02, ping_timeout=1)
    async with plumews.connect(uri, ping_interval=0.02, ping_timeout=1) as conn:
        before = conn.last_pong
        await until(lambda: conn.last_pong > before)
        await conn.send("alive")
        assert await conn.recv() == "alive"


async def test_client_in_a_hub_gets_broadcasts_masked(start: Start) -> None:
    got: list[Any] = []

    async def handler(conn: Conn) -> None:
        got.extend([message async for message in conn])

    server = await start(plumews.serve(handler, "127.0.0.1", 0))
    hub = plumews.Hub()
    conns = [await plumews.connect(uri_of(server)) for _ in range(3)]
    for conn in conns:
        hub.join("room", conn)
    hub.broadcast_room("room", "hello")
    hub.broadcast_room("room", b"x" * 100_000)
    plumews.broadcast(conns, "last")
    await until(lambda: all(not conn.queued_messages for conn in conns))
    for conn in conns:
        await conn.close()
    await until(lambda: len(got) == 9)
    assert sorted(map(len, got)) == [4] * 3 + [5] * 3 + [100_000] * 3
    await hub.stop()


# --- the way there --------------------------------------------------------------------------------


async def test_tls_is_used_for_wss(start: Start) -> None:
    ours, theirs = tls_contexts()
    server = await start(plumews.serve(echo, "127.0.0.1", 0, ssl=ours))
    async with plumews.connect(uri_of(server, scheme="wss"), ssl=theirs) as conn:
        await conn.send("x" * 100_000)
        assert await conn.recv() == "x" * 100_000
        assert conn.get_extra_info("ssl_object") is not None


async def test_wss_to_a_port_without_tls_says_so(start: Start) -> None:
    server = await start(plumews.serve(echo, "127.0.0.1", 0))
    with pytest.raises(ConnectError, match="no TLS there, as behind ws://") as caught:
        await plumews.connect(uri_of(server, scheme="wss"))
    assert caught.value.step == "tls"


async def test_unknown_certificate_is_an_error_of_the_tls_step(start: Start) -> None:
    ours, _ = tls_contexts()
    server = await start(plumews.serve(echo, "127.0.0.1", 0, ssl=ours))
    with pytest.raises(ConnectError, match="certificate") as caught:
        await plumews.connect(uri_of(server, scheme="wss"))
    assert caught.value.step == "tls"


async def test_refused_certificate_of_the_client_is_named(start: Start) -> None:
    """With TLS 1.3 the client has finished its TLS handshake by then."""
    ours, _ = tls_contexts(mutual=True)
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    theirs.check_hostname, theirs.verify_mode = False, ssl.CERT_NONE
    theirs.minimum_version = ssl.TLSVersion.TLSv1_3
    server = await start(plumews.serve(echo, "127.0.0.1", 0, ssl=ours))
    with pytest.raises(ConnectError, match=r"(?i)certificate required") as caught:
        await plumews.connect(uri_of(server, scheme="wss"), ssl=theirs)
    assert caught.value.step == "handshake"


@pytest.mark.parametrize("kind", [str, bytes, Path])
async def test_unix_socket_is_used(start: Start, tmp_path: Path, kind: Any) -> None:
    path = tmp_path / "s"
    await start(plumews.unix_serve(echo, path))
    async with plumews.unix_connect(bytes(path) if kind is bytes else kind(path)) as conn:
        await conn.send("hello")
        assert await conn.recv() == "hello"
        assert conn.request.headers["Host"] == "localhost"


async def test_given_socket_is_used_and_closed(start: Start) -> None:
    server = await start(plumews.serve(echo, "127.0.0.1", 0))
    sock = socket.create_connection(server.sockets[0].getsockname()[:2])
    async with plumews.connect("ws://localhost/", sock=sock) as conn:
        await conn.send("hello")
        assert await conn.recv() == "hello"
    await asyncio.sleep(0)
    assert sock.fileno() == -1
    with socket.socket() as other, pytest.raises(TypeError, match="async for cannot connect again"):
        async for _ in plumews.connect("ws://localhost/", sock=other):
            pass


@pytest.mark.parametrize("canceled", [False, True])
async def test_given_socket_is_closed_by_an_attempt_that_fails(canceled: bool) -> None:
    def fail() -> str:
        raise ZeroDivisionError

    def hang() -> asyncio.Future[str]:
        asyncio.get_running_loop().call_soon(connecting.cancel)
        return asyncio.get_running_loop().create_future()

    ours, theirs = socket.socketpair()
    with theirs:
        connecting = asyncio.ensure_future(
            plumews.connect("ws://localhost/", sock=ours, token=hang if canceled else fail)
        )
        with pytest.raises(asyncio.CancelledError if canceled else ConnectError):
            await connecting
        assert ours.fileno() == -1
        assert theirs.recv(1) == b""


async def test_redirect_is_followed(start: Start) -> None:
    def process(conn: Conn, request: plumews.Request) -> plumews.Response | None:
        if request.path == "/new":
            return None
        return plumews.Response(302, {"Location": "/new"})

    server = await start(plumews.serve(echo, "127.0.0.1", 0, process_request=process))
    async with plumews.connect(uri_of(server, "/old")) as conn:
        assert conn.request.target == "/new"


async def test_failing_kept_redirect_is_forgotten(start: Start) -> None:
    targets: list[str] = []
    steps = iter([plumews.Response(301, {"Location": "/new"}), None, plumews.Response.text(403, "moved again"), None])

    def process(conn: plumews.Conn, request: plumews.Request) -> plumews.Response | None:
        targets.append(request.target)
        return next(steps)

    async def handler(conn: Conn) -> None:
        await conn.close(1012)

    def never(exc: Exception) -> Exception:
        return exc

    uri = uri_of(await start(plumews.serve(handler, "127.0.0.1", 0, process_request=process)), "/old")
    async for conn in plumews.connect(uri, reconnect_delays=[0, 0], process_exception=never):
        await conn.wait_closed()
        if conn.attempt == 3:
            break
    assert targets == ["/old", "/new", "/new", "/old"]


async def test_refused_port_names_step_and_address() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        with pytest.raises(ConnectError, match=f"connect .127.0.0.1:{port}.") as caught:
            await plumews.connect(f"ws://127.0.0.1:{port}/")
    assert isinstance(caught.value, OSError)
    assert (caught.value.step, caught.value.address) == ("connect", f"127.0.0.1:{port}")


# --- options --------------------------------------------------------------------------------------


async def test_wrong_use_is_an_error_of_the_call() -> None:
    with pytest.raises(TypeError, match="here it is additional_headers"):
        plumews.connect("ws://a", extra_headers={})  # type: ignore[call-arg]
    with pytest.raises(plumews.InvalidURI):
        plumews.connect("http://a")
    with pytest.raises(ValueError, match="wss://"):
        plumews.connect("ws://a", ssl=ssl.create_default_context())
    with pytest.raises(TypeError, match="needs on_message"):
        plumews.connect("ws://a", on_close=print)
    with pytest.raises(TypeError, match="plain function"):
        plumews.connect("ws://a", on_message=echo)  # type: ignore[arg-type]
    with socket.socket() as sock, pytest.raises(TypeError, match="either path or sock"):
        plumews.unix_connect("/s", sock=sock)
    with pytest.raises(TypeError, match="path must be"):
        plumews.unix_connect(5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must not be empty"):
        plumews.unix_connect("")


def test_signature_has_the_keywords_of_the_options() -> None:
    for function in (plumews.connect, plumews.unix_connect):
        parameters = inspect.signature(function).parameters
        assert parameters["options"].annotation == "Unpack[ConnectKeywords]"
    assert "proxy" in ConnectKeywords.__annotations__


# --- the end --------------------------------------------------------------------------------------


async def test_client_waits_for_the_server_to_end_tcp(start: Start) -> None:
    ends: list[str] = []

    async def play(peer: Peer) -> None:
        peer.accept()
        assert len(await peer.reader.readexactly(8)) == 8  # our close frame: masked, with a code
        peer.send(b"\x88\x02\x03\xe8")
        try:
            await asyncio.wait_for(peer.reader.read(1), 0.05)
            ends.append("client")
        except asyncio.TimeoutError:
            ends.append("server")

    async with hostile(play) as uri:
        conn = await plumews.connect(uri)
        await asyncio.wait_for(conn.close(), PATIENCE)
    assert ends == ["server"]
    assert conn.close_code == 1000


async def test_server_that_never_ends_tcp_costs_the_close_timeout() -> None:
    async def play(peer: Peer) -> None:
        peer.accept()
        await peer.reader.readexactly(8)
        peer.send(b"\x88\x02\x03\xe8")
        await peer.gone()

    async with hostile(play) as uri:
        conn = await plumews.connect(uri, close_timeout=0.05)
        began = time.monotonic()
        await conn.close()
    assert 0.04 < time.monotonic() - began < 2
    assert conn.close_code == 1000


async def test_leaving_a_flood_takes_one_round_trip(start: Start) -> None:
    async def flood(conn: Conn) -> None:
        with contextlib.suppress(plumews.ConnectionClosed):
            while True:
                await conn.send(b"x" * 50_000)

    server = await start(plumews.serve(flood, "127.0.0.1", 0, send_timeout=None))
    conn = await plumews.connect(uri_of(server), max_queue=4)
    await until(lambda: conn._reading_paused)
    began = time.monotonic()
    await conn.close()
    assert time.monotonic() - began < 2  # the close timeout is 10 s
    assert conn.close_code == 1000


async def test_send_waits_for_a_slow_server(start: Start) -> None:
    go_on, sizes, more = asyncio.Event(), list[int](), 0

    async def handler(conn: Conn) -> None:
        await go_on.wait()
        sizes.extend([len(message) async for message in conn])

    server = await start(plumews.serve(handler, "127.0.0.1", 0, max_queue=1))
    async with plumews.connect(uri_of(server)) as conn:

        async def send_all() -> None:
            for _ in range(40):
                await conn.send(bytes(500_000))

        def fill() -> None:
            nonlocal more
            while True:  # on a busy machine there may be space yet
                conn.send_nowait(bytes(500_000))
                more += 1

        sending = asyncio.create_task(send_all())
        await until(lambda: bool(conn._waiters))
        await asyncio.wait((sending,), timeout=0.1)  # twice the time that a server waits
        assert not sending.done()
        with pytest.raises(plumews.SendQueueFull):
            fill()
        go_on.set()
        await sending
    await until(lambda: len(sizes) == 40 + more)


async def test_masked_frame_of_a_server_is_a_violation() -> None:
    async def play(peer: Peer) -> None:
        peer.accept(behind=b"\x81\x82abcd\x00\x00")
        await peer.gone()

    async with hostile(play) as uri:
        conn = await plumews.connect(uri)
        with pytest.raises(ConnectionClosedError, match="masked server frame"):
            await conn.recv()
        await asyncio.wait_for(conn.wait_closed(), PATIENCE)
