# Types for awaitables.py where it is compiled.

cimport cython

from .core cimport ConnCore
from ..transport.loop_context cimport LoopContext
from ..transport.read_waiter cimport ReadWaiter
from ..transport.awaitable cimport StepAwaitable

cdef object _get_ident, warnings
cdef int _TEXT, _BINARY


cdef class AwaitableCore(ConnCore):
    @cython.locals(following=NextMessage)
    cpdef NextMessage _next(self, bint iterating)
    @cython.locals(sent=SendMessage)
    cdef SendMessage _sent(self, message)
    @cython.locals(kind=int, state=LoopContext)
    cdef _take_now(self, bint at_once)
    cdef ReadWaiter _wait_now(self)


cdef class NextMessage(StepAwaitable):
    cdef AwaitableCore _conn
    cdef object _inner
    cdef bint _yielding
    cdef bint _iterating
    cdef ReadWaiter _waiting

    cdef _begin(self, AwaitableCore conn, bint iterating)
    @cython.locals(conn=AwaitableCore, waiting=ReadWaiter)
    cpdef object step(self)
    cdef _long_way(self)
    cpdef close(self)


cdef class SendMessage(StepAwaitable):
    cdef AwaitableCore _conn
    cdef object _inner
    cdef object _message
    cdef ReadWaiter _waiting

    cdef _begin(self, AwaitableCore conn, object message)
    @cython.locals(conn=AwaitableCore, state=LoopContext, waiting=ReadWaiter)
    cpdef object step(self)
    cdef _turn_over(self)
