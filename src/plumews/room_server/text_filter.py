"""What a text message may be, beyond valid UTF-8 (layer 2).

The seed's rules in the seed's order: length, empty, UTF-8, control characters. Invariants: one pass in linear time; an
error names the rule and the place, never what the peer wrote.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from .. import limits
from ..errors import InvalidText

__all__ = ["TextPolicy", "validate_text_message"]

#: Control characters of ASCII, by whether newlines and whether tabs are among them.
_CONTROL: Final = {
    (newlines, tabs): re.compile(
        "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f" + ("" if newlines else "\n\r") + ("" if tabs else "\t") + "]"
    )
    for newlines in (False, True)
    for tabs in (False, True)
}


@dataclass(frozen=True)
class TextPolicy:
    """What text messages may be, for ``serve_rooms(..., text_policy=...)`` and :func:`plumews.validate_text_message`.

    The defaults are the seed's, which allow one line: where people write, allow newlines and tabs.

    Args:
        max_length: UTF-8 bytes (default 1 MiB); the read limit of a connection holds as well.
        allow_empty: whether a message may be empty (default False).
        reject_control_characters: refuse U+0000 to U+001F and U+007F (default True).
        allow_newlines: but not LF and CR (default False).
        allow_tabs: but not tabs (default False).
        on_violation: ``"close"`` (default) closes the connection with 1008, or 1009 for the length; ``"skip"`` drops
            the message, as if it had not come. Both are counted among the ``requests_refused`` of ``hub.metrics()``,
            as ``WEBSOCKET_MESSAGE_REJECTED``.

    Raises:
        TypeError, ValueError: one of them is of the wrong kind.
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
    """``message`` as text, if ``policy`` allows it (default: ``TextPolicy()``); the seed's ``ValidateTextMessage``.

    Bytes must be UTF-8, and a ``str`` must be something that UTF-8 can write.

    Raises:
        InvalidText: "message too long", "empty message", "invalid utf-8 in message" or "message contains control
            characters", the first of them that is true. TypeError: ``message`` is neither ``str`` nor ``bytes``.
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
    """Whether ``message`` has more than ``most`` bytes as UTF-8; counted only where its characters leave that open."""
    if len(message) > most:
        return True
    if isinstance(message, bytes) or message.isascii() or len(message) * 4 <= most:
        return False
    return len(message.encode("utf-8", "surrogatepass")) > most
