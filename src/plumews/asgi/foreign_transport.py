"""Transport of another kind than those of asyncio and uvloop, such as a stream of HTTP/2.

Such a transport may lack methods, or raise ``NotImplementedError`` for them. The connection writes to it through
:class:`ForeignTransport`, which has all methods of an :class:`asyncio.Transport`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

__all__ = ["ForeignTransport", "is_own"]

#: Modules of the transports that a connection may drive itself. A class of another module may do anything.
_OWN: Final = frozenset(("asyncio.selector_events", "asyncio.proactor_events", "asyncio.sslproto", "uvloop.loop"))

#: Classes of these modules that were seen.
_own_kinds: Final[set[type]] = set()


def is_own(transport: asyncio.BaseTransport) -> bool:
    """Return True if ``transport`` is one of asyncio's or uvloop's, by its exact class."""
    kind = type(transport)
    if kind in _own_kinds:
        return True
    if kind.__module__ not in _OWN:  # the module of a compiled class is a new string each time
        return False
    _own_kinds.add(kind)
    return True


class ForeignTransport(asyncio.Transport):
    """Transport that passes calls on to ``inner``, as far as that implements them."""

    __slots__ = ("_inner",)

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def _ask(self, name: str, *args: Any, default: Any = None) -> Any:
        """Call the method ``name`` of the inner transport. Return ``default`` if it has none."""
        method = getattr(self._inner, name, None)
        if method is None:
            return default
        try:
            return method(*args)
        except NotImplementedError:
            return default

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return information of the inner transport, but not its socket, which carries other bytes, too."""
        return default if name == "socket" else self._inner.get_extra_info(name, default)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write ``data``, as ``bytes``: a transport that frames them may not take a view."""
        if data:
            self._inner.write(data if type(data) is bytes else bytes(data))

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Write all of ``list_of_data`` at once."""
        self.write(b"".join(list_of_data))

    def is_closing(self) -> bool:
        """Return True if the inner transport is closing or closed."""
        return bool(self._ask("is_closing"))

    def close(self) -> None:
        """Close the inner transport behind what it holds."""
        self._inner.close()

    def abort(self) -> None:
        """Close the inner transport at once, or behind what it holds if it cannot."""
        unknown = object()
        if self._ask("abort", default=unknown) is unknown:
            self._inner.close()

    def pause_reading(self) -> None:
        """Stop receiving, if the inner transport can."""
        self._ask("pause_reading")

    def resume_reading(self) -> None:
        """Receive again."""
        self._ask("resume_reading")

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set the limits at which the inner transport asks to wait, if it has any."""
        self._ask("set_write_buffer_limits", high, low)

    def get_write_buffer_size(self) -> int:
        """Return the bytes that the inner transport holds, 0 if it does not tell."""
        return int(self._ask("get_write_buffer_size", default=0))

    def can_write_eof(self) -> bool:
        """Return True if the inner transport can end one direction alone."""
        return bool(self._ask("can_write_eof"))

    def write_eof(self) -> None:
        """End the direction to the client."""
        self._ask("write_eof")
