# Types for parser.py where it is compiled.

cimport cython

from .head_scan cimport count_lines, find_end, is_plain_get
from .request cimport HeadLines, Request, check_target, first_in, received_request

cdef object InvalidHeader, InvalidMessage, _Upgrade, _new_parser, httptools, parse_host
cdef bytes _CAPITALS, _END, _GET, _IN_LINE, _TLS_RECORD, _VERSION, _newest_host
cdef Py_ssize_t _LENGTH_SIZE, _METHOD_SIZE
cdef Py_ssize_t BAD_END, CONTROL
cdef dict _ONCE


cdef class HeadReader:
    cdef bint _any_target
    cdef bytearray _buffer
    cdef bint _done
    cdef HeadLines _fields
    cdef object _host
    cdef bint _in_line
    cdef Py_ssize_t _lines
    cdef Py_ssize_t _max_headers
    cdef Py_ssize_t _max_size
    cdef str _method
    cdef bint _old
    cdef Py_ssize_t _parsed
    cdef object _parser
    cdef bint _rebuilt
    cdef str _target
    cdef readonly bytes head
    cdef readonly bytes rest

    @cython.locals(chunk=bytes, room=Py_ssize_t)
    cpdef Request feed(self, data)
    @cython.locals(buffer=bytearray, end=Py_ssize_t, stop=Py_ssize_t)
    cdef Request _read(self, bytes data, Py_ssize_t room)
    cdef Request _read_whole(self, bytes head)
    @cython.locals(method=bytes, space=bytes)
    cdef _check_method(self, bytes beginning)
    @cython.locals(ends=Py_ssize_t, first=bint, lines=bytes)
    cdef _read_lines(self, bytes new, bint ended)
    cdef _parse(self, bytes lines)
    @cython.locals(method=bytes)
    cdef _check_request_line(self, bytes line)
    @cython.locals(fields=HeadLines, has_host=bint, own_lines=bint)
    cdef Request _finish(self, bytes head)


cdef _check_deciding(list lines)
@cython.locals(host=bytes)
cdef bint _check_headers(HeadLines fields, bint host_required) except -1
cdef _check_once(list lines)
cdef _check_host(bytes host)
@cython.locals(lengths=list, length=str)
cdef _check_body(Request request)
