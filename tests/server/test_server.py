"""Listening and stopping: every way to open a server, and what is left when it has closed."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import gc
import ipaddress
import os
import re
import signal
import socket
import ssl
import sys
import threading

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

import plumews
from plumews import limits
from plumews.transport.loop_context import loop_context
from support.fakes import echo, fake_conn, until
from support.raw_client import Wire, close, kept_port, masked, text, upgrade


async def assert_serves(server, **options):
    async with await Wire.open(server, **options) as wire:
        wire.send(text("alive"))
        assert await wire.message() == "alive"


def assert_empty(server):
    assert server._context.connections == set()
    assert server._context.tasks == set()
    assert len(loop_context(asyncio.get_running_loop()).timers) == 0


# --- where it listens -----------------------------------------------------------------------------


async def test_port_0_takes_a_free_one_that_the_server_tells(start):
    server = await start(plumews.serve(echo, "127.0.0.1", 0))
    assert server.port == server.sockets[0].getsockname()[1] > 0
    assert server.is_serving()
    await assert_serves(server)


async def test_an_existing_socket_is_served(start):
    sock = socket.create_server(("127.0.0.1", 0))
    server = await start(plumews.serve(echo, sock=sock))
    assert server.port == sock.getsockname()[1]
    await assert_serves(server)


async def test_two_servers_share_a_port_with_reuse_port(start):
    first = await start(plumews.serve(echo, "127.0.0.1", 0, reuse_port=True))
    second = await start(plumews.serve(echo, "127.0.0.1", first.port, reuse_port=True))
    assert first.port == second.port
    for _ in range(10):
        await assert_serves(first)


async def test_several_hosts_are_several_sockets(start):
    server = await start(plumews.serve(echo, ["127.0.0.1", "127.0.0.2"], 0))
    assert sorted(sock.getsockname()[0] for sock in server.sockets) == ["127.0.0.1", "127.0.0.2"]
    for sock in server.sockets:
        reader, writer = await asyncio.open_connection(*sock.getsockname())
        async with Wire(reader, writer) as wire:
            wire.writer.write(upgrade())
            await wire.read_head()
            assert wire.status == 101


async def test_ipv6_is_served_and_its_names_are_loopback(start):
    server = await start(plumews.serve(echo, "::1", 0))
    for host, status in (("[::1]", 101), (f"[::1]:{server.port}", 101), ("localhost", 101), ("evil.com", 403)):
        async with await Wire.connect(server) as wire:
            wire.writer.write(upgrade(host=host))
            await wire.read_head()
            assert wire.status == status, host


async def test_a_unix_socket_is_served_and_has_no_port(start, tmp_path):
    server = await start(plumews.unix_serve(echo, str(tmp_path / "ws.sock")))
    await assert_serves(server)
    with pytest.raises(RuntimeError, match="Unix socket"):
        _ = server.port


async def test_an_existing_unix_socket_and_callbacks_are_served(start, tmp_path):
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(tmp_path / "ws.sock"))
    server = await start(plumews.unix_serve(on_message=lambda conn, message: conn.send_nowait(message), sock=sock))
    await assert_serves(server)


async def test_a_foreign_host_is_let_in_where_the_server_listens_on_more_than_loopback(start):
    server = await start(plumews.serve(echo, "0.0.0.0", 0))
    async with await Wire.connect(server) as wire:
        wire.writer.write(upgrade(host="example.com"))
        await wire.read_head()
        assert wire.status == 101


async def test_allowed_hosts_are_those_that_are_given(start):
    server = await start(plumews.serve(echo, "127.0.0.1", 0, allowed_hosts=["*.example.com"]))
    for host, status in (("a.example.com", 101), ("localhost", 403)):
        async with await Wire.connect(server) as wire:
            wire.writer.write(upgrade(host=host))
            await wire.read_head()
            assert wire.status == status


async def test_an_address_in_use_is_an_os_error_and_may_be_tried_again():
    with kept_port() as port:
        async with plumews.serve(echo, "127.0.0.1", port):
            serving = plumews.serve(echo, "127.0.0.1", port)
            for _ in range(2):
                with pytest.raises(OSError, match=r"[Aa]ddress already in use"):
                    await serving
        async with serving as second:
            await assert_serves(second)


@pytest.mark.parametrize(
    ("arguments", "error", "text_"),
    [
        ({}, TypeError, "give a port"),
        ({"host": "127.0.0.1"}, TypeError, "give a port"),
        ({"port": 0, "sock": socket}, TypeError, "give either"),
        ({"host": "127.0.0.1", "sock": socket}, TypeError, "give either"),
        ({"reuse_port": True, "sock": socket}, TypeError, "give either"),
        ({"port": 65536}, ValueError, "port must be 0 to 65535, not 65536"),
        ({"port": -1}, ValueError, "port must be 0 to 65535, not -1"),
    ],
)
def test_section_8_point_31_a_wrong_place_to_listen_raises_at_once(arguments, error, text_):
    with pytest.raises(error, match=text_):
        plumews.serve(echo, **arguments)


def test_a_server_that_nobody_awaited_warns_as_a_coroutine_would():
    with pytest.warns(RuntimeWarning, match=r"plumews\.serve\(\) was never awaited: nothing was served"):
        plumews.serve(echo, "127.0.0.1", 0)


async def test_a_server_that_was_awaited_does_not_even_where_that_failed(recwarn):
    with kept_port() as port:
        async with plumews.serve(echo, "127.0.0.1", port):
            serving = plumews.serve(echo, "127.0.0.1", port)
            with pytest.raises(OSError, match=r"[Aa]ddress already in use"):
                await serving
            del serving
            gc.collect()
    assert [str(warning.message) for warning in recwarn if "never awaited" in str(warning.message)] == []


@pytest.mark.parametrize("arguments", [{}, {"path": "/x", "sock": socket}])
def test_a_unix_server_takes_a_path_or_a_socket(arguments):
    with pytest.raises(TypeError, match="give either the path"):
        plumews.unix_serve(echo, **arguments)


# --- TLS ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def contexts(tmp_path_factory):
    """A server's and a client's context, for a certificate that lives as long as the tests."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.DNSName("localhost"), x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))]
            ),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + pem
    )
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(path)
    return server, ssl.create_default_context(cadata=pem.decode())


