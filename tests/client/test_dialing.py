"""Tests of dialing: names, addresses, proxies and TLS on loopback, hostile proxies, and cancellation at any moment."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import ssl
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

import plumews
from plumews.client import dialing
from plumews.client.dialing import Dialing, tls_context
from plumews.client.proxy import parse_proxy
from plumews.client.resolver import AddressInfo, Resolver
from plumews.client.uri import basic_auth, parse_uri
from plumews.errors import ConnectError, ProxyError
from support.fakes import tls_contexts, until
from support.proxies import ConnectProxy, Handle, Peer, SocksProxy, echo, listening, offering

BOUND = 20.0

#: Attempts that are canceled in each way: more of them in a long run.
CANCELED = int(os.environ.get("PLUMEWS_CANCELED_CONNECTS", "150"))


class Names:
    """Resolver function with the addresses of a test."""

    def __init__(self, **addresses: list[tuple[str, int]]) -> None:
        self._addresses = addresses
        self.answer = threading.Event()

    def __call__(self, host: str, port: int, **_: Any) -> list[AddressInfo]:
        if host == "stuck":
            assert self.answer.wait(BOUND)
        if host not in self._addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, known or port))
            for address, known in self._addresses[host]
        ]


NAMES = Resolver(Names(localhost=[("127.0.0.1", 0)]))


def dial(uri: str, proxy: str | None = None, **options: Any) -> Dialing:
    options.setdefault("names", NAMES)
    return Dialing(parse_uri(uri), proxy=None if proxy is None else parse_proxy(proxy), **options)


async def echoes(attempt: Dialing, first: bytes = b"") -> asyncio.Transport:
    """Assert that the connection carries bytes both ways, behind those that the server sends ``first``."""
    async with bounded():
        transport, peer = await attempt.open(Peer)
        assert (peer.made, attempt.step) == (1, "handshake")
        transport.write(b"hello")
        await peer.has(first + b"hello")
        transport.abort()
        await until(lambda: peer.lost)
        return transport


@contextlib.asynccontextmanager
async def bounded() -> AsyncIterator[None]:
    """Fail what does not end."""
    task = asyncio.current_task()
    assert task is not None
    handle = asyncio.get_running_loop().call_later(BOUND, task.cancel)
    try:
        yield
    finally:
        handle.cancel()


async def fails(attempt: Dialing, step: str, said: str, kind: type[ConnectError] = ConnectError) -> ConnectError:
    """Assert that the attempt fails in ``step``, and leaves no descriptor."""
    async with bounded():
        with pytest.raises(kind, match=said) as caught:
            await attempt.open(Peer)
        assert caught.value.step == step
        return caught.value


def open_sockets() -> set[int]:
    """Return the open sockets of this process."""
    found = set()
    for one in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if str(one.readlink()).startswith("socket:"):
                found.add(int(one.name))
    return found


@pytest.fixture
async def nothing_left() -> AsyncIterator[None]:
    """Assert that the test leaves no socket open."""
    if sys.platform != "linux":
        yield
        return
    before = open_sockets()
    yield
    async with bounded():
        await until(lambda: open_sockets() <= before)


pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async with listening(echo) as port:
        yield port


@pytest.fixture
async def tls_port() -> AsyncIterator[int]:
    async with listening(echo, ssl=tls_contexts()[0]) as port:
        yield port


def trusting() -> ssl.SSLContext:
    return tls_contexts()[1]


# --- addresses and names ----------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_connection_is_open(port: int, host: str) -> None:
    await echoes(dial(f"ws://{host}:{port}/"))


@pytest.mark.skipif(sys.platform != "linux", reason="needs a listener that drops connections")
async def test_address_that_does_not_answer_costs_a_quarter_second(port: int) -> None:
    with socket.socket() as full, contextlib.ExitStack() as stack:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(3):  # the backlog is full: Linux drops the next connection
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        names = Resolver(Names(two=[full.getsockname(), ("127.0.0.1", port)]))
        attempt = dial("ws://two/", names=names)
        await echoes(attempt)
        assert attempt.address == "two:80, 127.0.0.1"


async def test_name_that_does_not_exist_is_named() -> None:
    error = await fails(dial("ws://unknown/"), "resolve", "Name or service not known")
    assert (error.address, error.errno) == ("unknown:80", socket.EAI_NONAME)


async def test_refused_connection_is_named(unused: int) -> None:
    error = await fails(dial(f"ws://127.0.0.1:{unused}/"), "connect", "onnect")
    assert error.address == f"127.0.0.1:{unused}"
    names = Resolver(Names(two=[("127.0.0.1", unused), ("127.0.0.1", unused)]))
    error = await fails(dial(f"ws://two:{unused}/", names=names), "connect", "onnect")
    assert error.address == f"two:{unused}, 127.0.0.1"


@pytest.fixture
def unused() -> Iterator[int]:
    """Port where nothing listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


