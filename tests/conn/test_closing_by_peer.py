"""Closing handshake and violations from the peer's side.

Names of Autobahn's cases stand beside the tests of the same question.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path
from typing import Any

import pytest

import plumews
from plumews import ConnectionClosed, ConnectionClosedOK, Opcode, limits
from plumews.transport import sendmsg as wire_module
from support.fakes import (
    PATIENCE,
    echo_by_iteration,
    linked,
    ticks,
    tls_contexts,
    until,
)
from support.raw_client import Wire, close, masked, text


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Handle each read in one time slice, even on a busy machine."""
    monkeypatch.setattr(limits, "FAN_OUT_SLICE", 60.0)


# --- the peer closes ------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1010, 1011, 1013, 3000, 4999, None])
async def test_close_of_the_peer_is_answered_with_its_code(start: Any, code: int | None) -> None:
    async with linked(start) as (conn, wire):
        wire.send(close(code))
        assert await wire.closing() == (code or 1005, "")
        await wire.eof()
        await conn.wait_closed()
        assert conn.close_code == (code or 1005)


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1012 - 1000, 1015, 1016, 2999, 5000, 65535])
async def test_close_with_a_forbidden_code_is_answered_with_1002(start: Any, code: int) -> None:
    async with linked(start) as (conn, wire):
        wire.send(masked(Opcode.CLOSE, code.to_bytes(2, "big")))
        assert (await wire.closing())[0] == 1002
        wire.writer.close()
        await conn.wait_closed()
        assert conn.close_code == 1006


async def test_frames_behind_the_close_of_the_peer_are_ignored(start: Any) -> None:
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
async def test_messages_before_a_close_or_violation_are_answered_first(
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


async def test_close_frame_waits_for_the_replies_of_a_busy_handler(start: Any) -> None:
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
async def test_stuck_handler_delays_the_close_frame_by_one_second(
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


async def test_handler_returning_with_unread_messages_closes_at_once(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "END_GRACE", 1000.0)

    async def handler(conn: plumews.Conn) -> None:
        await conn.recv()

    server = await start(plumews.serve(handler, "127.0.0.1", 0))
    async with await Wire.open(server) as wire:
        wire.send(text("read"), text("unread"), close(4000))
        assert await asyncio.wait_for(wire.closing(), PATIENCE) == (4000, "")


async def test_peer_gets_its_replies_after_close_frame_and_fin(start: Any) -> None:
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


async def test_a_close_behind_a_full_queue_is_seen_if_nothing_reads(start: Any) -> None:
    async with linked(start, max_queue=2) as (conn, wire):
        waiting = asyncio.ensure_future(conn.wait_closed())
        await ticks(2)
        wire.send(*[text("unread")] * 10, close(1000))
        await waiting
        assert await wire.closing() == (1000, "")
        assert conn.close_code == 1000


# --- row 22: nothing of a bad frame is seen -------------------------------------------------------


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


async def test_peer_that_keeps_sending_reads_the_close_frame(start: Any) -> None:
    """A socket that is closed with unread bytes resets the connection, and a reset would swallow our close frame."""
    async with linked(start, max_size=1000) as (_, wire):
        with contextlib.suppress(ConnectionError):
            for _ in range(50):
                wire.send(masked(Opcode.BINARY, bytes(60_000)))
                await wire.writer.drain()
        assert (await wire.closing())[0] == 1009


async def test_peer_that_stays_after_a_violation_is_cut(start: Any) -> None:
    async with linked(start, close_timeout=0.05) as (conn, wire):
        wire.send(b"\xff\xff")
        assert (await wire.closing())[0] == 1002
        await asyncio.wait_for(conn.wait_closed(), PATIENCE)


# --- a peer that goes while nothing is read -------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the keepalive alone sees it")
@pytest.mark.parametrize("transport", ["tcp", "tls", "unix"])
@pytest.mark.parametrize("last_word", [True, False], ids=["close frame", "FIN alone"])
async def test_fin_is_seen_while_reading_is_paused(
    start: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, transport: str, last_word: bool
) -> None:
    monkeypatch.setattr("plumews.conn.closing._END_LOOK", 0.01)
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
    monkeypatch.setattr("plumews.conn.closing._END_LOOK", 0.01)
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
