"""Sending: whole messages, several at once, and one message in pieces.

A send returns when its message is queued. For a full queue the overflow policy decides (``overflow``). The connection
is checked first, then the message, then the queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Iterator
from contextlib import aclosing
from typing import Any

from .. import limits
from ..constants import CloseCode, Opcode, State
from ..deflate.streams import EMPTY, ContextCompressor
from ..errors import ConnectionClosed, SendQueueFull
from ..protocol.codec import Utf8Validator, build_frame
from ..protocol.message import (
    Data,
    EncodedMessage,
    Pieces,
    checked_compress,
    encode,
    encode_json,
    opcode_of,
    payload_of,
)
from .full_queue import Overflowing

__all__ = ["Sending"]


class Sending(Overflowing):
    """Writing half of :class:`plumews.Conn`."""

    __slots__ = ()

    async def _send_slowly(self, message: Data | Pieces, text: bool | None, compress: bool | None) -> None:
        if isinstance(message, (AsyncIterable, Iterator)):
            await self._send_pieces(message, text, compress)
            return
        opcode = opcode_of(message)
        if text is not None:
            opcode = Opcode.TEXT if text else Opcode.BINARY
        await self.write_message(opcode, message, compress=compress)

    async def write_message(self, opcode: int, data: Data, *, compress: bool | None = None) -> None:
        """Queue a message of the given opcode. Raise as :meth:`send`.

        Args:
            opcode: ``Opcode.TEXT`` or ``Opcode.BINARY``.
            data: the payload; text must be valid UTF-8.
            compress: as in :meth:`send`.
        """
        try:
            message = self._outgoing(opcode, data, compress)
            if not self._writer.offer(message):
                await self._config.overflow.send(self, message)
        except (ConnectionClosed, SendQueueFull):
            await self._give_way()  # also a handler that tries again and again
            raise
        self._kick()
        pause = self._state.count_await()
        if pause is not None:
            await pause

    async def write_text(self, text: str, *, compress: bool | None = None) -> None:
        """Queue a text message. Raise as :meth:`send`.

        Args:
            text: the message, a ``str``.
            compress: as in :meth:`send`.
        """
        if not isinstance(text, str):
            raise TypeError(f"write_text takes a str, not {type(text).__name__}")
        await self.write_message(Opcode.TEXT, text, compress=compress)

    async def write_binary(self, data: bytes | bytearray | memoryview, *, compress: bool | None = None) -> None:
        """Queue a binary message. Raise as :meth:`send`.

        Args:
            data: the message, bytes-like.
            compress: as in :meth:`send`.
        """
        if isinstance(data, str):
            raise TypeError("write_binary takes bytes, not str")
        await self.write_message(Opcode.BINARY, data, compress=compress)

    async def write_json(self, obj: Any, *, compress: bool | None = None) -> None:
        """Queue an object as compact JSON in a text message. Raise as :meth:`send`.

        Args:
            obj: the object. If JSON cannot express it, ``TypeError`` or ``ValueError`` is raised and no message queued.
            compress: as in :meth:`send`.
        """
        await self.write_message(Opcode.TEXT, encode_json(obj), compress=compress)

    async def write_many(self, messages: Iterable[Data], *, compress: bool | None = None) -> None:
        """Queue several messages that leave together, in fewer writes than a :meth:`send` for each.

        Raise as :meth:`send`. Messages before the one that raised are queued, the later ones are not.

        Args:
            messages: the messages, ``str`` for text and bytes-like for binary; not a single message.
            compress: as in :meth:`send`.
        """
        if isinstance(messages, (str, bytes, bytearray, memoryview)):
            raise TypeError(
                f"write_many takes several messages, such as a list, not {type(messages).__name__}: use send"
            )
        try:
            for message in messages:
                outgoing = self._outgoing(opcode_of(message), message, compress)
                if not self._writer.offer(outgoing):
                    await self._config.overflow.send(self, outgoing)
                pause = self._state.count_await()
                if pause is not None:
                    self._kick()
                    await pause
        except (ConnectionClosed, SendQueueFull):
            await self._give_way()
            raise
        finally:
            self._kick()
        await self._give_way()  # there may have been no message

    async def drain(self) -> None:
        """Wait until all queued messages have left for the peer.

        Raises:
            ConnectionClosed: the connection ends before that.
            ConcurrencyError: called from another thread.
        """
        self._check_thread()
        self._writer.flush()
        left: asyncio.Future[bool] = self._loop.create_future()
        self._writer.when_empty(lambda good: None if left.done() else left.set_result(good))
        good = await left
        await self._give_way()
        if not good:
            raise self._closed_error()

    async def _give_way(self) -> None:
        """Suspend if this task, or others that do not suspend, have used up the time slice of the loop."""
        pause = self._state.count_await()
        if pause is not None:
            await pause

    # --- inside -----------------------------------------------------------------------------------

    def _send_nowait_slowly(self, message: Data, compress: bool | None) -> None:
        outgoing = self._outgoing(opcode_of(message), message, compress)
        if not self._writer.offer(outgoing):
            self._config.overflow.send_now(self, outgoing)
        self._kick()

    def _send_shared(self, message: EncodedMessage) -> None:
        """Queue a message that several connections get. Raise as :meth:`send_nowait`."""
        self._check_thread()
        self._catch_up_open()
        if not self._writer.offer(message):
            self._config.overflow.send_now(self, message)
        self._kick_later()

    def _catch_up_open(self) -> None:
        """Queue the earlier broadcasts. Raise ``ConnectionClosed`` if they overflow the queue and that closes."""
        if self._behind is not None:
            self._catch_up()
            if self._rules.state is not State.OPEN:
                raise self._closed_error()

    def _outgoing(self, opcode: int, data: Data, compress: bool | None = None) -> EncodedMessage:
        """Check the connection and the message, and return it encoded."""
        self._check_thread()
        if self._rules.state is not State.OPEN:
            raise self._closed_error()
        payload = payload_of(opcode, data)
        if compress is not None:
            checked_compress(compress)
        self._catch_up_open()
        if self._deflate is not None:
            return self._deflate.encode(opcode, payload, compress)
        return encode(opcode, payload, fragment_size=self._config.fragment_size)

    async def _send_pieces(self, pieces: Pieces, text: bool | None, compress: bool | None) -> None:
        """Send one message of many frames, each built when the one before has left (RFC 6455 section 5.4)."""
        checked_compress(compress)
        writer = self._writer
        kind = opcode = compressor = None
        utf8 = Utf8Validator() if text else None
        try:
            async with aclosing(_each(pieces)) as each:
                async for piece in each:
                    if opcode is None:
                        kind = opcode_of(piece)
                        await self._begin_pieces()
                        opcode = kind if text is None else Opcode.TEXT if text else Opcode.BINARY
                        if self._deflate is not None:
                            compressor = self._deflate.begin(len(piece), compress)
                    elif opcode_of(piece) != kind:
                        raise TypeError("the pieces of a message must all be str, or all bytes-like")
                    payload = piece.encode() if isinstance(piece, str) else bytes(piece)
                    if utf8 is not None and not utf8.feed(payload):
                        raise ValueError("text must be valid UTF-8")
                    for part in _parts(payload, self._config.fragment_size, compressor):
                        first, opcode = opcode, Opcode.CONT
                        await self._add_piece(first, part, rsv1=compressor is not None and first != Opcode.CONT)
                    if not payload:
                        await self._give_way()
            if utf8 is not None and not utf8.complete:
                raise ValueError("text must be valid UTF-8, which does not end inside a character")
            if opcode is not None:
                rsv1 = compressor is not None and opcode != Opcode.CONT
                await self._add_piece(opcode, b"" if compressor is None else EMPTY, fin=True, rsv1=rsv1)
            else:
                await self._give_way()
        except BaseException as exc:
            if opcode == Opcode.CONT and writer.in_pieces:
                self._begin_close(CloseCode.INTERNAL_ERROR, "a message was not completed", discard=True)
            if isinstance(exc, (ConnectionClosed, SendQueueFull)):
                await self._give_way()
            raise
        finally:
            if opcode is not None and writer.in_pieces:
                writer.end_pieces()
                self._report_losses()

    async def _begin_pieces(self) -> None:
        self._check_thread()
        if self._rules.state is not State.OPEN:
            raise self._closed_error()
        self._catch_up_open()
        if not self._writer.begin_pieces():
            await self._config.overflow.send(self, None)

    async def _add_piece(self, opcode: int, payload: bytes, *, fin: bool = False, rsv1: bool = False) -> None:
        if not self._writer.in_pieces:
            raise self._closed_error()
        self._writer.add_piece(build_frame(opcode, payload, fin=fin, rsv1=rsv1))
        if not fin:
            await self.drain()
        else:
            self._kick()


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
