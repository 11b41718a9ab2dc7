"""Writing of one blocking connection: whole messages, messages in pieces, replies and the close frame.

The owner of the writing lock writes whole frames. A reply that finds the lock taken is left to its owner, so a reader
never waits for a writer.

Invariants: a frame is written whole, or the connection is cut. At most one close frame is sent.
"""

from __future__ import annotations

import contextlib
import selectors
import threading
import time
from collections.abc import Iterator
from typing import Any, Final

from ..constants import CloseCode, Opcode, State
from ..deflate.streams import EMPTY, ContextCompressor
from ..errors import ConcurrencyError
from ..protocol.codec import Utf8Validator, build_frame, fragment, mask_frames, new_mask
from ..protocol.message import Data, opcode_of
from .channel import DONT_WAIT, ForeignLock, SocketChannel
from .dialing import wait_for

__all__ = ["UNSENT", "FrameWriter", "SocketFailed"]

_OPEN = State.OPEN
_TEXT, _BINARY, _CONT = int(Opcode.TEXT), int(Opcode.BINARY), int(Opcode.CONT)
_PONG = int(Opcode.PONG)

#: Most characters, or bytes, of a message that is always a copied frame.
_SHORT: Final = 4 * 1024

#: Bytes that may wait for a peer that reads nothing, before further pings and pongs are left out.
UNSENT: Final = 64 * 1024


class SocketFailed(Exception):
    """Failure of the socket in a write. What comes from the peer before the end says why."""


