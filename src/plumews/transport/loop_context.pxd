# Types for loop_context.py where it is compiled.

cimport cython

from .read_waiter cimport ReadWaiter
from .send_queue cimport SendQueue
from .timers cimport Timers

cdef object Context, clock, monotonic


cdef class Flushable:
    cdef _write_out(self)
    cpdef _fail_output(self, object exc)


cdef class LoopContext:
    cdef readonly list _dirty
    cdef Py_ssize_t _flushed
    cdef readonly list _flushing
    cdef readonly list _gathered
    cdef double _gathered_until
    cdef double _checked_at
    cdef double _longest
    cdef object _loop
    cdef list _suspended
    cdef bint _scheduled
    cdef double _slice_end
    cdef readonly list _spare
    cdef bint _used_up
    cdef readonly object buffer
    cdef public Py_ssize_t awaits_left
    cdef public Py_ssize_t awaits_per_check
    cdef public object done_future
    cdef public bint ends_read
    cdef readonly bint flushing
    cdef public bint in_batch
    cdef readonly bint plain_clock
    cdef public bint in_slice
    cdef public object inflate_queue
    cdef public object log_lines
    cdef public bint slice_ends_with_batch
    cdef public object spare_memory
    cdef public object suspension_watch
    cdef readonly Timers timers
    cdef public object tls_buffer
    cdef public object tls_view
    cdef public Py_ssize_t turn
    cdef readonly object view

    cpdef ReadWaiter count_await(self)
    cpdef replace_buffer(self)
    cpdef end_batch(self)
    @cython.locals(now=double)
    cpdef ReadWaiter check_slice(self)
    @cython.locals(marked=bint)
    cpdef mark_dirty(self, Flushable channel)
    @cython.locals(now=double, marked=bint)
    cpdef gather(self, Flushable channel)
    @cython.locals(queue=SendQueue)
    cpdef SendQueue lend_queue(self, Py_ssize_t most_messages, Py_ssize_t most_bytes)
    cpdef give_back(self, SendQueue queue)
    cdef _schedule(self)
    cpdef _flush(self)
    @cython.locals(flushed=Py_ssize_t)
    cdef bint _flush_slice(self) except -1
    @cython.locals(channels=list, check=Py_ssize_t, position=Py_ssize_t, channel=Flushable)
    cdef _flush_until(self, double end)
    @cython.locals(channel=Flushable, gathered=list, position=Py_ssize_t)
    cdef _flush_gathered(self)
    cdef _report(self, object failure)


cpdef LoopContext loop_context(loop)
