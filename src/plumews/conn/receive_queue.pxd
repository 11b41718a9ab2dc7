# Types for receive_queue.py where it is compiled.

cimport cython

from ..transport.read_waiter cimport ReadWaiter


cdef object _getsizeof
cdef Py_ssize_t _OVERHEAD, _TRIM
cdef int _TEXT, _BINARY

@cython.locals(size=Py_ssize_t)
cdef Py_ssize_t memory_of(object entry) except -1


@cython.final
cdef class ReceiveQueue:
    cdef public Py_ssize_t bytes
    cdef Py_ssize_t _head
    cdef list _items
    cdef Py_ssize_t _max_bytes
    cdef Py_ssize_t _max_items
    cdef ReadWaiter _waiter
    cdef readonly bint shared
    cdef public bint touched

    cpdef Py_ssize_t count(self) except -1
    cpdef Py_ssize_t room(self) except -1
    cpdef bint has_reader(self)
    @cython.locals(waiter=ReadWaiter)
    cpdef ReadWaiter start_waiting(self, loop)
    cpdef stop_waiting(self)
    cpdef put(self, object entry)
    cpdef object first(self)
    cpdef tuple peek(self)
    cpdef tuple take(self)
    @cython.locals(items=list, head=Py_ssize_t)
    cpdef drop(self)
    cpdef bint is_full(self, Py_ssize_t extra)
    cpdef bint is_low(self, Py_ssize_t extra)
    cpdef wake(self)
    cpdef wake_now(self)
