"""The fuzz target ``reading``: a parser tells the same on both bodies and however its bytes are cut.

The first 13 bytes choose the parser (its side, limits, options), how the stream is cut, whether it comes in buffers
(of what kind) or straight into the parser's memory, whether messages are told bare, and up to three calls at places
of it: streaming started or stopped, a limit changed. The rest is the stream itself, or a script of frames with
well-formed lengths, which gets further. Invariant: events, error, close code and state do not depend on body, tier,
cut or buffer; only what is streamed may come in other pieces.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from support.codec_bodies import BODIES, TIERS

from .material import Disagreement, Input, agreed, lend, require, spoil

SIZES = [None, 0, 1, 125, 126, 300, 4096, 65_535, 65_536, 65_537, 2**20, 2**31, 2**32, 2**53, 2**63 - 1, 16 * 2**20]
FRAMES = [None, None, None, 1, 2, 3, 10, 100]

#: Lengths at which arithmetic breaks (row 4 of the hostile cases).
LENGTHS = [0, 125, 126, 65_535, 65_536, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1]

CHUNK = 17
#: What is asked of receive_buffer(), at least.
LEASTS = [1, 2, 100, 65_536]
#: A stream longer than this comes in as many crumbs, rather than byte by byte.
CRUMBS = 320


class Case(NamedTuple):
    """Options of one input."""

    options: dict[str, Any]
    buffers: int
    least: int | None
    bare: bool
    step: int
    turns: list[tuple[int, int, int]]  # place, call, argument
    stream: bytes


def reading(data: bytes) -> None:
    """The target."""
    case = case_of(Input(data))
    size = len(case.stream)
    places = {place for place, _, _ in case.turns}
    crumbs = set(range(0, size, size // CRUMBS + 1))
    outcomes = []
    for cuts in (set(), crumbs, set(cuts_of(size, case.step))):
        where = sorted(cuts | places | {0, size})
        bodies = BODIES if cuts else TIERS  # in pieces no kernel has much to do
        told = agreed(lambda codec, where=where: tell(codec, case, where), bodies)
        outcomes.append(whole(told))
    for outcome in outcomes[1:]:
        if outcome != outcomes[0]:
            raise Disagreement(f"cut: {outcome!r:.2000}\nwhole: {outcomes[0]!r:.2000}")


def case_of(source: Input) -> Case:
    flags, limits = source.number(), source.number()
    options = {
        "client": bool(flags & 1),
        "decode_text": not flags & 2,
        "allow_rsv1": bool(flags & 4),
        "max_size": SIZES[limits & 15],
        "max_frames": FRAMES[limits >> 4 & 7],
    }
    step = source.number(2)
    asked = [(source.number(), source.number(2)) for _ in range(3)]
    stream = script(source, masked=not options["client"]) if flags & 8 else source.rest()
    turns = sorted((place % (len(stream) + 1), call & 7, call >> 3) for call, place in asked if call)
    least = LEASTS[step & 3] if flags & 64 else None
    return Case(options, flags >> 4 & 3, least, bool(flags & 128), step, turns, stream)


def script(source: Input, masked: bool) -> bytes:
    """The stream that a script asks for: a frame for each few bytes."""
    stream = bytearray()
    while source and len(stream) < 100_000:
        first, form = source.number(), source.number()
        payload = source.payload()
        length = LENGTHS[source.number() % len(LENGTHS)] if form & 1 else len(payload)
        key = {0: bytes(4), 2: b"\x37\xfa\x21\x3d"}.get(form & 6) or source.take(4).ljust(4, b"\1")
        wrong_side, long_form, very_long_form = form & 0x18 == 0x18, form & 0x60 == 0x60, form & 0x70 == 0x70
        mask_bit = 0x80 if masked != wrong_side else 0
        if length <= 125 and not long_form:
            stream += bytes((first, mask_bit | length))
        elif length <= 65_535 and not very_long_form:
            stream += bytes((first, mask_bit | 126)) + length.to_bytes(2, "big")
        else:
            stream += bytes((first, mask_bit | 127)) + length.to_bytes(8, "big")
        if mask_bit:
            pad = (key * (len(payload) // 4 + 1))[: len(payload)]
            number = int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")
            stream += key
            payload = number.to_bytes(len(payload), "big")
        stream += payload
    return bytes(stream)


def cuts_of(size: int, step: int) -> list[int]:
    """Places to cut at: from a seed, at distances of every order."""
    cuts, at = [], 0
    while at < size and len(cuts) < CRUMBS:
        step = (step * 25173 + 13849) & 0xFFFF
        at += 1 + (step >> (step & 15))
        cuts.append(min(at, size))
    return cuts


def tell(codec: Any, case: Case, places: list[int]) -> list[Any]:
    """Return the events of a parser, read for read, of a stream cut at ``places``."""
    parser = codec.Parser(**case.options)
    told = []
    kept: list[memoryview] = []
    for start, stop in zip(places, [*places[1:], len(case.stream)], strict=True):
        for place, call, argument in case.turns:
            if place == start:
                told.append(turn(parser, call, argument))
        piece = case.stream[start:stop]
        events = [] if case.least is None else receive(parser, piece, case.least, kept if case.buffers == 3 else None)
        if case.least is None:
            buffer = lend(case.buffers, piece)
            events = [named(each) for each in parser.feed_messages(buffer)] if case.bare else parser.feed(buffer)
            spoil(buffer)
        told.append((events, state(parser)))
    for view in kept:
        spoil(view)  # which must not reach what was delivered
    return told


def receive(parser: Any, piece: bytes, least: int, kept: list[memoryview] | None) -> list[Any]:
    """``piece``, as far as the parser has memory for it, straight into that; slices of which are ``kept``."""
    events = []
    while piece:
        view = parser.receive_buffer(least)
        if view is None or len(piece) < least:
            return events + parser.feed(piece)
        require(least <= len(view), f"a view of {len(view)} bytes, not {least}")
        took = min(len(view), len(piece))
        view[:took] = piece[:took]
        if kept is not None:
            kept.append(view[took // 2 : took + 32])
        events += parser.buffer_updated(took)
        piece = piece[took:]
    return events


def named(event: Any) -> tuple[int, Any]:
    """Return the events of feed_messages() in the shape of feed()'s."""
    return (1, event) if type(event) is str else (2, event) if type(event) is bytes else event


def turn(parser: Any, call: int, argument: int) -> Any:
    """One call in the middle of a stream: its events, and what it returned or raised."""
    try:
        if call & 3 == 0:
            return [], ("stopped", parser.stop_streaming())
        if call & 3 == 1:
            parser.max_size = SIZES[argument & 15]
        elif call & 3 == 2:
            parser.max_frames = FRAMES[argument & 7]
        else:
            return parser.start_streaming(), ("started", parser.streaming)
    except ValueError as exc:
        return [], ("refused", str(exc))
    return [], ("bound", parser.max_size, parser.max_frames)


def state(parser: Any) -> tuple[Any, ...]:
    error = parser.error
    fault = None if error is None else (type(error), str(error), error.close_code)
    return fault, parser.buffered, parser.mid_message, parser.streaming


def whole(told: list[Any]) -> tuple[list[Any], list[Any], Any]:
    """All events, with neighbouring chunks as one; what the calls said; the last state: what no cut may change."""
    events: list[Any] = []
    calls = []
    for heard, said in told:
        if isinstance(said[0], str):
            calls.append(said)
        for event in heard:
            if event[0] == CHUNK and events and events[-1][0] == CHUNK:
                events[-1] = (CHUNK, events[-1][1] + event[1])
            else:
                events.append(event)
    return events, calls, told[-1][1]
