"""The wire of a connection: one write a read, the closing handshake from both sides, every way to the end, no leaks.

The names of Autobahn's cases stand where a test is about what one of them asks.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import socket
import ssl
import sys
import time
import tracemalloc
import weakref
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import plumews
from plumews import ConnectionClosed, ConnectionClosedError, ConnectionClosedOK, Opcode, State, limits
from plumews.conn.handlers import cancel
from plumews.deflate.config import Agreement
from plumews.protocol.codec import build_frame
from plumews.transport import sendmsg as wire_module
from support.compressed_messages import frame as squeezed_frame
from support.fakes import (
    CALLS,
    GONE,
    PATIENCE,
    FakeTransport,
    clog,
    collect,
    deadlines,
    failing,
    failures,
    fake_conn,
    feed,
    linked,
    pass_time,
    started,
    ticks,
    tls_contexts,
    until,
)
from support.raw_client import Wire, close, masked, text, upgrade

KiB = 1024


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one read brings is handled in one turn here, however busy the machine is."""
    monkeypatch.setattr(limits, "FAN_OUT_SLICE", 60.0)


def kinds(transport: FakeTransport) -> list[int]:
    return [kind for kind, _ in transport.events()]


def echo_by_callback(conn: plumews.Conn) -> None:
    conn._deliver_to(lambda conn, message: conn.send_nowait(message), lambda conn, exc: None)


async def echo_by_iteration(conn: plumews.Conn) -> None:
    async for message in conn:
        await conn.send(message)


# --- one write a read -----------------------------------------------------------------------------


async def test_64_pipelined_echoes_by_callback_leave_in_one_write() -> None:
    conn, transport = fake_conn()
    echo_by_callback(conn)
    for _ in range(3):
        transport.writes.clear()
        feed(conn, *[text(str(index)) for index in range(64)])
        assert len(transport.writes) == 1
        assert transport.events() == [(Opcode.TEXT, str(index)) for index in range(64)]
    await ticks()
    assert len(transport.writes) == 1
    conn.abort()


async def test_64_pipelined_echoes_by_iteration_leave_in_one_write() -> None:
    conn, transport = fake_conn()
    task = started(echo_by_iteration(conn))
    await ticks()
    for _ in range(3):
        transport.writes.clear()
        feed(conn, *[text(str(index)) for index in range(64)])
        await ticks()
        assert len(transport.writes) == 1
        assert transport.events() == [(Opcode.TEXT, str(index)) for index in range(64)]
    task.cancel()
    conn.abort()


async def test_an_echo_of_one_message_leaves_in_the_tick_of_its_answer() -> None:
    conn, transport = fake_conn()
    task = started(echo_by_iteration(conn))
    await ticks()
    for count in range(1, 4):
        feed(conn, text("one"))
        await ticks(1)
        assert len(transport.writes) == count
    task.cancel()
    conn.abort()


async def test_pongs_and_echoes_of_one_read_leave_together() -> None:
    conn, transport = fake_conn()
    echo_by_callback(conn)
    feed(conn, text("a"), masked(Opcode.PING, b"1"), text("b"), masked(Opcode.PING, b"2"))
    assert len(transport.writes) == 1
    assert transport.events() == [(Opcode.PONG, b"1"), (Opcode.PONG, b"2"), (Opcode.TEXT, "a"), (Opcode.TEXT, "b")]
    conn.abort()


async def test_what_a_callback_sends_to_others_leaves_in_one_write_each() -> None:
    first, _ = fake_conn()
    others = [fake_conn() for _ in range(3)]

    def relay(conn: plumews.Conn, message: str | bytes) -> None:
        for other, _ in others:
            other.send_nowait(message)

    first._deliver_to(relay, lambda conn, exc: None)
    feed(first, *[text(str(index)) for index in range(10)])
    await ticks()
    for other, transport in others:
        assert len(transport.writes) == 1
        assert [payload for _, payload in transport.events()] == [str(index) for index in range(10)]
        other.abort()
    first.abort()


# --- ping -----------------------------------------------------------------------------------------


async def test_section_8_point_6_a_ping_is_answered_while_the_handler_is_busy(start: Any) -> None:
    async with linked(start) as (conn, wire):  # its handler never reads
        wire.send(text("unread"), masked(Opcode.PING, b"1"))
        assert await wire.event() == (Opcode.PONG, b"1")
        wire.send(masked(Opcode.PING, bytes(125)))
        assert await wire.event() == (Opcode.PONG, bytes(125))
        assert await conn.recv() == "unread"


async def test_row_10_a_reading_peer_gets_every_pong(start: Any) -> None:
    async with linked(start) as (_, wire):
        pings = [index.to_bytes(4, "big") for index in range(5000)]
        wire.send(*[masked(Opcode.PING, payload) for payload in pings])
        assert [await wire.event() for _ in pings] == [(Opcode.PONG, payload) for payload in pings]


async def test_row_10_a_flood_of_pings_by_a_peer_that_does_not_read_costs_no_memory(start: Any) -> None:
    async with linked(start, rcvbuf=4096) as (conn, wire):
        clog(conn)
        assert conn._transport is not None
        held = conn._transport.get_write_buffer_size()
        seen = conn._keepalive.last_received
        for _ in range(20):
            wire.send(masked(Opcode.PING, bytes(125)) * 1000)
            await wire.writer.drain()
        wire.send(masked(Opcode.PING, b"the last"), text("read to here"))
        assert await conn.recv() == "read to here"
        assert conn._keepalive.last_received > seen
        assert conn._transport.get_write_buffer_size() <= held + 1000
        assert not conn._writer._control
        assert len(conn._writer._pongs or ()) <= 1
        while True:
            kind, payload = await wire.event()
            if kind == Opcode.PONG:
                assert payload == b"the last"
                break


# --- the peer closes ------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1010, 1011, 1013, 3000, 4999, None])
async def test_section_8_point_8_the_close_of_the_peer_is_answered_with_its_code_1010_too(
    start: Any, code: int | None
) -> None:
    async with linked(start) as (conn, wire):
        wire.send(close(code))
        assert await wire.closing() == (code or 1005, "")
        await wire.eof()
        await conn.wait_closed()
        assert conn.close_code == (code or 1005)


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1012 - 1000, 1015, 1016, 2999, 5000, 65535])
async def test_a_close_with_a_code_that_may_not_be_sent_is_answered_with_1002(start: Any, code: int) -> None:
    async with linked(start) as (conn, wire):
        wire.send(masked(Opcode.CLOSE, code.to_bytes(2, "big")))
        assert (await wire.closing())[0] == 1002
        wire.writer.close()
        await conn.wait_closed()
        assert conn.close_code == 1006


async def test_what_comes_behind_the_close_of_the_peer_is_ignored(start: Any) -> None:
    async with linked(start) as (conn, wire):
        wire.send(close(1000), text("too late"), masked(Opcode.PING, b"too late"), close(4000))
        assert await wire.event() == (Opcode.CLOSE, (1000, ""))
        with pytest.raises(ConnectionClosedOK):
            await conn.recv()
        with pytest.raises(EOFError):
            await wire.event()


