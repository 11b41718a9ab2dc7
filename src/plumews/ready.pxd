# Types for ready.py where it is compiled.

cimport cython


@cython.final
cdef class Ready:
    cdef public bint _asyncio_future_blocking
    cdef object _callback
    cdef bint _cancelled
    cdef object _context
    cdef bint _done
    cdef object _loop
    cdef object _message

    cpdef tell(self)
    cpdef tell_now(self)
    cdef _schedule(self)
