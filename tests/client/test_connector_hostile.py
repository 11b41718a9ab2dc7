"""Tests of `connect()` against servers that break the rules: a named error in time, and nothing left behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import plumews
from plumews import (
    ConnectError,
    ConnectionClosedError,
    ConnectTimeout,
    InvalidHeader,
    InvalidMessage,
    InvalidStatus,
    ProxyError,
    limits,
)
from plumews.deflate.config import offer
from plumews.errors import RedirectError
from plumews.protocol.codec import build_frame
from support.compressed_messages import squeezed
from support.fakes import PATIENCE
from support.hostile_server import Peer, hostile

Play = Callable[[Peer], Awaitable[Any]]


async def failed(uri: str, error: type[Exception], within: float = 2.0, **options: Any) -> Exception:
    """Return the error of an attempt, which takes less than ``within`` seconds, and leaves no task."""
    before = asyncio.all_tasks()
    began = time.monotonic()
    with pytest.raises(error) as caught:
        await plumews.connect(uri, **options)
    assert time.monotonic() - began < within
    await asyncio.sleep(0)
    ours = {task for task in asyncio.all_tasks() - before if "hostile" not in repr(task)}
    assert not ours
    return caught.value


# --- the opening handshake ------------------------------------------------------------------------


async def test_head_without_an_end_is_refused() -> None:
    async def play(peer: Peer) -> None:
        peer.send(b"HTTP/1.1 101 Switching Protocols\r\n")
        while True:
            peer.send(b"X-More: " + b"x" * 1000 + b"\r\n")
            await peer.writer.drain()

    async with hostile(play) as uri:
        assert "too large" in str(await failed(uri, InvalidMessage))


async def test_line_without_an_end_is_refused() -> None:
    async def play(peer: Peer) -> None:
        peer.send(b"HTTP/1.1 200 OK\r\nX: ")
        while True:
            peer.send(b"x" * 5000)
            await peer.writer.drain()

    async with hostile(play) as uri:
        assert "too large" in str(await failed(uri, InvalidMessage))


async def test_interim_responses_without_an_end_are_refused() -> None:
    async def play(peer: Peer) -> None:
        while True:
            peer.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
            await peer.writer.drain()

    async with hostile(play) as uri:
        assert "interim responses" in str(await failed(uri, InvalidMessage))


async def test_redirects_without_an_end_are_refused() -> None:
    requests = []

    async def play(peer: Peer) -> None:
        requests.append(peer.request)
        peer.send(b"HTTP/1.1 302 Found\r\nLocation: /%d\r\nContent-Length: 0\r\n\r\n" % len(requests))
        await peer.gone()

    async with hostile(play) as uri:
        assert "10 redirects" in str(await failed(uri, RedirectError))
    assert len(requests) == 11


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (["Sec-WebSocket-Accept: x"], "more than one Sec-WebSocket-Accept"),
        (["Sec-WebSocket-Extensions: permessage-deflate"], "none was offered"),
        (["Sec-WebSocket-Protocol: chat"], "not offered"),
    ],
)
async def test_wrong_answer_is_a_named_error(lines: list[str], why: str) -> None:
    async def play(peer: Peer) -> None:
        peer.accept(*lines)
        await peer.gone()

    async with hostile(play) as uri:
        error = await failed(uri, InvalidHeader)
    assert str(error).startswith("cannot connect: handshake (127.0.0.1:")
    assert why in str(error)


async def test_wrong_accept_key_is_refused() -> None:
    async def play(peer: Peer) -> None:
        peer.send(b"HTTP/1.1 101 OK\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: no\r\n\r\n")
        await peer.gone()

    async with hostile(play) as uri:
        assert "wrong Sec-WebSocket-Accept" in str(await failed(uri, InvalidHeader))


@pytest.mark.parametrize("begin", [b"", b"HTTP/1.1 101 Switching", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: w"])
async def test_server_that_closes_early_is_a_network_error(begin: bytes) -> None:
    async def play(peer: Peer) -> None:
        peer.send(begin)
        await peer.writer.drain()
        peer.writer.close()

    async with hostile(play) as uri:
        error = await failed(uri, ConnectError)
    assert isinstance(error, ConnectError)
    assert error.step == "handshake"
    assert "the server closed the connection" in str(error)


async def test_server_that_resets_is_a_network_error() -> None:
    async def play(peer: Peer) -> None:
        peer.writer.transport.abort()

    async with hostile(play) as uri:
        error = await failed(uri, ConnectError)
    assert isinstance(error, ConnectError)
    assert error.step == "handshake"


@pytest.mark.parametrize("read_request", [True, False])
async def test_silent_server_costs_the_open_timeout(read_request: bool) -> None:
    async def play(peer: Peer) -> None:
        await peer.gone()

    async with hostile(play, read_request=read_request) as uri:
        error = await failed(uri, ConnectTimeout, open_timeout=0.3)  # enough to get to the handshake
    assert isinstance(error, ConnectTimeout)
    assert (error.step, isinstance(error, TimeoutError)) == ("handshake", True)
    assert error.address in uri


async def test_trickling_server_costs_the_open_timeout() -> None:
    async def play(peer: Peer) -> None:
        for byte in b"HTTP/1.1 101 Switching Protocols\r\nX-Slow: " + b"y" * 10_000:
            peer.send(bytes((byte,)))
            await peer.writer.drain()
            await asyncio.sleep(0.01)  # the trickle

    async with hostile(play) as uri:
        await failed(uri, ConnectTimeout, open_timeout=0.1)


async def test_refusal_on_an_open_socket_is_raised_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RESPONSE_BODY_TIME", 0.05)

    async def play(peer: Peer) -> None:
        peer.send(b"HTTP/1.1 403 Forbidden\r\nX-Why: no\r\n\r\nnot you")  # no length, and it stays open
        await peer.gone()

    async with hostile(play) as uri:
        error = await failed(uri, InvalidStatus)
    assert isinstance(error, InvalidStatus)
    assert (error.response.status, error.response.headers["X-Why"], error.response.body) == (403, "no", b"not you")


async def test_refusal_with_an_endless_body_is_bounded() -> None:
    async def play(peer: Peer) -> None:
        peer.send(b"HTTP/1.1 500 Oh\r\n\r\n")
        while True:
            peer.send(b"x" * 50_000)
            await peer.writer.drain()

    async with hostile(play) as uri:
        error = await failed(uri, InvalidStatus)
    assert isinstance(error, InvalidStatus)
    assert len(error.response.body) == limits.RESPONSE_BODY


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH_9.2\r\n", b"\x15\x03\x01\x00\x02\x02\x50", b"\x00\x00\x12\x04\0"])
async def test_server_of_another_protocol_is_named(answer: bytes) -> None:
    async def play(peer: Peer) -> None:
        peer.send(answer)
        await peer.gone()

    async with hostile(play) as uri:
        assert "not an HTTP" in str(await failed(uri, InvalidMessage))


# --- proxies --------------------------------------------------------------------------------------


async def test_proxy_that_wants_a_password_is_named() -> None:
    async def play(peer: Peer) -> None:
        peer.send(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 2\r\n\r\nno")
        await peer.gone()

    async with hostile(play) as uri:
        error = await failed("ws://example.com/", ProxyError, proxy=uri.replace("ws:", "http:"))
    assert isinstance(error, ProxyError)
    assert (error.step, error.status) == ("proxy", 407)


async def test_proxy_that_never_answers_costs_the_open_timeout() -> None:
    async def play(peer: Peer) -> None:
        await peer.gone()

    async with hostile(play) as uri:
        options = {"proxy": uri.replace("ws:", "http:"), "open_timeout": 0.1}
        error = await failed("ws://example.com/", ConnectTimeout, **options)
    assert isinstance(error, ConnectTimeout)
    assert error.step == "proxy"


# --- the open connection --------------------------------------------------------------------------


async def ended(play: Play, code: int, why: str, **options: Any) -> None:
    """Check that a connection ends with an error."""
    async with hostile(play) as uri:
        conn = await plumews.connect(uri, **options)
        with pytest.raises(ConnectionClosedError, match=why) as caught:
            await asyncio.wait_for(conn.recv(), PATIENCE)
        assert caught.value.sent is not None
        assert caught.value.sent.code == code
        await asyncio.wait_for(conn.wait_closed(), PATIENCE)


async def test_masked_frame_is_a_violation() -> None:
    async def play(peer: Peer) -> None:
        peer.accept(behind=build_frame(1, b"hi", mask_key=b"abcd"))
        await peer.gone()

    await ended(play, 1002, "masked server frame")


async def test_compressed_bomb_is_a_violation() -> None:
    async def play(peer: Peer) -> None:
        peer.accept(f"Sec-WebSocket-Extensions: {offer(plumews.Deflate())}")
        peer.send(build_frame(2, squeezed(b"x" * 3_000_000), rsv1=True))
        await peer.gone()

    await ended(play, 1009, "limit", compression="deflate", max_size=1_000_000)


async def test_message_without_an_end_is_a_violation() -> None:
    async def play(peer: Peer) -> None:
        peer.accept(behind=build_frame(2, b"x", fin=False))
        while True:
            peer.send(build_frame(0, b"x" * 50_000, fin=False))
            await peer.writer.drain()

    await ended(play, 1009, "payload too large", max_size=1_000_000)


async def test_server_that_does_not_answer_pings_is_given_up() -> None:
    async def play(peer: Peer) -> None:
        peer.accept()
        await peer.gone()

    async with hostile(play) as uri:
        conn = await plumews.connect(uri, ping_interval=0.02, ping_timeout=0.05)
        with pytest.raises(ConnectionClosedError, match="keepalive ping timeout"):
            await asyncio.wait_for(conn.recv(), PATIENCE)


@pytest.mark.parametrize("answers", [False, True])
async def test_close_that_never_ends_costs_the_close_timeout(answers: bool) -> None:
    async def play(peer: Peer) -> None:
        peer.accept()
        await peer.reader.readexactly(8)
        if answers:
            peer.send(b"\x88\x02\x03\xe8")
        while True:
            peer.send(b"\x81\x01x" * 1000)
            await peer.writer.drain()

    async with hostile(play) as uri:
        conn = await plumews.connect(uri, close_timeout=0.1)
        began = time.monotonic()
        await conn.close()
        assert 0.05 < time.monotonic() - began < 2
        assert conn.close_code == (1000 if answers else 1006)
