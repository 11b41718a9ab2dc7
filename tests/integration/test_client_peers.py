"""Our client against live servers of other WebSocket implementations (`peers.servers`).

Where Node's `ws` is not installed its tests are skipped; ``PLUMEWS_REQUIRE_NODE=1`` makes that an error. For the
library libwebsockets it is ``PLUMEWS_REQUIRE_LIBWEBSOCKETS=1``.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator

import pytest

import plumews
from peers.clients import MIB, NODE_MISSING, find_node
from peers.servers import FRAGMENTING, FRAGMENTS, LIBWEBSOCKETS_MISSING, PINGING, SERVERS, build_libwebsockets
from plumews import Deflate

pytestmark = pytest.mark.peer

#: Around the bounds of the three length fields (RFC 6455 section 5.2), of our fragments, and well above them.
SIZES = [0, 1, 125, 126, 127, 65535, 65536, 65537, MIB]


def miss(required: str, what: str) -> None:
    """Skip this test, or fail it if the environment variable ``required`` is 1."""
    if os.environ.get(required) == "1":
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(params=SERVERS)
async def uri(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """The address of an echo server of another implementation."""
    if request.param == "ws" and find_node() is None:
        miss("PLUMEWS_REQUIRE_NODE", NODE_MISSING)
    if request.param == "libwebsockets" and build_libwebsockets() is None:
        miss("PLUMEWS_REQUIRE_LIBWEBSOCKETS", LIBWEBSOCKETS_MISSING)
    async with SERVERS[request.param]() as port:
        yield f"ws://127.0.0.1:{port}/"


#: Each parameter of RFC 7692 section 7.1, in each combination, and the ends of the windows.
DEFLATES = [
    Deflate(
        server_window_bits=server, client_window_bits=client, server_takeover=kept, client_takeover=keeps, min_size=0
    )
    for server, client, kept, keeps in itertools.product((9, 15), (9, 15), (False, True), (False, True))
]


def is_fit_for(server: str, deflate: Deflate) -> bool:
    """Return True if the server answers this offer as it has to, and compresses as it has answered.

    Tornado ignores parameters without a value. libwebsockets 4.1.6 ignores the window of the server, and resets
    contexts that it has agreed to keep.
    """
    if server == "tornado":
        return deflate.server_takeover
    if server == "libwebsockets":
        return deflate.server_window_bits == 15 and not deflate.server_takeover and not deflate.client_takeover
    return True


@pytest.fixture
def server(request: pytest.FixtureRequest) -> str:
    """The name of the implementation."""
    name: str = request.node.callspec.params["uri"]
    return name


async def pieces(*parts: str | bytes) -> AsyncIterator[str | bytes]:
    for part in parts:
        yield part


async def test_text_and_binary_of_every_length_come_back(uri: str) -> None:
    async with plumews.connect(uri, max_size=2 * MIB) as conn:
        for size in SIZES:
            for message in ("\u20ac" * (size // 3) + "." * (size % 3), os.urandom(size)):
                await conn.send(message)
                assert await conn.recv() == message


async def test_many_messages_at_once_come_back_in_order(uri: str) -> None:
    messages = [f"{number}" if number % 2 else b"%d" % number for number in range(500)]
    async with plumews.connect(uri) as conn:
        await conn.write_many(messages)
        assert [await conn.recv() for _ in messages] == messages


async def test_a_callback_gets_every_message_in_order(uri: str) -> None:
    got: list[str | bytes] = []

    def on_message(conn: plumews.Conn, message: str | bytes) -> None:
        got.append(message)
        if len(got) == 100:
            conn.close_nowait()

    conn = await plumews.connect(uri, on_message=on_message)
    for number in range(100):
        conn.send_nowait(f"{number}")
    await conn.wait_closed()
    assert got == [f"{number}" for number in range(100)]
    assert conn.close_code == 1000


async def test_a_message_sent_in_fragments_comes_back_whole(uri: str, server: str) -> None:
    deflate = next(each for each in DEFLATES if is_fit_for(server, each))
    async with plumews.connect(uri, compression=deflate) as conn:
        await conn.send(pieces("Plum", "", "ews"))
        assert await conn.recv() == "Plumews"
        await conn.send(pieces(b"\x00" * 70_000, b"", b"\xff" * 125))
        assert await conn.recv() == b"\x00" * 70_000 + b"\xff" * 125


@pytest.mark.parametrize("uri", FRAGMENTING, indirect=True)
async def test_a_fragmented_message_of_the_server_arrives_as_one(uri: str, server: str) -> None:
    for compression in [None, Deflate()] if is_fit_for(server, Deflate()) else [None]:
        async with plumews.connect(uri, compression=compression) as conn:
            await conn.send("!fragments")
            assert await conn.recv() == "".join(FRAGMENTS)


# --- compressed messages --------------------------------------------------------------------------


async def test_messages_come_back_with_each_parameter_of_deflate(uri: str, server: str) -> None:
    messages = ["", "abc " * 5000, "abc " * 5000, os.urandom(5000), "\u20ac" * 40_000, bytes(70_000)]
    for deflate in [each for each in [Deflate(), *DEFLATES] if is_fit_for(server, each)]:
        async with plumews.connect(uri, compression=deflate) as conn:
            for message in messages:
                await conn.send(message)
                assert await conn.recv() == message
            info = conn.compression
            assert info is not None
            assert info.server_window_bits <= deflate.server_window_bits
            assert info.client_window_bits <= deflate.client_window_bits
            assert info.server_takeover <= deflate.server_takeover
            assert info.sent_messages >= 3
            assert info.received_messages >= 3


async def test_the_usual_offer_is_agreed_on(uri: str, server: str) -> None:
    if not is_fit_for(server, Deflate(server_takeover=True)):
        pytest.skip("the server ignores the window that we ask for")
    async with plumews.connect(uri, compression="deflate") as conn:
        for message in ("abc " * 5000, "abc " * 5000, b"abc " * 5000):
            await conn.send(message)
            assert await conn.recv() == message
        assert conn.compression is not None


async def test_without_an_offer_nothing_is_compressed(uri: str) -> None:
    async with plumews.connect(uri) as conn:
        await conn.send("abc " * 1000)
        assert await conn.recv() == "abc " * 1000
        assert conn.compression is None


# --- pings ----------------------------------------------------------------------------------------


async def test_a_ping_of_ours_is_answered_with_its_payload(uri: str) -> None:
    async with plumews.connect(uri) as conn:
        for payload in (b"", b"plumews", bytes(range(125))):
            latency = await (await conn.ping(payload))
            assert 0 < latency < 60


@pytest.mark.parametrize("uri", PINGING, indirect=True)
async def test_a_ping_of_the_server_is_answered(uri: str) -> None:
    async with plumews.connect(uri) as conn:
        await conn.send("!ping")
        assert await conn.recv() == "pong are you there?"


# --- closing --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "再見"), (3000, "registered"), (4999, "x" * 123)])
async def test_we_see_the_code_and_reason_of_the_server(uri: str, code: int, reason: str) -> None:
    async with plumews.connect(uri) as conn:
        await conn.send("last words")
        await conn.send(f"!close {code} {reason}")
        assert await conn.recv() == "last words"
        with pytest.raises(plumews.ConnectionClosed):
            await conn.recv()
        await conn.wait_closed()
        assert (conn.close_code, conn.close_reason) == (code, reason)


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1000, "дякую"), (3000, "registered"), (4999, "x" * 123)])
async def test_the_server_answers_our_close(uri: str, code: int, reason: str) -> None:
    conn = await plumews.connect(uri)
    await conn.close(code, reason)
    assert conn.close_code in (code, 1000)  # most repeat the code (section 5.5.1)


# --- opening --------------------------------------------------------------------------------------


async def test_the_server_selects_a_subprotocol_that_we_offer(uri: str) -> None:
    async with plumews.connect(uri, subprotocols=["chat.v3", "chat.v2", "chat.v1"]) as conn:
        assert conn.subprotocol == "chat.v2"


async def test_a_client_that_offers_no_subprotocol_gets_none(uri: str) -> None:
    async with plumews.connect(uri) as conn:
        assert conn.subprotocol is None