async def test_tls_carries_messages_of_every_size_and_the_closing(start, contexts):
    ended = asyncio.get_running_loop().create_future()

    async def handler(conn):
        assert conn.request.secure
        await echo(conn)
        ended.set_result((conn.close_code, conn.close_reason))

    server = await start(plumews.serve(handler, "127.0.0.1", 0, ssl=contexts[0]))
    async with await Wire.open(server, ssl=contexts[1], server_hostname="localhost") as wire:
        for size in (0, 1, 125, 126, 65_535, 65_536, 5_000_000):
            payload = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
            wire.send(masked(2, payload))
            assert await wire.message() == payload
        wire.send(close(1000, "done"))
        assert await wire.closing() == (1000, "")
        await wire.eof()
    assert await ended == (1000, "done")


def test_a_context_for_clients_is_refused_at_once():
    with pytest.raises(ValueError, match="ssl must be a context for servers, such as"):
        plumews.serve(echo, "127.0.0.1", 0, ssl=ssl.create_default_context())


@pytest.mark.parametrize("kind", ["none", "by name", "good", "mutual"])
async def test_a_context_without_a_certificate_is_told_at_the_start(start, contexts, caplog, kind):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if kind == "by name":
        context.sni_callback = lambda connection, name, given: None
    elif kind in ("good", "mutual"):
        context = contexts[0]
        context.verify_mode = ssl.CERT_REQUIRED if kind == "mutual" else ssl.CERT_NONE
    try:
        await start(plumews.serve(echo, "127.0.0.1", 0, ssl=context))
    finally:
        context.verify_mode = ssl.CERT_NONE
    said = ["nobody can come in: ssl has no certificate (load_cert_chain)"] if kind == "none" else []
    assert [record.getMessage() for record in caplog.records] == said


async def test_tls_closed_by_the_server_ends_with_its_code(start, contexts):
    async def handler(conn):
        await conn.send("x" * 1_000_000)
        await conn.close(4001, "enough")

    server = await start(plumews.serve(handler, "127.0.0.1", 0, ssl=contexts[0]))
    async with await Wire.open(server, ssl=contexts[1], server_hostname="localhost") as wire:
        assert await wire.message() == "x" * 1_000_000
        assert await wire.closing() == (4001, "enough")
        wire.send(close(4001))
        await wire.eof()


