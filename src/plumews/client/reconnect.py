"""Decisions of a client that reconnects: if, when, and from which position. No I/O.

Invariants: an accepted handshake (101) is no success, so that a server that accepts and then closes sees longer and
longer delays. No delay is infinite or negative, whatever a server says. Clocks and randomness are arguments.
"""

from __future__ import annotations

import enum
import itertools
import json
import math
import random
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from email.utils import parsedate_to_datetime
from typing import Any, Final, NamedTuple, TypeAlias

from .. import limits
from ..constants import CloseCode
from ..errors import ConnectionClosed, InvalidURI, ProxyError, RedirectError
from ..position import Position
from ..validation import check_function, check_time
from .uri import WebSocketURI

__all__ = [
    "CLOSE_CODES",
    "Action",
    "Clocks",
    "CloseRule",
    "PositionOf",
    "Reconnector",
    "Resumption",
    "action_for_close",
    "action_for_error",
    "action_for_status",
    "full_jitter",
    "reconnect_hint",
    "retry_after",
    "suspended_time",
]

#: Characters of the longest Retry-After that is read: a date has 29.
_RETRY_AFTER_SIZE: Final = 64

#: Hint of a plumews server in a close reason.
_HINT: Final = re.compile(r"reconnect in (\d{1,9}(?:\.\d{1,9})?) s", re.ASCII)

#: First messages of a connection among which is the ``recovered`` event: one that says ``joined`` may come before.
_EVENT_WITHIN: Final = 2

#: Seconds that the machine was suspended from which a connection is probed. Clocks are not read at the same instant.
_SUSPENDED_LEAST: Final = 1.0


class Action(enum.Enum):
    """Action of a client after a connection, or an attempt at one, has ended.

    Attributes:
        RECONNECT: Connect again after a delay.
        FRESH_TOKEN: Connect again with a fresh token, once.
        STAY_AWAY: Do not connect again: the same would happen.
    """

    RECONNECT = "reconnect"
    FRESH_TOKEN = "fresh token"  # noqa: S105
    STAY_AWAY = "stay away"


# --- tables -----------------------------------------------------------------------------------------


class CloseRule(NamedTuple):
    """Row of the table of close codes.

    Attributes:
        code: Close code.
        action: Action of a client.
        why: Reason, for people.
    """

    code: int
    action: Action
    why: str


#: Actions by close code. A code that is not listed means `Action.RECONNECT`. The documentation has the same table.
CLOSE_CODES: Final = (
    CloseRule(1000, Action.RECONNECT, "the server has ended this connection, not the service"),
    CloseRule(1001, Action.RECONNECT, "the server stops, and another may take its place"),
    CloseRule(1002, Action.RECONNECT, "a frame was damaged on its way, or one side has a defect"),
    CloseRule(1003, Action.STAY_AWAY, "the server does not accept this type of message"),
    CloseRule(1005, Action.RECONNECT, "the close frame has no code"),
    CloseRule(1006, Action.RECONNECT, "the network failed"),
    CloseRule(1007, Action.STAY_AWAY, "the data is invalid, and would be again"),
    CloseRule(1008, Action.STAY_AWAY, "a policy of the server was violated, or an administrator closed the connection"),
    CloseRule(1009, Action.STAY_AWAY, "a message exceeds a limit, and would again"),
    CloseRule(1010, Action.STAY_AWAY, "the server lacks an extension"),
    CloseRule(1011, Action.RECONNECT, "the server failed"),
    CloseRule(1012, Action.RECONNECT, "the server restarts"),
    CloseRule(1013, Action.RECONNECT, "the server is full, or the client was too slow"),
    CloseRule(1014, Action.RECONNECT, "a gateway failed"),
    CloseRule(1015, Action.RECONNECT, "TLS failed"),
    CloseRule(3000, Action.FRESH_TOKEN, "the server requires authentication"),
    CloseRule(3003, Action.STAY_AWAY, "access is forbidden"),
    CloseRule(3008, Action.RECONNECT, "the server waited too long for a message"),
    CloseRule(4401, Action.FRESH_TOKEN, "the token has expired, or is missing"),
    CloseRule(4403, Action.STAY_AWAY, "the token or the password is wrong"),
    CloseRule(4408, Action.RECONNECT, "the authentication came too late"),
)

