"""Members of rooms that are no `Conn`: the protocol that they keep, and the deliveries to them.

A `Conn` is the compiled fast path of the fan-out. The hub reaches any other member by the methods of :class:`Member`,
and handles it as a connection under ``SendBehavior.DROP``: a message that it does not take is lost for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol, TypeAlias

from ..conn.connection import Conn
from ..constants import CloseCode, Opcode
from ..protocol.message import Data, EncodedMessage, opcode_of, payload_of
from ..transport.safe_calls import call_safely
from ..users import UserInfo
from ..validation import is_coroutine_function
from .events import EventDispatcher
from .loss_reports import DropLog, LossReports, LostMessages, Notices
from .results import BroadcastResult, Gap

__all__ = [
    "AnyMember",
    "ClosingMember",
    "Delivery",
    "Member",
    "OtherMembers",
    "OwnKey",
    "check_member",
    "close_member",
    "is_member",
    "plain_message",
]


class Member(Protocol):
    """Member of rooms that is no :class:`plumews.Conn`, such as a connection of another server or a test double.

    The hub calls it on the thread of its event loop. No method may block. :meth:`try_queue` and :meth:`can_queue` run
    in the midst of a broadcast and must not broadcast themselves. They may join, leave and close: ``on_join`` and
    ``on_leave`` are called at the end of the event loop iteration then, and may publish. Members are hashable. The hub
    tells them apart by hash and equality, for most classes by identity.

    The queue and its bounds are the member's own. The hub handles it as a connection under ``SendBehavior.DROP``. A
    message for which :meth:`try_queue` returns False counts as dropped, and ``on_drop`` is called. Before its next
    message the member gets the message of ``encode_gap``, and ``on_gap`` is called.
    """

    @property
    def id(self) -> object:
        """Identity for :meth:`plumews.Hub.inspect`."""

    @property
    def user_info(self) -> UserInfo | None:
        """User of the member, read when it joins. ``None``: anonymous."""

    def try_queue(self, message: str | bytes, key: Hashable, /) -> bool:
        """Queue a message. Return False if there is no space for it.

        An exception is reported to the event loop, and counts as False.

        Args:
            message: text as ``str``, binary data as ``bytes``.
            key: ``(room, key)`` of a broadcast with a key, of which only the newest message matters. ``room`` is its
                name, a frozenset of several names, or ``None`` for all rooms. ``None``: a message without a key.
        """

    def can_queue(self, size: int, count: int, /) -> bool:
        """Return True if :meth:`try_queue` would take ``count`` messages of ``size`` bytes in all now."""

    def close(self, code: int, reason: str, /) -> object:
        """Begin to close the connection, behind the queued messages."""

    def add_close_callback(self, callback: Callable[[Any], object], /) -> object:
        """Call ``callback(member)`` when the connection is closed, at once if it is.

        The hub adds an equal callback each time the member joins its first room. One call is enough for all of them.
        """


#: Member of a room.
AnyMember: TypeAlias = "Conn | Member"

_METHODS = ("try_queue", "can_queue", "close", "add_close_callback")


def is_member(value: object) -> bool:
    """Return True if ``value`` is a `Conn` or keeps :class:`Member`."""
    return isinstance(value, Conn) or not _faults(value)


def check_member(value: object) -> None:
    """Raise `TypeError` unless ``value`` is a `Conn` or keeps :class:`Member`."""
    if not isinstance(value, Conn) and (faults := _faults(value)):
        raise TypeError(
            f"a member must be a Conn, not {type(value).__name__}, or keep plumews.hub.Member: it has "
            f"{', '.join(faults)}"
        )


def _faults(value: object) -> list[str]:
    faults = ["no __hash__"] if type(value).__hash__ is None else []
    faults += [f"no {name}" for name in ("id", "user_info") if not hasattr(value, name)]
    if not isinstance(getattr(value, "user_info", None), (UserInfo, type(None))):
        faults.append("a user_info that is no plumews.UserInfo")
    for name in _METHODS:
        method = getattr(value, name, None)
        if not callable(method):
            faults.append(f"no {name}()")
        elif is_coroutine_function(method):
            faults.append(f"a coroutine function as {name}()")
    return faults


def close_member(member: AnyMember, code: int, reason: str) -> None:
    """Begin to close ``member``. Its failure is reported to the event loop."""
    close = member.close_nowait if isinstance(member, Conn) else member.close
    call_safely("closing a connection", close, code, reason)


class OwnKey:
    """Key of an application's own type, whose comparison cannot raise in the midst of a broadcast."""

    __slots__ = ("_hash", "key")

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self._hash = hash(key)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        try:
            return bool(self.key == (other.key if isinstance(other, OwnKey) else other))
        except Exception:
            return False