async def test_over_tls_the_own_origin_is_https(start, contexts):
    server = await start(plumews.serve(echo, "127.0.0.1", 0, ssl=contexts[0]))
    host = f"localhost:{server.port}"
    for scheme, status in (("https", 101), ("http", 403)):
        async with await Wire.connect(server, ssl=contexts[1], server_hostname="localhost") as wire:
            wire.writer.write(upgrade("/", f"Origin: {scheme}://{host}", host=host))
            await wire.read_head()
            assert wire.status == status


async def test_a_refusal_over_tls_arrives_and_the_connection_ends(start, contexts):
    server = await start(plumews.serve(echo, "127.0.0.1", 0, ssl=contexts[0]))
    async with await Wire.connect(server, ssl=contexts[1], server_hostname="localhost") as wire:
        status, body = await wire.response(upgrade("/", "Origin: http://evil.com"))
        assert (status, b"forbidden origin" in body) == (403, True)


async def test_plain_http_on_a_tls_port_harms_nobody(start, contexts, caplog):
    server = await start(plumews.serve(echo, "127.0.0.1", 0, ssl=contexts[0]))
    async with await Wire.connect(server) as wire:
        wire.writer.write(upgrade())
        await wire.reader.read()
    await assert_serves(server, ssl=contexts[1], server_hostname="localhost")
    assert caplog.records == []


async def test_a_tls_handshake_that_does_not_come_is_cut_at_the_deadline(start, contexts, caplog):
    server = await start(plumews.serve(echo, "127.0.0.1", 0, ssl=contexts[0], open_timeout=0.1))
    async with await Wire.connect(server) as wire:
        assert await wire.reader.read() == b""
    assert caplog.records == []


async def test_stopping_does_not_wait_for_a_tls_handshake(contexts):
    async with plumews.serve(echo, "127.0.0.1", 0, ssl=contexts[0], open_timeout=2) as server:
        wire = await Wire.connect(server)
        await assert_serves(server, ssl=contexts[1], server_hostname="localhost")  # so that the other is accepted
        cut = asyncio.ensure_future(wire.reader.read())
        server.close()
        await server.wait_closed()
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(cut, 1) == b""
        wire.writer.close()


@pytest.mark.parametrize("tls", [False, True])
async def test_a_stop_ends_every_stage_of_a_handshake_at_once(contexts, tls):
    secure = {"ssl": contexts[1], "server_hostname": "localhost"} if tls else {}
    asked = asyncio.Event()

    async def process_request(conn, request):
        if request.raw_path == "/asks":
            asked.set()
            await asyncio.Event().wait()

    # The answers to a stop may take long, and so may a handshake.
    server = await plumews.serve(
        echo, "127.0.0.1", 0, ssl=contexts[0] if tls else None, open_timeout=1000, close_timeout=1000,
        process_request=process_request, authenticator=plumews.SimpleRoomAuth(b"s3cret" * 8), require_token=False,
    )  # fmt: skip
    async with contextlib.AsyncExitStack() as stack:
        member, first = [
            await stack.enter_async_context(await Wire.open(server, path, **secure)) for path in ("/", "/?auth=message")
        ]
        silent, halfway, asks, bare = [
            await stack.enter_async_context(await Wire.connect(server, **(secure if number < 3 else {})))
            for number in range(4)
        ]
        halfway.send(upgrade()[:30])
        asks.send(upgrade("/asks"))
        await asked.wait()
        server.close(spread=1000)
        for wire in (silent, halfway, asks):
            assert (await wire.response(b""))[0] == 503
        assert await first.closing() == (1001, "")
        with contextlib.suppress(ConnectionError):
            answer = await bare.reader.read()
            assert answer == b"" if tls else answer.startswith(b"HTTP/1.1 503 ")
        assert not server._closed.done()  # which waits for the others
        for wire in (member, first, silent, halfway, asks, bare):
            wire.writer.transport.abort()
        await server.wait_closed()