_ACTIONS: Final = {rule.code: rule.action for rule in CLOSE_CODES}


def action_for_close(code: int) -> Action:
    """Return the action after a connection was closed with ``code``."""
    return _ACTIONS.get(code, Action.RECONNECT)


def action_for_status(status: int) -> Action:
    """Return the action after the handshake was answered with an HTTP status other than 101."""
    if status == 401:
        return Action.FRESH_TOKEN
    return Action.RECONNECT if status in (408, 429) or 500 <= status <= 599 else Action.STAY_AWAY


def action_for_error(exc: BaseException) -> Action:
    """Return the action after a connection, or an attempt at one, failed with ``exc``.

    A refused handshake is judged by the status of ``exc.response``, and a closed connection by its close code. Errors
    of the network and timeouts mean `Action.RECONNECT`, and all others `Action.STAY_AWAY`.
    """
    if isinstance(exc, ConnectionClosed):
        ours = exc.sent if exc.rcvd is None else exc.rcvd
        return action_for_close(CloseCode.ABNORMAL_CLOSURE if ours is None else ours.code)
    if isinstance(exc, ProxyError) and exc.status is not None:
        action = action_for_status(exc.status)
        return Action.STAY_AWAY if action is Action.FRESH_TOKEN else action  # the token is not for the proxy
    if isinstance(exc, (InvalidURI, RedirectError)):
        return Action.STAY_AWAY
    status = getattr(getattr(exc, "response", None), "status", None)
    if isinstance(status, int):
        return action_for_status(status)
    return Action.RECONNECT if isinstance(exc, (OSError, EOFError)) else Action.STAY_AWAY


# --- delays -----------------------------------------------------------------------------------------


def full_jitter(
    first: float = 1.0, most: float = 60.0, random: Callable[[], float] = random.random
) -> Iterator[tuple[float, float]]:
    """Yield delays from 0 to a bound that doubles, and the bound, both in seconds.

    Args:
        first: First bound (default 1).
        most: Last bound (default 60).
        random: Function that returns a number from 0 to 1.
    """
    bound = first
    while True:
        yield random() * bound, bound
        bound = min(2 * bound, most)


def retry_after(value: str, now: float) -> float | None:
    """Return the seconds that a ``Retry-After`` header asks for (RFC 9110 section 10.2.3), from 0 to 3600.

    Args:
        value: Seconds, or a date.
        now: Seconds since 1970, best those of the ``Date`` header of the same response: clocks differ.

    Returns:
        The seconds, or ``None`` if ``value`` is malformed.
    """
    value = value.strip()
    if not value or len(value) > _RETRY_AFTER_SIZE or not value.isascii():
        return None
    if value.isdecimal():
        return _sane(float(value))
    then = http_date(value)
    return None if then is None else _sane(then - now)


def http_date(value: str) -> float | None:
    """Return an HTTP date (RFC 9110 section 5.6.7) as seconds since 1970, or ``None`` if it is malformed."""
    if len(value) > _RETRY_AFTER_SIZE:
        return None
    try:
        return parsedate_to_datetime(value).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError, OSError):
        return None


def reconnect_hint(reason: str) -> float | None:
    """Return the seconds of ``reconnect in 3.2 s`` in a close reason, at most 3600, or ``None`` without a hint."""
    found = _HINT.search(reason)
    return None if found is None else _sane(float(found[1]))


def _sane(seconds: float) -> float:
    return min(max(seconds, 0.0), limits.LONGEST_RECONNECT) if math.isfinite(seconds) else limits.LONGEST_RECONNECT


Delays: TypeAlias = "Iterable[float] | Callable[[], Iterable[float]]"