ENDS: dict[str, tuple[bytes, int]] = {
    "close": (close(1000), 1000),
    "a reserved bit (Autobahn 3.2)": (b"\xf1\x80" + bytes(4), 1002),
    "a stray continuation (Autobahn 5.15)": (masked(Opcode.CONT, b"stray"), 1002),
    "no mask": (b"\x81\x01x", 1002),
    "not UTF-8": (masked(Opcode.TEXT, b"\xff"), 1007),
    "too large": (masked(Opcode.BINARY, bytes(1001)), 1009),
}


@pytest.mark.parametrize(("end", "code"), ENDS.values(), ids=ENDS)
@pytest.mark.parametrize("reading", ["iteration", "callback", "stream"])
async def test_messages_before_the_last_word_are_answered_before_it_is(
    start: Any, end: bytes, code: int, reading: str
) -> None:
    async def by_stream(conn: plumews.Conn) -> None:
        while True:
            async with await conn.read_stream() as stream:
                await conn.write_message(stream.opcode, await stream.read_all())

    options: dict[str, Any] = {
        "iteration": {"handler": echo_by_iteration},
        "callback": {"on_message": lambda conn, message: conn.send_nowait(message)},
        "stream": {"handler": by_stream},
    }[reading]
    server = await start(plumews.serve(host="127.0.0.1", port=0, max_size=1000, **options))
    async with await Wire.open(server) as wire:
        await ticks(5)  # the handler is waiting
        wire.send(text("one"), text("two"), text("three"), end, text("never"))
        events = [await wire.event() for _ in range(4)]
        assert events[:3] == [(Opcode.TEXT, "one"), (Opcode.TEXT, "two"), (Opcode.TEXT, "three")]
        assert events[3][0] == Opcode.CLOSE
        assert events[3][1][0] == code
        with pytest.raises(EOFError):
            await wire.event()


async def test_the_answers_are_waited_for_while_the_handler_works_on_them(start: Any) -> None:
    async with linked(start) as (conn, wire):
        wire.send(text("one"), text("two"), close(1000))
        await until(lambda: conn._ended)
        for _ in range(2):
            message = await conn.recv()
            await ticks(10)  # at work
            await conn.send(f"answer to {message}")
        with pytest.raises(ConnectionClosedOK):
            await conn.recv()
        assert [await wire.event() for _ in range(3)] == [
            (Opcode.TEXT, "answer to one"),
            (Opcode.TEXT, "answer to two"),
            (Opcode.CLOSE, (1000, "")),
        ]


@pytest.mark.parametrize(("end", "code"), [ENDS["close"], ENDS["no mask"]], ids=["close", "fault"])
async def test_a_stuck_handler_holds_the_last_word_up_for_a_second_at_most(
    start: Any, monkeypatch: pytest.MonkeyPatch, end: bytes, code: int
) -> None:
    assert limits.END_GRACE == 1.0
    monkeypatch.setattr(limits, "END_GRACE", 0.05)
    async with linked(start) as (conn, wire):
        loop = asyncio.get_running_loop()
        began = loop.time()
        wire.send(text("unread"), end)
        assert (await wire.closing())[0] == code
        assert 0.04 < loop.time() - began < PATIENCE
        with pytest.raises(ConnectionClosed):
            await conn.send("too late")
        assert await conn.recv() == "unread"


async def test_a_handler_that_returns_with_messages_unread_answers_at_once(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "END_GRACE", 1000.0)

    async def handler(conn: plumews.Conn) -> None:
        await conn.recv()

    server = await start(plumews.serve(handler, "127.0.0.1", 0))
    async with await Wire.open(server) as wire:
        wire.send(text("read"), text("unread"), close(4000))
        assert await asyncio.wait_for(wire.closing(), PATIENCE) == (4000, "")


async def test_a_peer_that_closes_and_half_closes_still_gets_its_answers(start: Any) -> None:
    async with linked(start) as (conn, wire):
        wire.send(text("question"), close(1000))
        wire.writer.write_eof()
        await until(lambda: conn._ended)
        await ticks(20)  # the FIN, too
        message = await conn.recv()
        await conn.send(f"answer to {message!s}")
        with pytest.raises(ConnectionClosedOK):
            await conn.recv()
        assert await wire.event() == (Opcode.TEXT, "answer to question")
        assert await wire.closing() == (1000, "")
        await wire.eof()
        await conn.wait_closed()


# --- row 22: nothing of a bad frame is seen ---------------------------------------------------------

