# Types for fanout.py where it is compiled.

cimport cython

from ..conn.core cimport ConnCore
from ..protocol.message cimport EncodedMessage
from ..transport.displacing cimport conflate, displace

cdef object _OPEN, clock
cdef set _NOBODY
cdef Py_ssize_t _STRIDE


cdef class FanOutCounters:
    cdef public Py_ssize_t broadcasts
    cdef public Py_ssize_t compressed
    cdef public Py_ssize_t compressed_after
    cdef public Py_ssize_t compressed_before
    cdef public Py_ssize_t dropped
    cdef public dict dropped_by
    cdef public Py_ssize_t matched
    cdef public Py_ssize_t pending
    cdef public Py_ssize_t queued
    cdef public Py_ssize_t rejected
    cdef public Py_ssize_t skipped


cdef class FanOut:
    cdef Py_ssize_t _at
    cdef object _config
    cdef Py_ssize_t _displaced
    cdef bint _displaces
    cdef object _done
    cdef set _early
    cdef Py_ssize_t _interval
    cdef tuple _members
    cdef Py_ssize_t _next
    cdef bint _only_drops
    cdef bint _quiet
    cdef bint _reaching
    cdef Py_ssize_t _refused
    cdef set _refusing
    cdef dict _remembered
    cdef Py_ssize_t _replaced
    cdef object _snapshot
    cdef object _simple
    cdef object _slow
    cdef object _still_member
    cdef FanOutCounters _counters
    cdef bint _mixed
    cdef object _plain
    cdef bint _undecided
    cdef bint _uses_key
    cdef bint _sure
    cdef bint _watching
    cdef readonly Py_ssize_t dropped
    cdef readonly object key
    cdef readonly Py_ssize_t matched
    cdef readonly EncodedMessage message
    cdef readonly object position
    cdef readonly Py_ssize_t queued
    cdef readonly object room
    cdef readonly Py_ssize_t skipped

    @cython.locals(began=Py_ssize_t)
    cpdef bint step(self, double until) except -1
    @cython.locals(conn=ConnCore, encoding=EncodedMessage, members=tuple, mixed=bint, remembered=dict, size=Py_ssize_t, plain_size=Py_ssize_t, encoding_size=Py_ssize_t, compressed=Py_ssize_t, position=Py_ssize_t, end=Py_ssize_t, stop=Py_ssize_t)
    cdef bint _walk(self, double until) except -1
    cpdef EncodedMessage encoding_for(self, ConnCore conn)
    @cython.locals(conn=ConnCore)
    cdef _failed(self, member, exc)
    cdef EncodedMessage _count(self, EncodedMessage encoding)
    cdef _listen(self)
    @cython.locals(displaced=Py_ssize_t, replaced=Py_ssize_t)
    cdef bint _overflow_quietly(self, ConnCore conn, Py_ssize_t size) except -1
    @cython.locals(refused=Py_ssize_t, displaced=Py_ssize_t, replaced=Py_ssize_t, undecided=bint)
    cdef _settle(self)
    cpdef _reach(self, ConnCore conn)
    cdef _reach_other(self, member)
    @cython.locals(counters=FanOutCounters, queued=Py_ssize_t, all_queued=Py_ssize_t, pending=Py_ssize_t)
    cpdef _queue(self)
    @cython.locals(counters=FanOutCounters, skipped=Py_ssize_t, all_skipped=Py_ssize_t, pending=Py_ssize_t)
    cpdef _skip(self, Py_ssize_t count=*)
    @cython.locals(counters=FanOutCounters, dropped=Py_ssize_t, all_dropped=Py_ssize_t, pending=Py_ssize_t)
    cpdef _drop(self, str cause, Py_ssize_t count=*)
    cdef _wake(self)
