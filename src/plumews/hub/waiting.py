"""The broadcasts that wait until one member has made room (layer 4).

A room of thousands may have hundreds of members that are full, and each of them a queue's worth that waits: so what
waits costs a reference to the broadcast, which all share. Those that come one behind the other have one place in the
line of the writer; what somebody sends to the member directly in between stands in between.

Invariant: they are let in in the order in which they came, and each is told once what became of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar

from ..protocol.message import EncodedMessage
from ..transport.writer import Waiter, Writer

__all__ = ["Delivery", "PendingDeliveries"]


class Delivery(Protocol):
    """A broadcast on its way."""

    message: EncodedMessage

    def _queue(self) -> None:
        """It is in the queue of one more member."""

    def _drop(self, cause: str) -> None:
        """It is dropped for one more member."""


D = TypeVar("D", bound=Delivery)


class _Place(Generic[D]):
    """Broadcasts that wait one behind the other; the first of them waits in the writer."""

    __slots__ = ("deliveries", "waiter")

    def __init__(self, delivery: D) -> None:
        self.deliveries = deque((delivery,))
        self.waiter: Waiter | None = None


class PendingDeliveries(Generic[D]):
    """What waits for one member. Who has made one lets go of it when it is empty."""

    __slots__ = ("_count", "_emptied", "_form", "_places", "_refused", "_writer", "bytes")

    def __init__(
        self,
        writer: Writer,
        emptied: Callable[[], None],
        form: Callable[[D], EncodedMessage] = lambda delivery: delivery.message,
        refused: Callable[[D], object] = lambda delivery: delivery._drop("ended"),
    ) -> None:
        """``emptied`` is called when all found space, or the member ends; ``form`` says what the member gets.

        ``refused`` decides a delivery that the member does not get because it ends.
        """
        self._writer = writer
        self._emptied = emptied
        self._form = form
        self._refused = refused
        self._places: deque[_Place[D]] = deque()
        self._count = 0
        #: Of the messages, as they were broadcast.
        self.bytes = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[D]:
        for place in self._places:
            yield from place.deliveries

    def add(self, delivery: D) -> None:
        """``delivery`` waits behind all others."""
        last = self._places[-1] if self._places else None
        if last is not None and last.waiter is self._writer.last_waiter:
            last.deliveries.append(delivery)
            self._counted(delivery, 1)
            return
        place = _Place(delivery)
        self._places.append(place)
        try:
            place.waiter = self._writer.wait(self._form(delivery), lambda accepted: self._told(place, accepted))
        except BaseException:
            self._places.pop()
            raise
        self._counted(delivery, 1)

    def _counted(self, delivery: D, by: int) -> None:
        self._count += by
        self.bytes += by * delivery.message.size

    def clear(self) -> Iterator[D]:
        """All of them stop waiting, one by one, and are told nothing: that is for the caller."""
        # The last first: when one goes that is too long, a shorter one behind it might be let in, past others.
        while self._places:
            place = self._places.pop()
            for delivery in place.deliveries:
                self._counted(delivery, -1)
            waiter, place.waiter = place.waiter, None
            assert waiter is not None
            self._writer.withdraw(waiter)
            yield from reversed(place.deliveries)

    def _told(self, place: _Place[D], accepted: bool) -> None:
        """The first of ``place`` was accepted, or none of them ever will be."""
        assert place is self._places[0]
        waiter = place.waiter
        assert waiter is not None
        delivery = place.deliveries.popleft()
        self._counted(delivery, -1)
        try:
            if accepted and place.deliveries:
                self._writer.wait_on(waiter)  # in line first: if the form fails, the end finds it there
                waiter.message = self._form(place.deliveries[0])
            else:
                self._places.popleft()
                place.waiter = None  # which knows this place
        finally:
            if accepted:
                delivery._queue()
            else:
                for other in place.deliveries:
                    self._counted(other, -1)
                self._refused(delivery)
                while place.deliveries:
                    self._refused(place.deliveries.popleft())
        if not self._count:
            self._emptied()
