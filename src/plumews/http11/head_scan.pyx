# cython: language_level=3, binding=False, auto_pickle=False
"""``head_scan.py`` in C. Invariant: the same result for all bytes."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.string cimport memchr, memcmp

__all__ = ["BAD_END", "CONTROL", "count_lines", "find_end", "is_plain_get", "split_lines"]

CONTROL = -1
BAD_END = -2


cpdef Py_ssize_t count_lines(bytes data) except? -3:
    cdef const unsigned char *at = <const unsigned char *>PyBytes_AS_STRING(data)
    cdef const unsigned char *end = at + PyBytes_GET_SIZE(data)
    cdef Py_ssize_t ends = 0
    cdef bint bad_end = False
    cdef unsigned char byte
    while at < end:
        byte = at[0]
        at += 1
        if byte >= 0x20:
            if byte == 0x7F:
                return -1
        elif byte == 0x0D:
            if at < end:
                if at[0] == 0x0A:
                    ends += 1
                    at += 1
                else:
                    bad_end = True
        elif byte == 0x0A:
            bad_end = True
        elif byte != 0x09:
            return -1
    return -2 if bad_end else ends


cpdef Py_ssize_t find_end(bytes data, Py_ssize_t stop) except? -3:
    cdef const char *start = PyBytes_AS_STRING(data)
    cdef const char *end = start + min(stop, PyBytes_GET_SIZE(data)) - 3  # behind the last place of an end
    cdef const char *at = start
    while at < end:
        at = <const char *>memchr(at, 0x0D, end - at)
        if at == NULL:
            break
        if at[1] == 0x0A and at[2] == 0x0D and at[3] == 0x0A:
            return at - start + 4
        at += 1
    return -1


cpdef bint is_plain_get(bytes head, bytes target) except? -1:
    cdef const char *line = PyBytes_AS_STRING(head)
    cdef const unsigned char *path = <const unsigned char *>PyBytes_AS_STRING(target)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(target), i
    if not size or path[0] != 0x2F or PyBytes_GET_SIZE(head) < size + 14:
        return False
    for i in range(size):
        if path[i] < 0x21 or path[i] > 0x7E or path[i] == 0x23:
            return False
    return (
        memcmp(line, b"GET ", 4) == 0
        and memcmp(line + 4, path, size) == 0
        and memcmp(line + 4 + size, b" HTTP/1.1\r", 10) == 0
    )


cpdef list split_lines(bytes head):
    cdef const char *at = PyBytes_AS_STRING(head)
    cdef const char *last = at + PyBytes_GET_SIZE(head) - 2  # of the empty line
    cdef const char *end
    cdef const char *colon
    cdef bytes name
    cdef list lines = []
    at = <const char *>memchr(at, 0x0A, last - at) if last > at else NULL
    while at != NULL and at + 1 < last:
        at += 1
        end = <const char *>memchr(at, 0x0D, last - at)
        colon = at
        while colon < last and (b"a" <= colon[0] <= b"z" or b"0" <= colon[0] <= b"9" or colon[0] == b"-"):
            colon += 1
        if end == NULL or colon == at or colon + 1 >= end or colon[0] != b":" or colon[1] != b" ":
            return None
        name = at[: colon - at]
        at = end + 1
        colon += 2
        while colon < end and (colon[0] == b" " or colon[0] == b"\t"):
            colon += 1
        while colon < end and (end[-1] == b" " or end[-1] == b"\t"):
            end -= 1
        lines.append((name, name, colon[: end - colon]))
    return lines
