# Types for handshake.py where it is compiled.

cimport cython

from .request cimport Request
from .websocket_key cimport accept_value, is_key

cdef object InvalidHandshake, InvalidHeader, InvalidUpgrade, parse_tokens
cdef bytes _ANSWER, _NUMBER


@cython.locals(chosen=bytes)
cpdef bytes accepted(str key, subprotocol=*, extensions=*, bytes headers=*)
@cython.locals(keys=list, upgrade=bint)
cpdef str check_upgrade(Request request)
@cython.locals(offers=list)
cpdef list offered_subprotocols(Request request)