class FrameWriter:
    """Sending half of a connection. Any thread may call it.

    Args:
        channel: Socket and state.

    Attributes:
        lock: Writing lock.
        short: Most characters, or bytes, of a message for `write_short`; -1 if there are none: with TLS or compression.
        tail: Bytes of frames that the kernel has not taken yet.
        pong: Payload of the pong that is due, or ``None``.
        must_reply: True if a close frame is due.
    """

    __slots__ = (
        "_channel",
        "_in_pieces",
        "_piece_lock",
        "_piece_thread",
        "_rules",
        "_send_bytes",
        "lock",
        "must_reply",
        "pong",
        "short",
        "tail",
    )

    def __init__(self, channel: SocketChannel) -> None:
        self._channel = channel
        self._rules = channel.rules
        self._send_bytes = channel.sock.send
        plain = channel.tls is None and channel.deflate is None
        self.short = min(_SHORT, channel.config.fragment_size // 4) if plain else -1  # a character has up to 4 bytes
        self.lock = threading.Lock()
        self._piece_lock = threading.Lock()
        self._piece_thread = 0
        self._in_pieces = False
        self.tail = b""
        self.pong: bytes | None = None
        self.must_reply = False

    def forked(self) -> None:
        """Refuse calls from now on, in a child of the process."""
        self.lock = self._piece_lock = ForeignLock()  # type: ignore[assignment]

    # --- whole messages ---------------------------------------------------------------------------

    def write_short(self, frame: bytes) -> None:
        """Write one message of at most `short` bytes, in the usual case by one system call. Raise as `write`."""
        with self.lock:
            sent = 0
            if self._rules.state is _OPEN and not self.tail and not self._in_pieces:
                try:
                    sent = self._send_bytes(frame)
                except OSError:
                    pass  # it fails again below
                except BaseException:
                    self._channel.shut()
                    raise
                if 0 < sent < len(frame):
                    self.tail = frame[sent:]
        if not sent:
            self.write(frame)
        elif self.tail:
            self.write(b"")
        elif self.pong is not None or self.must_reply:
            self.reply()

    def write(self, frames: bytes) -> None:
        """Write whole messages.

        Raises:
            SocketFailed: The socket has failed.
            ConnectionClosed: The connection is not open.
            ConcurrencyError: This thread sends a message in pieces.
        """
        self._own()
        try:
            self.output_or_fail(frames)
        finally:
            self.lock.release()
        self.reply()

    def write_messages(self, messages: list[tuple[int, bytes]], compress: bool | None) -> None:
        """Write messages of the given opcodes. Raise as `write`."""
        size, deflate = self._channel.config.fragment_size, self._channel.deflate
        if deflate is None:
            frames: list[Any] = []
            for opcode, payload in messages:
                frames += fragment(opcode, payload, size=size, mask=new_mask)
            self.write(b"".join(frames))
            return
        self._own()  # a compressed message may refer to the one that is sent before it
        try:
            for opcode, payload in messages:
                data, rsv1 = deflate.compress(payload, compress)
                self.output_or_fail(b"".join(fragment(opcode, data, size=size, mask=new_mask, rsv1=rsv1)))
        finally:
            self.lock.release()
        self.reply()

    def _own(self) -> None:
        """Take the writing lock between two messages of an open connection."""
        while True:
            if self._piece_thread == threading.get_ident():
                raise ConcurrencyError("this thread is sending a message in pieces: send behind its end")
            self.lock.acquire()
            if self._rules.state is not _OPEN:
                self.lock.release()
                raise self._rules.closed()
            if not self._in_pieces:
                return
            self.lock.release()
            with self._piece_lock:
                pass

    # --- one message in pieces --------------------------------------------------------------------

    def write_pieces(self, pieces: Iterator[Data], text: bool | None, compress: bool | None) -> None:
        """Write one message of many frames, each built when the one before has left (RFC 6455 section 5.4).

        Raise as `write`. If ``pieces`` fails behind the first frame, the connection is closed with 1011.
        """
        kind: int | None = None
        opcode: int | None = None
        compressor: ContextCompressor | None = None
        utf8 = Utf8Validator() if text else None
        size, deflate = self._channel.config.fragment_size, self._channel.deflate
        try:
            for piece in pieces:
                if opcode is None:
                    kind = opcode_of(piece)
                    self._begin_pieces()
                    opcode = kind if text is None else _TEXT if text else _BINARY
                    if deflate is not None:
                        compressor = deflate.begin(len(piece), compress)
                elif opcode_of(piece) != kind:
                    raise TypeError("the pieces of a message must all be str, or all bytes-like")
                payload = piece.encode() if isinstance(piece, str) else bytes(piece)
                if utf8 is not None and not utf8.feed(payload):
                    raise ValueError("text must be valid UTF-8")
                for at in range(0, len(payload), size):
                    part = payload[at : at + size]
                    if compressor is not None:
                        part = compressor.piece(part)
                    first, opcode = opcode, _CONT
                    self._write_piece(first, part, rsv1=compressor is not None and first != _CONT)
            if utf8 is not None and not utf8.complete:
                raise ValueError("text must be valid UTF-8, which does not end inside a character")
            if opcode is not None:
                rsv1 = compressor is not None and opcode != _CONT
                self._write_piece(opcode, b"" if compressor is None else EMPTY, fin=True, rsv1=rsv1)
        except BaseException:
            if opcode == _CONT:
                self.close(CloseCode.INTERNAL_ERROR, "a message was not completed")
            raise
        finally:
            if self._piece_thread == threading.get_ident():
                self._in_pieces = False
                self._piece_thread = 0
                self._piece_lock.release()

    def _begin_pieces(self) -> None:
        self._own()
        try:
            self._piece_lock.acquire()
            self._piece_thread = threading.get_ident()
            self._in_pieces = True
        finally:
            self.lock.release()

    def _write_piece(self, opcode: int, payload: bytes, *, fin: bool = False, rsv1: bool = False) -> None:
        self.write_frame(build_frame(opcode, payload, fin=fin, rsv1=rsv1, masked=True))

    def write_frame(self, frame: bytes) -> None:
        """Write one frame, also between two pieces of a message. Raise as `write`."""
        with self.lock:
            self.check_open()
            self.output_or_fail(frame)
        self.reply()

    # --- replies and the close frame --------------------------------------------------------------

    def reply(self) -> None:
        """Send what must be answered, unless another thread is writing: then it does that."""
        with contextlib.suppress(OSError):  # the next read tells
            while (self.pong is not None or self.must_reply) and self.lock.acquire(blocking=False):
                try:
                    pong, self.pong = self.pong, None
                    is_open = self._rules.state is _OPEN
                    if pong is not None and is_open and len(self.tail) < UNSENT:
                        self.output(build_frame(_PONG, pong, masked=True), wait=False)
                    if self.must_reply:
                        self.must_reply = False
                        if is_open:
                            self.output(mask_frames(self._rules.reply_frame()), wait=False)
                finally:
                    self.lock.release()

    def close(self, code: int, reason: str) -> None:
        """Send a close frame. Cut the connection if a sender is stuck."""
        channel = self._channel
        timeout = channel.config.close_timeout
        if not self.lock.acquire(timeout=timeout):
            channel.shut()
            return
        try:
            if self._rules.state is _OPEN:
                frame = mask_frames(self._rules.close_frame(code, reason))
                channel.end_by = time.monotonic() + timeout
                with contextlib.suppress(OSError):  # the next read tells
                    self.output(frame, wait=False)
        finally:
            self.lock.release()

    # --- bytes ------------------------------------------------------------------------------------

    def write_tail(self) -> None:
        """Write what the kernel takes of the tail, unless another thread is writing.

        Raises:
            OSError: The socket has failed.
        """
        if self.tail and self.lock.acquire(blocking=False):
            try:
                self.output(b"", wait=False)
            finally:
                self.lock.release()

    def check_open(self) -> None:
        """Raise `ConnectionClosed` if the connection is not open."""
        if self._rules.state is not _OPEN:
            raise self._rules.closed()

    def output_or_fail(self, data: bytes) -> None:
        """Write ``data`` to the socket. The caller owns writing. Raise `SocketFailed` in place of ``OSError``."""
        try:
            self.output(data)
        except OSError as exc:
            raise SocketFailed from exc

    def output(self, data: bytes, *, wait: bool = True) -> None:
        """Write ``data`` to the socket. The caller owns writing. Without ``wait`` a rest is kept for the next write.

        Raises:
            OSError: The socket has failed.
        """
        channel = self._channel
        if channel.tls is not None:
            data = channel.tls.encrypt(data)
        if self.tail:
            data, self.tail = self.tail + data, b""
        sent = 0
        try:
            if wait:
                sent = self._send_bytes(data)
                size = len(data)
                while sent < size:
                    sent += self._send_bytes(memoryview(data)[sent:])
            elif data:
                if not DONT_WAIT and not wait_for(channel.sock, selectors.EVENT_WRITE, 0):
                    raise BlockingIOError
                sent = self._send_bytes(data, DONT_WAIT)
        except BlockingIOError:
            pass
        except OSError:
            raise
        except BaseException:
            channel.shut()  # the peer has half a frame, perhaps
            raise
        if sent < len(data):
            self.tail = data[sent:]
