"""Building of frames: headers, fragments of a message, batches of messages (RFC 6455 sections 5.2 and 5.4).

Invariant: an unmasked payload of more than 16 KiB is never copied if it came as bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import index
from typing import Any, Final

from ... import violations
from ...constants import Opcode
from ...limits import COPY_SIZE, FRAGMENT_SIZE
from .masking import as_bytes, check_key, new_mask, xor

_CONT: Final = int(Opcode.CONT)
_TEXT: Final = int(Opcode.TEXT)
_BINARY: Final = int(Opcode.BINARY)

LENGTH_LIMIT: Final = 2**63 - 1


def build_header(
    opcode: int, length: int, *, fin: bool = True, rsv1: bool = False, mask_key: bytes | None = None
) -> bytes:
    """Build the header of a frame with ``length`` bytes of payload, and with the key if one is given.

    The fields are written as given. The caller knows if such a frame may be sent: tests and proxies build
    frames that may not.
    """
    opcode = index(opcode)
    if not 0 <= opcode <= 15:
        raise ValueError(violations.OPCODE.format(opcode=opcode))
    length = index(length)
    if not 0 <= length <= LENGTH_LIMIT:
        raise ValueError(violations.LENGTH.format(length=length))
    first = opcode | (0x80 if fin else 0) | (0x40 if rsv1 else 0)
    if mask_key is None:
        masked, key = 0, b""
    else:
        masked, key = 0x80, check_key(mask_key)
    if length <= 125:
        return bytes((first, masked | length)) + key
    if length <= 0xFFFF:
        return bytes((first, masked | 126)) + length.to_bytes(2, "big") + key
    return bytes((first, masked | 127)) + length.to_bytes(8, "big") + key


def build_frame(
    opcode: int,
    payload: Any,
    *,
    fin: bool = True,
    rsv1: bool = False,
    mask_key: bytes | None = None,
    masked: bool = False,
) -> bytes:
    """Build a frame with ``payload``: any contiguous buffer, or a str, which is encoded as UTF-8.

    ``masked`` masks it with a fresh key, unless ``mask_key`` gives one.
    """
    data = payload.encode() if isinstance(payload, str) else as_bytes(payload)
    if masked and mask_key is None:
        mask_key = new_mask()
    header = build_header(opcode, len(data), fin=fin, rsv1=rsv1, mask_key=mask_key)
    return header + (data if mask_key is None else xor(data, 0, len(data), mask_key))


def _is_its_own_utf_8(payload: Any) -> bool:
    """Return True if ``payload`` is a text stored as UTF-8. Both bodies pass a large one on as a view."""
    return type(payload) is str and payload.isascii()


def build_batch(messages: Iterable[tuple[int, Any]], *, masked: bool = False) -> list[bytes | memoryview]:
    """Build the frames of many messages, each ``(opcode, payload)`` as for :func:`build_frame`, in one call.

    They come as few buffers to write in this order: frames with up to 16 KiB of payload are put together, a larger
    payload stands by itself behind its header, not copied. With ``masked`` each frame is masked with a fresh key, and
    all are one bytes object. Opcodes are written as given, each frame has FIN.
    """
    buffers: list[bytes | memoryview] = []
    run: list[bytes] = []
    for message in messages:
        try:
            opcode, payload = message
        except (TypeError, ValueError):
            raise TypeError(violations.PAIR.format(type=type(message).__name__)) from None
        data = payload.encode() if isinstance(payload, str) else as_bytes(payload)
        if masked:
            run.append(build_frame(opcode, data, masked=True))
            continue
        run.append(build_header(opcode, len(data)))
        if len(data) <= COPY_SIZE:
            run.append(data)
        else:
            buffers += (b"".join(run), memoryview(data) if _is_its_own_utf_8(payload) else data)
            run = []
    if run:
        buffers.append(b"".join(run))
    return buffers


def fragment(
    opcode: int,
    payload: Any,
    *,
    size: int = FRAGMENT_SIZE,
    mask: Callable[[], bytes] | None = None,
    rsv1: bool = False,
) -> list[bytes | memoryview]:
    """Build the frames of one message, as buffers to write in this order (section 5.4).

    At most ``size`` bytes of payload go into a frame. The first has the opcode and ``rsv1``, the last FIN.
    Up to 16 KiB of payload come as one bytes object; more as headers and slices of ``payload``, not copied.
    ``mask``, where given, is called for the key of each frame, which then is a masked copy.
    """
    opcode, size = index(opcode), index(size)
    if opcode not in (_TEXT, _BINARY):
        raise ValueError(violations.DATA_OPCODE.format(opcode=opcode))
    if size < 1:
        raise ValueError(violations.SIZE.format(size=size))
    data = payload.encode() if isinstance(payload, str) else as_bytes(payload)
    copied = len(data) <= COPY_SIZE
    view = memoryview(data)
    buffers: list[bytes | memoryview] = []
    for start in range(0, len(data) or 1, size):
        piece = view[start : start + size] if len(data) > size else view if _is_its_own_utf_8(payload) else data
        fin = start + size >= len(data)
        if mask is not None:
            buffers.append(build_frame(opcode, piece, fin=fin, rsv1=rsv1, mask_key=check_key(mask())))
        else:
            buffers += (build_header(opcode, len(piece), fin=fin, rsv1=rsv1), piece)
        opcode, rsv1 = _CONT, False
    return [b"".join(buffers)] if copied else buffers


def mask_frames(data: Any) -> bytes:
    """Return the whole unmasked frames in ``data``, any contiguous buffer, each masked with a fresh key.

    Raise ``ValueError`` for data that is anything else.
    """
    data = as_bytes(data)
    frames: list[bytes] = []
    at, size = 0, len(data)
    while at < size:
        if size - at < 2 or data[at + 1] & 0x80:
            raise ValueError(violations.NOT_FRAMES)
        length = data[at + 1]
        head = 2 if length < 126 else 4 if length == 126 else 10
        if size - at < head:
            raise ValueError(violations.NOT_FRAMES)
        if head > 2:
            length = int.from_bytes(data[at + 2 : at + head], "big")
        start, stop = at + head, at + head + length
        if stop > size:
            raise ValueError(violations.NOT_FRAMES)
        key = new_mask()
        frames += (bytes((data[at], data[at + 1] | 0x80)), data[at + 2 : start], key, xor(data, start, stop, key))
        at = stop
    return b"".join(frames)
