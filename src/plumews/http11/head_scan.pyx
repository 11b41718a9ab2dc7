# cython: language_level=3, binding=False, auto_pickle=False
"""``head_scan.py`` in C. Invariant: the same result for all bytes."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

__all__ = ["BAD_END", "CONTROL", "count_lines"]

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
