"""What the members of a hub are still to get when it stops, and what became of it (layer 4).

Counted are the messages that wait in the members' send queues, and those that broadcasts have not brought there yet.
Invariant: what was owed was delivered or was not; delivered is what has left for the network, of which nobody can know
whether it was read. What somebody sends to a member while the hub stops may take the place of what was owed, never add
to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..conn.connection import Conn
from ..constants import State
from .slow_members import Delivery

__all__ = ["Ledger"]


class Ledger:
    """Opened with what is owed to ``members``; ``broadcasts`` are those that are not decided for all of them."""

    def __init__(self, members: Sequence[Conn], broadcasts: Iterable[Delivery]) -> None:
        self._before = {conn: conn._never_left() for conn in members}
        self._broadcasts = [(broadcast, broadcast.result()) for broadcast in broadcasts]
        #: Messages that the members are to get, and their bytes as frames.
        waiting = [conn._writer.waiting_data() for conn in members]
        self.messages = sum(messages for messages, _ in waiting)
        self.bytes = sum(size for _, size in waiting)
        for broadcast, result in self._broadcasts:
            self.messages += result.pending
            self.bytes += result.pending * broadcast.message.size

    def undelivered(self) -> tuple[int, int]:
        """Messages and bytes, of those that were owed, that have not left and never will, or not by now."""
        messages = size = 0
        for conn, (lost_messages, lost_bytes) in self._before.items():
            lost = conn._never_left()
            messages += lost[0] - lost_messages
            size += lost[1] - lost_bytes
            if conn.state is not State.CLOSED:
                waiting = conn._writer.waiting_data()
                messages += waiting[0]
                size += waiting[1]
        for broadcast, before in self._broadcasts:
            result = broadcast.result()
            missed = result.dropped + result.skipped + result.pending - before.dropped - before.skipped
            messages += missed
            size += missed * broadcast.message.size
        return min(messages, self.messages), min(size, self.bytes)