# --- what was agreed ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "chosen"),
    [
        ([], None),
        (["Sec-WebSocket-Protocol: soap"], None),
        (["Sec-WebSocket-Protocol: b, a"], "a"),
        (["Sec-WebSocket-Protocol: soap", "Sec-WebSocket-Protocol: b"], "b"),
    ],
    ids=["none", "unknown", "by_our_preference", "on_two_lines"],
)
async def test_section_8_point_28_the_subprotocol_is_chosen_by_our_preference(start, lines, chosen):
    agreed = []

    async def handler(conn):
        agreed.append(conn.subprotocol)

    server = await start(plumews.serve(handler, "127.0.0.1", 0, subprotocols=["a", "b"]))
    async with await Wire.open(server, "/", *lines) as wire:
        assert wire.header("Sec-WebSocket-Protocol") == chosen
        await wire.closing()
    assert agreed == [chosen]


async def test_extra_headers_stand_in_every_101(start):
    server = await start(plumews.serve(echo, "127.0.0.1", 0, extra_headers=iter([("X-Served-By", "plumews")])))
    for _ in range(2):
        async with await Wire.open(server) as wire:
            assert wire.header("X-Served-By") == "plumews"


async def test_the_settings_of_connections_are_those_of_the_server(start):
    server = await start(plumews.serve(echo, "127.0.0.1", 0, max_size=10))
    async with await Wire.open(server) as wire:
        wire.send(text("x" * 10))
        assert await wire.message() == "x" * 10
        wire.send(text("x" * 11))
        assert (await wire.closing())[0] == 1009


# --- stopping -------------------------------------------------------------------------------------


async def test_closing_says_1001_to_everybody_and_leaves_nothing():
    ended = []

    async def handler(conn):
        await echo(conn)
        ended.append(conn.close_code)

    async with contextlib.AsyncExitStack() as stack:
        server = await plumews.serve(handler, "127.0.0.1", 0)
        wires = [await stack.enter_async_context(await Wire.open(server)) for _ in range(20)]
        assert len(server.connections) == 20
        server.close()
        server.close(4000, "the second one does not count")
        assert not server.is_serving()
        for wire in wires:
            assert await wire.closing() == (1001, "")
            wire.send(close(1001))
        await server.wait_closed()
        await server.wait_closed()
    assert ended == [1001] * 20
    assert server.sockets == ()
    assert server.connections == set()
    with pytest.raises(RuntimeError, match="no port"):
        _ = server.port
    assert_empty(server)


async def test_closing_may_say_something_else():
    server = await plumews.serve(echo, "127.0.0.1", 0)
    async with await Wire.open(server) as wire:
        for code, reason in ((1006, ""), (999, ""), (1000, "x" * 124)):
            with pytest.raises(ValueError, match="close"):
                server.close(code, reason)
        assert server.is_serving()
        server.close(1012, "back in a minute")
        assert await wire.closing() == (1012, "back in a minute")
        wire.send(close())
        await server.wait_closed()


async def test_closing_may_be_spread_over_time_and_tell_each_when_to_come_back():
    async with plumews.serve(echo, "127.0.0.1", 0) as server:
        wires = [await Wire.open(server) for _ in range(10)]
        server.close(1012, "new version", spread=0.3, reconnect_in=30)
        loop = asyncio.get_running_loop()
        began, times, hints = loop.time(), [], set()

        async def leave(wire: Wire) -> None:
            code, reason = await wire.closing()
            times.append(loop.time() - began)
            hint = re.fullmatch(r"new version; reconnect in (\d+\.\d) s", reason)
            assert hint, reason
            hints.add(float(hint[1]))
            assert code == 1012
            wire.send(close(1012))
            await wire.eof()
            wire.writer.close()

        await asyncio.gather(*map(leave, wires))
        await server.wait_closed()
    assert max(times) - min(times) > 0.1
    assert len(hints) > 1
    assert max(hints) <= 30
    assert_empty(server)


async def test_who_is_not_told_yet_goes_on_until_its_turn_comes(start):
    opened: list[plumews.Conn] = []

    def answer(conn: plumews.Conn, message: str | bytes) -> None:
        conn.send_nowait(message)

    server = await start(plumews.serve(host="127.0.0.1", port=0, on_open=opened.append, on_message=answer))
    async with await Wire.open(server) as one, await Wire.open(server) as two:
        server.close(spread=1)
        await until(lambda: any(conn.closed for conn in opened))
        told, other = (one, two) if opened[0].closed else (two, one)
        other.send(text("still here?"))
        assert await other.message() == "still here?"
        for wire in (told, other):
            assert (await wire.closing())[0] == 1001
            wire.send(close(1001))
        await server.wait_closed()


