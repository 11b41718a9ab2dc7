# Types for awaitables.py where it is compiled.

cimport cython

from ..transport.awaitable cimport StepAwaitable
from ..transport.channel cimport Channel
from ..transport.loop_context cimport LoopContext
from ..transport.read_waiter cimport ReadWaiter
from .receive_queue cimport ReceiveQueue

cdef int _NONE_AT_END


cdef class MessageChannel(Channel):
    cdef readonly ReceiveQueue _inbox

    cdef _take_now(self, bint at_once)
    cdef ReadWaiter _wait_now(self)
    cdef bint _is_read_to_end(self) except -1
    cdef bint _queue_now(self, message) except -1


cdef class NextMessage(StepAwaitable):
    cdef MessageChannel _conn
    cdef object _inner
    cdef bint _yielding
    cdef int _iterating
    cdef ReadWaiter _waiting

    cdef _begin(self, MessageChannel conn, int iterating)
    @cython.locals(conn=MessageChannel, waiting=ReadWaiter)
    cpdef object step(self)
    cdef _long_way(self)
    cpdef close(self)


cdef class SendMessage(StepAwaitable):
    cdef MessageChannel _conn
    cdef object _inner
    cdef object _message
    cdef ReadWaiter _waiting

    cdef _begin(self, MessageChannel conn, object message)
    @cython.locals(conn=MessageChannel, state=LoopContext, waiting=ReadWaiter)
    cpdef object step(self)
    cdef _turn_over(self)
