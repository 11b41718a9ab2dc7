"""Writing to sockets past their transports (layer 3): picks the body of what does it.

The compiled ``_wire`` gathers in C; ``_wire_py`` asks the operating system's ``writev``. Invariant: nothing else
imports ``_wire*``, and nothing can tell the two apart but by their speed. ``DIRECT`` says whether this system can do
it at all, :func:`descriptor` for which transports; everywhere else everything goes through the transport.
"""

from __future__ import annotations

import os
import select
import sys
from asyncio import WriteTransport, selector_events
from typing import TYPE_CHECKING, Any, Final

from .. import _compiled

__all__ = ["DIRECT", "descriptor", "send", "unread_before_end"]

#: A socket is a file descriptor that takes bytes: everywhere but on Windows.
DIRECT: Final = os.name == "posix"

if sys.platform == "linux":
    from fcntl import ioctl
    from termios import FIONREAD

if TYPE_CHECKING or _compiled.BODY == "pure" or not DIRECT:
    from ._sendmsg_py import send
else:
    try:
        from ._sendmsg import send
    except ImportError:
        from ._sendmsg_py import send

#: What ``poll`` says of a socket whose peer has sent its FIN, whatever is unread before it. Linux alone has it.
_PEER_ENDED: Final[int | None] = getattr(select, "POLLRDHUP", None)

#: Transports that pass bytes on as they are. Those of uvloop are looked up when it is in use.
_PLAIN: Final[set[Any]] = {selector_events._SelectorSocketTransport}  # type: ignore[attr-defined]


def descriptor(transport: WriteTransport) -> int:
    """Return the descriptor of the socket under ``transport``, or -1 if bytes must go through the transport.

    Only asyncio's and uvloop's own TCP and Unix transports are known to pass bytes on as they are. Any other class, and
    any subclass, may encrypt, frame or count them, although it shows the socket of the transport below.
    """
    if not DIRECT or not (type(transport) in _PLAIN or _is_uvloops(type(transport))):
        return -1
    socket = transport.get_extra_info("socket")
    return -1 if socket is None else int(socket.fileno())


def _is_uvloops(kind: type) -> bool:
    uvloop = sys.modules.get("uvloop.loop")
    return uvloop is not None and kind in (uvloop.TCPTransport, uvloop.UnixTransport)


def unread_before_end(sock: Any) -> int | None:
    """Return the bytes that are unread if the peer of ``sock`` has sent its FIN, or is gone. Linux alone can tell.

    None if the peer is there, or cannot be asked for. A socket that is not read from says nothing of this by itself.
    """
    if _PEER_ENDED is None or sock is None:
        return None
    try:
        poll = select.poll()
        poll.register(sock.fileno(), _PEER_ENDED)
        if not poll.poll(0):
            return None
        return int.from_bytes(ioctl(sock.fileno(), FIONREAD, bytes(4)), sys.byteorder)
    except (OSError, ValueError):  # it is closed
        return None
