"""Write to sockets directly, and not through their transports.

The compiled body ``_sendmsg`` gathers buffers in C. The plain body ``_sendmsg_py`` uses ``writev``. They differ in
speed alone, and :func:`send` is one of them. :func:`descriptor` tells for which transports this is possible. Output of
all other connections goes through their transports.
"""

from __future__ import annotations

import os
import select
import sys
from asyncio import WriteTransport, selector_events
from typing import TYPE_CHECKING, Any, Final

from .. import _compiled
from . import _sendmsg_py

__all__ = ["DIRECT", "descriptor", "send", "unread_before_end"]

#: True where a socket is a file descriptor that takes bytes: everywhere but on Windows.
DIRECT: Final = os.name == "posix"

if sys.platform == "linux":
    from fcntl import ioctl
    from termios import FIONREAD

if TYPE_CHECKING:
    from ._sendmsg_py import send
else:
    send = (_compiled.short_ways("transport._sendmsg") or _sendmsg_py).send

#: Event of ``poll`` for a socket whose peer has sent its FIN, even if data before it is unread. Linux only.
_PEER_ENDED: Final[int | None] = getattr(select, "POLLRDHUP", None)

#: Transports that write bytes unchanged. Those of uvloop are found when it is in use.
_PLAIN: Final[set[Any]] = {selector_events._SelectorSocketTransport} if DIRECT else set()  # type: ignore[attr-defined]


def descriptor(transport: WriteTransport) -> int:
    """Return the descriptor of the socket under ``transport``, or -1 if bytes must go through the transport.

    Only asyncio's and uvloop's own TCP and Unix transports write bytes unchanged. Any other class, and any subclass,
    may encrypt, frame or count them, although it gives out the socket of the transport below.
    """
    kind = type(transport)
    if kind not in _PLAIN and not _is_of_uvloop(kind):
        return -1
    socket = transport.get_extra_info("socket")
    return -1 if socket is None else int(socket.fileno())


def _is_of_uvloop(kind: type) -> bool:
    """Return True for the plain transports of uvloop, and remember them in :data:`_PLAIN`."""
    uvloop = sys.modules.get("uvloop.loop")
    if not DIRECT or uvloop is None or kind not in (uvloop.TCPTransport, uvloop.UnixTransport):
        return False
    _PLAIN.add(kind)
    return True


def unread_before_end(sock: Any) -> int | None:
    """Return the number of unread bytes if the peer of ``sock`` has sent its FIN or is gone, else ``None``.

    A socket that is not read from reports neither by itself. Linux only.
    """
    if _PEER_ENDED is None or sock is None:
        return None
    try:
        poll = select.poll()
        poll.register(sock.fileno(), _PEER_ENDED)
        if not poll.poll(0):
            return None
        return int.from_bytes(ioctl(sock.fileno(), FIONREAD, bytes(4)), sys.byteorder)
    except (OSError, ValueError):  # the socket is closed
        return None
