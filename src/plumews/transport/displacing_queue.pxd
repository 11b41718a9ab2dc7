# Types for displacing_queue.py where it is compiled.

cimport cython

from ..protocol.message cimport EncodedMessage
from .send_queue cimport SendQueue


cdef Py_ssize_t _KEYS_FREE


cdef class DisplacingQueue(SendQueue):
    cdef Py_ssize_t _keyed
    cdef public Py_ssize_t displaced_bytes
    cdef public Py_ssize_t evicted
    cdef public Py_ssize_t replaced

    cdef Py_ssize_t _make_room(self, Py_ssize_t size) except -1
    cdef Py_ssize_t _drop_messages(self) except -1
    @cython.locals(size=Py_ssize_t)
    cdef Py_ssize_t _take(self, Py_ssize_t position) except -1
    cdef int _replace(self, EncodedMessage message, object key) except -1
    cdef _take_key(self, object key)
    cdef _remember(self, object key)
    cdef _forget_keys(self, list queue)
    cdef bint _begins_whole(self) except -1


cdef Py_ssize_t _size(object entry) except -1
cdef bint _is_fixed(object entry) except -1
cdef bint _is_continuation(object entry) except -1
