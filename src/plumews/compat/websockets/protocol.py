"""State of a connection, as in ``websockets.protocol``."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from ...constants import State
from .refused import SANS_IO, missing

__all__ = ["Side", "State"]

CONNECTING, OPEN, CLOSING, CLOSED = State.CONNECTING, State.OPEN, State.CLOSING, State.CLOSED


class Side(enum.IntEnum):
    """Side of a connection."""

    SERVER = 0
    CLIENT = 1


SERVER, CLIENT = Side.SERVER, Side.CLIENT


if not TYPE_CHECKING:  # checkers would take it for a sign that there is any name
    __getattr__ = missing(__name__, dict.fromkeys(("Protocol", "Event", "SEND_EOF"), SANS_IO))
