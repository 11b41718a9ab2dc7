# Types for send_queue.py where it is compiled.

cimport cython

from .loop_context cimport Flushable
from ..protocol.message cimport EncodedMessage


cdef Py_ssize_t _FREE, _OVERHEAD, _KEY


cdef class SendQueue(Flushable):
    cdef bytes _closing
    cdef public list _control
    cdef Py_ssize_t _gone
    cdef dict _keys
    cdef Py_ssize_t _long
    cdef Py_ssize_t _planned
    cdef Py_ssize_t _planned_rest
    cdef public list _pongs
    cdef list _queue
    cdef Py_ssize_t _queue_bytes
    cdef Py_ssize_t _queue_size
    cdef list _rest
    cdef list _run
    cdef list _times
    cdef public bint paused
    cdef public Py_ssize_t queued_bytes
    cdef readonly Py_ssize_t written

    cdef bint _has_space(self, Py_ssize_t size)
    @cython.locals(queue=list, keys=dict, size=Py_ssize_t)
    cdef Py_ssize_t _objects(self)
    cdef _accept(self, EncodedMessage message)
    cdef _append(self, object message, Py_ssize_t size)
    cdef _date(self, list queue)
    cdef _drop_data(self)
    cdef bint _has_output(self)
    cdef bint _is_plain(self)
    cdef _sent_all(self)
    cdef list _plan(self)
    cdef list _plan_within(self, Py_ssize_t room)
    cdef _begin_long(self, list queue)
    cdef _plan_short(self, list queue, Py_ssize_t room, list batch)
    cdef Py_ssize_t _plan_rest(self, list rest, Py_ssize_t room, list batch)
    @cython.locals(size=Py_ssize_t)
    cdef _left(self, Py_ssize_t count)
