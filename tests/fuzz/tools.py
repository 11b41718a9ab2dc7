"""The fuzz target ``tools``: masks, UTF-8 and building agree, with each other and with what defines them.

The first byte picks masking (section 5.3), validating (RFC 3629), or one way of building frames (sections 5.2 and
5.4); the rest are its arguments. Beside the agreement of the bodies each result is held to a definition that needs
neither: a byte-wise XOR, CPython's decoder, a parser that reads back what was built.
"""

from __future__ import annotations

from typing import Any

from .material import Input, agreed, lend, require, spoil


def tools(data: bytes) -> None:
    """The target."""
    source = Input(data)
    (masking, validating, building, fragmenting, batching)[source.number() % 5](source)


# --- masks ----------------------------------------------------------------------------------------


def masking(source: Input) -> None:
    kind, offset = source.number(), source.number(source.number() & 15) - 5
    key = source.take(5 if kind & 0x70 == 0x70 else 4)
    data = source.payload()
    masked = agreed(lambda codec: codec.mask(lend(kind & 3, data), key, offset))
    agreed(lambda codec: in_place(codec, data, kind, key, offset))
    if len(key) == 4:
        require(masked == xored(data, key, offset), f"the mask of {data[:200]!r} with {key!r} at {offset}")
        require(agreed(lambda codec: codec.mask(masked, key, offset)) == data, "a mask taken back")
        require(agreed(lambda codec: in_place(codec, data, kind, key, offset)) == masked, "a mask in place")
    else:
        require(masked[0] is ValueError, f"a key of {len(key)} bytes")


def in_place(codec: Any, data: bytes, kind: int, key: bytes, offset: int) -> bytes:
    """``data`` masked where it stands, between bytes that must stay as they are."""
    before, after = kind >> 2 & 15, kind >> 4 & 3
    around = bytearray(b"\x5a" * before + data + b"\x5a" * after)
    with memoryview(around)[before : before + len(data)] as view:
        codec.mask_inplace(view, key, offset)
    require(around[:before] == b"\x5a" * before, "the bytes before a mask in place")
    require(around[before + len(data) :] == b"\x5a" * after, "the bytes behind a mask in place")
    return bytes(around[before : before + len(data)])


def xored(data: bytes, key: bytes, offset: int) -> bytes:
    """The definition (section 5.3)."""
    return bytes(byte ^ key[(at + offset) % 4] for at, byte in enumerate(data))


# --- UTF-8 ----------------------------------------------------------------------------------------

#: One of these completes any character that has begun, whatever its second byte may be.
TAILS = [b"", b"\x80", b"\x80\x80", b"\x80\x80\x80", b"\xa0\x80", b"\x90\x80\x80"]


def validating(source: Input) -> None:
    kind = source.number()
    pieces = []
    while source and len(pieces) < 64:
        pieces.append(source.payload())

    def judge(codec: Any) -> list[tuple[bool, bool]]:
        validator = codec.Utf8Validator()
        judged = []
        for piece in pieces:
            buffer = lend(kind & 3, piece)
            judged.append((validator.feed(buffer), validator.complete))
            spoil(buffer)
        validator.reset()
        require(validator.complete and validator.feed(b"a"), "a validator that was reset")
        return judged

    judged = agreed(judge)
    fed = b""  # without the characters that are complete
    good_before = True
    for piece, (good, complete) in zip(pieces, judged, strict=True):
        require(good <= good_before, "what was bad is good again")
        if good_before:
            fed += piece
            require(good == any(decodes(fed + tail) for tail in TAILS), f"good is {good} after {fed[-200:]!r}")
            fed = next((fed[cut:] for cut in range(len(fed), max(len(fed) - 4, -1), -1) if decodes(fed[:cut])), fed)
        require(complete == (good and not fed), f"complete is {complete}, {fed[-200:]!r} is left")
        good_before = good


