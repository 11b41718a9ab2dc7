"""Runs of messages: several that are accepted at once and leave in order, such as the missed ones of a room.

Functions that take the channel. What the socket does not take of a run is treated as the rest of a long message:
nothing displaces it, and it does not count against the bounds of the queue. So a slow member gets all of them.

Invariants: a run never overtakes messages that were accepted before it. If a call fails, the connection ends, because
it is unknown which messages were accepted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..protocol.message import EncodedMessage
from .send_queue import SendQueue

if TYPE_CHECKING:
    from .channel import Channel

__all__ = ["accept", "room_for"]


def room_for(channel: Channel, messages: list[EncodedMessage]) -> int:
    """Return how many of ``messages``, in order, can be accepted now: all of them while the transport takes bytes.

    Queued messages are flushed first.
    """
    channel._flush()
    if channel._waiters is not None or channel._in_pieces:
        return 0
    if channel._queue is None:
        if not channel._paused:
            return len(messages)
        return SendQueue(channel._most_messages, channel._most_bytes).room_for(messages)
    return channel._queue.room_for(messages)


def accept(channel: Channel, messages: list[EncodedMessage]) -> None:
    """Queue ``messages``, for which there is space. They begin to leave at once if the transport takes bytes."""
    channel._flush()  # what was queued before, perhaps since there was space
    try:
        gone = channel._out is None or channel._out.is_closing()  # then nothing leaves
        if channel._paused or gone or (channel._queue is not None and channel._queue.has_data()):
            for message in messages:
                channel._enter(message, message.size)
        elif messages:
            if channel._compressor is not None:
                messages = [channel._compressor.enter(message) for message in messages]
            channel._fill().begin_run(messages)
    except BaseException:
        channel._fail_output(None)  # some may be accepted, or known to the compressor
        raise
    channel._flush()
