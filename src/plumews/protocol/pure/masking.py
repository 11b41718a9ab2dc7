"""Masking of payloads, and unpredictable mask keys (RFC 6455 sections 5.3 and 10.3).

A payload is one large int that is XORed with another, in pieces that fit the processor's cache. Invariant:
:func:`new_mask` returns each key once, also to concurrent threads and after a fork.
"""

from __future__ import annotations

import io
import os
from operator import index
from typing import Any, Final

from ... import violations

#: Bytes that are XORed at once: larger ints do not fit the processor's cache.
_PIECE: Final = 4 * 1024

_from_bytes: Final = int.from_bytes

#: Unused keys.
_KEYS: Final[list[bytes]] = []
_POOL: Final = 4096


# --- buffers --------------------------------------------------------------------------------------


def as_bytes(data: Any) -> bytes:
    """Return ``data`` as bytes. Copy it unless it is exactly that."""
    if type(data) is bytes:
        return data
    with _view_of(data) as view:
        return view.tobytes()


def _view_of(data: Any) -> memoryview:
    try:
        view = memoryview(data)
    except TypeError:
        raise TypeError(violations.NOT_A_BUFFER.format(type=type(data).__name__)) from None
    if not view.c_contiguous:
        view.release()
        raise BufferError(violations.NOT_CONTIGUOUS)
    return view


def check_key(key: bytes) -> bytes:
    if type(key) is not bytes:
        raise TypeError(violations.KEY_TYPE.format(type=type(key).__name__))
    if len(key) != 4:
        raise ValueError(violations.KEY_LENGTH.format(length=len(key)))
    return key


def rotated(key: bytes, offset: int) -> bytes:
    """Return the key for data that begins ``offset`` bytes into a payload."""
    offset &= 3
    return key[offset:] + key[:offset]


def xor(data: bytes, start: int, stop: int, key: bytes) -> bytes:
    """Return ``data[start:stop]`` masked with ``key``."""
    size = stop - start
    if size <= _PIECE:
        pad = (key * ((size + 3) >> 2))[:size]
        return (_from_bytes(data[start:stop], "little") ^ _from_bytes(pad, "little")).to_bytes(size, "little")
    pad_of_piece = _from_bytes(key * (_PIECE >> 2), "little")
    out = io.BytesIO()  # its bytes are handed over without a copy, which b"".join cannot
    whole = stop - size % _PIECE
    for at in range(start, whole, _PIECE):
        piece = _from_bytes(data[at : at + _PIECE], "little") ^ pad_of_piece
        out.write(piece.to_bytes(_PIECE, "little"))
    out.write(xor(data, whole, stop, key))
    return out.getvalue()


# --- masks (section 5.3) --------------------------------------------------------------------------


def mask(data: Any, key: bytes, offset: int = 0) -> bytes:
    """Mask or unmask ``data``, any contiguous buffer, with the 4 bytes of ``key`` (section 5.3).

    ``offset`` is the position in the payload at which ``data`` begins.
    """
    if type(key) is not bytes or len(key) != 4:
        check_key(key)
    if offset.__class__ is not int or offset:
        key = rotated(key, index(offset))
    if type(data) is not bytes:
        data = as_bytes(data)
    size = len(data)
    if size > _PIECE:
        return xor(data, 0, size, key)
    pad = key * ((size + 3) >> 2)
    if size & 3:
        pad = pad[:size]
    return (_from_bytes(data, "little") ^ _from_bytes(pad, "little")).to_bytes(size, "little")


def mask_inplace(data: Any, key: bytes, offset: int = 0) -> None:
    """Mask or unmask ``data``, a writable contiguous buffer, in place."""
    key = rotated(check_key(key), index(offset))
    with _view_of(data) as whole:
        if whole.readonly:
            raise BufferError(violations.READ_ONLY)
        if whole.nbytes == 0:
            return
        with whole.cast("B") as view:
            for start in range(0, len(view), _PIECE):
                piece = bytes(view[start : start + _PIECE])
                view[start : start + _PIECE] = xor(piece, 0, len(piece), key)


# --- keys (section 10.3) --------------------------------------------------------------------------


def new_mask() -> bytes:
    """Return a mask key for one frame: 4 bytes from the system's random source, used once.

    Keys come from a pool of 4096 bytes, which a child of ``fork`` does not inherit.
    """
    try:
        return _KEYS.pop()
    except IndexError:
        fresh = os.urandom(_POOL)
        _KEYS.extend(fresh[i : i + 4] for i in range(4, _POOL, 4))
        return fresh[:4]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_KEYS.clear)
