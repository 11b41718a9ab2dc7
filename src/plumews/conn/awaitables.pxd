# Types for awaits.py where it is compiled.

cimport cython

from .core cimport Engine
from ..transport.loop_context cimport LoopState
from ..transport.read_waiter cimport Ready
from ..transport.awaitable cimport Steps

cdef object _get_ident, warnings
cdef int _TEXT, _BINARY


cdef class Awaits(Engine):
    @cython.locals(following=NextMessage)
    cpdef NextMessage _next(self, bint iterating)
    @cython.locals(sent=Sent)
    cdef Sent _sent(self, message)
    @cython.locals(kind=int, state=LoopState)
    cdef _take_now(self, bint at_once)
    cdef Ready _wait_now(self)


cdef class NextMessage(Steps):
    cdef Awaits _conn
    cdef object _inner
    cdef bint _in_turn
    cdef bint _iterating
    cdef Ready _waiting

    cdef _begin(self, Awaits conn, bint iterating)
    @cython.locals(conn=Awaits, waiting=Ready)
    cpdef object step(self)
    cdef _long_way(self)
    cpdef close(self)


cdef class Sent(Steps):
    cdef Awaits _conn
    cdef object _inner
    cdef object _message
    cdef Ready _waiting

    cdef _begin(self, Awaits conn, object message)
    @cython.locals(conn=Awaits, state=LoopState, waiting=Ready)
    cpdef object step(self)
    cdef _turn_over(self)