BAD_FRAMES = {
    "RSV1": b"\xc1" + text("x")[1:],
    "RSV2": b"\xa1" + text("x")[1:],
    "RSV3": b"\x91" + text("x")[1:],
    **{f"opcode {opcode}": masked(opcode, b"x") for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "unmasked": b"\x81\x01x",
    "a long ping": masked(Opcode.PING, bytes(126)),
    "a fragmented ping": masked(Opcode.PING, b"x", fin=False),
    "a length not minimal": b"\x81\xfe\x00\x01" + bytes(5),
    "a 64-bit length not minimal": b"\x81\xff" + (65535).to_bytes(8, "big") + bytes(65540),
    "a length with its top bit": b"\x82\xff" + (2**63).to_bytes(8, "big") + bytes(8),
    "a stray continuation": masked(Opcode.CONT, b"x"),
    "a message in a message": masked(Opcode.TEXT, "x", fin=False) + text("y"),
    "not UTF-8": masked(Opcode.TEXT, b"ok \xff"),
    "a surrogate": masked(Opcode.TEXT, b"\xed\xa0\x80"),
    "a cut character": masked(Opcode.TEXT, b"\xe2\x82"),
    "not UTF-8 in the second fragment": masked(Opcode.TEXT, "x", fin=False) + masked(Opcode.CONT, b"\xff"),
    "beyond the limit": masked(Opcode.BINARY, bytes(70_001)),
    "beyond the limit in fragments": masked(Opcode.BINARY, bytes(70_000), fin=False) + masked(Opcode.CONT, b"x"),
    "a close of one byte": masked(Opcode.CLOSE, b"x"),
    "a close with a bad reason": masked(Opcode.CLOSE, b"\x03\xe8\xff"),
}


@pytest.mark.parametrize("frame", BAD_FRAMES.values(), ids=BAD_FRAMES)
@pytest.mark.parametrize("reading", ["iteration", "callback"])
async def test_row_22_the_application_never_sees_a_bad_frame(start: Any, frame: bytes, reading: str) -> None:
    seen: list[Any] = []

    async def iterate(conn: plumews.Conn) -> None:
        async for message in conn:
            seen.append(message)

    options: dict[str, Any] = {
        "iteration": {"handler": iterate},
        "callback": {"on_message": lambda conn, message: seen.append(message)},
    }[reading]
    server = await start(plumews.serve(host="127.0.0.1", port=0, max_size=70_000, **options))
    async with await Wire.open(server) as wire:
        wire.send(text("good"), frame, text("behind it"))
        code, reason = await wire.closing()
        assert code in (1002, 1007, 1009)
        assert any(phrase in reason for phrase in ("protocol error", "UTF-8", "payload too large"))
        assert seen == ["good"]
        wire.writer.write_eof()
        await wire.eof()
    assert seen == ["good"]


async def test_a_peer_that_keeps_sending_reads_why_it_is_refused(start: Any) -> None:
    """A socket that is closed with unread bytes resets the connection, and a reset would swallow our close frame."""
    async with linked(start, max_size=1000) as (_, wire):
        with contextlib.suppress(ConnectionError):
            for _ in range(50):
                wire.send(masked(Opcode.BINARY, bytes(60_000)))
                await wire.writer.drain()
        assert (await wire.closing())[0] == 1009


async def test_after_a_fault_a_peer_that_stays_is_cut_off(start: Any) -> None:
    async with linked(start, close_timeout=0.05) as (conn, wire):
        wire.send(b"\xff\xff")
        assert (await wire.closing())[0] == 1002
        await asyncio.wait_for(conn.wait_closed(), PATIENCE)


# --- we close -------------------------------------------------------------------------------------


async def test_our_close_waits_for_that_of_the_peer(start: Any) -> None:
    async with linked(start) as (conn, wire):
        closing = started(conn.close(4000, "enough"))
        assert await wire.event() == (Opcode.CLOSE, (4000, "enough"))
        assert conn.state is State.CLOSING
        assert not closing.done()
        wire.send(close(4000))
        await closing
        assert conn.state is State.CLOSED
        assert conn.close_code == 4000
        with pytest.raises(EOFError):
            await wire.event()


async def test_section_8_point_4_what_was_accepted_before_the_close_arrives_before_its_frame(start: Any) -> None:
    async with linked(start, rcvbuf=4096, send_timeout=None) as (conn, wire):
        clog(conn)
        accepted = 0
        while conn.queued_messages < 64 and conn.queued_bytes < 900 * KiB:
            conn.send_nowait(f"{accepted:<10000}")
            accepted += 1
        assert accepted > 10
        closing = started(conn.close())
        await ticks()
        with pytest.raises(ConnectionClosed):
            await conn.send("after the close")
        events = []
        while True:
            kind, payload = await wire.event()
            if kind == Opcode.CLOSE:
                break
            events.append(payload)
        texts = [payload for payload in events if isinstance(payload, str)]
        assert [int(payload) for payload in texts] == list(range(accepted))
        wire.send(close(1000))
        await closing
        with pytest.raises(EOFError):
            await wire.event()


async def test_nothing_leaves_after_the_close_frame() -> None:
    conn, transport = fake_conn(ping_interval=0.001, ping_timeout=10)
    conn.close_nowait()
    feed(conn, masked(Opcode.PING, b"?"), text("?"), masked(Opcode.PING, b"?"))
    await asyncio.sleep(0.01)  # by their clock pings are due, ten times over
    for send in (conn.send_nowait, lambda message: conn._send_ping(b"late")):
        with contextlib.suppress(ConnectionClosed):
            send("late")
    await ticks()
    assert transport.events() == [(Opcode.CLOSE, (1000, ""))]
    feed(conn, close(1000))
    await conn.wait_closed()
    assert transport.events() == [(Opcode.CLOSE, (1000, ""))]


async def test_messages_that_cross_our_close_are_dropped(start: Any) -> None:
    async with linked(start) as (conn, wire):
        closing = started(conn.close())
        assert await wire.closing() == (1000, "")
        wire.send(text("crossed it"), masked(Opcode.BINARY, bytes(100_000)), close(1000))
        await closing
        with pytest.raises(ConnectionClosedOK):
            await conn.recv()


async def test_a_callback_is_not_called_after_it_has_closed() -> None:
    conn, transport = fake_conn()
    seen: list[Any] = []

    def on_message(conn: plumews.Conn, message: str | bytes) -> None:
        seen.append(message)
        conn.send_nowait("bye")
        conn.close_nowait(4000, "seen enough")

    conn._deliver_to(on_message, lambda conn, exc: None)
    feed(conn, text("one"), text("two"))
    feed(conn, text("three"))
    assert seen == ["one"]
    assert transport.events() == [(Opcode.TEXT, "bye"), (Opcode.CLOSE, (4000, "seen enough"))]
    conn.abort()


@pytest.mark.parametrize("peer", ["silent", "chatty", "never reading"])
async def test_row_32_our_close_ends_within_its_timeout(start: Any, peer: str) -> None:
    rcvbuf = 4096 if peer == "never reading" else None
    async with linked(start, rcvbuf=rcvbuf, close_timeout=0.15) as (conn, wire):
        loop = asyncio.get_running_loop()
        if peer == "never reading":
            clog(conn)
        began = loop.time()
        closing = started(conn.close())
        while not closing.done():
            if peer == "chatty":
                with contextlib.suppress(ConnectionError):
                    wire.send(text("and another thing") * 100, masked(Opcode.PING, b"!"))
            await asyncio.sleep(0.005)  # the pace of its chatter
        assert 0.14 < loop.time() - began < PATIENCE
        assert conn.close_code == 1006
        with pytest.raises(ConnectionClosed):
            await collect(conn, [])  # what came before the close is readable


@pytest.mark.parametrize("peer", ["silent", "chatty", "never reading"])
async def test_row_32_a_close_by_the_peer_ends_within_the_timeout(start: Any, peer: str) -> None:
    rcvbuf = 4096 if peer == "never reading" else None
    async with linked(start, rcvbuf=rcvbuf, close_timeout=0.15) as (conn, wire):
        if peer == "never reading":
            clog(conn)
        wire.send(close(1000))
        while conn.state is not State.CLOSED:
            if peer == "chatty":
                with contextlib.suppress(ConnectionError):
                    wire.send(text("and another thing") * 100)
            await asyncio.sleep(0.005)  # the pace of its chatter
        assert conn.close_code == 1000


async def test_row_32_a_fault_of_a_peer_that_never_reads_ends_within_the_timeout(start: Any) -> None:
    async with linked(start, rcvbuf=4096, close_timeout=0.15) as (conn, wire):
        clog(conn)
        wire.send(b"\xff\xff")
        await asyncio.wait_for(conn.wait_closed(), PATIENCE)


async def test_a_peer_that_ends_its_half_and_never_reads_is_cut_off(start: Any) -> None:
    """Without the keepalive nothing else would ever end it: the transport waits until its buffer has left."""
    async with linked(start, rcvbuf=4096, close_timeout=0.1, ping_interval=None) as (conn, wire):
        clog(conn)
        wire.writer.write_eof()
        await asyncio.wait_for(conn.wait_closed(), PATIENCE)
        assert conn.close_code == 1006


async def test_both_close_at_the_same_time(start: Any) -> None:
    async with linked(start) as (conn, wire):
        wire.send(close(4001, "theirs"))
        await conn.close(4000, "ours")
        assert await wire.closing() == (4000, "ours")
        assert conn.close_code == 4001
        error = conn._closed_error()
        assert error.sent is not None
        assert error.sent.code == 4000


async def test_closing_again_is_harmless_and_the_first_code_counts(start: Any) -> None:
    async with linked(start) as (conn, wire):
        first, second = started(conn.close(4000)), started(conn.close(4001))
        await ticks()
        conn.close_nowait(4002)
        assert await wire.closing() == (4000, "")
        wire.send(close(4000))
        await asyncio.gather(first, second)
        await conn.close(4003)
        conn.abort()
        with pytest.raises(EOFError):
            await wire.event()


async def test_a_reset_in_the_closing_handshake_ends_it(start: Any) -> None:
    async with linked(start) as (conn, wire):
        closing = started(conn.close())
        await wire.closing()
        wire.reset()
        await closing
        assert conn.close_code == 1006


# --- over TLS -------------------------------------------------------------------------------------


async def test_tls_both_closings(start: Any) -> None:
    async with linked(start, tls=True) as (conn, wire):
        wire.send(text("one"), text("two"), close(4000, "theirs"))
        await until(lambda: conn.close_code)
        await conn.send(await conn.recv())
        await conn.send(await conn.recv())
        with pytest.raises(ConnectionClosedError, match="theirs"):
            await conn.recv()
        assert [await wire.message(), await wire.message()] == ["one", "two"]
        assert await wire.closing() == (4000, "")
        await wire.eof()
        await conn.wait_closed()
    async with linked(start, tls=True) as (conn, wire):
        closing = started(conn.close(4001, "ours"))
        assert await wire.closing() == (4001, "ours")
        wire.send(close(4001))
        await closing


async def test_tls_a_fault_is_told(start: Any) -> None:
    async with linked(start, tls=True, max_size=1000) as (conn, wire):
        wire.send(text("x" * 1001))
        assert (await wire.closing())[0] == 1009
        await wire.eof()
        await conn.wait_closed()


@pytest.mark.parametrize("how", ["end", "reset", "our abort"])
async def test_tls_a_connection_that_is_lost(start: Any, how: str) -> None:
    async with linked(start, tls=True) as (conn, wire):
        wire.send(text("whole"), masked(Opcode.BINARY, b"part", fin=False))
        assert await conn.recv() == "whole"
        await until(lambda: conn._rules.parser.mid_message)
        if how == "end":
            wire.writer.close()
        elif how == "reset":
            wire.writer.transport.abort()
        else:
            conn.abort()
        with pytest.raises(ConnectionClosedError, match="a message was cut"):
            await conn.recv()
        await conn.wait_closed()
        assert conn.close_code == 1006


@pytest.mark.parametrize("who", ["we", "the peer", "a fault", "abort"])
async def test_row_32_tls_a_peer_that_does_not_read_is_cut_off_in_time(start: Any, who: str) -> None:
    async with linked(start, tls=True, rcvbuf=4096, close_timeout=0.15) as (conn, wire):
        clog(conn)
        if who == "we":
            conn.close_nowait()
        elif who == "the peer":
            wire.send(close(1000))
        elif who == "a fault":
            wire.send(b"\xff\xff")
        else:
            conn.abort()
        await asyncio.wait_for(conn.wait_closed(), PATIENCE)


async def test_tls_the_queue_of_a_peer_that_does_not_read_is_bounded_and_arrives(start: Any) -> None:
    async with linked(start, tls=True, rcvbuf=4096, send_timeout=None) as (conn, wire):
        clog(conn)
        while conn.queued_bytes < 990 * KiB:
            conn.send_nowait(bytes(32 * KiB))
        with pytest.raises(plumews.SendQueueFull):
            conn.send_nowait(bytes(64 * KiB))
        assert conn.queued_bytes <= 1024 * KiB
        sender = started(conn.send("the last"))
        closing = None
        received = 0
        while True:
            kind, payload = await wire.event()
            if kind == Opcode.CLOSE:
                break
            received += 1
            if payload == "the last":
                await sender
                closing = started(conn.close())
        assert received > 30
        wire.send(close(1000))
        assert closing is not None
        await closing


async def test_tls_backpressure_loses_nothing(start: Any) -> None:
    async with linked(start, tls=True, max_queue_bytes=100 * KiB) as (conn, wire):

        async def send() -> None:
            for index in range(200):
                wire.send(masked(Opcode.BINARY, index.to_bytes(2, "big") + bytes(50 * KiB)))
                await wire.writer.drain()

        sender = started(send())
        await until(lambda: conn._reading_paused)
        await ticks(20)
        assert conn._inbox.bytes < 1024 * KiB
        for index in range(200):
            message = await conn.recv(decode=False)
            assert message[:2] == index.to_bytes(2, "big")
        await sender


# --- aborting -------------------------------------------------------------------------------------


async def test_abort_cuts_the_connection_without_a_word(start: Any) -> None:
    async with linked(start) as (conn, wire):
        await conn.send("before")
        conn.abort()
        assert conn.closed
        await conn.wait_closed()
        assert (conn.close_code, conn.close_reason) == (1006, "")
        with contextlib.suppress(ConnectionError, EOFError):
            while True:
                kind, _ = await wire.event()
                assert kind != Opcode.CLOSE


async def test_abort_in_a_callback_ends_its_calls_at_once() -> None:
    conn, _ = fake_conn()
    seen: list[Any] = []

    def on_message(conn: plumews.Conn, message: str | bytes) -> None:
        seen.append(message)
        conn.abort()

    conn._deliver_to(on_message, lambda conn, exc: None)
    feed(conn, text("one"), text("two"))
    await conn.wait_closed()
    assert seen == ["one"]


async def test_abort_does_not_wait_for_a_peer_that_does_not_read(start: Any) -> None:
    async with linked(start, rcvbuf=4096) as (conn, _):
        clog(conn)
        conn.abort()
        await asyncio.wait_for(conn.wait_closed(), PATIENCE)


async def test_the_transport_has_low_limits_of_its_own() -> None:
    conn, transport = fake_conn()
    assert transport.limits == [64 * KiB]
    conn.abort()


# --- callbacks ------------------------------------------------------------------------------------


async def test_a_callback_that_fails_is_told_of_and_the_others_go_on() -> None:
    conn, _ = fake_conn()
    seen: list[Any] = []
    failed: list[Exception] = []

    def on_message(conn: plumews.Conn, message: str | bytes) -> None:
        if message == "bad":
            raise ValueError(message)
        seen.append(message)

    conn._deliver_to(on_message, lambda conn, exc: failed.append(exc))
    feed(conn, text("a"), text("bad"), text("b"))
    assert seen == ["a", "b"]
    assert [type(exc) for exc in failed] == [ValueError]
    conn.abort()


async def test_messages_that_came_before_the_callback_are_delivered_first() -> None:
    conn, transport = fake_conn(max_queue=2)
    feed(conn, text("a"), text("b"))
    assert not transport.reading
    seen: list[Any] = []
    conn._deliver_to(lambda conn, message: seen.append(message), lambda conn, exc: None)
    assert transport.reading
    feed(conn, text("c"))
    assert seen == ["a", "b", "c"]
    conn.abort()


async def test_an_end_that_came_before_the_callback_is_answered_behind_the_messages() -> None:
    conn, transport = fake_conn()
    feed(conn, text("a"), close(1000))
    assert transport.writes == []
    echo_by_callback(conn)
    assert kinds(transport) == [Opcode.TEXT, Opcode.CLOSE]
    await conn.wait_closed()


async def test_close_callbacks_are_called_once_when_the_connection_is_gone(start: Any) -> None:
    async with linked(start) as (conn, wire):
        told: list[Any] = []
        conn.add_close_callback(told.append)
        removed: list[Any] = []
        conn.add_close_callback(removed.append)
        conn.remove_close_callback(removed.append)
        conn.remove_close_callback(removed.append)
        wire.send(close(1000))
        await conn.wait_closed()
        assert told == [conn]
        conn.add_close_callback(told.append)
        assert told == [conn, conn]
        assert removed == []


async def test_a_close_callback_that_fails_keeps_nobody_back() -> None:
    failures: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: failures.append(context))
    conn, _ = fake_conn()
    told: list[Any] = []
    conn.add_close_callback(lambda conn: 1 / 0)
    conn.add_close_callback(told.append)
    conn.abort()
    await conn.wait_closed()
    assert told == [conn]
    assert [type(failure["exception"]) for failure in failures] == [ZeroDivisionError]