def decodes(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


# --- building -------------------------------------------------------------------------------------


def building(source: Input) -> None:
    flags, opcode = source.number(), source.number() - 8
    length = source.number(source.number() & 15) - 1
    key = source.take(4) if flags & 1 else None
    options = {"fin": bool(flags & 2), "rsv1": bool(flags & 4), "mask_key": key}
    data = source.payload()
    payload = data.decode(errors="surrogateescape") if flags & 8 else data
    agreed(lambda codec: codec.build_header(opcode, length, **options))
    lent = flags >> 4 & 3
    frame = agreed(lambda codec: codec.build_frame(opcode, payload if flags & 8 else lend(lent, data), **options))
    if isinstance(frame, bytes):
        require(frame.endswith(data if key is None else xored(data, key, 0)), "the payload of a frame")
        header = agreed(lambda codec: codec.build_header(opcode, len(data), **options))
        require(frame[: len(frame) - len(data)] == header, "the header of a frame")
        read_back(opcode, frame, data, options)


def read_back(opcode: int, frame: bytes, data: bytes, options: dict[str, Any]) -> None:
    """A parser on the other side reads a message that was built."""
    if opcode not in (1, 2, 9, 10) or options["rsv1"] or not options["fin"] or (opcode > 8 and len(data) > 125):
        return
    told = agreed(lambda codec: parsed(codec, frame, masked=options["mask_key"] is not None))
    want = [] if opcode == 1 and not decodes(data) else [(opcode, data)]
    require(told == want, f"{told!r:.500} read back, not {want!r:.500}")


def parsed(codec: Any, stream: bytes, masked: bool) -> list[Any]:
    return codec.Parser(client=not masked, max_size=None, decode_text=False).feed(stream)


def fragmenting(source: Input) -> None:
    flags, opcode = source.number(), source.number()
    size = source.number(source.number() & 15) - 1
    keys = None if not flags & 1 else [source.take(4), source.take(4)]
    data = source.payload()
    payload = data.decode(errors="surrogateescape") if flags & 8 else lend(flags >> 4 & 3, data)
    opcode = opcode if flags & 2 else 1 + (opcode & 1)
    size = size if size < 1 else max(size, len(data) // 200)

    def fragments(codec: Any) -> list[Any]:
        used: list[bytes] = []

        def mask() -> bytes:
            used.append(keys[len(used) & 1])
            return used[-1]

        options = {"size": size, "mask": None if keys is None else mask, "rsv1": bool(flags & 4)}
        return [(type(each), bytes(each)) for each in codec.fragment(opcode, payload, **options)]

    buffers = agreed(fragments)
    if isinstance(buffers, list) and not flags & 4 and (opcode == 2 or decodes(data)):
        stream = b"".join(each for _, each in buffers)
        told = agreed(lambda codec: parsed(codec, stream, masked=keys is not None))
        require(told == [(opcode, data)], f"{told!r:.500} put together again")


def batching(source: Input) -> None:
    messages = []
    while source and len(messages) < 20:
        kind, data = source.number(), source.payload()
        text = kind & 4 and decodes(data)
        messages.append((1 if text else 2, data.decode() if text and kind & 8 else data, kind & 3))
    want = [(opcode, data.encode() if isinstance(data, str) else data) for opcode, data, _ in messages]

    def batch(codec: Any, masked: bool) -> list[tuple[type, bytes]]:
        lent = [(opcode, data if isinstance(data, str) else lend(kind, data)) for opcode, data, kind in messages]
        buffers = codec.build_batch(iter(lent), masked=masked)
        for _, data in lent:
            if not isinstance(data, str):
                spoil(data)
        return [(type(each), bytes(each)) for each in buffers]

    clear = b"".join(each for _, each in agreed(lambda codec: batch(codec, masked=False)))
    require(clear == agreed(lambda codec: b"".join(codec.build_frame(*each) for each in want)), "a batch")
    told = agreed(lambda codec: parsed(codec, b"".join(each for _, each in batch(codec, masked=True)), masked=True))
    require(told == want, "a batch, masked with fresh keys, read back")
