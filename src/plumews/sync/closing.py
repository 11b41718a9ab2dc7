"""End of a blocking connection: waiting for it after a close frame, after a failed write, and when the process ends."""

from __future__ import annotations

import contextlib
import time
from typing import NoReturn

from .. import limits
from ..constants import CloseCode, State
from ..protocol.codec import mask_frames
from .channel import LOOK, SocketChannel
from .reader import MessageReader
from .writer import FrameWriter

__all__ = ["leave", "raise_end", "wait_for_end"]


def wait_for_end(channel: SocketChannel, reader: MessageReader, writer: FrameWriter, deadline: float) -> None:
    """Read until the connection is gone. At ``deadline`` it is cut, also under another thread that reads."""
    for _ in range(2):
        if reader.lock.acquire(timeout=max(deadline - time.monotonic(), 0)):
            try:
                _read_to_end(channel, reader, writer, deadline)
            finally:
                reader.lock.release()
            return
        channel.shut()  # the reader finds the end
        deadline = time.monotonic() + limits.END_GRACE


def _read_to_end(channel: SocketChannel, reader: MessageReader, writer: FrameWriter, deadline: float) -> None:
    """Read, and discard messages, until the connection is gone. At ``deadline`` it is cut."""
    while channel.rules.state is not State.CLOSED:
        try:
            writer.write_tail()
        except OSError:
            writer.tail = b""
        until = min(deadline, time.monotonic() + LOOK) if writer.tail else deadline
        try:
            reader.read(until)
        except TimeoutError:
            if time.monotonic() >= deadline:
                reader.lose()


def raise_end(channel: SocketChannel, reader: MessageReader) -> NoReturn:
    """Raise the error of a connection whose socket has failed in a write: a close frame may have come before."""
    if reader.lock.acquire(timeout=limits.END_GRACE):
        try:
            deadline = time.monotonic() + limits.END_GRACE
            with contextlib.suppress(TimeoutError):
                while channel.rules.state is not State.CLOSED:
                    reader.read(deadline)
            reader.lose()
        finally:
            reader.lock.release()
    raise channel.rules.closed() from None


def leave(channel: SocketChannel, reader: MessageReader, writer: FrameWriter) -> None:
    """Tell the peer that the process ends, and close. A thread that waits here is left alone."""
    if not reader.lock.acquire(blocking=False):
        return
    if writer.lock.acquire(blocking=False):
        with contextlib.suppress(OSError):
            if channel.rules.state is State.OPEN:
                writer.output(mask_frames(channel.rules.close_frame(CloseCode.GOING_AWAY)), wait=False)
        channel.rules.lost()
        channel.sock.close()
        channel.ended.set()