# --- nothing is left ------------------------------------------------------------------------------


@pytest.fixture
def no_collector() -> Iterator[None]:
    """What is freed here is freed by its last reference."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def freed(gone: Callable[[], Any]) -> bool:
    """Whether it goes once all that is under way has ended: there is no collector that would help."""
    for _ in range(1000):
        if gone() is None:
            return True
        await asyncio.sleep(0.001)
    return False


def referrers(gone: Callable[[], Any]) -> str:
    """Who holds what should be gone."""
    return ", ".join({type(referrer).__name__ for referrer in gc.get_referrers(gone())})


async def _closes(conn: plumews.Conn, wire: Wire) -> None:
    closing = started(conn.close())
    await wire.closing()
    wire.send(close(1000))
    await closing


async def _is_closed(conn: plumews.Conn, wire: Wire) -> None:
    wire.send(close(1000))
    with pytest.raises(ConnectionClosedOK):
        await conn.recv()
    await conn.wait_closed()


async def _aborts(conn: plumews.Conn, wire: Wire) -> None:
    conn.abort()
    await conn.wait_closed()


async def _is_reset(conn: plumews.Conn, wire: Wire) -> None:
    wire.reset()
    await conn.wait_closed()


async def _sees_the_end(conn: plumews.Conn, wire: Wire) -> None:
    wire.writer.write_eof()
    await conn.wait_closed()


async def _is_broken(conn: plumews.Conn, wire: Wire) -> None:
    wire.send(b"\xff\xff")
    await wire.closing()
    wire.writer.close()
    await conn.wait_closed()


async def _dies(conn: plumews.Conn, wire: Wire) -> None:
    conn.ping_period = 0.01
    conn.pong_wait = 0.02
    await conn.wait_closed()


async def _times_out(conn: plumews.Conn, wire: Wire) -> None:
    conn.close_nowait()
    await conn.wait_closed()


async def _is_cut_in_a_stream(conn: plumews.Conn, wire: Wire) -> None:
    wire.send(masked(Opcode.BINARY, b"part", fin=False))
    stream = await conn.read_stream()
    assert await stream.read() == b"part"
    wire.reset()
    with pytest.raises(ConnectionClosedError):
        await stream.read()
    await conn.wait_closed()


async def _leaves_a_stream_unread(conn: plumews.Conn, wire: Wire) -> None:
    wire.send(text("whole"), text("more"))
    await conn.read_stream()
    await _aborts(conn, wire)


async def _leaves_a_stream_in_the_queue(conn: plumews.Conn, wire: Wire) -> None:
    reader = started(conn.read_stream())
    await ticks()
    feed(conn, masked(Opcode.BINARY, b"part", fin=False))
    reader.cancel()  # before it can take it
    await ticks()
    wire.send(masked(Opcode.CONT, b"rest"), text("more"))
    await until(lambda: len(conn._inbox) == 2)
    await _aborts(conn, wire)


async def _closes_while_clogged(conn: plumews.Conn, wire: Wire) -> None:
    clog(conn)
    senders = [started(conn.send(bytes(10_000))) for _ in range(100)]
    await ticks()
    await conn.close()
    outcomes = await asyncio.gather(*senders, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} <= {type(None), ConnectionClosedError, plumews.SendTimeout}


async def _waits_for_a_pong(conn: plumews.Conn, wire: Wire) -> None:
    pong = await conn.ping()
    conn.abort()
    await conn.wait_closed()
    assert isinstance(pong, asyncio.Future)
    assert isinstance(pong.exception(), ConnectionClosed)


async def _cancels_everything(conn: plumews.Conn, wire: Wire) -> None:
    tasks = [started(conn.recv()), started(conn.wait_closed()), started(conn.close())]
    await ticks()
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await conn.wait_closed()


WAYS = [
    _closes,
    _is_closed,
    _aborts,
    _is_reset,
    _sees_the_end,
    _is_broken,
    _dies,
    _times_out,
    _is_cut_in_a_stream,
    _leaves_a_stream_unread,
    _leaves_a_stream_in_the_queue,
    _closes_while_clogged,
    _waits_for_a_pong,
    _cancels_everything,
]


def name_of(way: Callable[..., Any]) -> str:
    return way.__name__.strip("_").replace("_", " ")


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("way", [_closes, _is_closed, _aborts, _is_reset, _times_out], ids=name_of)
async def test_row_28_over_tls_too(start: Any, way: Callable[[plumews.Conn, Wire], Awaitable[None]]) -> None:
    async with linked(start, tls=True, close_timeout=0.1) as (conn, wire):
        gone = weakref.ref(conn)
        await way(conn, wire)
        del conn
        await until(lambda: gone() is None)


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("way", WAYS, ids=name_of)
async def test_row_28_a_connection_is_freed_when_it_is_gone(
    start: Any, way: Callable[[plumews.Conn, Wire], Awaitable[None]]
) -> None:
    opened: list[plumews.Conn] = []

    async def handler(conn: plumews.Conn) -> None:
        opened.append(conn)
        await conn.wait_closed()

    server = await start(plumews.serve(handler, "127.0.0.1", 0, close_timeout=0.1))
    before = deadlines()
    tasks = len(asyncio.all_tasks())
    async with await Wire.open(server, rcvbuf=4096 if way is _closes_while_clogged else None) as wire:
        await until(lambda: opened)
        conn = opened.pop()
        gone = weakref.ref(conn)
        await way(conn, wire)
        del conn
        assert await freed(gone), referrers(gone)
    assert deadlines() == before
    assert len(asyncio.all_tasks()) == tasks


@pytest.mark.usefixtures("no_collector")
async def test_row_28_a_connection_is_freed_when_its_handler_is_cancelled_at_any_await(start: Any) -> None:
    async def receives(conn: plumews.Conn) -> None:
        await conn.recv()

    async def iterates(conn: plumews.Conn) -> None:
        async for _ in conn:
            pass

    async def streams(conn: plumews.Conn) -> None:
        async with await conn.read_stream() as stream:
            await stream.read_all()

    async def sends(conn: plumews.Conn) -> None:
        conn.pause_writing()
        while True:
            await conn.send(bytes(1000))

    async def pings(conn: plumews.Conn) -> None:
        await (await conn.ping())

    async def closes(conn: plumews.Conn) -> None:
        await conn.close()

    async def waits(conn: plumews.Conn) -> None:
        await conn.wait_closed()

    running: list[Any] = []

    async def handler(conn: plumews.Conn) -> None:
        running.append((asyncio.current_task(), weakref.ref(conn)))
        await work(conn)

    server = await start(plumews.serve(handler, "127.0.0.1", 0, send_timeout=None))
    before = deadlines()
    for work in (receives, iterates, streams, sends, pings, closes, waits):
        async with await Wire.open(server) as wire:
            if work is streams:
                wire.send(masked(Opcode.BINARY, b"part", fin=False))
            await until(lambda: running)
            await ticks(10)
            task, gone = running.pop()
            cancel(task)  # as a server that stops does
            with contextlib.suppress(asyncio.CancelledError):
                await task
            del task
            assert await freed(gone), work.__name__
            await wire.eof()
    assert deadlines() == before


@pytest.mark.usefixtures("no_collector")
async def test_row_28_a_connection_of_callbacks_is_freed(start: Any) -> None:
    gone: list[Any] = []
    server = await start(
        plumews.serve(
            host="127.0.0.1",
            port=0,
            on_open=lambda conn: gone.append(weakref.ref(conn)),
            on_message=lambda conn, message: conn.send_nowait(message),
            on_close=lambda conn: conn.metadata,
        )
    )
    for end in ("close", "eof", "reset"):
        async with await Wire.open(server) as wire:
            wire.send(text("echo"))
            assert await wire.message() == "echo"
            if end == "close":
                wire.send(close())
                await wire.closing()
            elif end == "eof":
                wire.writer.write_eof()
            else:
                wire.reset()
            await until(lambda: gone[-1]() is None)
    assert len(gone) == 3


async def test_an_open_connection_has_one_deadline(start: Any) -> None:
    before = deadlines()
    async with linked(start) as (conn, wire):
        assert deadlines() == before + 1
        for _ in range(10):
            wire.send(text("a"))
            await conn.recv()
            await conn.send("b")
            await wire.message()
        assert deadlines() == before + 1


async def test_an_idle_connection_without_keepalive_has_no_deadline(start: Any) -> None:
    before = deadlines()
    async with linked(start, ping_interval=None):
        assert deadlines() == before


async def test_the_receive_buffer_belongs_to_the_loop() -> None:
    first, _ = fake_conn()
    second, _ = fake_conn()
    view = first.get_buffer(-1)
    assert view is second.get_buffer(65536)
    feed(first, text("a"), masked(Opcode.BINARY, b"unfinished", fin=False))
    feed(second, text("b" * 1000))
    feed(first, masked(Opcode.CONT, b" business"))
    assert await second.recv() == "b" * 1000
    assert [await first.recv(), await first.recv()] == ["a", b"unfinished business"]
    for conn in (first, second):
        conn.abort()


async def test_every_way_to_the_end_is_quiet(start: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    for way in (_closes, _is_closed, _aborts, _is_reset, _sees_the_end, _is_broken):
        async with linked(start) as (conn, wire):
            await way(conn, wire)
    assert caplog.records == []


async def test_a_unix_socket_has_the_same_ends(start: Any, tmp_path: Any) -> None:
    opened: asyncio.Future[plumews.Conn] = asyncio.get_running_loop().create_future()

    async def handler(conn: plumews.Conn) -> None:
        opened.set_result(conn)
        await echo_by_iteration(conn)

    server = await start(plumews.unix_serve(handler, str(tmp_path / "socket")))
    assert server.sockets[0].family == socket.AF_UNIX
    async with await Wire.open(server) as wire:
        conn = await opened
        wire.send(text("a"), close(1000))
        assert await wire.message() == "a"
        assert await wire.closing() == (1000, "")
        await conn.wait_closed()


# --- asyncio's transports -------------------------------------------------------------------------


async def test_a_peer_that_is_gone_just_when_the_socket_took_bytes_again_ends_the_connection_once(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Then it is the next write that fails, and from within resume_writing() asyncio would report the loss twice.
    loop, conns, lost, told = asyncio.get_running_loop(), [], [], []
    loop.set_exception_handler(lambda loop, context: told.append(context))

    async def handler(conn: plumews.Conn) -> None:
        conns.append(conn)
        conn.add_close_callback(lambda conn: lost.append(conn))
        await conn.wait_closed()

    server = await start(plumews.serve(handler, "127.0.0.1", 0, max_queue=1))
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await loop.sock_connect(sock, server.sockets[0].getsockname())
    await loop.sock_sendall(sock, upgrade())
    await until(lambda: conns)
    sock.send(text("unread"))
    await until(lambda: conns[0]._reading_paused)  # or the reading would be the first to see that the peer is gone
    clog(conns[0])
    assert conns[0].queued_messages > 1

    def vanish(fd: int, buffers: list[Any]) -> int:
        if sock.fileno() >= 0:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01" + bytes(3) + bytes(4))
            sock.close()
        return send(fd, buffers)

    send = wire_module.send
    monkeypatch.setattr(wire_module, "send", vanish)

    def take() -> bool:
        with contextlib.suppress(BlockingIOError):
            while sock.fileno() >= 0:
                sock.recv(64 * KiB)
        return sock.fileno() < 0

    await until(take)
    await until(lambda: lost)
    await ticks()
    loop.set_exception_handler(None)
    assert lost == conns
    assert told == []


async def test_a_close_that_is_answered_when_the_socket_takes_bytes_again_ends_the_connection_once(start: Any) -> None:
    # From within resume_writing() asyncio would report the loss twice, and say so to the loop's exception handler.
    full, told = asyncio.Event(), []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))

    async def handler(conn: plumews.Conn) -> None:
        with contextlib.suppress(plumews.SendTimeout):
            while True:
                await conn.send(b"x" * 50_000)
        full.set()
        async for _ in conn:
            pass

    server = await start(plumews.serve(handler, "127.0.0.1", 0, send_timeout=0.01))
    async with await Wire.open(server, limit=1024) as wire:  # which the kernel reads for, in large pieces
        await full.wait()
        wire.send(close(1000))
        assert await wire.closing() == (1000, "")
        await wire.eof()
    server.close()
    await server.wait_closed()
    asyncio.get_running_loop().set_exception_handler(None)
    assert told == []


# --- a read that is too much for one turn ---------------------------------------------------------


async def test_a_burst_for_a_slow_callback_is_worked_off_in_turns_in_order_and_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "FAN_OUT_SLICE", -1.0)  # over before it began: one message a turn
    conn, transport = fake_conn()
    heard: list[Any] = []
    conn._deliver_to(lambda conn, message: heard.append(message), lambda conn, exc: None)
    feed(conn, *[text(str(index)) for index in range(50)], close(1000))
    assert heard == ["0"]
    assert not transport.reading  # who sends faster than it is handled is not read meanwhile
    asyncio.get_running_loop().call_soon(heard.append, "somebody else")
    await ticks(3)
    assert "somebody else" in heard
    assert conn.state is State.OPEN  # its close frame stands behind its messages
    await ticks(60)
    heard.remove("somebody else")
    assert heard == [str(index) for index in range(50)]
    assert conn.state is not State.OPEN
    conn.abort()


async def test_a_fault_behind_a_burst_is_answered_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FAN_OUT_SLICE", -1.0)
    conn, transport = fake_conn()
    echo_by_callback(conn)
    feed(conn, text("one"), text("two"), masked(3, b"no such opcode"))
    await ticks(10)
    assert kinds(transport) == [Opcode.TEXT, Opcode.TEXT, Opcode.CLOSE]
    conn.abort()


async def test_a_connection_that_is_lost_in_a_burst_forgets_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FAN_OUT_SLICE", -1.0)
    conn, _ = fake_conn()
    heard: list[Any] = []
    conn._deliver_to(lambda conn, message: heard.append(message), lambda conn, exc: None)
    feed(conn, text("one"), text("two"))
    conn.abort()
    await ticks(5)
    assert heard == ["one"]


# --- transports that fail -------------------------------------------------------------------------


async def use_all(conn: plumews.Conn, transport: FakeTransport) -> None:
    """Whatever an application does on a connection, and its peer; the peer's fault is the end."""
    with contextlib.suppress(ConnectionClosed):
        conn.send_nowait("a")
        conn.send_nowait("b")
        await ticks()
        await conn.ping()
        feed(conn, *[text("x")] * 4)
        for _ in range(4):
            await conn.recv()
        await conn.drain()
    if conn._transport is not None:
        feed(conn, text("last"), masked(3))
    with contextlib.suppress(ConnectionClosed):
        while True:
            await conn.recv()


