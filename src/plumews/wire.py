"""Writing to sockets past their transports (layer 3): picks the body of what does it.

The compiled ``_wire`` gathers in C; ``_wire_py`` asks the operating system's ``writev``. Invariant: nothing else
imports ``_wire*``, and nothing can tell the two apart but by their speed. ``DIRECT`` says whether this system can do
it at all; where it cannot, everything goes through the transport.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from .codec import BODY

__all__ = ["DIRECT", "Batch", "send"]

#: A socket is a file descriptor that takes bytes: everywhere but on Windows.
DIRECT: Final = os.name == "posix"

if TYPE_CHECKING or BODY == "pure" or not DIRECT:
    from ._wire_py import Batch, send
else:
    try:
        from ._wire import Batch, send
    except ImportError:
        from ._wire_py import Batch, send
