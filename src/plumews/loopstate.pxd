# Types for loopstate.py where it is compiled.

cimport cython


cdef object monotonic


cdef class Flushable:
    cpdef flush(self)
    cpdef bint hand_over(self, list fds, list queues)
    cpdef bint was_sent(self, Py_ssize_t sent)


cdef class LoopState:
    cdef readonly list _dirty
    cdef readonly list _gathered
    cdef double _gathered_until
    cdef Py_ssize_t _lent
    cdef object _loop
    cdef bint _scheduled
    cdef readonly list _spare
    cdef readonly object _threads
    cdef readonly object buffer
    cdef public bint in_batch
    cdef readonly object timers
    cdef readonly object view

    cpdef mark_dirty(self, Flushable writer)
    @cython.locals(now=double)
    cpdef gather(self, Flushable writer)
    cpdef list lend_queue(self)
    cpdef give_back(self, list queue)
    cdef _schedule(self)
    @cython.locals(writer=Flushable, position=Py_ssize_t, until=double)
    cpdef _flush(self)
    cdef _flush_one(self, Flushable writer)
    @cython.locals(writer=Flushable, gathered=list)
    cdef _flush_gathered(self)
    @cython.locals(size=Py_ssize_t, position=Py_ssize_t, left=list)
    cdef list _flush_together(self, object threads, list dirty, double until)
    @cython.locals(
        fds=list, queues=list, sending=list, left=list, results=list, writer=Flushable, position=Py_ssize_t
    )
    cdef list _send_together(self, object threads, list writers)
    cdef _report(self, object failure)
