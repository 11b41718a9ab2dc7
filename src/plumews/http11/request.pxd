# Types for request.py where it is compiled.

cimport cython

from .head_scan cimport is_plain_get, split_lines

cdef bytes _BLANKS, _GET, _HTTP
cdef int _BLANK
cdef dict _KEYS
cdef object _NONE, Headers, InvalidMessage, has_token, limits


cdef class HeadLines:
    cdef readonly bint complete
    cdef public list lines
    cdef readonly bint same_size
    cdef readonly unsigned long long sizes
    cdef readonly bytes target

    cpdef on_url(self, bytes url)
    @cython.locals(size=cython.ulonglong)
    cpdef on_header(self, bytes name, bytes value)
    @cython.locals(lines=list, target=bytes, line=tuple, name=bytes, size=cython.ulonglong)
    cpdef bint split(self, bytes head) except -1


@cython.locals(size=Py_ssize_t, bit=cython.ulonglong)
cdef unsigned long long _size_bit(bytes name) except? 0


@cython.locals(line=tuple, values=list, known=bytes, value=bytes)
cpdef list values_in(list lines, bytes key)
@cython.locals(line=tuple, known=bytes)
cpdef bytes first_in(list lines, bytes key)


cdef class Request:
    cdef bytes _head
    cdef object _headers
    cdef list _lines
    cdef object _query
    cdef bint _same_size
    cdef unsigned long long _sizes
    cdef public object body
    cdef public object client_address
    cdef public object forwarded_host
    cdef public object http_version
    cdef public object method
    cdef public object path
    cdef public object query_string
    cdef public object raw_path
    cdef public object remote_address
    cdef public object repeated
    cdef public object secure
    cdef public object target

    @cython.locals(at=Py_ssize_t)
    cdef _prepare(self, str method, str target, str http_version, bint any_target)
    cdef _unquote(self, bint any_target)
    cpdef _keep_only(self, bytes head)
    cpdef list _values_of(self, bytes key)
    cpdef bint _has(self, bytes key) except -1
    cpdef bytes _only(self, bytes key)
    cpdef bint _asks_websocket(self) except -1
    cdef bint _says(self, bytes key, bytes value) except -1
    cdef bint _lists(self, bytes key, str name) except -1


@cython.locals(request=Request)
cpdef Request received_request(str method, str target, HeadLines fields, str http_version, bint any_target=*)
cpdef check_target(str method, str target)
@cython.locals(host=str)
cpdef str address_of(remote_address)
