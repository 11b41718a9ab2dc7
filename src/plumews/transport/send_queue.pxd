# Types for send_queue.py where it is compiled.

cimport cython

from ..protocol.message cimport EncodedMessage


cdef Py_ssize_t _FREE, _OVERHEAD, _KEY, _KEYS_FREE, _LONGEST_HEADER


@cython.final
cdef class Note:
    cdef readonly bytes frame


@cython.final
cdef class SendQueue:
    cdef readonly list _control
    cdef Py_ssize_t _gone
    cdef Py_ssize_t _keyed
    cdef dict _keys
    cdef Py_ssize_t _planned
    cdef Py_ssize_t _planned_rest
    cdef readonly list _pongs
    cdef list _rest
    cdef list _run
    cdef Py_ssize_t _special
    cdef list _times
    cdef public Py_ssize_t bytes
    cdef public object closing
    cdef readonly list messages
    cdef public Py_ssize_t most_bytes
    cdef public Py_ssize_t most_messages

    cpdef bint is_empty(self) except -1
    cpdef bint is_plain(self) except -1
    cpdef bint has_control(self) except -1
    cpdef bint has_data(self) except -1
    cpdef Py_ssize_t counted_bytes(self) except -1
    @cython.locals(count=Py_ssize_t)
    cpdef bint has_space(self, Py_ssize_t size) except -1
    @cython.locals(count=Py_ssize_t, keys=dict, size=Py_ssize_t)
    cdef Py_ssize_t _objects(self) except -1
    @cython.locals(message=EncodedMessage)
    cpdef append(self, object entry, Py_ssize_t size)
    cpdef date(self)
    cpdef Py_ssize_t sent_all(self) except -1
    @cython.locals(batch=list)
    cpdef list plan(self, Py_ssize_t room)
    cpdef list plan_control(self)
    cpdef list plan_all(self)
    @cython.locals(message=EncodedMessage)
    cdef _begin_long(self)
    cdef _plan_short(self, Py_ssize_t room, list batch)
    @cython.locals(stop=Py_ssize_t, size=Py_ssize_t)
    cdef Py_ssize_t _plan_rest(self, list rest, Py_ssize_t room, list batch) except -1
    @cython.locals(gone=Py_ssize_t, written=Py_ssize_t)
    cpdef Py_ssize_t left(self, Py_ssize_t count) except -1
    @cython.locals(size=Py_ssize_t)
    cdef Py_ssize_t _left_messages(self, Py_ssize_t count) except -1
    @cython.locals(count=Py_ssize_t, position=Py_ssize_t)
    cpdef Py_ssize_t make_room(self, Py_ssize_t size) except -1
    @cython.locals(size=Py_ssize_t)
    cdef Py_ssize_t _take(self, Py_ssize_t position) except -1


cpdef bint is_header(object buffer) except -1
@cython.locals(message=EncodedMessage, frame=bytes)
cdef Py_ssize_t _size(object entry) except -1
cdef bint _is_fixed(object entry) except -1
@cython.locals(frame=bytes)
cdef bint _is_continuation(object entry) except -1
