# Types for request.py where it is compiled.

cimport cython

cdef bytes _BLANKS
cdef int _BLANK
cdef dict _KEYS
cdef object _NONE, Headers, InvalidMessage, has_token, limits


cdef class HeadLines:
    cdef readonly bint complete
    cdef readonly list lines
    cdef readonly bytes target

    cpdef on_header(self, bytes name, bytes value)


@cython.locals(line=tuple, values=list, known=bytes, value=bytes)
cpdef list values_in(list lines, bytes key)
@cython.locals(line=tuple, count=Py_ssize_t, known=bytes)
cpdef Py_ssize_t count_in(list lines, bytes key) except -1


cdef class Request:
    cdef bytes _head
    cdef object _headers
    cdef list _lines
    cdef object _query
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
    cdef _prepare(self, str method, str target, str http_version)
    cdef _unquote(self)
    cpdef _keep_only(self, bytes head)
    cpdef list _values_of(self, bytes key)
    cpdef bint _has(self, bytes key) except -1
    @cython.locals(line=tuple, found=bint, known=bytes, told=bytes)
    cdef bint _says(self, bytes key, bytes value) except -1
    cdef bint _lists(self, bytes key, str name) except -1


@cython.locals(request=Request)
cpdef Request received_request(str method, str target, list lines, str http_version)
cpdef check_target(str method, str target)
@cython.locals(host=str)
cpdef str address_of(remote_address)