@pytest.mark.parametrize(
    "exc", [GONE, RuntimeError("the handler is closed"), ValueError("?")], ids=lambda e: type(e).__name__
)
@pytest.mark.parametrize("calls", [*((call,) for call in CALLS), CALLS], ids=lambda calls: "+".join(calls)[:30])
async def test_failing_transport_ends_its_connection_quietly(calls: tuple[str, ...], exc: Exception) -> None:
    with failures() as told:
        for end in ("fault", "close_nowait", "abort", "eof", "none"):
            conn, transport = fake_conn(failing(calls, exc), max_queue=2, close_timeout=0.05)
            transport.broken = True  # type: ignore[attr-defined]
            await use_all(conn, transport)
            if end == "close_nowait":
                conn.close_nowait()
            elif end == "abort":
                conn.abort()
            elif end == "eof":
                conn.eof_received()
            await asyncio.wait_for(conn.close(), 5)
            assert conn.state is State.CLOSED
            with pytest.raises(ConnectionClosed):
                await conn.send("late")
        if exc is GONE:
            assert told == []
        assert {context["message"] for context in told} <= {"a transport failed"}


async def test_transport_that_fails_at_once_is_a_lost_connection() -> None:
    for calls in CALLS, ("get_extra_info",), ("set_write_buffer_limits",):
        conn = plumews.Conn(plumews.ConnConfig())
        transport = failing(calls, GONE)(conn)
        transport.broken = True  # type: ignore[attr-defined]
        conn.connection_made(transport)  # type: ignore[arg-type]
        await conn.wait_closed()
        assert conn.close_code == 1006


