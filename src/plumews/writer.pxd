# Types for writer.py where it is compiled.

cimport cython

from .outgoing cimport Encoded


cdef class Waiter:
    cdef public object done
    cdef public Encoded message


@cython.final
cdef class Writer:
    cdef bytes _closing
    cdef public list _control
    cdef bint _dirty
    cdef list _drains
    cdef int _fd
    cdef bint _hot
    cdef Py_ssize_t _long
    cdef object _on_finished
    cdef Py_ssize_t _planned
    cdef Py_ssize_t _planned_rest
    cdef public list _pongs
    cdef list _queue
    cdef Py_ssize_t _queue_bytes
    cdef Py_ssize_t _queue_size
    cdef list _rest
    cdef object _state
    cdef list _times
    cdef object _transport
    cdef object _waiters
    cdef public Py_ssize_t dropped
    cdef public bint in_pieces
    cdef public bint paused
    cdef public Py_ssize_t queued_bytes

    cdef bint _has_space(self, Py_ssize_t size)
    cpdef bint offer(self, Encoded message)
    cpdef bint offer_frame(self, bytes frame)
    cdef _empty(self, bint good)
    cdef _accept(self, Encoded message)
    cdef _append(self, object message, Py_ssize_t size)
    cdef _date(self, list queue)
    cdef _admit(self)
    cdef _refuse_waiters(self)
    cpdef kick(self, bint at_once)
    cpdef flush(self)
    cdef bint _has_output(self)
    cdef list _plan(self)
    cdef _begin_long(self, list queue)
    cdef _plan_short(self, list queue, Py_ssize_t room, list batch)
    cdef Py_ssize_t _plan_rest(self, list rest, Py_ssize_t room, list batch)
    cdef _write(self, list batch)
    cdef _cut(self, list batch, Py_ssize_t sent)
    cdef _left(self, Py_ssize_t count)


cdef bint _is_header(object buffer)
