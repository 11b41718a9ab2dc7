"""Kernel send buffer of a connection: bound it, wait for space in it, and read its fill level.

`TCP_NOTSENT_LOWAT` bounds the bytes that the kernel takes beyond those on the network. A Unix socket has no network:
all bytes in its kernel buffer are unread, and `SO_SNDBUF` bounds them. Linux and macOS report the bytes in the buffer.
Each query is a system call: none is made per message.

Invariant: a socket without support is no error. Queries return ``None``, and bounds have no effect.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Callable
from contextvars import Context
from struct import unpack_from
from typing import Any, Final

if sys.platform == "linux":
    from fcntl import ioctl
    from termios import TIOCOUTQ

__all__ = [
    "WAITS_FOR_EVENT",
    "acknowledged",
    "bound",
    "limit_transport",
    "unacknowledged",
    "unsent",
    "unwatch",
    "watch",
]

#: True on macOS, which heeds the bound in the writable event and not in ``send``: each write waits for the event.
WAITS_FOR_EVENT: Final = sys.platform == "darwin"

_LINUX: Final = sys.platform == "linux"
#: Number of the option: Python 3.10 and 3.11 have no name for it on some systems.
_NOTSENT_LOWAT: Final[int | None] = getattr(
    socket, "TCP_NOTSENT_LOWAT", {"linux": 25, "darwin": 0x201}.get(sys.platform)
)
#: Query of the bytes not sent yet (linux/sockios.h).
_SIOCOUTQNSD: Final = 0x894B
#: Query of the bytes in the send buffer (sys/socket.h of macOS).
_SO_NWRITE: Final = 0x1024
#: Offset of `tcpi_bytes_acked` in `struct tcp_info` (linux/tcp.h), since Linux 4.1.
_BYTES_ACKED: Final = 120
_INET: Final = (socket.AF_INET, socket.AF_INET6)


def bound(sock: Any, size: int) -> None:
    """Limit the bytes of ``sock`` that the kernel holds and has not sent to about ``size``.

    The kernel takes whole segments, up to 64 KiB of one write. Linux doubles the bound of a Unix socket for its
    bookkeeping.
    """
    with contextlib.suppress(OSError):
        if sock.family in _INET:
            if _NOTSENT_LOWAT is not None:
                sock.setsockopt(socket.IPPROTO_TCP, _NOTSENT_LOWAT, min(size, 0x7FFF_FFFF))
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, min(size, 0x3FFF_FFFF))


def limit_transport(transport: asyncio.WriteTransport, high: int) -> None:
    """Let ``transport`` ask to wait as soon as it holds more than ``high`` bytes."""
    with contextlib.suppress(NotImplementedError):  # a transport without such limits, as asyncio's base classes are
        transport.set_write_buffer_limits(high=high)


def watch(transport: asyncio.BaseTransport | None, writable: Callable[[], None]) -> int:
    """Call ``writable()`` when the socket of ``transport`` takes more. Return the descriptor for :func:`unwatch`.

    It is a duplicate, because the transport may watch the descriptor itself. Return -1 without a socket, if no
    descriptor is left, or if the loop cannot watch one.
    """
    sock = None if transport is None else transport.get_extra_info("socket")
    if sock is None:
        return -1
    try:
        fd = os.dup(sock.fileno())
    except OSError:
        return -1
    try:
        Context().run(asyncio.get_running_loop().add_writer, fd, writable)
    except (OSError, NotImplementedError):
        os.close(fd)
        return -1
    except BaseException:
        unwatch(fd)
        raise
    return fd


def unwatch(fd: int) -> None:
    """Stop watching ``fd``, and close it."""
    try:
        asyncio.get_running_loop().remove_writer(fd)
    finally:
        os.close(fd)


def unacknowledged(sock: Any) -> int | None:
    """Return the number of bytes that the peer's kernel has not acknowledged; on a Unix socket, that are unread.

    Linux counts the bookkeeping of a Unix socket, too.
    """
    if _LINUX:
        return _query(sock, TIOCOUTQ)
    if WAITS_FOR_EVENT and sock is not None:
        with contextlib.suppress(OSError):
            return int(sock.getsockopt(socket.SOL_SOCKET, _SO_NWRITE))
    return None


def unsent(sock: Any) -> int | None:
    """Return the number of bytes that the kernel has not sent; on a Unix socket, that are unread."""
    if _LINUX and sock is not None:
        return _query(sock, _SIOCOUTQNSD if sock.family in _INET else TIOCOUTQ)
    return None


def acknowledged(sock: Any, written: int) -> int | None:
    """Return the number of bytes that the peer's kernel has acknowledged, of ``written`` ones before encryption.

    Only the difference between two results is meaningful. For TCP, Linux counts the bytes on the network, which are
    encrypted ones under TLS.
    """
    if _LINUX and sock is not None and sock.family in _INET:
        with contextlib.suppress(OSError):
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED + 8)
            if len(info) == _BYTES_ACKED + 8:
                return int(unpack_from("=Q", info, _BYTES_ACKED)[0])
    held = unacknowledged(sock)
    return None if held is None else written - held


def _query(sock: Any, request: int) -> int | None:
    if sock is None:
        return None
    try:
        return int(unpack_from("=i", ioctl(sock.fileno(), request, bytes(4)))[0])
    except (OSError, ValueError):  # the socket is closed, or lacks the query
        return None
