"""Real clients against live servers: what users of other WebSocket implementations see of ours.

Three clients that share no code with plumews (`peers.clients`) meet each of the three doors: a handler coroutine,
callbacks, and the room server, all of which answer with the message. Where Node's `ws` is not installed its tests
are skipped; ``PLUMEWS_REQUIRE_NODE=1`` makes that an error.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import pytest
from websockets.asyncio.client import connect as websockets_connect
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

import plumews
from peers.clients import CLIENTS, FRAGMENTING, MIB, NODE_MISSING, Client, find_node
from plumews import Conn, Deflate, Hub, SimpleRoomAuth

pytestmark = pytest.mark.peer

#: Left to right, right to left, combining, four bytes, no character assigned, and what JSON and C stumble over.
SCRIPTS = {
    "latin": "Füße, naïve Ærøskøbing, Łódź",
    "greek": "Ζαχάρω, ξεσκεπάζω τὴν ψυχοφθόρα βδελυγμία",
    "cyrillic": "Съешь же ещё этих мягких французских булок",
    "hebrew": "דג סקרן שט בים מאוכזב",
    "arabic": "نص حكيم له سر قاطع",
    "devanagari": "ऋषियों को सताने वाले दुष्ट राक्षसों",
    "thai": "เป็นมนุษย์สุดประเสริฐ",
    "chinese": "我能吞下玻璃而不傷身體",
    "japanese": "いろはにほへと ちりぬるを",
    "korean": "키스의 고유조건은 입술끼리",
    "emoji": "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽",
    "edges": "\x00\x7f\x80߿ࠀ￿\U00010000\U0010ffff",
    "punctuation": '"\\\u2028\u2029\ufeff\r\n\t',
}

#: Around the bounds of the three length fields (RFC 6455 section 5.2), of our fragments, and well above them.
SIZES = [0, 1, 125, 126, 127, 65535, 65536, 65537, MIB]


@dataclass
class EchoServer:
    """A server that answers with the message, and what it has seen of its one connection."""

    server: plumews.Server
    path: str
    opened: asyncio.Future[Conn] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    ended: asyncio.Future[tuple[int | None, str | None]] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.server.port}{self.path}"


ServeEcho: TypeAlias = Callable[..., Any]
Connect: TypeAlias = Callable[..., Any]


@pytest.fixture(params=["handler", "callbacks", "rooms"])
def serve_echo(request: pytest.FixtureRequest, start: Callable[[Any], Any]) -> ServeEcho:
    """Starts an echo server behind one of the doors: ``echo = await serve_echo(max_size=1000)``."""

    async def serve(**options: Any) -> EchoServer:
        def opened(conn: Conn) -> None:
            echo.opened.set_result(conn)

        def ended(conn: Conn) -> None:
            echo.ended.set_result((conn.close_code, conn.close_reason))

        async def handler(conn: Conn) -> None:
            opened(conn)
            async with contextlib.AsyncExitStack() as stack:
                stack.callback(ended, conn)
                async for message in conn:
                    await conn.send(message)

        path = "/"
        if request.param == "handler":
            serving = plumews.serve(handler, "127.0.0.1", 0, **options)
        elif request.param == "callbacks":
            serving = plumews.serve(
                None, "127.0.0.1", 0, on_open=opened, on_message=Conn.send_nowait, on_close=ended, **options
            )
        else:
            path = "/ws?room=blue"
            serving = plumews.serve_rooms(
                Hub(), SimpleRoomAuth(), "127.0.0.1", 0, on_open=opened, on_close=ended, **options
            )
        echo = EchoServer(await start(serving), path)
        return echo

    return serve


@pytest.fixture(params=CLIENTS)
def peer(request: pytest.FixtureRequest) -> str:
    """The name of the implementation at the other end."""
    name: str = request.param
    if name == "ws" and find_node() is None:
        if os.environ.get("PLUMEWS_REQUIRE_NODE") == "1":
            pytest.fail(NODE_MISSING)
        pytest.skip(NODE_MISSING)
    return name


@pytest.fixture
async def connect(peer: str, start: object) -> AsyncIterator[Connect]:
    """Connects the peer; its connections end before the servers, which is why ``start`` is asked for."""
    async with contextlib.AsyncExitStack() as stack:

        async def connect_one(echo: EchoServer, subprotocols: Sequence[str] = (), *, pinging: bool = False) -> Client:
            client: Client = CLIENTS[peer]()
            await client.open(stack, echo.url, subprotocols, pinging=pinging)
            return client

        yield connect_one


# --- messages -------------------------------------------------------------------------------------


async def test_text_of_every_length_comes_back(serve_echo: ServeEcho, connect: Connect) -> None:
    client = await connect(await serve_echo())
    for size in SIZES:
        message = ("plumews ☂ " * (size // 12 + 1)).encode()[:size].decode(errors="ignore").ljust(size, ".")
        await client.send(message)
        assert await client.recv() == message


async def test_binary_of_every_length_comes_back(serve_echo: ServeEcho, connect: Connect) -> None:
    client = await connect(await serve_echo())
    for size in SIZES:
        message = os.urandom(size)
        await client.send(message)
        assert await client.recv() == message


async def test_text_in_every_script_comes_back(serve_echo: ServeEcho, connect: Connect) -> None:
    client = await connect(await serve_echo())
    for text in SCRIPTS.values():
        await client.send(text)
        assert await client.recv() == text


async def test_many_messages_at_once_come_back_in_order(serve_echo: ServeEcho, connect: Connect) -> None:
    client = await connect(await serve_echo())
    messages = [f"{number}" if number % 2 else b"%d" % number for number in range(1000)]
    for message in messages:
        await client.send(message)
    assert [await client.recv() for _ in messages] == messages


# --- compressed messages --------------------------------------------------------------------------

#: Everything that may be agreed on: nothing remembered, everything, in the smallest window and in the largest.
DEFLATES = {
    "default": Deflate(),
    "takeover": Deflate(server_takeover=True, client_takeover=True),
    "small-takeover": Deflate(server_window_bits=9, client_window_bits=9, server_takeover=True, client_takeover=True),
    "large": Deflate(server_window_bits=15, client_window_bits=15, mem_level=9, min_size=0),
}


@pytest.mark.parametrize("serve_echo", ["handler"], indirect=True)
@pytest.mark.parametrize("deflate", DEFLATES.values(), ids=DEFLATES.keys())
async def test_compressed_messages_come_back(serve_echo: ServeEcho, connect: Connect, deflate: Deflate) -> None:
    echo = await serve_echo(compression=deflate)
    client = await connect(echo)
    for size in (0, 1, 127, 128, 1000, 70_000):
        for message in ("\u20ac" * size, "abc " * size, os.urandom(size), bytes(size)):
            await client.send(message)
            assert await client.recv() == message
    told = echo.opened.result().compression
    assert told is not None
    assert (told.server_takeover, told.server_window_bits) == (deflate.server_takeover, deflate.server_window_bits)
    assert told.received_messages > 5
    assert told.sent_messages > 10
    assert told.sent_wire_bytes < told.sent_payload_bytes / 5
    assert (told.context_bytes == 0) is not told.server_takeover


OFFERS = [
    {},
    {"server_no_context_takeover": True},
    {"client_no_context_takeover": True},
    {"server_max_window_bits": 9},
    {"client_max_window_bits": True},
    {"client_max_window_bits": 9, "server_no_context_takeover": True, "client_no_context_takeover": True},
]


@pytest.mark.parametrize("serve_echo", ["handler"], indirect=True)
@pytest.mark.parametrize("offer", OFFERS, ids=[",".join(offer) or "nothing" for offer in OFFERS])
@pytest.mark.parametrize("deflate", DEFLATES.values(), ids=DEFLATES.keys())
async def test_websockets_accepts_the_answer_to_each_offer(
    serve_echo: ServeEcho, offer: dict[str, Any], deflate: Deflate
) -> None:
    echo = await serve_echo(compression=deflate)
    factory = ClientPerMessageDeflateFactory(**offer)
    async with websockets_connect(echo.url, proxy=None, compression=None, extensions=[factory]) as client:
        assert [extension.name for extension in client.protocol.extensions] == ["permessage-deflate"]
        messages = ["", "abc " * 5000, "abc " * 5000, os.urandom(5000), SCRIPTS["emoji"] * 40]
        for message in messages:
            await client.send(message)
        await client.send(["abc " * 400, "in ", "fragments " * 400])
        assert [await client.recv() for _ in messages] == messages
        assert await client.recv() == "abc " * 400 + "in " + "fragments " * 400


@pytest.mark.parametrize("peer", FRAGMENTING, indirect=True)
async def test_fragmented_client_message_arrives_as_one(serve_echo: ServeEcho, connect: Connect) -> None:
    client = await connect(await serve_echo())
    for fragments in (["Plum", "", "ews"], ["", "", ""], ["🍑"] * 500):
        await client.send_fragments(fragments)
        assert await client.recv() == "".join(fragments)
    await client.send_fragments([b"\x00" * 70000, b"", b"\xff" * 125])
    assert await client.recv() == b"\x00" * 70000 + b"\xff" * 125


@pytest.mark.parametrize(("size", "fragments"), [(65536, [65536]), (65537, [65536, 1]), (MIB, [65536] * 16)], ids=str)
async def test_a_long_message_of_ours_arrives_in_fragments_of_64_kib(
    serve_echo: ServeEcho, size: int, fragments: list[int]
) -> None:
    echo = await serve_echo()
    async with websockets_connect(echo.url, proxy=None) as client:
        await client.send(bytes(size))
        assert [len(fragment) async for fragment in client.recv_streaming()] == fragments


# --- pings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", [b"", b"plumews", bytes(range(125))], ids=["empty", "short", "longest"])
async def test_a_ping_of_the_client_is_answered_with_its_payload(
    serve_echo: ServeEcho, connect: Connect, payload: bytes
) -> None:
    client = await connect(await serve_echo(), pinging=True)
    await client.ping(payload)


async def test_a_ping_of_the_server_is_answered(serve_echo: ServeEcho, connect: Connect) -> None:
    echo = await serve_echo()
    client = await connect(echo)
    conn = await echo.opened
    receiving = asyncio.ensure_future(client.recv())
    latency = await (await conn.ping(b"are you there?"))
    assert 0 < latency == conn.latency < 60
    await conn.send("then go on")
    assert await receiving == "then go on"


# --- closing --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "reason"),
    [(1000, ""), (1000, "дякую"), (3000, "registered"), (4999, "x" * 123)],
    ids=["normal", "with a reason", "registered", "the longest reason"],
)
async def test_the_server_sees_the_code_and_reason_of_the_client(
    serve_echo: ServeEcho, connect: Connect, code: int, reason: str
) -> None:
    echo = await serve_echo()
    client = await connect(echo)
    await client.close(code, reason)
    assert await echo.ended == (code, reason)


@pytest.mark.parametrize(
    ("code", "reason"),
    [(1000, ""), (1001, "再見"), (1013, "later"), (4000, "x" * 123)],
    ids=["normal", "with a reason", "try again later", "the longest reason"],
)
async def test_the_client_sees_the_code_and_reason_of_the_server(
    serve_echo: ServeEcho, connect: Connect, code: int, reason: str
) -> None:
    echo = await serve_echo()
    client = await connect(echo)
    conn = await echo.opened
    closing = asyncio.ensure_future(conn.close(code, reason))
    assert await client.closed() == (code, reason)
    await closing
    assert (await echo.ended)[0] in (code, 1000)  # the answer: most repeat the code (section 5.5.1), aiohttp says 1000


async def test_what_was_sent_before_the_close_arrives_before_it(serve_echo: ServeEcho, connect: Connect) -> None:
    echo = await serve_echo()
    client = await connect(echo)
    conn = await echo.opened
    for number in range(10):
        await conn.send(f"{number}")
    closing = asyncio.ensure_future(conn.close(4001, "that was all"))
    assert [await client.recv() for _ in range(10)] == [f"{number}" for number in range(10)]
    assert await client.closed() == (4001, "that was all")
    await closing


async def test_a_server_that_stops_is_going_away(serve_echo: ServeEcho, connect: Connect) -> None:
    echo = await serve_echo()
    client = await connect(echo)
    await echo.opened
    echo.server.close()
    assert await client.closed() == (1001, "")
    await echo.server.wait_closed()


# --- opening --------------------------------------------------------------------------------------


async def test_servers_first_offered_subprotocol_is_chosen(serve_echo: ServeEcho, connect: Connect) -> None:
    echo = await serve_echo(subprotocols=["chat.v3", "chat.v2", "chat.v1"])
    client = await connect(echo, ["chat.v1", "chat.v2"])
    assert (await echo.opened).subprotocol == client.subprotocol == "chat.v2"


async def test_a_client_that_offers_no_subprotocol_gets_none(serve_echo: ServeEcho, connect: Connect) -> None:
    echo = await serve_echo(subprotocols=["chat.v1"])
    client = await connect(echo)
    assert (await echo.opened).subprotocol is client.subprotocol is None


# --- limits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1001, 4 * MIB], ids=["by one byte", "by far"])
async def test_a_message_above_the_limit_is_refused_with_1009(
    serve_echo: ServeEcho, connect: Connect, size: int
) -> None:
    echo = await serve_echo(max_size=1000)
    client = await connect(echo)
    await client.send(bytes(1000))
    assert await client.recv() == bytes(1000)
    sending = asyncio.ensure_future(client.send(bytes(size)))
    code, reason = await client.closed()
    assert code == 1009
    assert "payload too large" in reason
    await asyncio.gather(sending, return_exceptions=True)  # it may have been cut short
    await echo.ended


# --- many -----------------------------------------------------------------------------------------


async def test_500_clients_receive_200_broadcasts_in_order(
    start: Callable[[Any], Any],
) -> None:
    clients, broadcasts = 500, 200
    allow_open_files(2 * clients + 200)
    hub = Hub()
    server = await start(plumews.serve_rooms(hub, SimpleRoomAuth(), "127.0.0.1", 0, open_timeout=120))
    messages = [f"{number}: what everybody in the room should hear" for number in range(broadcasts)]

    async def listen() -> list[str | bytes]:
        url = f"ws://127.0.0.1:{server.port}/ws?room=hall"
        # All of it runs on one loop, and nobody is to be given up because it takes the others a while to come in.
        async with websockets_connect(
            url, proxy=None, compression=None, open_timeout=120, ping_interval=None
        ) as client:
            if hub.room_count("hall") == clients:
                everybody_is_here.set()
            return [await client.recv() for _ in messages]

    everybody_is_here = asyncio.Event()
    listeners = [asyncio.ensure_future(listen()) for _ in range(clients)]
    await everybody_is_here.wait()
    results = [await hub.publish("hall", message) for message in messages]
    assert {(result.matched, result.queued) for result in results} == {(clients, clients)}
    assert all(heard == messages for heard in await asyncio.gather(*listeners))


def allow_open_files(wanted: int) -> None:
    """Raise the soft limit of this process, where there is one."""
    with contextlib.suppress(ImportError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
