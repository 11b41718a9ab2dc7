"""State machine of one connection: its state, its close frames, and how it ended.

Wraps the parser with the rules of the closing handshake (RFC 6455 sections 5.5.1 and 7): the close code to send, the
close code received, and the exception that the application gets. No sockets and no clock: bytes and events in,
frames and exceptions out. Invariant: at most one close frame is ever built.
"""

from __future__ import annotations

from typing import Any

from .. import limits
from ..constants import CloseCode, Opcode, State, is_valid_close_code
from ..errors import Close, ConnectionClosed, ConnectionClosedError, ConnectionClosedOK, ProtocolError
from . import codec

__all__ = ["ProtocolState", "check_close", "cut_reason"]

_CONNECTING, _OPEN, _CLOSING, _CLOSED = State.CONNECTING, State.OPEN, State.CLOSING, State.CLOSED
_CLOSE = int(Opcode.CLOSE)
_NO_STATUS = CloseCode.NO_STATUS_RCVD
_Parser = codec.Parser
_SLACK = limits.READ_SLACK
_new_close = tuple.__new__  # a call of the class runs Python
#: Our close frames, as a server, in answer to the usual codes.
_REPLIES: dict[int, bytes] = {
    1000: codec.build_frame(_CLOSE, b"\x03\xe8"),
    1001: codec.build_frame(_CLOSE, b"\x03\xe9"),
    1005: codec.build_frame(_CLOSE, b""),
}

#: Codes with which a connection ended well: normal, going away, or a close frame without a code.
_GOOD_ENDS = frozenset({CloseCode.NORMAL_CLOSURE, CloseCode.GOING_AWAY, CloseCode.NO_STATUS_RCVD})


class ProtocolState:
    """Parser, state, and both close frames of one connection."""

    __slots__ = ("client", "close_rcvd", "close_sent", "cut", "error", "late", "parser", "state")

    def __init__(self, *, client: bool, max_size: int | None, max_frames: int | None = 0) -> None:
        if max_frames == 0:  # as many as `max_size` allows
            max_frames = limits.max_frames(max_size)
        self.client = client
        self.parser = _Parser(client=client, max_size=max_size, max_frames=max_frames, slack=_SLACK)
        self.state = _CONNECTING
        self.close_rcvd: Close | None = None
        self.close_sent: Close | None = None
        self.error: ProtocolError | None = None
        self.cut = False
        #: True to deliver messages that arrive behind our close frame, up to the first that has no room. The peer's
        #: close frame is then answered at once.
        self.late = False

    def allow_compressed(self, *, client: bool) -> None:
        """Accept compressed messages, too. Call it before anything was received."""
        old = self.parser
        self.parser = _Parser(
            client=client, max_size=old.max_size, max_frames=old.max_frames, allow_rsv1=True, slack=_SLACK
        )

    def receive(self, data: Any) -> list[tuple[int, Any]]:
        """Return the events in ``data``. A violation by the peer ends them and is kept in :attr:`error`."""
        events: list[tuple[int, Any]] = self.parser.feed(data)
        self.error = self.parser.error
        return events

    def peer_closed(self, code: int, reason: str) -> None:
        """Note the peer's close frame. It is an error if it cut a message short while the connection was open."""
        self.close_rcvd = _new_close(Close, (code, reason))
        self.cut = self.state is _OPEN and self.parser.mid_message

    def close_frame(self, code: int | None, reason: str = "") -> bytes:
        """Build the only close frame of our side. The connection is CLOSING from here on.

        ``code=None`` builds an empty one, the answer to a peer that gave no code.
        """
        if code is None:
            close, payload = Close(_NO_STATUS, ""), b""
        else:
            close, payload = Close(code, reason), code.to_bytes(2, "big") + reason.encode()
        frame = codec.build_frame(_CLOSE, payload)
        self.close_sent = close
        self.state = _CLOSING
        return frame

    def reply_frame(self) -> bytes:
        """Build our close frame in answer to the peer's close frame, or to its violation."""
        if self.error is not None:
            return self.close_frame(self.error.close_code, cut_reason(str(self.error)))
        assert self.close_rcvd is not None
        code = self.close_rcvd[0]
        frame = _REPLIES.get(code)
        if frame is None:
            return self.close_frame(code)
        self.close_sent = _new_close(Close, (code, "")) if self.close_rcvd[1] else self.close_rcvd
        self.state = _CLOSING
        return frame

    def losing(self) -> None:
        """Note that nothing arrives or leaves any more. A message that was still arriving is cut, which is an error.

        Its received part is given up, unless bytes before it were not parsed yet.
        """
        if self.state is not _CLOSED:
            self.state = _CLOSING
        if self.close_rcvd is None and self.error is None:
            self.cut = self.cut or self.parser.mid_message
        if not self.parser.left:
            self.parser.stop()

    def lost(self) -> None:
        """Note that the transport is gone."""
        self.losing()
        self.state = _CLOSED

    @property
    def end_code(self) -> int | None:
        """Close code of the end: the peer's, else 1006; ``None`` while the connection is open."""
        if self.close_rcvd is not None:
            return self.close_rcvd.code
        return CloseCode.ABNORMAL_CLOSURE if self.state is _CLOSED else None

    @property
    def end_reason(self) -> str | None:
        """Reason beside :attr:`end_code`; ``None`` while the connection is open."""
        if self.close_rcvd is not None:
            return self.close_rcvd.reason
        return "" if self.state is _CLOSED else None

    def ends_well(self) -> bool:
        """Return True if the peer has closed, with a good code and so have we: :meth:`closed` is no error."""
        rcvd, sent = self.close_rcvd, self.close_sent
        return (
            self.error is None
            and not self.cut
            and rcvd is not None
            and rcvd.code in _GOOD_ENDS
            and (sent is None or sent.code in _GOOD_ENDS)
        )

    def closed(self) -> ConnectionClosed:
        """Return the exception that tells an application how this connection ended, or is ending."""
        rcvd, sent = self.close_rcvd, self.close_sent
        if self.ends_well():
            return ConnectionClosedOK(rcvd, sent)
        cause = str(self.error) if self.error is not None else "a message was cut" if self.cut else ""
        return ConnectionClosedError(rcvd, sent, cause)


def check_close(code: int, reason: str) -> None:
    """Raise ``ValueError`` unless a close frame may carry ``code`` and ``reason`` (section 7.4)."""
    if isinstance(code, bool) or not isinstance(code, int):
        raise TypeError(f"a close code must be an int, not {type(code).__name__}")
    if not is_valid_close_code(code):
        raise ValueError(f"{code} may not stand in a close frame: use 1000-1003, 1007-1014 or 3000-4999")
    if not isinstance(reason, str):
        raise TypeError(f"a close reason must be a str, not {type(reason).__name__}")
    size = len(reason.encode())
    if size > limits.CLOSE_REASON:
        raise ValueError(f"a close reason may have {limits.CLOSE_REASON} bytes of UTF-8, not {size}")


def cut_reason(text: str) -> str:
    """Cut ``text`` to the size of a close reason, at the end of a character. Lone surrogates become ``?``."""
    return text.encode(errors="replace")[: limits.CLOSE_REASON].decode(errors="ignore")
