"""Text from outside, made fit for a log (layer 0).

A terminal obeys the control characters of a line that it shows, and a line break in a line makes two of it. Invariant:
what is returned here is one line without control characters; with :func:`printable`, of printable ASCII alone.
"""

from __future__ import annotations

import re
from typing import Final

from .. import limits

__all__ = ["printable", "quoted", "sanitize_for_logging"]

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_BAD_BYTES: Final = re.compile("[\ud800-\udfff]+")
_CUT: Final = "..."

#: What can stand in a line as it is.
_NAME: Final = re.compile(r"[A-Za-z0-9._:/@+\-]+")


def sanitize_for_logging(data: str | bytes | bytearray | memoryview, max_bytes: int = 0) -> str:
    """``data``, from whoever it came, as one line to be logged (the seed's ``SanitizeForLogging``).

    Each control character becomes a space and each run of bytes that are no UTF-8 one U+FFFD; what is longer than
    ``max_bytes`` bytes (0 or less: 200) is cut between two characters, and ends with ``...``. Other characters than
    ASCII stay: :func:`ascii` escapes them where a log must not have them.

    Raises ``TypeError`` if ``data`` is neither text nor bytes.
    """
    if not isinstance(data, (str, bytes, bytearray, memoryview)):
        raise TypeError(f"text or bytes are needed for a log, not {type(data).__name__}")
    most = max_bytes if max_bytes > 0 else limits.LOG_VALUE
    # One character is a byte or more: nothing behind these is of interest.
    raw = data[: most + 1].encode("utf-8", "surrogatepass") if isinstance(data, str) else bytes(data[: most + 1])
    cut = len(raw) > most
    text = _text_of(raw[: _boundary(raw, most)] if cut else raw)
    return text + _CUT if cut else text


def _boundary(raw: bytes, position: int) -> int:
    """``position``, or where the character begins that stands on both sides of it."""
    start = position
    while start > 0 and position - start < 3 and raw[start] & 0xC0 == 0x80:
        start -= 1
    lead = raw[start]
    size = 2 if 0xC2 <= lead < 0xE0 else 3 if 0xE0 <= lead < 0xF0 else 4 if 0xF0 <= lead < 0xF5 else 1
    return start if start < position < start + size else position


def _text_of(raw: bytes) -> str:
    return _CONTROL.sub(" ", _BAD_BYTES.sub("\ufffd", raw.decode("utf-8", "surrogateescape")))


def printable(text: str) -> str:
    """``text`` in printable ASCII: a control character becomes a space, any other one an escape."""
    return _CONTROL.sub(" ", text).encode("ascii", "backslashreplace").decode()


def quoted(value: object) -> str:
    """``value`` in printable ASCII; in quotation marks, unless it is but letters, digits and the marks of names."""
    text = sanitize_for_logging(str(value))
    return text if _NAME.fullmatch(text) else ascii(text)
