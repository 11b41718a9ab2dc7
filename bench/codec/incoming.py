"""Frames in: many small ones in a read, one alone, a large one in several reads, one byte by byte (section 5.2).

Ours returns a list of (opcode, payload), or of the messages alone; aiohttp a queue of messages; picows calls back,
and the callback keeps ``bytes`` or ``str`` copies, since its frames die with the call. Bytes are there already when
the clock starts, but for picows, which takes them only in its own buffer: beside 1,000 frames that step is next to
nothing, beside one frame or one byte it is a good part, and for the large message there is a contender without it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from .contest import Contender, Contest, Job, gives
from .ours import BODIES
from .peers import Reader, installed, readers
from .samples import KEY, ZERO_KEY, KiB, MiB, cut, frame, frames, payload, text
from .texts import each


def holds(reader: Reader, expected: bytes | str, count: int) -> Callable[[Any], bool]:
    """Right are ``count`` messages with the ``expected`` payload; bytes where the reader does not decode."""
    if not reader.decodes and isinstance(expected, str):
        expected = expected.encode()

    def right(messages: Any) -> bool:
        return [reader.payload(message) for message in messages] == [expected] * count

    return right


def many(name: str, opcode: int, message: bytes | str, count: int = 1000) -> Contest:
    """Small frames in one read."""
    data = message.encode() if isinstance(message, str) else message
    stream = frames(opcode, data, count)
    contenders = {
        peer: Contender(partial(reader.feed(), stream), holds(reader, message, count))
        for peer, reader in readers(text=opcode == 1).items()
    }
    return Contest(name, count, "frame", contenders)


def byte_by_byte() -> Contest:
    """A frame of 1 KiB that arrives in as many reads as it has bytes."""
    message = payload(KiB)
    reads = cut(frame(2, message, KEY), 1)
    contenders = {
        peer: Contender(partial(each, reader.feed(), reads), holds(reader, message, 1))
        for peer, reader in readers().items()
    }
    return Contest("1 KiB, a byte a read", len(reads), "call", contenders)


def large() -> Contest:
    """1 MiB in reads of 64 KiB.

    picows without the copy into its buffer gets a frame with a key of zeros, which it applies like any other: the
    bytes stay what they are there, and the same ones can be announced again and again.
    """
    message = payload(MiB)
    reads = cut(frame(2, message, KEY), 64 * KiB)
    contenders = {
        peer: Contender(partial(each, reader.feed(), reads), holds(reader, message, 1))
        for peer, reader in readers().items()
    }
    if installed("picows"):
        from .picows_peer import Picows

        connection = Picows()
        connection.place(frame(2, message, ZERO_KEY))
        sizes = [len(read) for read in reads]
        contenders["picows, not copied in"] = Contender(partial(connection.announce, sizes), gives([message]))
    contenders["join"] = Contender(partial(b"".join, reads))
    return Contest("1 MiB in reads of 64 KiB", MiB, "byte", contenders)


def received() -> Contest:
    """The same with what ``recv_into`` does, as a copy of up to 64 KiB a time.

    Ours takes it in a buffer that all connections share, or in the message's own memory where there is some;
    picows in the buffer that each of its connections has.
    """
    message = payload(MiB)
    stream = frame(2, message, KEY)
    reads = cut(stream, 64 * KiB)
    shared = memoryview(bytearray(64 * KiB))

    def into_shared(feed: Callable[[Any], Any]) -> Callable[[bytes], Any]:
        def receive(read: bytes) -> Any:
            size = len(read)
            shared[:size] = read
            return feed(shared[:size])

        return receive

    def in_place(body: Any) -> Callable[[memoryview], Any]:
        parser = body.Parser(client=False, max_size=None)

        def receive(sent: memoryview) -> Any:
            events = None
            while sent:
                room = parser.receive_buffer()
                place = shared if room is None else room
                size = min(len(place), len(sent), 64 * KiB)
                place[:size] = sent[:size]
                events = parser.feed(place[:size]) if room is None else parser.buffer_updated(size)
                sent = sent[size:]
            return events

        return receive

    contenders = {}
    for name, reader in readers().items():
        right = holds(reader, message, 1)
        if name in BODIES:
            contenders[name] = Contender(partial(each, into_shared(reader.feed()), reads), right)
            contenders[f"{name}, in place"] = Contender(partial(in_place(BODIES[name]), memoryview(stream)), right)
        elif name == "picows":
            contenders[name] = Contender(partial(each, reader.feed(), reads), right)
    contenders["the copies alone"] = Contender(partial(each, into_shared(len), reads))
    return Contest("1 MiB received into buffers, 64 KiB a time", MiB, "byte", contenders)


JOBS: tuple[Job, ...] = (
    partial(many, "1,000 frames of 32 B, binary", 2, payload(32)),
    partial(many, "1,000 frames of 32 B, ASCII", 1, text("ASCII", 32)),
    partial(many, "1,000 frames of 32 B, Cyrillic", 1, text("Cyrillic", 32)),
    partial(many, "one frame of 32 B a read", 2, payload(32), count=1),
    byte_by_byte,
    large,
    received,
)
