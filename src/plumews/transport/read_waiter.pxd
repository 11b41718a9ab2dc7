# Types for read_waiter.py where it is compiled.

from .awaitable cimport StepAwaitable


cdef class ReadWaiter(StepAwaitable):
    cdef public bint _asyncio_future_blocking
    cdef object _callback
    cdef bint _cancelled
    cdef object _context
    cdef bint _done
    cdef object _loop
    cdef object _message

    cdef _prepare(self, loop)
    cpdef object step(self)
    cpdef result(self)
    cpdef bint done(self)
    cpdef wake(self)
    cpdef wake_now(self)
    cdef _schedule(self)
