"""Socket of one blocking connection with what reading and writing share: TLS, protocol state, compression, deadline."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import Final, NoReturn

from .. import limits
from ..client.handshake import Accepted
from ..conn.config import ConnConfig
from ..constants import State
from ..errors import ConcurrencyError
from ..protocol.state import ProtocolState
from .compression import ConnDeflate
from .dialing import Wire

__all__ = ["DONT_WAIT", "LOOK", "ForeignLock", "SocketChannel"]

#: Flag for a call that does not wait. Windows has none: there a call is made when the socket is ready.
DONT_WAIT: Final = getattr(socket, "MSG_DONTWAIT", 0)

#: Seconds after which a thread that waits for another reader looks whether there still is one.
LOOK: Final = 0.05


class SocketChannel:
    """Socket and state of one connection.

    Args:
        wire: Connected socket.
        config: Options of the connection.
        accepted: Result of the opening handshake.
        rules: Protocol state of a connection that is not open yet.

    Attributes:
        sock: Socket, in blocking mode.
        tls: TLS above it, or ``None``.
        rules: Protocol state.
        deflate: Compression, or ``None``.
        ended: Event of the end of the connection.
        end_by: Monotonic time at which the connection is cut, or ``None``.
        foreign: True in a child of the process that has connected.
    """

    __slots__ = ("config", "deflate", "end_by", "ended", "foreign", "rules", "sock", "tls")

    def __init__(self, wire: Wire, config: ConnConfig, accepted: Accepted, rules: ProtocolState) -> None:
        wire.sock.settimeout(None)
        self.sock = wire.sock
        self.tls = wire.tls
        self.config = config
        self.rules = rules
        self.deflate: ConnDeflate | None = None
        if accepted.agreement is not None:
            assert config.deflate is not None
            self.deflate = ConnDeflate(accepted.agreement, config.deflate, config.fragment_size)
            self.rules.allow_compressed(client=True)
        self.rules.state = State.OPEN
        self.ended = threading.Event()
        self.end_by: float | None = None
        self.foreign = False

    def end_soon(self) -> None:
        """Let the peer close TCP, within a second."""
        self.end_by = time.monotonic() + min(self.config.close_timeout, limits.END_GRACE)

    def shut(self) -> None:
        """End TCP in both directions, which wakes the threads that wait for the socket."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)

    def check_owner(self) -> None:
        """Raise `ConcurrencyError` in a child of the process that has connected."""
        if self.foreign:
            raise _foreign_error()


class ForeignLock:
    """Lock of a connection of the parent, in a child: no thread gets it."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> NoReturn:
        """Raise `ConcurrencyError`."""
        raise _foreign_error()

    def release(self) -> None:
        """Do nothing."""

    def __enter__(self) -> NoReturn:
        raise _foreign_error()

    def __exit__(self, *_: object) -> None:
        """Do nothing."""


def _foreign_error() -> ConcurrencyError:
    return ConcurrencyError(
        "this connection belongs to the process that has forked this one, and goes on there: connect in the child"
    )
