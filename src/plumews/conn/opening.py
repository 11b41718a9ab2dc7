"""Beginning of a connection: its transport, what was agreed on in the opening handshake, and the switch to frames.

Invariant: until the connection is open, received bytes go to its :class:`OpeningHandshake` and not to the parser.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

from .. import _compiled, limits
from ..constants import State
from ..deflate.config import Agreement
from ..deflate.inbound import InboundDeflate
from ..deflate.outbound import OutboundDeflate
from ..transport import send_buffer
from . import closing
from .config_values import values_of

if TYPE_CHECKING:
    from .core import ConnCore

_OPEN = State.OPEN
_short_opening = _compiled.short_ways("conn._opening")
_local_address = None if _short_opening is None else _short_opening.local_address
_peer_address = None if _short_opening is None else _short_opening.peer_address

__all__ = ["OpeningHandshake", "connected", "made", "opened", "use_deflate"]


class OpeningHandshake(Protocol):
    """Reader of a connection until it is open: ``conn._handshake``."""

    def connected(self) -> None: ...

    def received(self, data: bytes) -> None: ...

    def lost(self) -> None: ...


def made(conn: ConnCore, transport: Any) -> None:
    """Call :func:`connected` for the event loop. A failure ends the connection."""
    try:
        connected(conn, transport)
    except BaseException as exc:
        closing.fail(conn, exc)


def connected(conn: ConnCore, transport: Any) -> None:
    """Take the transport of ``conn``, and begin its opening handshake."""
    conn._transport = transport  # uvloop's is an asyncio.Transport in all but name
    try:
        conn._attach(transport)
        if conn._peername is None:  # else it was accepted with its address
            peername = None if conn._fd < 0 or _peer_address is None else _peer_address(conn._fd)
            if peername is None:
                peername = transport.get_extra_info("peername")
            conn._peername = peername if isinstance(peername, tuple) else None  # else a Unix socket's: it has no host
        if conn._fd >= 0 and _local_address is not None:
            conn._sockname = _local_address(conn._fd, transport)
        else:
            conn._sockname = _shared_address(transport.get_extra_info("sockname"))
        unsent = values_of(conn._config).unsent_limit
        if unsent is not None:
            _bound_output(conn, transport, unsent)
    except Exception as exc:
        closing.transport_failed(conn, exc)
    if conn._handshake is not None:
        conn._handshake.connected()


def _bound_output(conn: ConnCore, transport: asyncio.WriteTransport, unsent: int) -> None:
    """Limit the bytes that kernel and transport hold and have not sent to about ``unsent``."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        send_buffer.bound(sock, unsent)
    if conn._fd < 0 and unsent < limits.TRANSPORT_HIGH_WATER:
        send_buffer.limit_transport(transport, unsent)
    conn._waits_for_event = send_buffer.WAITS_FOR_EVENT


#: Local address of the newest connection.
_newest_address: Any = None


def _shared_address(address: Any) -> Any:
    """Return ``address``, or an equal object if the connection before has the same one, as most have."""
    global _newest_address
    if not isinstance(address, tuple):
        return address  # of a Unix socket
    if address != _newest_address:
        _newest_address = address
    return _newest_address


def use_deflate(conn: ConnCore, agreement: Agreement, *, client: bool = False) -> None:
    """Use permessage-deflate, before anything is received."""
    config = conn._config
    assert config.deflate is not None
    timers = conn._state.timers
    conn._deflate = deflate = OutboundDeflate(agreement, config.deflate, config.fragment_size, timers, client=client)
    conn._inflate = InboundDeflate(agreement, config.deflate, conn._state, client=client)
    conn._shared = deflate.shared_params
    conn._rules.allow_compressed(client=client)
    conn._parser = conn._rules.parser
    conn._quick_size = min(conn._quick_size, deflate.params.never_compressed())
    if deflate.shared_params is None:
        conn._compressor = deflate


def opened(conn: ConnCore) -> None:
    """Open ``conn``: from here on received bytes are frames."""
    failed = False
    try:
        if not conn._past():  # the transport holds a part of the response
            conn._hold_little()
    except Exception as exc:
        failed = True
        closing.transport_failed(conn, exc)
    if failed:
        return
    conn._handshake = None
    conn._rules.state = _OPEN
    conn._open = True
    conn._keepalive.start(conn._loop.time())
