"""The text policy live: what it does not allow reaches nobody, whichever way messages are read."""

from __future__ import annotations

import asyncio
import json
import zlib

import jwt
import pytest

import plumews
from plumews import TextPolicy
from plumews.conn.filters import add_filter
from support.fakes import fake_conn, feed, ticks
from support.raw_client import Wire, masked, text

SECRET = b"s3cret" * 8
LINES = TextPolicy(max_length=100, allow_newlines=True)
QUIET = TextPolicy(max_length=100, allow_newlines=True, on_violation="skip")

#: What breaks a rule, and what it is closed with.
BROKEN = {
    "length": ("x" * 101, (1009, "message rejected: message too long: more than 100 bytes")),
    "bytes of utf-8": ("ü" * 51, (1009, "message rejected: message too long: more than 100 bytes")),
    "empty": ("", (1008, "message rejected: empty message")),
    "control": ("a\x1b[2J", (1008, "message rejected: message contains control characters: U+001B at position 1")),
}


class Room:
    """A room server whose messages are read in one ``way``, and what came through."""

    def __init__(self, way, policy=LINES, **options):
        self.heard = []
        self.hub = plumews.Hub()
        if way == "handler":
            options["handler"] = self._handle
        elif way == "callbacks":
            options["on_message"] = self._on_message
        auth = plumews.SimpleRoomAuth(SECRET, rounds=1)
        self.serving = plumews.serve_rooms(self.hub, auth, "127.0.0.1", 0, text_policy=policy, **options)

    async def _handle(self, conn):
        async for message in conn:
            self.heard.append(message)
            await conn.send(message)

    def _on_message(self, conn, message):
        self.heard.append(message)
        conn.send_nowait(message)

    def rejected(self):
        return self.hub.metrics().requests_refused.get("WEBSOCKET_MESSAGE_REJECTED", 0)


WAYS = pytest.mark.parametrize("way", ["fan-out", "callbacks", "handler"])


@WAYS
@pytest.mark.parametrize(("message", "closing"), BROKEN.values(), ids=BROKEN.keys())
async def test_who_breaks_the_policy_is_closed_and_heard_up_to_there(start, way, message, closing):
    room = Room(way)
    server = await start(room.serving)
    async with await Wire.open(server, "/ws") as wire:
        wire.send(text("good\nlines"))
        assert await wire.message() == "good\nlines"
        wire.send(text(message), text("behind it"))
        assert await wire.event() == (8, closing)
    assert room.heard == ([] if way == "fan-out" else ["good\nlines"])
    assert room.rejected() == 1


@WAYS
async def test_what_is_skipped_is_as_if_it_had_not_come_but_counted(start, way):
    room = Room(way, QUIET)
    server = await start(room.serving)
    async with await Wire.open(server, "/ws") as wire:
        for message, _ in BROKEN.values():
            wire.send(text(message))
        wire.send(text("good"))
        assert await wire.message() == "good"
    assert room.heard == ([] if way == "fan-out" else ["good"])
    assert room.rejected() == len(BROKEN)


@WAYS
async def test_section_8_point_11_without_a_policy_newlines_tabs_and_nothing_are_text(start, way):
    server = await start(Room(way, None).serving)
    async with await Wire.open(server, "/ws") as wire:
        for message in ("two\nlines", "a\ttab", "", "x" * (1024 * 1024 + 1)):
            wire.send(text(message))
            assert await wire.message() == message


async def test_binary_messages_are_not_looked_at(start):
    server = await start(Room("fan-out").serving)
    async with await Wire.open(server, "/ws") as wire:
        for message in (b"", b"\x00" * 1000):
            wire.send(masked(2, message))
            assert await wire.message() == message


async def test_a_message_in_fragments_is_looked_at_as_a_whole(start):
    room = Room("handler")
    server = await start(room.serving)
    async with await Wire.open(server, "/ws") as wire:
        wire.send(masked(1, "x" * 60, fin=False), masked(0, "x" * 41))
        assert (await wire.closing())[0] == 1009
    assert room.heard == []


async def test_nobody_else_in_the_room_gets_what_was_rejected(start):
    server = await start(Room("fan-out", QUIET).serving)
    async with await Wire.open(server, "/ws") as one, await Wire.open(server, "/ws") as two:
        one.send(text("\x07"), text("good"))
        assert await one.message() == "good"
        assert await two.message() == "good"


async def test_utf8_stays_1007_whatever_the_policy(start):
    for policy in (LINES, QUIET, None):
        server = await start(Room("fan-out", policy).serving)
        async with await Wire.open(server, "/ws") as wire:
            wire.send(masked(1, b"\xff"))
            assert (await wire.closing())[0] == 1007


