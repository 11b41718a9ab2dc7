"""Rules for text messages beyond valid UTF-8, and the endpoint that applies them to live connections.

The rules are checked in this order: length, empty, UTF-8, control characters. The check takes linear time. An error
names the rule and the position, but never repeats the message. A rejected message reaches neither room nor handler.
Binary messages are not checked, nor is the message by which a client logs in.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, Literal

from .. import limits
from ..auth.credentials import logs_in_by_message
from ..conn.connection import Conn
from ..conn.filters import add_filter
from ..constants import ErrorCode
from ..counters import RequestCounters
from ..errors import InvalidText
from ..http11.models import Request
from ..protocol.state import cut_reason
from ..server.endpoints import Endpoint

__all__ = ["TextFilterEndpoint", "TextPolicy", "validate_text_message"]

#: Patterns of refused control characters of ASCII, by whether newlines and whether tabs are allowed.
_CONTROL: Final = {
    (newlines, tabs): re.compile(
        "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f" + ("" if newlines else "\n\r") + ("" if tabs else "\t") + "]"
    )
    for newlines in (False, True)
    for tabs in (False, True)
}


@dataclass(frozen=True)
class TextPolicy:
    """Rules for text messages, for ``serve_rooms(..., text_policy=...)`` and :func:`plumews.validate_text_message`.

    The defaults allow one line. Allow newlines and tabs if people write the messages.

    Args:
        max_length: most bytes of UTF-8 (default 1 MiB). The read limit of a connection holds as well.
        allow_empty: True accepts empty messages (default False).
        reject_control_characters: True refuses U+0000 to U+001F and U+007F (default True).
        allow_newlines: True accepts LF and CR nevertheless (default False).
        allow_tabs: True accepts tabs nevertheless (default False).
        on_violation: ``"close"`` (default) closes the connection with 1008, or with 1009 for the length. ``"skip"``
            drops the message. Both are counted as ``WEBSOCKET_MESSAGE_REJECTED`` in ``requests_refused`` of
            ``hub.metrics()``.

    Raises:
        TypeError: a value has the wrong type.
        ValueError: a value is out of range.
    """

    max_length: int = limits.TEXT_LENGTH
    allow_empty: bool = False
    reject_control_characters: bool = True
    allow_newlines: bool = False
    allow_tabs: bool = False
    on_violation: Literal["close", "skip"] = "close"

    def __post_init__(self) -> None:
        if isinstance(self.max_length, bool) or not isinstance(self.max_length, int):
            raise TypeError(f"max_length must be an int, in bytes, not {type(self.max_length).__name__}")
        if self.max_length < 1:
            raise ValueError(f"max_length must be 1 byte or more, not {self.max_length}")
        if self.on_violation not in ("close", "skip"):
            raise ValueError(f'on_violation must be "close" or "skip", not {self.on_violation!r}')

    def check(self, text: str) -> None:
        """Raise :class:`InvalidText` if ``text``, which is valid Unicode, breaks a rule."""
        self._check_size(text)
        self._check_characters(text)

    def _check_size(self, message: str | bytes) -> None:
        if _is_longer(message, self.max_length):
            raise InvalidText("length", f"message too long: more than {self.max_length} bytes")
        if not message and not self.allow_empty:
            raise InvalidText("empty", "empty message")

    def _check_characters(self, text: str) -> None:
        if not self.reject_control_characters:
            return
        found = _CONTROL[bool(self.allow_newlines), bool(self.allow_tabs)].search(text)
        if found is not None:
            where = f"U+{ord(found[0]):04X} at position {found.start()}"
            raise InvalidText("control", f"message contains control characters: {where}")


def validate_text_message(message: str | bytes, policy: TextPolicy | None = None) -> str:
    """Return ``message`` as text if ``policy`` accepts it.

    Args:
        message: text, or bytes of UTF-8.
        policy: rules to apply (default ``TextPolicy()``).

    Raises:
        InvalidText: "message too long", "empty message", "invalid utf-8 in message" or "message contains control
            characters": the first rule that is broken.
        TypeError: ``message`` is neither ``str`` nor ``bytes``.
    """
    if not isinstance(message, (str, bytes)):
        raise TypeError(f"a text message is str or bytes, not {type(message).__name__}")
    policy = TextPolicy() if policy is None else policy
    policy._check_size(message)
    try:
        if isinstance(message, bytes):
            message = message.decode()
        elif not message.isascii():
            message.encode()
    except UnicodeError as exc:
        position = exc.start if isinstance(exc, (UnicodeDecodeError, UnicodeEncodeError)) else 0
        raise InvalidText("utf8", f"invalid utf-8 in message at position {position}") from None
    policy._check_characters(message)
    return message


def _is_longer(message: str | bytes, most: int) -> bool:
    """Return whether ``message`` has more than ``most`` bytes of UTF-8, which is not always known from its length."""
    if len(message) > most:
        return True
    if isinstance(message, bytes) or message.isascii() or len(message) * 4 <= most:
        return False
    return len(message.encode("utf-8", "surrogatepass")) > most


class TextFilterEndpoint:
    """Endpoint that applies ``policy`` to the messages of the endpoint ``inside``."""

    def __init__(self, inside: Endpoint, policy: TextPolicy, counters: RequestCounters) -> None:
        self._inside = inside
        self._policy = policy
        self._counters = counters
        self.check: Callable[[Request], None] | None = getattr(inside, "check", None)

    def admit(self, conn: Conn, request: Request) -> Awaitable[None] | None:
        return self._inside.admit(conn, request)

    def opened(self, conn: Conn, deadline: float) -> Coroutine[Any, Any, None] | None:
        work = self._inside.opened(conn, deadline)
        # Added last, so that renewals of tokens are filtered out first. No message has been received yet.
        add_filter(conn, _TextFilter(self._policy, self._counters, first=logs_in_by_message(conn.request)))
        return work


class _TextFilter:
    """Message filter of one connection. True for ``first`` passes the first message, which logs in, unchecked."""

    __slots__ = ("_counters", "_first", "_policy")

    def __init__(self, policy: TextPolicy, counters: RequestCounters, *, first: bool) -> None:
        self._policy = policy
        self._counters = counters
        self._first = first

    def __call__(self, conn: Conn, message: str | bytes) -> bool:
        if self._first:
            self._first = False
            return False
        if not isinstance(message, str):
            return False
        try:
            self._policy.check(message)
        except InvalidText as exc:
            self._counters.refused.add(ErrorCode.MESSAGE_REJECTED.value)
            if self._policy.on_violation == "close":
                conn.close_nowait(exc.close_code, cut_reason(f"message rejected: {exc}"))
            return True
        return False
