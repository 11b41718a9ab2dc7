"""Count the records in a stream of TLS by their headers (RFC 8446 section 5.1). Nothing is decrypted.

Compiled with Cython. The same source runs as plain Python.
"""

from __future__ import annotations

from typing import Final

__all__ = ["RecordCounter"]

#: Bytes of the header of a record, and of the longest record behind it (RFC 5246 section 6.2.3).
_HEADER: Final = 5
_LONGEST: Final = (1 << 14) + 2048
#: Types of records (RFC 8446 section 5.1, RFC 6520).
_FIRST_TYPE: Final = 20
_LAST_TYPE: Final = 24


class RecordCounter:
    """Counter of the records of one stream, which comes in pieces of any size."""

    __slots__ = ("_header", "_left", "_length")

    def __init__(self) -> None:
        self._left = 0  # bytes that the record at the end of the stream lacks
        self._header = 0  # bytes of the header behind it that have come
        self._length = 0  # what they say about its length

    def count(self, data: bytearray, size: int) -> int:
        """Return the number of records that the first ``size`` bytes of ``data`` complete.

        From the first header on that is none, return ``size``: not more records than bytes. It is for OpenSSL to say
        what is wrong.
        """
        at = 0
        count = 0
        while True:
            if self._left > 0:
                take = min(self._left, size - at)
                at += take
                self._left -= take
                if self._left > 0:
                    return count
                count += 1
            while self._header < _HEADER and at < size:
                if self._header >= 3:
                    self._length = self._length << 8 | data[at]
                elif self._header == 0 and not _FIRST_TYPE <= data[at] <= _LAST_TYPE:
                    self._header, self._length = _HEADER, _LONGEST + 1  # for good
                    return size
                self._header += 1
                at += 1
            if self._header < _HEADER:
                return count
            if self._length > _LONGEST:
                return size
            if self._length == 0:
                count += 1
            self._left = self._length
            self._header = self._length = 0
