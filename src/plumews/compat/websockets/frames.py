"""Opcodes, close codes and close frames, as in ``websockets.frames``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ... import errors
from ...constants import CloseCode, Opcode
from .refused import SANS_IO, missing

__all__ = ["CLOSE_CODE_EXPLANATIONS", "OK_CLOSE_CODES", "Close", "CloseCode", "Opcode"]

CONT, TEXT, BINARY = Opcode.CONT, Opcode.TEXT, Opcode.BINARY
CLOSE, PING, PONG = Opcode.CLOSE, Opcode.PING, Opcode.PONG
DATA_OPCODES = CONT, TEXT, BINARY
CTRL_OPCODES = CLOSE, PING, PONG

#: Text for each close code of RFC 6455 and its registry, as it stands in a ``ConnectionClosed``.
CLOSE_CODE_EXPLANATIONS: Final[dict[int, str]] = {
    CloseCode.NORMAL_CLOSURE: "OK",
    CloseCode.GOING_AWAY: "going away",
    CloseCode.PROTOCOL_ERROR: "protocol error",
    CloseCode.UNSUPPORTED_DATA: "unsupported data",
    CloseCode.NO_STATUS_RCVD: "no status received [internal]",
    CloseCode.ABNORMAL_CLOSURE: "abnormal closure [internal]",
    CloseCode.INVALID_DATA: "invalid frame payload data",
    CloseCode.POLICY_VIOLATION: "policy violation",
    CloseCode.MESSAGE_TOO_BIG: "message too big",
    CloseCode.MANDATORY_EXTENSION: "mandatory extension",
    CloseCode.INTERNAL_ERROR: "internal error",
    CloseCode.SERVICE_RESTART: "service restart",
    CloseCode.TRY_AGAIN_LATER: "try again later",
    CloseCode.BAD_GATEWAY: "bad gateway",
    CloseCode.TLS_HANDSHAKE: "TLS handshake failure [internal]",
}

#: Codes of a normal end.
OK_CLOSE_CODES: Final = frozenset({CloseCode.NORMAL_CLOSURE, CloseCode.GOING_AWAY, CloseCode.NO_STATUS_RCVD})


class Close(errors.Close):
    """Content of a close frame: ``code`` and ``reason``.

    ``str(close)`` explains the code, as in ``"1000 (OK)"``.
    """

    __slots__ = ()

    def __str__(self) -> str:
        if 3000 <= self.code < 4000:
            explanation = "registered"
        elif 4000 <= self.code < 5000:
            explanation = "private use"
        else:
            explanation = CLOSE_CODE_EXPLANATIONS.get(self.code, "unknown")
        return f"{self.code} ({explanation}){' ' if self.reason else ''}{self.reason}"

    def __repr__(self) -> str:
        return f"Close(code={self.code!r}, reason={self.reason!r})"


def close_of(frame: errors.Close | None) -> Close | None:
    """Return a close frame of plumews as a :class:`Close`."""
    return None if frame is None else frame if isinstance(frame, Close) else Close(*frame)


if not TYPE_CHECKING:  # checkers would take it for a sign that there is any name
    __getattr__ = missing(__name__, {"Frame": SANS_IO})
