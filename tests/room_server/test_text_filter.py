"""Rules for text messages: what they accept, their errors, and how they apply to live connections."""

from __future__ import annotations

import asyncio
import json
import zlib

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

import plumews
from plumews import InvalidText, TextPolicy, limits, validate_text_message
from plumews.conn.filters import add_filter
from support.fakes import fake_conn, feed, ticks
from support.raw_client import Wire, masked, text

ANYTHING = TextPolicy(allow_empty=True, reject_control_characters=False)


def broken(message, policy=None):
    """Return the rule that ``message`` breaks, and the text of the error."""
    with pytest.raises(InvalidText) as caught:
        validate_text_message(message, policy)
    return caught.value.rule, str(caught.value)


def test_defaults_allow_one_line_of_1_mib():
    assert TextPolicy() == TextPolicy(
        max_length=1024 * 1024,
        allow_empty=False,
        reject_control_characters=True,
        allow_newlines=False,
        allow_tabs=False,
        on_violation="close",
    )


@pytest.mark.parametrize("message", ["hello", "ü", "\u0085\u200b\u202e", "x" * limits.TEXT_LENGTH, " ", "\x80", "~"])
def test_line_of_text_is_returned_unchanged(message):
    assert validate_text_message(message) == message
    assert validate_text_message(message.encode()) == message


@pytest.mark.parametrize(
    ("message", "rule", "words"),
    [
        ("x" * (limits.TEXT_LENGTH + 1), "length", "message too long: more than 1048576 bytes"),
        ("", "empty", "empty message"),
        (b"", "empty", "empty message"),
        (b"ab\xff", "utf8", "invalid utf-8 in message at position 2"),
        (b"\xe2\x82", "utf8", "invalid utf-8 in message at position 0"),
        ("a\ud800", "utf8", "invalid utf-8 in message at position 1"),
        ("a\nb", "control", "message contains control characters: U+000A at position 1"),
        ("\x1b[2J", "control", "message contains control characters: U+001B at position 0"),
        (b"\xc3\xbc\x7f", "control", "message contains control characters: U+007F at position 1"),
    ],
    ids=["length", "empty", "no bytes", "bad byte", "cut", "surrogate", "newline", "escape", "delete"],
)
def test_error_of_each_rule_has_its_phrase_and_position(message, rule, words):
    assert broken(message) == (rule, words)


@pytest.mark.parametrize(("rule", "code"), [("length", 1009), ("empty", 1008), ("utf8", 1007), ("control", 1008)])
def test_each_rule_has_its_close_code(rule, code):
    assert InvalidText(rule, "x").close_code == code


def test_rules_are_checked_in_order_length_empty_utf8_control():
    short = TextPolicy(max_length=2)
    assert broken(b"\x00\xff\x00", short)[0] == "length"
    assert broken(b"\x00\xff", short)[0] == "utf8"
    assert broken(b"\x00", short)[0] == "control"


@pytest.mark.parametrize("character", [*map(chr, range(0x20)), "\x7f"], ids=lambda character: f"{ord(character):02x}")
def test_control_character_is_refused_unless_allowed(character):
    message = f"a{character}b"
    assert broken(message)[0] == "control"
    for allowed, characters in (({"allow_newlines": True}, "\r\n"), ({"allow_tabs": True}, "\t")):
        if character in characters:
            assert validate_text_message(message, TextPolicy(**allowed)) == message
        else:
            assert broken(message, TextPolicy(**allowed))[0] == "control"
    assert validate_text_message(message, ANYTHING) == message


def test_empty_message_may_be_allowed():
    assert validate_text_message("", ANYTHING) == ""


@given(st.text(max_size=20), st.integers(1, 60))
def test_length_is_counted_in_bytes_of_utf8(message, most):
    policy = TextPolicy(max_length=most, allow_empty=True, reject_control_characters=False)
    encoded = message.encode()
    for given_ in (message, encoded):
        if len(encoded) > most:
            assert broken(given_, policy)[0] == "length"
        else:
            assert validate_text_message(given_, policy) == message


@pytest.mark.parametrize("character", ["a", "ü", "€", "😀", "\ud800"], ids=["1", "2", "3", "4", "surrogate"])
def test_length_is_exact_for_characters_of_every_size(character):
    size = len(character.encode("utf-8", "surrogatepass"))
    for count in (2, 5):
        message = character * count
        assert broken(message, TextPolicy(max_length=size * count - 1))[0] == "length"
        exact = TextPolicy(max_length=size * count)
        if character == "\ud800":
            assert broken(message, exact)[0] == "utf8"
        else:
            assert validate_text_message(message, exact) == message


@given(st.binary(max_size=30))
def test_bytes_are_text_exactly_if_python_decodes_them(data):
    try:
        expected = data.decode()
    except UnicodeDecodeError:
        assert broken(data, ANYTHING)[0] == "utf8"
    else:
        assert validate_text_message(data, ANYTHING) == expected


def test_error_does_not_repeat_the_message():
    for message in ("secret\x00", b"secret\xff", "secret" * 1000):
        error = broken(message, TextPolicy(max_length=100))[1]
        assert "secret" not in error
        assert error.isascii()
        assert error.isprintable()


@pytest.mark.parametrize("message", [None, 7, ["x"], memoryview(b"x")], ids=lambda message: type(message).__name__)
def test_message_of_another_type_raises_type_error(message):
    with pytest.raises(TypeError, match=f"str or bytes, not {type(message).__name__}"):
        validate_text_message(message)


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"max_length": 0}, ValueError, "1 byte or more, not 0"),
        ({"max_length": True}, TypeError, "an int, in bytes, not bool"),
        ({"max_length": 1.5}, TypeError, "an int, in bytes, not float"),
        ({"on_violation": "ignore"}, ValueError, '"close" or "skip", not \'ignore\''),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_policy_with_a_wrong_value_raises(wrong, error, words):
    with pytest.raises(error, match=words):
        TextPolicy(**wrong)


