"""Output of a client: frames are masked when they are written (RFC 6455 section 5.3).

A client's channel queues the same frames as that of a server, also those that a broadcast shares. Its transport is a
:class:`MaskingTransport`, as if there were another layer below, such as TLS. So a server pays nothing for clients. The
compiled body ``_masking`` differs in speed alone.

Invariants: each frame gets a fresh key from the system's randomness when it is written. Nothing is written past a
transport that holds data.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .. import _compiled
from ..protocol.codec import mask_frames
from . import sendmsg

__all__ = ["MaskingTransport"]


class MaskingTransport(asyncio.WriteTransport):
    """Transport that masks frames, and writes them to the socket of another transport, or through that one.

    Args:
        transport: transport of the connection.
    """

    __slots__ = ("_fd", "_handed", "_limited", "_out")

    def __init__(self, transport: asyncio.WriteTransport) -> None:
        self._out = transport
        self._fd = sendmsg.descriptor(transport)
        self._handed = True  # the transport was given data and was not seen empty since
        self._limited = False

    def write(self, data: Any) -> None:
        """Mask ``data``, which is whole frames, and write them."""
        masked: Any = mask_frames(data)
        if self._past():
            sent = sendmsg.send(self._fd, [masked])
            if sent < 0:
                return
            masked = memoryview(masked)[sent:]
        self._hand(masked)

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        """Mask buffers that are whole frames together, and write them. Each header stands in one buffer."""
        self.write(b"".join(list_of_data))

    def _past(self) -> bool:
        """Return True if frames may go past the transport to the socket."""
        if self._handed and self._fd >= 0:
            self._handed = self._out.get_write_buffer_size() != 0
        return self._fd >= 0 and not self._handed

    def _hand(self, masked: Any) -> None:
        """Give masked bytes to the transport. It asks to wait as soon as it holds data that the socket did not take."""
        if self._fd >= 0 and not self._limited:
            self._limited = True
            self._out.set_write_buffer_limits(high=0)
        self._handed = True
        self._out.write(masked)

    # --- of the transport -------------------------------------------------------------------------

    def is_closing(self) -> bool:
        return self._out.is_closing()

    def get_write_buffer_size(self) -> int:
        return self._out.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._out.set_write_buffer_limits(high, low)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._out.get_extra_info(name, default)


if not TYPE_CHECKING:
    _short_ways = _compiled.short_ways("transport._masking")
    if _short_ways is not None:
        MaskingTransport = _short_ways.MaskingTransport
