"""plumews.codec: texts as str, through every kernel that unmasks, checks and widens them (RFC 6455 section 8.1)."""

from __future__ import annotations

import functools
import random
from typing import Any

import pytest

from support.codec_bodies import on_every_tier

pytestmark = on_every_tier

KEY = bytes.fromhex("37fa213d")
CONT, TEXT = 0, 1

#: What CPython stores in one, two and four bytes a character, at the borders of each, and mixed.
ALPHABETS = {
    "ASCII": "az\0\x7f",
    "Latin-1": "a\x80\xbf\xc0\xff",
    "Cyrillic": "жЖ\u0100\u07ff",
    "Cyrillic words": "ж ",
    "CJK": "語\u0800\ud7ff\ue000\uffff",
    "CJK and ASCII": "語a",
    "up to three bytes": "aéж語",
    "emoji": "😀\U00010000\U0010ffff",
    "all": "aéж語😀",
    "mostly ASCII": "a" * 40 + "é😀",
}


@functools.cache
def texts(alphabet: str, longest: int, count: int) -> list[str]:
    """Texts of many lengths in runs of many lengths, the same each time."""
    dice = random.Random(alphabet)
    found = []
    for _ in range(count):
        length, parts = dice.randrange(longest), []
        while length > 0:
            run = dice.choice((1, 1, 2, 5, 30, 200))
            mixed = dice.random() < 0.5
            parts += dice.choices(alphabet, k=run) if mixed else dice.choice(alphabet) * run
            length -= run
        found.append("".join(parts))
    return found


def exactly(value: Any, text: str) -> None:
    """The same text, stored in the same way: a str that is wider than it need be is not equal to its like."""
    assert type(value) is str
    assert value == text
    assert hash(value) == hash(text)
    assert value.isascii() is text.isascii()
    assert value + "" == text
    assert max(value, default="") == max(text, default="")


@pytest.mark.parametrize("alphabet", ALPHABETS.values(), ids=ALPHABETS)
@pytest.mark.parametrize("key", [None, KEY], ids=["clear", "masked"])
def test_a_text_in_one_frame_is_the_str_that_was_sent(codec: Any, key: bytes | None, alphabet: str) -> None:
    for text in texts(alphabet, 400, 150) + texts(alphabet, 9000, 15):
        parser = codec.Parser(client=key is None, max_size=None)
        ((kind, value),) = parser.feed(codec.build_frame(TEXT, text, mask_key=key))
        assert kind == TEXT
        exactly(value, text)


@pytest.mark.parametrize("alphabet", ALPHABETS.values(), ids=ALPHABETS)
def test_text_in_several_reads_and_frames_is_one_str(codec: Any, alphabet: str) -> None:
    dice = random.Random(1)
    for text in texts(alphabet, 400, 50) + texts(alphabet, 9000, 8):
        data = text.encode()
        middle = dice.randint(0, len(data))
        stream = codec.build_frame(TEXT, data[:middle], fin=False, mask_key=KEY)
        stream += codec.build_frame(CONT, data[middle:], mask_key=KEY)
        parser, events, at = codec.Parser(client=False, max_size=None), [], 0
        while at < len(stream):
            step = dice.choice((1, 7, 64, 1000, 5000))
            events += parser.feed(stream[at : at + step])
            at += step
        exactly(events[0][1], text)


@pytest.mark.parametrize("alphabet", ALPHABETS.values(), ids=ALPHABETS)
def test_bad_byte_in_a_text_is_rejected_at_its_position(codec: Any, alphabet: str) -> None:
    dice = random.Random(2)
    for text in texts(alphabet, 300, 60) + texts(alphabet, 9000, 5):
        data = text.encode()
        place = dice.randint(0, len(data))
        bad = data[:place] + bytes([dice.choice((0xFF, 0xC0, 0xF5))]) + data[place:]
        parser = codec.Parser(client=False, max_size=None)
        assert parser.feed(codec.build_frame(TEXT, bad, mask_key=KEY)) == []
        assert parser.error.close_code == 1007
        parser = codec.Parser(client=False, max_size=None)
        frame = codec.build_frame(TEXT, bad, mask_key=KEY)
        fault = len(frame) - len(bad) + place
        assert parser.feed(frame[:fault]) == []
        assert parser.error is None
        parser.feed(frame[fault : fault + 1])
        assert parser.error.close_code == 1007


def test_a_text_around_the_size_of_a_block_is_whole(codec: Any) -> None:
    for size in (*range(4080, 4110), *range(8185, 8200)):
        for unit in ("a", "é", "語", "😀"):
            text = "a" * (size % 4) + unit * (size // len(unit.encode()))
            parser = codec.Parser(client=False, max_size=None)
            ((_, value),) = parser.feed(codec.build_frame(TEXT, text, mask_key=KEY))
            exactly(value, text)


def test_text_with_a_last_byte_beyond_ascii_is_not_ascii(codec: Any) -> None:
    for size in (0, 1, 15, 16, 31, 32, 63, 64, 65, 127, 5000, 100_000):
        parser = codec.Parser(client=False, max_size=None)
        assert parser.feed(codec.build_frame(TEXT, b"a" * size + b"\xff", mask_key=KEY)) == []
        assert parser.error.close_code == 1007
        parser = codec.Parser(client=False, max_size=None)
        ((_, value),) = parser.feed(codec.build_frame(TEXT, "a" * size + "é", mask_key=KEY))
        exactly(value, "a" * size + "é")
