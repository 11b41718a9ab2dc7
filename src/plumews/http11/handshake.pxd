# Types for handshake.py where it is compiled.

cimport cython

from .request cimport Request

cdef object InvalidHandshake, InvalidHeader, InvalidUpgrade, parse_tokens
cdef Py_ssize_t _KEY_SIZE, _NONCE_SIZE
cdef str _ANSWER
cdef bytes _NUMBER


@cython.locals(digest=bytes)
cpdef str accept_key(str key)
@cython.locals(key=str, answer=str)
cpdef bytes accepted(Request request, subprotocol=*, extensions=*, bytes headers=*)
@cython.locals(keys=list, upgrade=bint)
cpdef str check_upgrade(Request request)
cdef bint _is_key(str key) except -1
@cython.locals(offers=list)
cpdef list offered_subprotocols(Request request)
