"""Position of a client in the history of a room, as clients store it and send it back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from . import limits
from .validation import check_count

__all__ = ["Position"]

#: Form of the start of a history.
_START: Final = "start"
_LAST_OFFSET: Final = 10**limits.POSITION_PART - 1


def _is_epoch(text: str) -> bool:
    return not text or (len(text) <= limits.POSITION_PART and text.isascii() and text.isalnum())


@dataclass(frozen=True)
class Position:
    """Position in the history of a room: behind message ``offset`` of the stream named ``epoch``.

    ``str(position)`` is its form for clients, ``<epoch>.<offset>``. :meth:`parse` reads it. ``Position("", 0)`` is
    the start of any history. Its form is ``start``.

    Args:
        epoch: Random name of the stream, up to 32 ASCII letters and digits. Offsets of different epochs cannot be
            compared.
        offset: Number of messages before this position, 0 at the start, up to 32 digits.

    Raises:
        ValueError: ``epoch`` or ``offset`` is out of range.
        TypeError: ``epoch`` is no ``str``, or ``offset`` no ``int``.
    """

    epoch: str
    offset: int

    def __post_init__(self) -> None:
        if not isinstance(self.epoch, str):
            raise TypeError(f"epoch must be a str, not {type(self.epoch).__name__}")
        if not _is_epoch(self.epoch):
            raise ValueError(
                f"epoch must be up to {limits.POSITION_PART} ASCII letters and digits, not {self.epoch[:40]!r}"
            )
        # Clients send positions: an offset beyond those of the stream is no error.
        check_count("offset", self.offset, least=0, most=_LAST_OFFSET)

    @classmethod
    def parse(cls, text: str) -> Position:
        """Return the position whose form is ``text``. ``start`` and an empty text are the start of the history.

        Raises:
            ValueError: ``text`` is not the form of a position.
            TypeError: ``text`` is no ``str``.
        """
        if not isinstance(text, str):
            raise TypeError(f"a position is read from a str, not from {type(text).__name__}")
        if text in ("", _START):
            return cls("", 0)
        epoch, dot, offset = text.rpartition(".")
        digits = 0 < len(offset) <= limits.POSITION_PART and offset.isascii() and offset.isdigit()
        if not (dot and digits and _is_epoch(epoch)):
            raise ValueError(
                "a position must look like 1f0c9a5be27d4830.17, an epoch, a dot and an offset, or be start"
            )
        return cls(epoch, int(offset))

    def __str__(self) -> str:
        return f"{self.epoch}.{self.offset:d}" if self.epoch or self.offset else _START