async def test_the_read_limit_holds_below_the_length_of_the_policy(start):
    server = await start(Room("fan-out", LINES, max_size=50).serving)
    async with await Wire.open(server, "/ws") as wire:
        wire.send(text("x" * 51))
        assert (await wire.closing())[0] == 1009


async def test_compressed_messages_are_held_to_it_too(start):
    server = await start(Room("fan-out", LINES, compression="deflate").serving)
    async with await Wire.open(server, "/ws", "Sec-WebSocket-Extensions: permessage-deflate") as wire:
        packer = zlib.compressobj(wbits=-15)
        packed = packer.compress(b"x" * 101) + packer.flush(zlib.Z_SYNC_FLUSH)
        frame = bytearray(masked(1, packed[:-4]))
        frame[0] |= 0x40
        wire.send(bytes(frame))
        assert (await wire.closing())[0] == 1009


# --- beside the messages that log in --------------------------------------------------------------


def token(**claims):
    return jwt.encode({"sub": "u1", **claims}, SECRET, algorithm="HS256")


def say(**fields):
    """A message that logs in, over several lines and longer than the policy allows."""
    return text(json.dumps({"type": "auth", **fields}, indent=8).ljust(200, "\n") + "\t")


@WAYS
async def test_the_message_that_logs_in_is_not_held_to_it_and_what_stands_behind_it_is(start, way):
    room = Room(way)
    server = await start(room.serving)
    async with await Wire.open(server, "/ws?auth=message") as wire:
        wire.send(say(token=token()), text("good"), text("\x07"), text("behind it"))
        said = []
        while True:
            kind, payload = await wire.event()
            if kind == 8:
                break
            said.append(payload)
    assert payload[0] == 1008
    assert not {"\x07", "behind it"} & set(said + room.heard)


@WAYS
async def test_skipped_behind_a_login_in_the_same_read_reaches_nobody(start, way):
    room = Room(way, QUIET)
    server = await start(room.serving)
    async with await Wire.open(server, "/ws?auth=message") as wire:
        wire.send(say(), text("\x07"), text("good"))
        assert json.loads(await wire.message())["type"] == "joined"
        assert await wire.message() == "good"
    assert room.rejected() == 1


@WAYS
@pytest.mark.parametrize("by", ["header", "message"])
async def test_a_new_token_is_taken_first_and_then_comes_the_policy(start, way, by):
    room = Room(way)
    server = await start(room.serving)
    if by == "header":
        wire = await Wire.open(server, "/ws", f"Authorization: Bearer {token()}")
    else:
        wire = await Wire.open(server, "/ws?auth=message")
        wire.send(say(token=token()))
        assert json.loads(await wire.message())["type"] == "joined"
    async with wire:
        wire.send(say(token=token(exp=4_000_000_000)))
        assert json.loads(await wire.message()) == {"type": "auth", "ok": True, "exp": 4_000_000_000}
        wire.send(text("good"))
        assert await wire.message() == "good"
        wire.send(text("\x07"))
        assert (await wire.closing())[0] == 1008


async def test_the_second_message_that_logs_in_is_held_to_it_where_there_is_no_token(start):
    server = await start(Room("fan-out").serving)
    async with await Wire.open(server, "/ws") as wire:
        wire.send(say(token=token()))
        assert (await wire.closing())[0] == 1009


# --- what is read in pieces -----------------------------------------------------------------------


@pytest.mark.parametrize("read", ["recv", "read_message"])
async def test_what_a_cancelled_read_stream_leaves_is_held_to_it(read):
    conn, _ = fake_conn()
    seen = []

    def takes_bells(conn, message):
        seen.append(message)
        return "\x07" in message

    add_filter(conn, takes_bells)
    frame = masked(1, "first and \x07")
    reader = asyncio.ensure_future(conn.read_stream())
    await ticks()
    feed(conn, frame[:10])
    reader.cancel()
    await ticks()
    again = asyncio.ensure_future(getattr(conn, read)())
    await ticks()
    feed(conn, frame[10:] + text("good"))
    assert await again in ("good", (1, b"good"))
    assert sorted(seen) == ["first and \x07", "good"]
    conn.abort()


def test_a_policy_of_another_kind_is_a_clear_type_error():
    with pytest.raises(TypeError, match=r"text_policy must be a plumews.TextPolicy, not dict"):
        plumews.serve_rooms(plumews.Hub(), plumews.SimpleRoomAuth(SECRET), text_policy={"max_length": 1})