# --- what is held after the end -------------------------------------------------------------------

PART = 3_000_000


def feed_in_reads(conn: plumews.Conn, data: bytes) -> None:
    """``data`` arrives as it would from a socket: as much as fits the buffer that the connection lends."""
    while data and conn._transport is not None:
        room = conn.get_buffer(-1)
        size = min(len(room), len(data))
        room[:size] = data[:size]
        del room
        conn.buffer_updated(size)
        data = data[size:]


def compressed(conn: plumews.Conn, takeover: bool = False) -> None:
    conn._compress(Agreement(15, 15, takeover, takeover, "permessage-deflate"))


def cut_frame(conn: plumews.Conn) -> bytes:
    return masked(Opcode.BINARY, bytes(PART + 1))[:-1]


def open_fragments(conn: plumews.Conn) -> bytes:
    return b"".join(masked(Opcode.CONT if n else Opcode.BINARY, bytes(PART // 10), fin=False) for n in range(10))


def open_text(conn: plumews.Conn) -> bytes:
    return masked(Opcode.TEXT, "é" * (PART // 2), fin=False)


def cut_compressed(conn: plumews.Conn) -> bytes:
    compressed(conn)
    return build_frame(Opcode.BINARY, os.urandom(PART), rsv1=True, mask_key=b"1234")[:-1]


def half_inflated(conn: plumews.Conn) -> bytes:
    compressed(conn)
    return squeezed_frame(Opcode.BINARY, bytes(PART), bits=15)


def window_of_the_peer(conn: plumews.Conn) -> bytes:
    compressed(conn, takeover=True)
    return squeezed_frame(Opcode.BINARY, os.urandom(1000), bits=15)


def not_wanted_in_pieces_any_more(conn: plumews.Conn) -> bytes:
    conn._start_streaming()
    return masked(Opcode.BINARY, bytes(PART + 1))[:-1]


@pytest.mark.parametrize("end", ["lost", "eof", "abort"])
@pytest.mark.parametrize(
    "arrive",
    [
        cut_frame,
        open_fragments,
        open_text,
        cut_compressed,
        half_inflated,
        window_of_the_peer,
        not_wanted_in_pieces_any_more,
    ],
)
async def test_lost_connection_holds_no_part_of_a_message(
    arrive: Callable[[plumews.Conn], bytes], end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FAN_OUT_SLICE", 0.0)  # inflate one step at a time
    conn, transport = fake_conn(ping_interval=None, max_queue_bytes=4 * PART, compression="deflate")
    data = arrive(conn)
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        feed_in_reads(conn, data)
        await ticks(1)
        held = tracemalloc.get_traced_memory()[0] - before
        if end == "lost":
            conn.connection_lost(None)
        elif end == "eof":
            conn.eof_received()
            transport.close()
        else:
            conn.abort()
        await conn.wait_closed()
        with contextlib.suppress(ConnectionClosed):
            while True:
                await conn.recv()
        after = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert held > 8 * KiB
    assert after < 8 * KiB, (held, after)
    assert conn.closed


@pytest.mark.parametrize("count", [300, 600, 30_000])
@pytest.mark.parametrize("first", [True, False], ids=["waits first", "waits then"])
async def test_close_behind_unread_messages_ends_wait_closed(count: int, first: bool) -> None:
    conn, transport = fake_conn(ping_interval=None)
    waiting = started(conn.wait_closed()) if first else None
    await ticks()
    feed(conn, *[text("x")] * count, close(4000))
    assert len(conn._inbox) == limits.MAX_QUEUE
    waiting = waiting or started(conn.wait_closed())
    await ticks()
    pass_time(limits.END_GRACE + 0.1)
    await ticks()
    assert transport.events() == [(Opcode.CLOSE, (4000, ""))]
    await waiting
    assert [await conn.recv() for _ in range(count)] == ["x"] * count
    with pytest.raises(plumews.ConnectionClosedError):
        await conn.recv()


# --- last words over TLS --------------------------------------------------------------------------


def sends_on_and_reads(port: int, context: ssl.SSLContext, first: bytes, more: bytes) -> bytes:
    """What a TLS client gets that goes on sending for a while, whatever it is told, and reads then."""
    got = b""
    with (
        socket.create_connection(("localhost", port)) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as client,
    ):
        client.sendall(first)
        with contextlib.suppress(OSError):
            for _ in range(20):
                client.sendall(more)
                time.sleep(0.01)
            client.settimeout(PATIENCE)
            while data := client.recv(65536):
                got += data
    return got


@pytest.mark.parametrize("what", ["1009", "1002", "431"])
async def test_tls_peer_that_is_still_sending_gets_the_last_word(
    start: Any, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plumews.conn.closing._LINGER", 0.5)
    server_tls, client_tls = tls_contexts()
    server = await start(plumews.serve(echo_by_iteration, "localhost", 0, ssl=server_tls, max_size=1000))
    first, said = {
        "1009": (upgrade() + masked(Opcode.BINARY, bytes(2000)), b"\x03\xf1"),
        "1002": (upgrade() + masked(3), b"\x03\xea"),
        "431": (b"GET / HTTP/1.1\r\nHost: localhost\r\n", b"HTTP/1.1 431 "),
    }[what]
    got = await asyncio.to_thread(sends_on_and_reads, server.port, client_tls, first, b"x: y\r\n" * 2000)
    assert said in got


async def test_tls_client_of_a_whole_request_is_not_kept_waiting(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plumews.conn.closing._LINGER", 60.0)
    server_tls, client_tls = tls_contexts()
    routes = {"/healthz": lambda request: plumews.Response.text(200, "ok")}
    server = await start(plumews.serve(echo_by_iteration, "localhost", 0, ssl=server_tls, routes=routes))
    for path, status in (("/healthz", 200), ("/", 426)):
        async with await Wire.connect(server, ssl=client_tls, server_hostname="localhost") as wire:
            request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
            assert (await asyncio.wait_for(wire.response(request), PATIENCE))[0] == status


# --- who waits for the end ------------------------------------------------------------------------


@pytest.mark.parametrize("late", [False, True], ids=["when it comes", "after it has come"])
async def test_wait_closed_answers_a_close_at_once(start: Any, monkeypatch: pytest.MonkeyPatch, late: bool) -> None:
    monkeypatch.setattr(limits, "END_GRACE", 60.0)
    came = asyncio.Event()

    async def handler(conn: plumews.Conn) -> None:
        assert await conn.recv() == "read"
        if late:
            await until(lambda: conn._ended)
        came.set()
        await conn.wait_closed()

    server = await start(plumews.serve(handler, "127.0.0.1", 0))
    async with await Wire.open(server) as wire:
        wire.send(text("read"), text("unread"))
        if not late:
            await came.wait()
            await ticks()
        wire.send(close())
        assert await asyncio.wait_for(wire.closing(), PATIENCE) == (1000, "")


async def test_wait_closed_leaves_a_reading_task_its_time(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "END_GRACE", 60.0)
    go = asyncio.Event()
    conns: list[plumews.Conn] = []

    async def read(conn: plumews.Conn) -> None:
        async for message in conn:
            await go.wait()
            await conn.send(message)

    async def handler(conn: plumews.Conn) -> None:
        conns.append(conn)
        reading = started(read(conn))
        await conn.wait_closed()
        await reading

    server = await start(plumews.serve(handler, "127.0.0.1", 0))
    async with await Wire.open(server) as wire:
        wire.send(text("a"), text("b"), text("c"))
        await until(lambda: conns and len(conns[0]._inbox) == 2)
        wire.send(close())
        await until(lambda: conns[0]._ended)
        go.set()
        assert [await wire.message() for _ in range(3)] == ["a", "b", "c"]
        assert await wire.closing() == (1000, "")


# --- a peer that goes while nothing is read -------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the keepalive alone sees it")
@pytest.mark.parametrize("transport", ["tcp", "tls", "unix"])
@pytest.mark.parametrize("last_word", [True, False], ids=["close frame", "FIN alone"])
async def test_fin_is_seen_while_reading_is_paused(
    start: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, transport: str, last_word: bool
) -> None:
    monkeypatch.setattr(limits, "END_LOOK", 0.01)
    monkeypatch.setattr(limits, "END_GRACE", 0.01)
    gone, read = asyncio.Event(), asyncio.Event()
    got: list[str | bytes] = []
    conns: list[plumews.Conn] = []

    async def handler(conn: plumews.Conn) -> None:
        conn.add_close_callback(lambda conn: gone.set())
        conns.append(conn)
        await gone.wait()
        with contextlib.suppress(plumews.ConnectionClosed):
            while True:
                got.append(await conn.recv())
        read.set()

    options: dict[str, Any] = {"ping_interval": None, "max_queue": 10}
    server_tls, client_tls = tls_contexts()
    if transport == "unix":
        server = await start(plumews.unix_serve(handler, str(tmp_path / "socket"), **options))
    else:
        server = await start(
            plumews.serve(handler, "localhost", 0, ssl=server_tls if transport == "tls" else None, **options)
        )
    secure = {"ssl": client_tls, "server_hostname": "localhost"} if transport == "tls" else {}
    async with await Wire.open(server, **secure) as wire:
        sent = [f"message {number}" for number in range(500)]
        wire.send(*map(text, sent))
        await until(lambda: conns and conns[0]._reading_paused)
        if last_word:
            wire.send(close())
        if transport == "tls":
            await wire.writer.drain()
            wire.writer.transport.abort()  # else the FIN would wait for the server's half of the TLS closing
        wire.writer.close()
        await asyncio.wait_for(read.wait(), PATIENCE)
    assert got == sent
    if transport != "tls":  # there the loops differ: TLS was not closed in order
        assert conns[0].close_code == (1000 if last_word else 1006)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the keepalive alone sees it")
async def test_paused_connection_of_a_living_peer_goes_on(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "END_LOOK", 0.01)
    looks: list[int | None] = []

    def look(sock: Any) -> int | None:
        looks.append(unread_before_end(sock))
        return looks[-1]

    unread_before_end = wire_module.unread_before_end
    monkeypatch.setattr(wire_module, "unread_before_end", look)
    go = asyncio.Event()

    async def handler(conn: plumews.Conn) -> None:
        await go.wait()
        async for message in conn:
            await conn.send(message)

    server = await start(plumews.serve(handler, "127.0.0.1", 0, max_queue=10))
    async with await Wire.open(server) as wire:
        wire.send(*(text(str(number)) for number in range(100)))
        await until(lambda: len(looks) >= 3)
        go.set()
        assert [await wire.message() for _ in range(100)] == [str(number) for number in range(100)]
    assert set(looks) == {None}
