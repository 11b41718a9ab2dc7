"""Slow ways to send: a message that is long, checked or compressed, several at once, and one message in pieces.

Functions that take the connection. The fast path is in `core`. A send returns when its message is queued. For a full
queue the overflow policy decides (``overflow``). The connection is checked first, then the message, then the queue.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Iterator
from contextlib import aclosing
from typing import TYPE_CHECKING

from .. import limits
from ..constants import CloseCode, Opcode, State
from ..deflate.streams import EMPTY, ContextCompressor
from ..errors import ConnectionClosed, SendQueueFull
from ..protocol.codec import Utf8Validator, build_frame
from ..protocol.message import Data, EncodedMessage, Pieces, checked_compress, encode, opcode_of, payload_of
from .closing import begin_close
from .full_queue import drain, give_way, report_losses

if TYPE_CHECKING:
    from .core import ConnCore

__all__ = ["outgoing", "send_nowait", "send_shared", "send_slowly", "write_many", "write_message"]


# --- whole messages -------------------------------------------------------------------------------


async def send_slowly(conn: ConnCore, message: Data | Pieces, text: bool | None, compress: bool | None) -> None:
    """Queue a message in all cases. See :meth:`plumews.Conn.send`."""
    if isinstance(message, (AsyncIterable, Iterator)):
        await _send_pieces(conn, message, text, compress)
        return
    opcode = opcode_of(message)
    if text is not None:
        opcode = Opcode.TEXT if text else Opcode.BINARY
    await write_message(conn, opcode, message, compress)


async def write_message(conn: ConnCore, opcode: int, data: Data, compress: bool | None) -> None:
    """Queue a message of the given opcode. See :meth:`plumews.Conn.write_message`."""
    try:
        message = outgoing(conn, opcode, data, compress)
        if not conn._try_queue(message):
            await conn._config.overflow.send(conn, message)
    except (ConnectionClosed, SendQueueFull):
        await give_way(conn)  # also a handler that tries again and again
        raise
    conn._kick()
    pause = conn._state.count_await()
    if pause is not None:
        await pause


async def write_many(conn: ConnCore, messages: Iterable[Data], compress: bool | None) -> None:
    """Queue several messages that leave together. See :meth:`plumews.Conn.write_many`."""
    if isinstance(messages, (str, bytes, bytearray, memoryview)):
        raise TypeError(f"write_many takes several messages, such as a list, not {type(messages).__name__}: use send")
    try:
        for data in messages:
            message = outgoing(conn, opcode_of(data), data, compress)
            if not conn._try_queue(message):
                await conn._config.overflow.send(conn, message)
            pause = conn._state.count_await()
            if pause is not None:
                conn._kick()
                await pause
    except (ConnectionClosed, SendQueueFull):
        await give_way(conn)
        raise
    finally:
        conn._kick()
    await give_way(conn)  # there may have been no message


def send_nowait(conn: ConnCore, data: Data, compress: bool | None) -> None:
    """Queue a message that is long, needs checks, or finds no space. See :meth:`plumews.Conn.send_nowait`."""
    message = outgoing(conn, opcode_of(data), data, compress)
    if not conn._try_queue(message):
        conn._config.overflow.send_now(conn, message)
    conn._kick()


def send_shared(conn: ConnCore, message: EncodedMessage) -> None:
    """Queue a message that several connections get. Raise as :meth:`plumews.Conn.send_nowait`."""
    conn._check_thread()
    conn._catch_up()
    _check_open(conn)
    if not conn._try_queue(message):
        conn._config.overflow.send_now(conn, message)
    conn._kick_later()


def outgoing(conn: ConnCore, opcode: int, data: Data, compress: bool | None = None) -> EncodedMessage:
    """Check the connection and the message, and return it encoded."""
    conn._check_thread()
    _check_open(conn)
    payload = payload_of(opcode, data)
    if compress is not None:
        checked_compress(compress)
    conn._catch_up()
    _check_open(conn)
    if conn._deflate is not None:
        return conn._deflate.encode(opcode, payload, compress)
    return encode(opcode, payload, fragment_size=conn._config.fragment_size)


def _check_open(conn: ConnCore) -> None:
    if conn._rules.state is not State.OPEN:
        raise conn._rules.closed()


# --- one message in pieces ------------------------------------------------------------------------


async def _send_pieces(conn: ConnCore, pieces: Pieces, text: bool | None, compress: bool | None) -> None:
    """Send one message of many frames, each built when the one before has left (RFC 6455 section 5.4)."""
    checked_compress(compress)
    kind = opcode = compressor = None
    utf8 = Utf8Validator() if text else None
    try:
        async with aclosing(_each(pieces)) as each:
            async for piece in each:
                if opcode is None:
                    kind = opcode_of(piece)
                    await _begin_pieces(conn)
                    opcode = kind if text is None else Opcode.TEXT if text else Opcode.BINARY
                    if conn._deflate is not None:
                        compressor = conn._deflate.begin(len(piece), compress)
                elif opcode_of(piece) != kind:
                    raise TypeError("the pieces of a message must all be str, or all bytes-like")
                payload = piece.encode() if isinstance(piece, str) else bytes(piece)
                if utf8 is not None and not utf8.feed(payload):
                    raise ValueError("text must be valid UTF-8")
                for part in _parts(payload, conn._config.fragment_size, compressor):
                    first, opcode = opcode, Opcode.CONT
                    await _add_piece(conn, first, part, rsv1=compressor is not None and first != Opcode.CONT)
                if not payload:
                    await give_way(conn)
        if utf8 is not None and not utf8.complete:
            raise ValueError("text must be valid UTF-8, which does not end inside a character")
        if opcode is not None:
            rsv1 = compressor is not None and opcode != Opcode.CONT
            await _add_piece(conn, opcode, b"" if compressor is None else EMPTY, fin=True, rsv1=rsv1)
        else:
            await give_way(conn)
    except BaseException as exc:
        if opcode == Opcode.CONT and conn._in_pieces:
            begin_close(conn, CloseCode.INTERNAL_ERROR, "a message was not completed", discard=True)
        if isinstance(exc, (ConnectionClosed, SendQueueFull)):
            await give_way(conn)
        raise
    finally:
        if opcode is not None and conn._in_pieces:
            conn._end_pieces()
            report_losses(conn)


async def _begin_pieces(conn: ConnCore) -> None:
    conn._check_thread()
    _check_open(conn)
    conn._catch_up()
    _check_open(conn)
    if not conn._begin_pieces():
        await conn._config.overflow.send(conn, None)


async def _add_piece(conn: ConnCore, opcode: int, payload: bytes, *, fin: bool = False, rsv1: bool = False) -> None:
    if not conn._in_pieces:
        raise conn._rules.closed()
    frame = build_frame(opcode, payload, fin=fin, rsv1=rsv1)
    conn._enter(frame, len(frame))
    if not fin:
        conn._check_thread()
        await drain(conn)
    else:
        conn._kick()


def _parts(payload: bytes, size: int, compressor: ContextCompressor | None) -> Iterator[bytes]:
    """Yield ``payload`` in parts of at most ``size`` bytes, compressed by ``compressor`` if there is one."""
    if compressor is None:
        yield from _cut(payload, size)
        return
    for part in _cut(payload, limits.COMPRESS_PIECE):
        yield from _cut(compressor.piece(part), size)


def _cut(payload: bytes, size: int) -> Iterator[bytes]:
    return (payload[start : start + size] for start in range(0, len(payload), size))


async def _each(pieces: Pieces) -> AsyncGenerator[Data, None]:
    if isinstance(pieces, AsyncIterable):
        async for piece in pieces:
            yield piece
    else:
        for piece in pieces:
            yield piece