def test_invalid_text_is_a_value_error_and_websocket_exception():
    assert issubclass(InvalidText, ValueError)
    assert issubclass(InvalidText, plumews.WebSocketException)


# --- live connections -----------------------------------------------------------------------------

SECRET = b"s3cret" * 8
LINES = TextPolicy(max_length=100, allow_newlines=True)
QUIET = TextPolicy(max_length=100, allow_newlines=True, on_violation="skip")

#: Messages that break a rule, and the close frames that follow.
BROKEN = {
    "length": ("x" * 101, (1009, "message rejected: message too long: more than 100 bytes")),
    "bytes of utf-8": ("ü" * 51, (1009, "message rejected: message too long: more than 100 bytes")),
    "empty": ("", (1008, "message rejected: empty message")),
    "control": ("a\x1b[2J", (1008, "message rejected: message contains control characters: U+001B at position 1")),
}


class Room:
    """Room server whose messages are read in one ``way``, and the messages that it has read."""

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
async def test_message_that_breaks_the_policy_closes_the_connection(start, way, message, closing):
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
async def test_skipped_message_is_not_delivered_but_counted(start, way):
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
async def test_section_8_point_11_without_a_policy_any_text_passes(start, way):
    server = await start(Room(way, None).serving)
    async with await Wire.open(server, "/ws") as wire:
        for message in ("two\nlines", "a\ttab", "", "x" * (1024 * 1024 + 1)):
            wire.send(text(message))
            assert await wire.message() == message


async def test_binary_messages_are_not_checked(start):
    server = await start(Room("fan-out").serving)
    async with await Wire.open(server, "/ws") as wire:
        for message in (b"", b"\x00" * 1000):
            wire.send(masked(2, message))
            assert await wire.message() == message


async def test_fragmented_message_is_checked_as_a_whole(start):
    room = Room("handler")
    server = await start(room.serving)
    async with await Wire.open(server, "/ws") as wire:
        wire.send(masked(1, "x" * 60, fin=False), masked(0, "x" * 41))
        assert (await wire.closing())[0] == 1009
    assert room.heard == []


async def test_rejected_message_reaches_no_other_member(start):
    server = await start(Room("fan-out", QUIET).serving)
    async with await Wire.open(server, "/ws") as one, await Wire.open(server, "/ws") as two:
        one.send(text("\x07"), text("good"))
        assert await one.message() == "good"
        assert await two.message() == "good"


async def test_invalid_utf8_is_1007_with_any_policy(start):
    for policy in (LINES, QUIET, None):
        server = await start(Room("fan-out", policy).serving)
        async with await Wire.open(server, "/ws") as wire:
            wire.send(masked(1, b"\xff"))
            assert (await wire.closing())[0] == 1007


async def test_read_limit_holds_below_the_length_of_the_policy(start):
    server = await start(Room("fan-out", LINES, max_size=50).serving)
    async with await Wire.open(server, "/ws") as wire:
        wire.send(text("x" * 51))
        assert (await wire.closing())[0] == 1009


async def test_compressed_messages_are_checked(start):
    server = await start(Room("fan-out", LINES, compression="deflate").serving)
    async with await Wire.open(server, "/ws", "Sec-WebSocket-Extensions: permessage-deflate") as wire:
        packer = zlib.compressobj(wbits=-15)
        packed = packer.compress(b"x" * 101) + packer.flush(zlib.Z_SYNC_FLUSH)
        frame = bytearray(masked(1, packed[:-4]))
        frame[0] |= 0x40
        wire.send(bytes(frame))
        assert (await wire.closing())[0] == 1009


# --- messages that log in -------------------------------------------------------------------------


def token(**claims):
    return jwt.encode({"sub": "u1", **claims}, SECRET, algorithm="HS256")


def say(**fields):
    """Return a message that logs in, with more lines and characters than the policy allows."""
    return text(json.dumps({"type": "auth", **fields}, indent=8).ljust(200, "\n") + "\t")


@WAYS
async def test_login_message_is_not_checked_and_later_ones_are(start, way):
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
async def test_message_in_the_same_read_as_the_login_is_checked(start, way):
    room = Room(way, QUIET)
    server = await start(room.serving)
    async with await Wire.open(server, "/ws?auth=message") as wire:
        wire.send(say(), text("\x07"), text("good"))
        assert json.loads(await wire.message())["type"] == "joined"
        assert await wire.message() == "good"
    assert room.rejected() == 1


@WAYS
@pytest.mark.parametrize("by", ["header", "message"])
async def test_renewal_of_a_token_is_not_checked(start, way, by):
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


async def test_login_message_without_auth_message_is_checked(start):
    server = await start(Room("fan-out").serving)
    async with await Wire.open(server, "/ws") as wire:
        wire.send(say(token=token()))
        assert (await wire.closing())[0] == 1009


# --- messages read in pieces ----------------------------------------------------------------------


@pytest.mark.parametrize("read", ["recv", "read_message"])
async def test_rest_of_a_cancelled_read_stream_is_filtered(read):
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


def test_text_policy_of_another_type_raises_type_error():
    with pytest.raises(TypeError, match=r"text_policy must be a plumews.TextPolicy, not dict"):
        plumews.serve_rooms(plumews.Hub(), plumews.SimpleRoomAuth(SECRET), text_policy={"max_length": 1})