def plain_message(message: EncodedMessage) -> str | bytes:
    """Return the message that was encoded: text as ``str``, binary data as ``bytes``."""
    opcode, payload = message.message()
    return payload.decode() if opcode == Opcode.TEXT else payload


class Delivery(Protocol):
    """Broadcast on its way to its members."""

    message: EncodedMessage
    room: str | None
    key: Hashable

    def encoding_for(self, conn: Conn) -> EncodedMessage:
        """Return the encoding of the message for ``conn``."""

    def plain(self) -> tuple[str | bytes, Hashable]:
        """Return the message and its key for :meth:`Member.try_queue`."""

    def _queue(self) -> None:
        """Count one more member whose queue holds the message."""

    def _drop(self, cause: str) -> None:
        """Count one more member for which the message is dropped."""

    def result(self) -> BroadcastResult:
        """Return the counts so far."""

    async def wait(self) -> None:
        """Wait until the delivery is decided for all members."""

    def _reach(self, conn: Conn) -> None:
        """Deliver to ``conn``, from the start."""

    def _mark(self, conn: Conn) -> None:
        """Note that ``conn`` is being reached, before a call of the application that may ask."""


class _State:
    """State that a hub keeps about a member."""

    __slots__ = ("dropped", "lost", "reached")

    def __init__(self) -> None:
        #: True while a message is delivered to the member.
        self.reached = False
        #: Messages that the member did not take, in all.
        self.dropped = 0
        #: Losses without a report.
        self.lost = LostMessages()


