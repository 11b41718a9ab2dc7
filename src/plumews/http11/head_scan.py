"""Scan of the bytes of a request head: its end, control characters, ends of lines, and lines of the usual form.

``head_scan.pyx`` is the same in Cython, in one pass over the bytes. It is imported instead where it is built.
"""

from __future__ import annotations

from typing import Final

__all__ = ["BAD_END", "CONTROL", "count_lines", "find_end", "is_plain_get", "split_lines"]

#: Results of :func:`count_lines`.
CONTROL: Final = -1
BAD_END: Final = -2

#: Bytes of a head: those of a header value (RFC 9110 section 5.5), visible ASCII, space, tab and those from 0x80 on,
#: and the ends of lines.
_IN_HEAD: Final = bytes(range(0x20, 0x7F)) + b"\t\r\n" + bytes(range(0x80, 0x100))


#: Bytes of the usual name of a header that was written in lower case.
_IN_NAME: Final = b"abcdefghijklmnopqrstuvwxyz0123456789-"

#: Bytes of a path that needs no further check: visible ASCII without a fragment.
_IN_PATH: Final = bytes(set(range(0x21, 0x7F)) - set(b"#"))


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


def find_end(data: bytes, stop: int) -> int:
    """Return the position behind the first empty line that is complete within the first ``stop`` bytes, else -1."""
    at = data.find(b"\r\n\r\n", 0, stop)
    return -1 if at < 0 else at + 4


def is_plain_get(head: bytes, target: bytes) -> bool:
    """Return True if ``head`` begins with the line of a GET of HTTP/1.1 for ``target``, a path in visible ASCII.

    A path with a fragment is not plain.
    """
    path = target.startswith(b"/") and not target.translate(None, _IN_PATH)
    return path and head.startswith(b"GET %b HTTP/1.1\r" % target)


def split_lines(head: bytes) -> list[tuple[bytes, bytes, bytes]] | None:
    """Return the lines of a whole ``head`` that a program has written: the name, the name in lower case, the value.

    The ends of lines and the control characters were checked before. A value has no blanks around it. Return ``None``
    unless each line is a name in lower case, ``": "`` and a value.
    """
    lines = []
    for line in head.split(b"\r\n")[1:-2]:  # the last two are the empty line and what is behind its end
        name, colon, value = line.partition(b": ")
        if not (name and colon) or name.translate(None, _IN_NAME):
            return None
        lines.append((name, name, value.strip(b" \t")))
    return lines