async def test_what_a_hub_has_not_brought_yet_leaves_before_the_close_frame(monkeypatch):
    monkeypatch.setattr(plumews.limits, "FAN_OUT_SLICE", 0.0)
    hub = plumews.Hub()
    async with plumews.serve(host="127.0.0.1", port=0, on_message=lambda conn, message: None) as server:
        for _ in range(100):
            hub.join("chat", fake_conn(ping_interval=None)[0])
        async with await Wire.open(server) as wire:
            (conn,) = server.connections
            hub.join("chat", conn)
            for number in range(20):
                assert hub.broadcast_room("chat", str(number)).pending
            server.close()
            assert [await wire.message() for _ in range(20)] == [str(number) for number in range(20)]
            assert (await wire.closing())[0] == 1001
    hub.remove(conn)
    await hub.shutdown(0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"spread": -1}, "spread must be at least 0 seconds, not -1"),
        ({"spread": 11}, "spread (11 s) must not be more than the timeout (10 s)"),
        ({"reconnect_in": 3601}, "reconnect_in must be at most 3600 seconds, not 3601"),
        ({"reason": "x" * 123, "reconnect_in": 1}, "a close reason may have 123 bytes of UTF-8, not 146"),
    ],
    ids=["a spread of less than nothing", "a spread of too much", "a hint too late", "a reason too long with its hint"],
)
async def test_a_way_of_closing_that_makes_no_sense_is_refused_and_the_server_goes_on(start, options, said):
    server = await start(plumews.serve(echo, "127.0.0.1", 0))
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        server.close(**options)
    await assert_serves(server)


async def test_nobody_connects_to_a_closed_server():
    with kept_port() as port:
        server = await plumews.serve(echo, "127.0.0.1", port)
        server.close()
        await server.wait_closed()
        with pytest.raises(OSError, match=r"[Cc]onnect"):
            await asyncio.open_connection("127.0.0.1", port)
        async with plumews.serve(echo, "127.0.0.1", port) as again:
            await assert_serves(again)


async def test_a_handler_that_ignores_the_end_is_cancelled_after_the_close_timeout(caplog):
    cancelled = []

    async def handler(conn):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(conn)
            raise

    server = await plumews.serve(handler, "127.0.0.1", 0, close_timeout=0.1)
    async with await Wire.open(server) as wire:
        server.close()
        assert await wire.closing() == (1001, "")
        wire.send(close())
        await server.wait_closed()
    assert len(cancelled) == 1
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert_empty(server)


async def test_a_peer_that_does_not_answer_the_close_is_cut_after_the_close_timeout():
    server = await plumews.serve(echo, "127.0.0.1", 0, close_timeout=0.1)
    async with await Wire.open(server) as wire:
        server.close()
        await server.wait_closed()
        assert await wire.closing() == (1001, "")
        await wire.eof()
    assert_empty(server)


async def test_a_handler_that_ignores_even_the_cancelling_does_not_hold_up_the_closing(monkeypatch):
    monkeypatch.setattr(plumews.limits, "END_GRACE", 0.1)
    may_end, ended = asyncio.Event(), asyncio.Event()

    async def handler(conn):
        while not may_end.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await may_end.wait()
        ended.set()

    server = await plumews.serve(handler, "127.0.0.1", 0, close_timeout=0.1)
    async with await Wire.open(server):
        server.close()
        await server.wait_closed()
        assert server._context.connections == set()
        may_end.set()
        await ended.wait()


async def test_a_handler_has_the_close_timeout_to_say_goodbye():
    async def handler(conn):
        await conn.wait_closed()
        await asyncio.sleep(0)
        done.append(conn)

    done = []
    server = await plumews.serve(handler, "127.0.0.1", 0)
    async with await Wire.open(server) as wire:
        server.close()
        await wire.closing()
        wire.send(close())
        await server.wait_closed()
    assert len(done) == 1


async def test_leaving_the_block_closes_the_server():
    async with plumews.serve(echo, "127.0.0.1", 0, close_timeout=0.1) as server:
        wire = await Wire.open(server)
    assert not server.is_serving()
    assert await wire.closing() == (1001, "")
    await wire.eof()
    wire.writer.close()


