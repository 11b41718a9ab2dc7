"""The messages, and whether what came back for them is what they say.

Events of a chat with a market in it, as JSON of 1 KiB, no two alike, the same ones in every run. Invariant: each is
compressed for itself, as the load promises when it offers ``client_no_context_takeover``.
"""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

SIZE = 1024
#: So many different ones, sent in turn.
COUNT = 1024

#: The parameters that everybody is to have.
LEVEL = 6
WINDOW_BITS = 12
MEM_LEVEL = 5

#: What a message ends with in a stream, and without in a frame (RFC 7692 section 7.2.1).
TAIL = b"\x00\x00\xff\xff"

_NAMES = ("Ada", "Björn", "Chiara", "Dmitri", "Elif", "Farid", "Grace", "Hideo", "Inés", "Jakub", "Kofi", "Lena")
_KINDS = ("message", "edited", "reaction", "trade", "quote")
_VOCABULARY = """
about after again almost also always another anyone around because before being better between both build called
came change check could deploy different does done down each early either enough even every failed few fixed
found from give good great have here hours idea into issue just keep last later less like little long look made
make many maybe meeting might more morning most much need never next night nothing number often only open order
other over people place please point price probably question ready really release review right same second seems
server should since some something soon still such sure take team than thanks that their them then there these
they thing think this those through time today together tomorrow tried under until update very wait want week
well were what when where which while with without work would wrong years yesterday your
"""


def _text(random_: random.Random, most: int) -> str:
    """Sentences of so many characters."""
    text = ""
    while len(text) < most:
        sentence = " ".join(random_.choices(_VOCABULARY.split(), k=random_.randint(4, 12)))
        text += sentence.capitalize() + random_.choice((". ", "! ", "? ", ". "))
    return text[:most]


def _event(random_: random.Random, number: int) -> dict[str, object]:
    return {
        "type": random_.choice(_KINDS),
        "sequence": 100_000 + number,
        "room": f"room-{random_.randrange(500)}",
        "at": f"2025-03-{random_.randint(1, 28):02}T{random_.randrange(24):02}:{random_.randrange(60):02}:"
        f"{random_.randrange(60):02}.{random_.randrange(1000):03}Z",
        "user": {
            "id": f"{random_.getrandbits(64):016x}",
            "name": random_.choice(_NAMES),
            "avatar": f"https://cdn.example.com/avatars/{random_.getrandbits(48):012x}.png",
        },
        "mentions": [random_.choice(_NAMES) for _ in range(random_.randrange(4))],
        "quotes": [
            {
                "symbol": "".join(random_.choices("ABCDEFGHKLMNPRSTW", k=4)),
                "bid": round(random_.uniform(5, 900), 2),
                "ask": round(random_.uniform(5, 900), 2),
                "volume": random_.randrange(100, 90_000),
            }
            for _ in range(random_.randint(3, 6))
        ],
        "text": "",
    }


@cache
def messages() -> tuple[bytes, ...]:
    """All of them, ``SIZE`` bytes each."""
    random_ = random.Random("permessage-deflate")
    made = []
    for number in range(COUNT):
        event = _event(random_, number)
        without = len(json.dumps(event, ensure_ascii=False).encode())
        event["text"] = _text(random_, SIZE - without)
        made.append(json.dumps(event, ensure_ascii=False).encode())
    return tuple(made)


def deflate(message: bytes) -> bytes:
    """The payload of its frame."""
    compressor = zlib.compressobj(LEVEL, zlib.DEFLATED, -WINDOW_BITS, MEM_LEVEL)
    return (compressor.compress(message) + compressor.flush(zlib.Z_SYNC_FLUSH)).removesuffix(TAIL)


def write(path: Path) -> None:
    """Write the messages for the load, in its format: size in four bytes, payload."""
    with path.open("wb") as file:
        for message in messages():
            payload = deflate(message)
            file.write(len(payload).to_bytes(4, "big") + payload)


class WrongAnswer(Exception):
    """It does not inflate, or to something else than what was sent."""


@dataclass(frozen=True)
class Answers:
    """Answers that the load received: distinct messages, and the mean size of their frames."""

    messages: int
    size: float


def _answers(path: Path) -> Iterator[tuple[int, bytes]]:
    data = path.read_bytes()
    at = 0
    while at < len(data):
        number, size = (int.from_bytes(data[at + start : at + start + 4], "big") for start in (0, 4))
        yield number, data[at + 8 : at + 8 + size]
        at += 8 + size


def check(path: Path) -> Answers:
    """Inflate everything that the load has got, each answer for itself: nothing else came than what is in its file.

    Raises:
        WrongAnswer: one is not what was sent; or there is none.
    """
    seen: set[int] = set()
    sizes = []
    for number, payload in _answers(path):
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            inflated = inflater.decompress(payload + TAIL)
        except zlib.error as exc:
            raise WrongAnswer(f"the answer to message {number} does not inflate: {exc}") from None
        if inflated != messages()[number] or inflater.unused_data:
            raise WrongAnswer(f"the answer to message {number} is another message: {inflated[:60]!r}...")
        seen.add(number)
        sizes.append(len(payload))
    if not sizes:
        raise WrongAnswer("no answer was kept")
    return Answers(len(seen), sum(sizes) / len(sizes))