class Reconnector:
    """State of the attempts of one client: counts them, and decides about the next one.

    The delay falls back to the first one after a connection has lasted longer than the last delay (for the default
    delays: than their bound).

    Args:
        delays: Delays in seconds, or a function that returns them. The default is `full_jitter`. Reconnecting ends
            behind the last delay. An iterator goes on where it is. Any other iterable begins anew when the delay falls
            back.
        process_exception: Function that replaces `action_for_error` for failed attempts. It returns ``None`` to
            reconnect, or the exception to raise.
        fresh_token: True if the client can get a fresh token: 401 does not end it at once.
        random: Function that returns a number from 0 to 1.
        clock: Monotonic clock.
        wall_clock: Clock that returns the seconds since 1970.
    """

    __slots__ = (
        "_can_refresh",
        "_clock",
        "_delays",
        "_opened",
        "_patience",
        "_process_exception",
        "_random",
        "_refreshed",
        "_source",
        "_wall_clock",
        "attempt",
        "last_error",
        "needs_fresh_token",
    )

    def __init__(
        self,
        delays: Delays | None = None,
        *,
        process_exception: Callable[[Exception], Exception | None] | None = None,
        fresh_token: bool = False,
        random: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        if delays is not None and not callable(delays) and not isinstance(delays, Iterable):
            raise TypeError(f"delays must be an iterable of seconds, not {type(delays).__name__}")
        check_function("process_exception", process_exception, optional=True)
        self._source = delays
        self._process_exception = process_exception
        self._can_refresh = fresh_token
        self._random = random
        self._clock = clock
        self._wall_clock = wall_clock
        self._delays = self._begin()
        self._patience = 0.0  # seconds that a connection must last to count as a success
        self._opened: float | None = None
        self._refreshed = False
        #: Number of the attempt that runs, or is next. The first is 1.
        self.attempt = 1
        #: Error of the last attempt or connection, ``None`` without one.
        self.last_error: BaseException | None = None
        #: True if the next attempt must use a fresh token.
        self.needs_fresh_token = False

    def opened(self) -> None:
        """Record that the handshake of this attempt was accepted."""
        self._opened = self._clock()
        self.needs_fresh_token = False

    def failed(self, exc: Exception, *, elsewhere: bool = False) -> float:
        """Record that this attempt failed. Return the seconds until the next one.

        Args:
            exc: Error of the attempt.
            elsewhere: True if the next attempt goes to another URI, so that no error is final.

        Raises:
            Exception: ``exc``, or that of ``process_exception``: the client gives up.
        """
        action = Action.RECONNECT if elsewhere else action_for_error(exc)
        if self._process_exception is not None and not elsewhere and not self._refreshes(action):
            raised = self._process_exception(exc)
            if raised is not None:
                raise raised from (None if raised is exc else exc)
            action = Action.RECONNECT
        return self._next(exc, action, *_told(exc, self._wall_clock))

    def closed(self, exc: ConnectionClosed) -> float:
        """Record that the connection of this attempt was closed. Return the seconds until the next attempt.

        Raises:
            ConnectionClosed: ``exc``, after a close code that means to stay away.
        """
        if self._opened is not None and self._clock() - self._opened > self._patience:
            self._fall_back()
        return self._next(exc, action_for_error(exc), *_told(exc, self._wall_clock))

    def _next(self, exc: Exception, action: Action, told: float, spread: bool) -> float:
        self._opened = None
        self.last_error = exc
        if self._refreshes(action):
            self._refreshed = self.needs_fresh_token = True
        elif action is not Action.RECONNECT:
            raise exc
        try:
            delay, self._patience = next(self._delays)
        except StopIteration:
            raise exc from None
        self.attempt += 1
        # All clients get the same Retry-After: the jitter spreads them behind it. A hint in a close reason is spread.
        return told + delay if spread else max(told, delay)

    def _refreshes(self, action: Action) -> bool:
        return action is Action.FRESH_TOKEN and self._can_refresh and not self._refreshed

    def _fall_back(self) -> None:
        self._refreshed = False
        if not isinstance(self._source, Iterator):
            self._delays = self._begin()

    def _begin(self) -> Iterator[tuple[float, float]]:
        source = self._source
        if source is None:
            return full_jitter(random=self._random)
        return _checked(source() if callable(source) else source)


def _checked(delays: Iterable[float]) -> Iterator[tuple[float, float]]:
    for delay in delays:
        check_time("a delay", delay, zero=True)
        yield delay, delay


def _told(exc: Exception, wall_clock: Callable[[], float]) -> tuple[float, bool]:
    """Return the least delay that the server asks for in ``exc``, and True if other clients got the same one."""
    if isinstance(exc, ConnectionClosed):
        return reconnect_hint(exc.reason) or 0.0, False
    for pairs in (getattr(exc, "headers", ()), _header_lines(getattr(exc, "response", None))):
        values = _values(pairs, "retry-after")
        if values:
            date = _values(pairs, "date")
            then = http_date(date[0]) if len(date) == 1 else None
            return retry_after(values[0], wall_clock() if then is None else then) or 0.0, True
    return 0.0, False


def _header_lines(response: Any) -> Sequence[tuple[str, str]]:
    headers = getattr(response, "headers", None)
    return () if headers is None else tuple(headers.raw_items())


def _values(pairs: Iterable[tuple[str, str]], name: str) -> list[str]:
    return list(itertools.islice((value for key, value in pairs if key.lower() == name), 2))


# --- sleep ------------------------------------------------------------------------------------------


class Clocks(NamedTuple):
    """Readings of two clocks at the same time.

    Attributes:
        monotonic: Clock that stands still while the machine is suspended.
        boot: Clock that goes on meanwhile.
    """

    monotonic: float
    boot: float

    @classmethod
    def now(cls) -> Clocks:
        """Return the readings of now. Without a clock of the time since boot, use the wall clock."""
        return cls(time.monotonic(), _boot_clock())


def suspended_time(earlier: Clocks, later: Clocks) -> float:
    """Return the seconds between two readings that the machine was suspended, 0.0 below one second.

    A connection is to be probed if it is more than 0. A wall clock that was set counts, too: a probe is one ping.
    """
    jump = (later.boot - earlier.boot) - (later.monotonic - earlier.monotonic)
    return jump if jump >= _SUSPENDED_LEAST else 0.0


def _boot_clock() -> float:
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.time() if clock is None else time.clock_gettime(clock)


# --- positions --------------------------------------------------------------------------------------

PositionOf: TypeAlias = "Callable[[str | bytes], Position | str | None]"


class Resumption:
    """Last position in the history of a room that a client has seen, for the ``since`` of its next connection.

    Messages tell it by ``position_of``, and the ``recovered`` event of a plumews server by its ``position``. That one
    counts after the missed messages that it announces: those that do not arrive are asked for again.

    Args:
        position_of: Function from a message to its position, or to ``None``.
    """

    __slots__ = ("_event_within", "_missed", "_pending", "_position", "_position_of")

    def __init__(self, position_of: PositionOf | None = None) -> None:
        check_function("position_of", position_of, optional=True)
        self._position_of = position_of
        self._position: Position | None = None
        self._pending: Position | None = None
        self._missed = 0
        self._event_within = 0

    @property
    def position(self) -> Position | None:
        """Last position, ``None`` before the first one."""
        return self._position

    @property
    def observes(self) -> bool:
        """True if `observe` needs the next message."""
        return self._position_of is not None or self._event_within > 0 or self._pending is not None

    def uri(self, uri: WebSocketURI) -> WebSocketURI:
        """Return the URI of the next attempt, with the position as ``since``. Begin a new connection."""
        self._pending, self._missed = None, 0
        if self._position is not None:
            uri = uri.with_query({"since": str(self._position)})
        query = uri.resource.partition("?")[2]
        recovers = any(part.partition("=")[0] == "since" for part in query.split("&"))
        self._event_within = _EVENT_WITHIN if recovers else 0
        return uri

    def observe(self, message: str | bytes) -> None:
        """Note the position of a received message.

        Raises:
            ValueError: ``position_of`` returned a text that is no position.
            TypeError: ``position_of`` returned something else.
        """
        if self._event_within:
            self._event_within -= 1
            if self._is_event(message):
                return
        if self._pending is not None:
            self._missed -= 1
            if self._missed <= 0:
                self._position, self._pending = self._pending, None
        if self._position_of is not None:
            position = self._position_of(message)
            if position is not None:
                self._position = position if isinstance(position, Position) else Position.parse(position)

    def _is_event(self, message: str | bytes) -> bool:
        if not isinstance(message, str) or '"recovered"' not in message:
            return False
        try:
            event = json.loads(message)
            position = None if event["position"] is None else Position.parse(event["position"])
            missed = event["missed"]
        except (ValueError, TypeError, KeyError, RecursionError):
            return False
        if event.get("type") != "recovered" or not isinstance(missed, int):
            return False
        self._event_within = 0
        if position is None:  # the room has no history
            return True
        if missed > 0:
            self._pending, self._missed = position, missed
        else:
            self._position = position
        return True