async def test_serve_forever_ends_when_the_server_is_closed():
    server = await plumews.serve(echo, "127.0.0.1", 0)
    forever = asyncio.ensure_future(server.serve_forever())
    await assert_serves(server)
    assert not forever.done()
    server.close()
    await forever


async def test_cancelling_serve_forever_closes_the_server():
    server = await plumews.serve(echo, "127.0.0.1", 0)
    forever = asyncio.ensure_future(server.serve_forever())
    async with await Wire.open(server) as wire:
        forever.cancel()
        assert await wire.closing() == (1001, "")
        wire.send(close())
        with pytest.raises(asyncio.CancelledError):
            await forever
    assert not server.is_serving()
    assert_empty(server)


# --- signals --------------------------------------------------------------------------------------

needs_signals = pytest.mark.skipif(sys.platform == "win32", reason="here a signal to this process would end it")


def send_soon(number):
    asyncio.get_running_loop().call_soon(os.kill, os.getpid(), number)


@needs_signals
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("where", ["tcp", "unix"])
async def test_a_signal_closes_all_with_1001_and_a_hint(tmp_path, number, where):
    before = signal.getsignal(number)
    serving = plumews.serve(echo, "127.0.0.1", 0) if where == "tcp" else plumews.unix_serve(echo, tmp_path / "s")
    heard = []
    async with serving as server, await Wire.open(server) as wire:
        stopped = asyncio.ensure_future(server.serve_until_signal(on_signal=heard.append))
        send_soon(number)
        code, reason = await wire.closing()
        assert code == 1001
        assert re.fullmatch(r"reconnect in \d\.\d s", reason)
        wire.send(close(1001))
        assert await stopped is None
        assert heard == [number]
        assert not server.is_serving()
        assert signal.getsignal(number) is before
    assert_empty(server)


@needs_signals
async def test_a_signal_ends_a_room_server_members_first(monkeypatch):
    monkeypatch.setattr(limits, "SHUTDOWN_REST", 0.05)
    async with (
        plumews.Hub() as hub,
        plumews.serve_rooms(hub, plumews.SimpleRoomAuth(), "127.0.0.1", 0) as server,
        await Wire.open(server, "/ws") as member,
        await Wire.open(server, "/members") as silent,
    ):
        stopped = asyncio.ensure_future(server.serve_until_signal(reconnect_in=0))
        member.send(text("before"))
        assert await member.message() == "before"
        hub.broadcast_all("the last word")
        send_soon(signal.SIGTERM)
        assert await member.message() == "the last word"
        assert await member.closing() == (1001, "")
        async with await Wire.connect(server) as late:
            late.writer.write(upgrade("/ws"))
            await late.read_head()
            assert late.status == 503
        member.send(close(1001))
        report = await stopped  # the watcher does not answer, and is cut
        assert (report.closed, report.aborted) == (1, 0)
        assert (await silent.closing())[0] == 1001
        await silent.eof()
    assert_empty(server)


@needs_signals
async def test_a_peer_that_does_not_answer_a_signal_is_cut_in_time(caplog):
    async with plumews.serve(echo, "127.0.0.1", 0) as server, await Wire.open(server) as silent:
        stopped = asyncio.ensure_future(server.serve_until_signal(0.1))  # the close timeout is 10 s
        send_soon(signal.SIGTERM)
        await stopped
        assert (await silent.closing())[0] == 1001
        await silent.eof()
    assert [record.getMessage() for record in caplog.records] == [
        "stopping took longer than 0.1 s: what is left is cut"
    ]