class OtherMembers:
    """Members of one hub that are no `Conn`, and their losses."""

    def __init__(self, reports: LossReports, notices: Notices, log: DropLog, events: EventDispatcher) -> None:
        self._reports = reports
        self._notices = notices
        self._log = log
        #: Events of the hub, held while a member is asked.
        self.events = events
        self._states: dict[Any, _State] = {}

    def __len__(self) -> int:
        return len(self._states)

    def joined(self, member: Member) -> None:
        """Follow ``member``, which has become a member."""
        self._states[member] = _State()

    def left(self, member: Member) -> None:
        """Report the losses of ``member``, which is no member any more."""
        state = self._states.pop(member, None)
        if state is not None and state.lost and not state.reached:  # else :meth:`reach` reports them
            self._ask(self._report, member, state, 0, 0)
            self._reports.notify(member, state.lost)

    def dropped(self, member: Member) -> int:
        """Return the number of messages that ``member`` did not take."""
        state = self._states.get(member)
        return 0 if state is None else state.dropped

    def reach(self, delivery: Delivery, member: Member) -> None:
        """Deliver to ``member``."""
        state = self._states.get(member) or _State()  # without one it has left, and its user is sent to
        outer, state.reached = state.reached, True
        try:
            taken = self._ask(self._queue, member, state, *delivery.plain(), delivery.message.size)
        finally:
            state.reached = outer
        if taken:
            delivery._queue()
        else:
            delivery._drop("drop")
            self._lost(member, state, delivery.room, 1)
        if not outer and self._states.get(member) is not state:  # it has left within
            self._reports.notify(member, state.lost)

    def unreached(self, delivery: Delivery, member: Member) -> None:
        """Drop ``delivery``, because the hub stops before it has reached ``member``."""
        delivery._drop("stopped")
        state = self._states.get(member)
        if state is not None:
            self._lost(member, state, delivery.room, 1)

    def fail(self, member: Member, exc: BaseException) -> None:
        """Close ``member``, because a delivery to it has failed."""
        asyncio.get_running_loop().call_exception_handler({"message": "a delivery failed", "exception": exc})
        self._ask(close_member, member, CloseCode.INTERNAL_ERROR, "")

    def fitting(self, member: Member, messages: Sequence[EncodedMessage], more: int) -> int:
        """Return how many of ``messages`` the member takes now, and ``more`` small ones besides."""
        size = 0
        for count, message in enumerate(messages):
            size += message.size
            if not self._ask(member.can_queue, size, count + 1 + more):
                return count
        return len(messages)

    def queue_missed(self, member: Member, first: Data | None, messages: Sequence[EncodedMessage], most: int) -> int:
        """Queue ``first`` and ``most`` of ``messages`` or fewer, count the others as dropped, and return the number."""
        queued = refused = 0
        if first is not None:
            payload = payload_of(opcode_of(first), first)  # raises TypeError or ValueError
            refused = not self._ask(member.try_queue, first if isinstance(first, str) else payload, None)
        while queued < most and self._ask(member.try_queue, plain_message(messages[queued]), None):
            queued += 1
        state = self._states.get(member)
        if state is not None:
            state.dropped += refused + len(messages) - queued
        return queued

    # --- inside -----------------------------------------------------------------------------------

    def _ask(self, function: Callable[..., Any], *args: Any) -> Any:
        """Return the result of ``function``, False if it raises. It cannot broadcast, and its events wait."""
        outer, self.events.held = self.events.held, True
        try:
            return function(*args)
        except (Exception, asyncio.CancelledError) as exc:
            asyncio.get_running_loop().call_exception_handler({"message": "a member of a hub failed", "exception": exc})
            return False
        finally:
            self.events.held = outer

    def _queue(self, member: Member, state: _State, message: str | bytes, key: Hashable, size: int) -> bool:
        """Queue a message behind the reports of earlier losses. Return False if there is no space for all of that."""
        return (not state.lost or self._report(member, state, size, 1)) and bool(member.try_queue(message, key))

    def _report(self, member: Member, state: _State, size: int, more: int) -> bool:
        """Queue the reports of losses if ``more`` messages of ``size`` bytes fit behind them. Return True if so."""
        lost = state.lost
        if not member.can_queue(size, more + (len(lost) if self._reports.encodes else 0)):
            return False
        for room, count in list(lost.items()):
            event = self._reports.event(Gap(room, count))
            if event is not None and not member.try_queue(plain_message(event), None):
                return False
            self._notices.gap(member, Gap(room, lost.pop(room)))
        return True

    def _lost(self, member: Member, state: _State, room: str | None, count: int) -> None:
        state.dropped += count
        self._log.dropped(member, count)
        self._notices.dropped(member, room, count)
        if self._reports.wanted:
            state.lost.add(room, count)


class ClosingMember:
    """Member that is no `Conn`, as a graceful close handles it. ``remove`` is called if it does not close in time."""

    def __init__(self, member: Member, catch_up: Callable[[Any], object], remove: Callable[[Any], object]) -> None:
        self.member = member
        self.close_code: int | None = None
        self._catch_up = catch_up
        self._remove = remove
        self._callback: Callable[[Any], object] | None = None

    def add_close_callback(self, callback: Callable[[Any], object]) -> None:
        """Call ``callback(self)`` when the member is closed, or given up."""
        self._callback = callback
        self.member.add_close_callback(self._closed)

    def close_nowait(self, code: int, reason: str) -> None:
        """Begin to close the member."""
        self.close_code = code
        self._catch_up(self.member)
        self.member.close(code, reason)

    def abort(self) -> None:
        """Wait no longer for the member."""
        self.close_code = CloseCode.ABNORMAL_CLOSURE
        self._remove(self.member)
        self._closed(self.member)

    def _closed(self, member: Member) -> None:
        callback, self._callback = self._callback, None
        if callback is not None:
            callback(self)
