"""The kernel's send buffer of a connection: bound it, and ask what it holds (layer 3).

`TCP_NOTSENT_LOWAT` bounds the bytes that the kernel takes beyond those that are on the network. A Unix socket has no
network behind it: all that its kernel buffer holds is unread, and `SO_SNDBUF` bounds that. Linux and macOS can be
asked for the bytes in the buffer. Every question is a system call: none is asked for each message.

Invariant: a socket that cannot be asked or bounded is no error. The answer is ``None``, or nothing is bounded.
"""

from __future__ import annotations

import contextlib
import socket
import sys
from struct import unpack_from
from typing import Any, Final

if sys.platform == "linux":
    from fcntl import ioctl
    from termios import TIOCOUTQ

__all__ = ["WAITS_FOR_EVENT", "acknowledged", "bound", "unacknowledged", "unsent"]

#: macOS ignores the bound in ``send`` and heeds it in the writable event: each write has to wait for that event.
WAITS_FOR_EVENT: Final = sys.platform == "darwin"

_DARWIN: Final = sys.platform == "darwin"
_LINUX: Final = sys.platform == "linux"
#: Older Pythons do not name it.
_NOTSENT_LOWAT: Final[int | None] = getattr(
    socket, "TCP_NOTSENT_LOWAT", {"linux": 25, "darwin": 0x201}.get(sys.platform)
)
#: Bytes that were not sent yet (linux/sockios.h).
_SIOCOUTQNSD: Final = 0x894B
#: Bytes in the send buffer (sys/socket.h of macOS).
_SO_NWRITE: Final = 0x1024
#: Where `tcpi_bytes_acked` stands in `struct tcp_info` (linux/tcp.h), since Linux 4.1.
_BYTES_ACKED: Final = 120
_INET: Final = (socket.AF_INET, socket.AF_INET6)


def bound(sock: Any, size: int) -> None:
    """Let the kernel take no more than about ``size`` bytes of ``sock`` that are not on the network.

    It takes whole segments, up to 64 KiB of one write. Linux doubles the bound of a Unix socket for its bookkeeping.
    """
    with contextlib.suppress(OSError):
        if sock.family in _INET:
            if _NOTSENT_LOWAT is not None:
                sock.setsockopt(socket.IPPROTO_TCP, _NOTSENT_LOWAT, min(size, 0x7FFF_FFFF))
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, min(size, 0x3FFF_FFFF))


def unacknowledged(sock: Any) -> int | None:
    """Return the bytes that the kernel holds until the peer's kernel has them; on a Unix socket until they are read.

    Linux counts the bookkeeping of a Unix socket, too.
    """
    if _LINUX:
        return _asked(sock, TIOCOUTQ)
    if _DARWIN and sock is not None:
        with contextlib.suppress(OSError):
            return int(sock.getsockopt(socket.SOL_SOCKET, _SO_NWRITE))
    return None


def unsent(sock: Any) -> int | None:
    """Return those of the bytes that the kernel holds that are not on the network; on a Unix socket that is all."""
    if _LINUX and sock is not None:
        return _asked(sock, _SIOCOUTQNSD if sock.family in _INET else TIOCOUTQ)
    return None


def acknowledged(sock: Any, written: int) -> int | None:
    """Return the bytes that the peer's kernel has, of ``written`` that ours was given.

    Only the difference between two answers means something. Linux counts them itself for TCP, as they are on the
    network: encrypted, where ``written`` is not.
    """
    if _LINUX and sock is not None and sock.family in _INET:
        with contextlib.suppress(OSError):
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED + 8)
            if len(info) == _BYTES_ACKED + 8:
                return int(unpack_from("=Q", info, _BYTES_ACKED)[0])
    held = unacknowledged(sock)
    return None if held is None else written - held


def _asked(sock: Any, question: int) -> int | None:
    if sock is None:
        return None
    try:
        return int(unpack_from("=i", ioctl(sock.fileno(), question, bytes(4)))[0])
    except (OSError, ValueError):  # it is closed, or no socket that knows
        return None