@needs_signals
async def test_one_signal_ends_all_servers_of_a_loop(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    async with plumews.serve(echo, "127.0.0.1", 0) as one, plumews.unix_serve(echo, tmp_path / "s") as two:
        stopped = asyncio.gather(one.serve_until_signal(), two.serve_until_signal())
        send_soon(signal.SIGTERM)
        assert await stopped == [None, None]
        assert not one.is_serving()
        assert not two.is_serving()
        assert signal.getsignal(signal.SIGTERM) is before


async def test_serving_until_a_signal_ends_with_a_server_that_is_closed():
    before = signal.getsignal(signal.SIGTERM)
    server = await plumews.serve(echo, "127.0.0.1", 0)
    serving = asyncio.ensure_future(server.serve_until_signal())
    await asyncio.sleep(0)
    assert signal.getsignal(signal.SIGTERM) is not before
    server.close()
    assert await serving is None
    assert signal.getsignal(signal.SIGTERM) is before


async def test_cancelling_serve_until_signal_closes_the_server():
    before = signal.getsignal(signal.SIGTERM)
    server = await plumews.serve(echo, "127.0.0.1", 0)
    serving = asyncio.ensure_future(server.serve_until_signal())
    await asyncio.sleep(0)
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert server._closed.done()
    assert signal.getsignal(signal.SIGTERM) is before


def test_serving_until_a_signal_wants_the_main_thread(anyio_backend):
    said = []

    async def main():
        async with plumews.serve(echo, "127.0.0.1", 0) as server:
            with pytest.raises(RuntimeError, match="main thread") as caught:
                await server.serve_until_signal()
            said.append(str(caught.value))
            assert server.is_serving()

    def run():
        if anyio_backend[1]["use_uvloop"]:
            import uvloop

            uvloop.run(main())
        else:
            asyncio.run(main())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert said


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"timeout": -1}, ValueError),
        ({"timeout": "10"}, TypeError),
        ({"timeout": 1, "spread": 2}, ValueError),
        ({"reconnect_in": 3601}, ValueError),
        ({"on_signal": asyncio.sleep}, TypeError),
        ({"on_signal": lambda: None}, TypeError),
        ({"on_signal": "stop"}, TypeError),
    ],
)
async def test_a_way_of_stopping_that_makes_no_sense_is_refused_at_once(start, options, error):
    server = await start(plumews.serve(echo, "127.0.0.1", 0))
    with pytest.raises(error):
        await server.serve_until_signal(**options)
    assert server.is_serving()


async def test_cancelling_who_waits_for_the_end_does_not_end_the_server(start):
    server = await start(plumews.serve(echo, "127.0.0.1", 0))
    waiting = asyncio.ensure_future(server.wait_closed())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await assert_serves(server)


async def test_a_server_is_started_once_and_serve_makes_another():
    serving = plumews.serve(echo, "127.0.0.1", 0)
    async with serving as server:
        with pytest.raises(RuntimeError, match=r"call serve\(\) again"):
            await serving
        async with plumews.serve(echo, "127.0.0.1", 0) as other:
            assert other.port != server.port
            await assert_serves(other)
        await assert_serves(server)


async def test_connections_are_the_open_ones(start):
    server = await start(plumews.serve(echo, "127.0.0.1", 0))
    async with await Wire.connect(server), await Wire.open(server) as wire:
        (conn,) = server.connections
        assert conn.state is plumews.State.OPEN
        wire.send(close())
        await wire.eof()
        await conn.wait_closed()
        assert server.connections == set()


async def test_row_28_a_thousand_connections_of_every_end_leave_nothing():
    async def handler(conn):
        async for message in conn:
            if message == "raise":
                raise RuntimeError("on purpose")
            await conn.send(message)

    server = await plumews.serve(handler, "127.0.0.1", 0)
    for round_ in range(250):
        async with contextlib.AsyncExitStack() as stack:
            closes, resets, raises, stays = [await stack.enter_async_context(await Wire.open(server)) for _ in range(4)]
            closes.send(text("x"), close())
            resets.reset()
            raises.send(text("raise"), close())
            assert await closes.message() == "x"
            assert await raises.closing() in ((1011, "the handler failed"), (1000, "")), round_
            stays.send(text("y"))
            assert await stays.message() == "y"
    server.close()
    await server.wait_closed()
    assert_empty(server)


# --- other threads --------------------------------------------------------------------------------


def run_coroutine(coroutine):
    try:
        return coroutine.send(None)
    finally:
        coroutine.close()


@pytest.mark.parametrize(
    "call",
    [
        lambda server: server.close(),
        lambda server: server.connections,
        lambda server: run_coroutine(server.wait_closed()),
        lambda server: run_coroutine(server.serve_forever()),
        lambda server: run_coroutine(server.serve_until_signal()),
    ],
    ids=["close", "connections", "wait_closed", "serve_forever", "serve_until_signal"],
)
async def test_server_in_another_thread_is_refused(start, call):
    server = await start(plumews.serve(echo, "127.0.0.1", 0))
    with pytest.raises(plumews.ConcurrencyError, match="call_soon_threadsafe"):
        await asyncio.to_thread(call, server)
    assert server.is_serving()
