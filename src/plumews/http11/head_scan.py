"""Scan of the bytes of a request head: no control characters, and lines that end with CR LF.

``head_scan.pyx`` is the same in Cython, in one pass over the bytes. It is imported instead where it is built.
"""

from __future__ import annotations

from typing import Final

__all__ = ["BAD_END", "CONTROL", "count_lines"]

#: Results of :func:`count_lines`.
CONTROL: Final = -1
BAD_END: Final = -2

#: Bytes of a head: those of a header value (RFC 9110 section 5.5), visible ASCII, space, tab and those from 0x80 on,
#: and the ends of lines.
_IN_HEAD: Final = bytes(range(0x20, 0x7F)) + b"\t\r\n" + bytes(range(0x80, 0x100))


def count_lines(data: bytes) -> int:
    """Return the number of lines that end in ``data``, a part of a head.

    Return :data:`CONTROL` if it has a control character, and :data:`BAD_END` if a line ends with CR or LF alone. A CR
    may be its last byte.
    """
    if data.translate(None, _IN_HEAD):
        return CONTROL
    ends = data.count(b"\r\n")
    if data.count(b"\n") != ends or data.count(b"\r") - data.endswith(b"\r") != ends:
        return BAD_END
    return ends