async def test_stuck_resolver_is_left_at_once(port: int) -> None:
    names = Names(stuck=[], localhost=[("127.0.0.1", 0)])
    own = Resolver(names)
    attempt = dial("ws://stuck/", names=own)
    task = asyncio.create_task(attempt.open(Peer))
    await until(lambda: attempt.step == "resolve")
    await echoes(dial(f"ws://localhost:{port}/", names=own))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (attempt.step, attempt.address) == ("resolve", "stuck:80")
    names.answer.set()


@pytest.mark.skipif(sys.platform != "linux", reason="needs all of 127.0.0.0/8")
async def test_local_address_is_used(port: int) -> None:
    transport = await echoes(dial(f"ws://127.0.0.1:{port}/", local_addr=("127.0.0.3", 0)))
    assert transport.get_extra_info("sockname")[0] == "127.0.0.3"
    await fails(dial(f"ws://127.0.0.1:{port}/", local_addr=("192.0.2.1", 0)), "connect", "bind")


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs Unix sockets")
async def test_unix_socket_is_connected(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    async with listening(echo, path):
        await echoes(dial("ws://h/", path=path))
        await echoes(dial("ws://h/", "http://unused", path=path))
    error = await fails(dial("ws://h/", path=str(tmp_path / "none")), "connect", "No such file")
    assert error.address == str(tmp_path / "none")


async def test_given_socket_is_used(port: int, tls_port: int) -> None:
    await echoes(dial("ws://h/", "http://unused", sock=socket.create_connection(("127.0.0.1", port))))
    sock = socket.create_connection(("127.0.0.1", tls_port))
    await echoes(dial("wss://localhost/", sock=sock, ssl=trusting()))
    sock = socket.create_connection(("127.0.0.1", port))
    error = await fails(dial("wss://localhost/", sock=sock, ssl=trusting()), "tls", r".")
    assert error.address == f"127.0.0.1:{port}"


# --- TLS --------------------------------------------------------------------------------------------


async def test_tls_is_open_and_the_context_is_not_changed(tls_port: int) -> None:
    context = trusting()
    transport = await echoes(dial(f"wss://localhost:{tls_port}/", ssl=context))
    assert transport.get_extra_info("ssl_object").selected_alpn_protocol() is None
    assert tls_context(context) is context


async def test_our_context_offers_http_1_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(writer.get_extra_info("ssl_object").selected_alpn_protocol())
        await echo(reader, writer)

    server, client = fresh_contexts()
    monkeypatch.setattr(ssl, "create_default_context", lambda: client)
    dialing._default_context.cache_clear()
    try:
        async with listening(keep, ssl=offering(server, "h2", "http/1.1")) as port:
            await echoes(dial(f"wss://localhost:{port}/"))
    finally:
        dialing._default_context.cache_clear()
    assert seen == ["http/1.1"]


def fresh_contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return contexts that a test may change."""
    return tls_contexts.__wrapped__()


async def test_answer_of_h2_is_a_named_error() -> None:
    server, client = fresh_contexts()
    async with listening(echo, ssl=offering(server, "h2")) as port:
        attempt = dial(f"wss://localhost:{port}/", ssl=offering(client, "h2", "http/1.1"))
        await fails(attempt, "tls", "the server chose 'h2' by ALPN")


async def test_untrusted_certificate_is_a_tls_error(tls_port: int) -> None:
    error = await fails(dial(f"wss://localhost:{tls_port}/"), "tls", "certificate verify failed")
    assert isinstance(error.__cause__, ssl.SSLCertVerificationError)
    await fails(dial(f"wss://127.0.0.1:{tls_port}/", ssl=trusting()), "tls", "certificate verify failed")


async def test_certificates_are_read_again_after_one_was_untrusted(tls_port: int) -> None:
    first = tls_context()
    assert tls_context() is first
    await fails(dial(f"wss://localhost:{tls_port}/"), "tls", "certificate verify failed")
    assert tls_context() is not first


@pytest.mark.parametrize(
    ("host", "options", "seen"),
    [
        ("localhost", {}, "localhost"),
        ("127.0.0.1", {}, None),
        ("127.0.0.1", {"server_hostname": "localhost"}, "localhost"),
    ],
)
async def test_sni_is_the_name_and_none_for_an_address(host: str, options: dict[str, str], seen: str | None) -> None:
    server, client = fresh_contexts()
    names: list[str | None] = []
    server.sni_callback = lambda _, name, __: names.append(name)
    async with listening(echo, ssl=server) as port:
        attempt = dial(f"wss://{host}:{port}/", ssl=client, **options)
        if seen is None:
            await fails(attempt, "tls", "certificate")
        else:
            await echoes(attempt)
    assert names == [seen]


async def test_server_that_speaks_before_tls_is_a_tls_error() -> None:
    async def eager(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail\r\n")
        await reader.read()

    async with listening(eager) as port:
        await fails(dial(f"wss://localhost:{port}/", ssl=trusting()), "tls", r".")


async def test_data_behind_the_tls_handshake_arrives() -> None:
    async def eager(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"first")
        await echo(reader, writer)

    async with listening(eager, ssl=tls_contexts()[0]) as port:
        await echoes(dial(f"wss://localhost:{port}/", ssl=trusting()), first=b"first")


async def test_tls_option_must_be_a_context() -> None:
    assert tls_context() is tls_context(True)
    for wrong in (False, "tls"):
        with pytest.raises(TypeError, match="ssl must be"):
            tls_context(wrong)  # type: ignore[arg-type]


# --- HTTP proxies -----------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["ws", "wss"])
@pytest.mark.parametrize("proxy_scheme", ["http", "https"])
async def test_tunnel_carries_both_schemes(port: int, tls_port: int, scheme: str, proxy_scheme: str) -> None:
    proxy = ConnectProxy()
    secure = proxy_scheme == "https"
    options: dict[str, Any] = {"ssl": tls_contexts()[0]} if secure else {}
    target = tls_port if scheme == "wss" else port
    async with listening(proxy, **options) as proxy_port:
        attempt = dial(
            f"{scheme}://localhost:{target}/",
            f"{proxy_scheme}://u:p@localhost:{proxy_port}",
            ssl=trusting(),
            proxy_ssl=trusting(),
        )
        await echoes(attempt)
    (head,) = proxy.heads
    assert head.startswith(f"CONNECT localhost:{target} HTTP/1.1\r\n".encode())
    assert basic_auth("u", "p").encode() in head


@pytest.mark.parametrize("proxy_scheme", ["http", "https"])
async def test_bytes_behind_the_reply_belong_to_the_tunnel(port: int, proxy_scheme: str) -> None:
    proxy = ConnectProxy(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n" + b"first" * 1000)
    options: dict[str, Any] = {"ssl": tls_contexts()[0]} if proxy_scheme == "https" else {}
    async with listening(proxy, **options) as proxy_port:
        attempt = dial(f"ws://localhost:{port}/", f"{proxy_scheme}://localhost:{proxy_port}", proxy_ssl=trusting())
        await echoes(attempt, first=b"first" * 1000)


async def test_bytes_behind_the_reply_are_no_tls() -> None:
    async with listening(echo) as port, listening(ConnectProxy(b"HTTP/1.1 200 OK\r\n\r\njunk")) as proxy_port:
        attempt = dial(f"wss://h:{port}/", f"http://localhost:{proxy_port}", ssl=trusting())
        await fails(attempt, "tls", "sent data before the TLS handshake")


async def test_name_behind_a_proxy_is_not_resolved_here(port: int) -> None:
    proxy = ConnectProxy()
    async with listening(proxy) as proxy_port:
        await echoes(dial(f"ws://unknown:{port}/", f"http://127.0.0.1:{proxy_port}"))
    assert proxy.heads[0].startswith(b"CONNECT unknown:")


async def test_proxy_that_is_not_there_is_named(unused: int) -> None:
    error = await fails(dial("ws://h/", f"http://u:hunter2@localhost:{unused}"), "connect", "onnect")
    assert error.address == f"http://localhost:{unused}, 127.0.0.1"
    assert "hunter2" not in str(error)


def replying(*parts: bytes, ends: bool = False) -> Handle:
    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for part in parts:
            writer.write(part)
            await writer.drain()
        if not ends:
            await reader.read()

    return reply


@pytest.mark.parametrize(
    ("handle", "said", "status"),
    [
        (replying(b"HTTP/1.1 407 Auth\r\nContent-Length: 9\r\n\r\n"), "407", 407),
        (replying(b"HTTP/1.1 503 Busy\r\nRetry-After: 5\r\n\r\n"), "503 Busy", 503),
        (replying(b"HTTP/1.1 200 OK\r\n", *[b"X: " + b"a" * 1000 + b"\r\n"] * 99), "too large", None),
        (replying(b"HTTP/1.1 20", ends=True), "before its reply", None),
        (replying(ends=True), "before its reply", None),
        (replying(b"SOCKS?"), "not an HTTP response", None),
    ],
    ids=["407", "503", "endless", "cut", "silent", "other"],
)
@pytest.mark.parametrize("proxy_scheme", ["http", "https"])
async def test_hostile_proxy_is_a_named_error(handle: Handle, said: str, status: int | None, proxy_scheme: str) -> None:
    options: dict[str, Any] = {"ssl": tls_contexts()[0]} if proxy_scheme == "https" else {}
    async with listening(handle, **options) as proxy_port:
        attempt = dial("wss://h/", f"{proxy_scheme}://localhost:{proxy_port}", proxy_ssl=trusting())
        error = await fails(attempt, "proxy", said, ProxyError)
    assert isinstance(error, ProxyError)
    assert (error.status, error.address) == (status, f"{proxy_scheme}://localhost:{proxy_port}")


async def test_proxy_that_trickles_or_never_answers_is_left_at_once() -> None:
    seen = asyncio.Event()

    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for byte in b"HTTP/1.1 200 OK\r\nX: y":
            writer.write(bytes([byte]))
            await asyncio.sleep(0)
        seen.set()
        await reader.read()

    async with bounded(), listening(trickle) as proxy_port:
        attempt = dial("wss://h/", f"http://localhost:{proxy_port}")
        task = asyncio.create_task(attempt.open(Peer))
        await seen.wait()
        await until(lambda: attempt.step == "proxy")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert attempt.address == f"http://localhost:{proxy_port}"


# --- SOCKS proxies ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scheme", "asked"),
    [("socks4", "127.0.0.1"), ("socks4a", "localhost"), ("socks5", "127.0.0.1"), ("socks5h", "localhost")],
)
async def test_socks_proxy_carries_both_schemes(port: int, tls_port: int, scheme: str, asked: str) -> None:
    proxy = SocksProxy()
    async with listening(proxy) as proxy_port:
        url = f"{scheme}://localhost:{proxy_port}"
        await echoes(dial(f"ws://localhost:{port}/", url))
        await echoes(dial(f"wss://localhost:{tls_port}/", url, ssl=trusting()))
    assert proxy.hosts == [asked, asked]


async def test_socks_proxy_gets_user_and_password(port: int) -> None:
    async with listening(SocksProxy("ada", "secret")) as proxy_port:
        await echoes(dial(f"ws://localhost:{port}/", f"socks5://ada:secret@localhost:{proxy_port}"))
        attempt = dial(f"ws://localhost:{port}/", f"socks5://ada:wrong@localhost:{proxy_port}")
        error = await fails(attempt, "proxy", "the proxy refused", ProxyError)
        assert "wrong" not in str(error)


@pytest.mark.parametrize("scheme", ["socks4", "socks5h"])
async def test_refusal_of_a_socks_proxy_is_named(port: int, scheme: str) -> None:
    async with listening(SocksProxy(status=91 if scheme == "socks4" else 5)) as proxy_port:
        attempt = dial(f"ws://localhost:{port}/", f"{scheme}://localhost:{proxy_port}")
        await fails(attempt, "proxy", "the proxy refused", ProxyError)


@pytest.mark.parametrize("junk", [b"HTTP/1.1 400 Bad\r\n\r\n", b"\x05", b""], ids=["http", "cut", "silent"])
async def test_hostile_socks_proxy_is_a_named_error(junk: bytes) -> None:
    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(3)
        writer.write(junk)

    async with listening(reply) as proxy_port:
        await fails(dial("ws://h/", f"socks5h://localhost:{proxy_port}"), "proxy", r".", ConnectError)


async def test_missing_package_for_socks_is_named(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "python_socks", None)
    error = await fails(dial("ws://h/", f"socks5://127.0.0.1:{port}"), "proxy", "plumews", ProxyError)
    assert "pip install plumews[socks]" in str(error)


# --- cancellation -----------------------------------------------------------------------------------


@contextlib.contextmanager
def pipes(count: int) -> Iterator[list[tuple[int, int]]]:
    """Yield pipes, and assert that they are still open and connected at the end."""
    made = [os.pipe() for _ in range(count)]
    yield made
    for number, (read, write) in enumerate(made):
        os.write(write, bytes([number]))
        assert os.read(read, 2) == bytes([number])
        os.close(read)
        os.close(write)


@pytest.mark.parametrize("way", ["ws", "race", "wss", "http", "https", "socks5"])
async def test_attempt_canceled_at_any_moment_leaves_nothing(way: str) -> None:
    dice = random.Random(way)
    seconds = {"ws": 0.001, "race": 0.002}.get(way, 0.008)
    ends = 0
    async with contextlib.AsyncExitStack() as stack:
        secure = way not in ("ws", "race")
        target = await stack.enter_async_context(listening(echo, **({"ssl": tls_contexts()[0]} if secure else {})))
        proxy = None
        if way in ("http", "https", "socks5"):
            handle: Handle = SocksProxy() if way == "socks5" else ConnectProxy()
            options: dict[str, Any] = {"ssl": tls_contexts()[0]} if way == "https" else {}
            proxy = f"{way}://localhost:{await stack.enter_async_context(listening(handle, **options))}"
        names = NAMES
        if way == "race":
            names = Resolver(Names(localhost=[("127.0.0.1", target)] * 3))
        with pipes(4), contextlib.ExitStack() as late:
            for number in range(CANCELED):
                attempt = dial(
                    f"{'wss' if secure else 'ws'}://localhost:{target}/",
                    proxy,
                    ssl=trusting(),
                    proxy_ssl=trusting(),
                    names=names,
                )
                task = asyncio.create_task(attempt.open(Peer))
                if number % 2:
                    await asyncio.sleep(dice.random() * seconds)  # the moment of the cancellation
                else:
                    for _ in range(dice.randrange(12)):
                        await asyncio.sleep(0)
                task.cancel()
                # Descriptors that take the numbers of those that are closed.
                if number % 10 == 0:
                    late.enter_context(pipes(1))
                try:
                    transport, _ = await task
                except asyncio.CancelledError:
                    pass
                else:
                    transport.abort()
                    ends += 1
    assert ends < CANCELED


# --- connections of the library ---------------------------------------------------------------------


@pytest.mark.parametrize("proxy_scheme", ["http", "socks5"])
@pytest.mark.parametrize("secure", [False, True], ids=["ws", "wss"])
async def test_conn_carries_messages_through_a_proxy(start: Any, proxy_scheme: str, secure: bool) -> None:
    async def handler(conn: plumews.Conn) -> None:
        await conn.send("first")  # may come with the 101
        async for message in conn:
            await conn.send(message)

    server = await start(plumews.serve(handler, "127.0.0.1", 0, ssl=tls_contexts()[0] if secure else None))
    proxy: Handle = SocksProxy() if proxy_scheme == "socks5" else ConnectProxy()
    async with bounded(), listening(proxy) as proxy_port:
        uri = f"{'wss' if secure else 'ws'}://localhost:{server.port}/"
        url = f"{proxy_scheme}://127.0.0.1:{proxy_port}"
        async with plumews.connect(uri, proxy=url, ssl=trusting() if secure else None) as conn:
            assert await conn.recv() == "first"
            for message in ("short", "long" * 100_000):
                await conn.send(message)
                assert await conn.recv() == message
