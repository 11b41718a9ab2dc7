# Types for channel.py where it is compiled.

cimport cython

from ..protocol.message cimport EncodedMessage
from .flow_control cimport FlowControl
from .loop_context cimport Flushable, LoopContext
from .send_queue cimport SendQueue, is_header

cdef extern from *:
    # A bint of one byte: a connection has two dozen.
    ctypedef bint flag "unsigned char"

cdef object Context
cdef int _TRANSPORT, _ANSWER, _EVENT, _ANY
cdef Py_ssize_t _OVERHEAD


cdef class Channel(Flushable):
    # What a fan-out or a flush looks at.
    cdef readonly int _fd
    cdef int _event_fd
    cdef unsigned char _held
    cdef readonly flag _paused
    cdef public flag _in_pieces
    cdef flag _handed
    cdef flag _limited
    cdef flag _dirty
    cdef flag _hot
    cdef flag _gathered
    cdef readonly flag _finished
    cdef public flag _waits_for_event
    cdef readonly SendQueue _queue
    cdef public object _waiters  # deque
    cdef public object _compressor
    cdef FlowControl _flow
    cdef readonly LoopContext _state
    cdef readonly object _out
    cdef readonly Py_ssize_t _written
    cdef Py_ssize_t _turn
    cdef readonly Py_ssize_t _most_messages
    cdef readonly Py_ssize_t _most_bytes
    # The rest.
    cdef list _drains
    cdef object _on_finished
    cdef public Py_ssize_t _dropped
    cdef public Py_ssize_t _evicted
    cdef public Py_ssize_t _replaced
    cdef public Py_ssize_t _displaced_bytes

    cdef _prepare(self, LoopContext state, Py_ssize_t queue_size, Py_ssize_t queue_bytes)
    cpdef _attach(self, transport)
    cpdef _hold_little(self)
    cpdef _output_failed(self, exc)
    cpdef _may_write(self)
    cdef bint _has_space(self, Py_ssize_t size) except -1
    cpdef SendQueue _fill(self)
    @cython.locals(queue=SendQueue)
    cpdef _return_queue(self)
    cdef _cut_output(self)
    cpdef _detach(self)
    @cython.locals(size=Py_ssize_t, queue=SendQueue)
    cpdef bint _try_queue(self, object entry) except -1
    cpdef bint _can_queue(self, Py_ssize_t size) except -1
    @cython.locals(queue=SendQueue)
    cdef bint _try_queue_shared(self, object frame, Py_ssize_t size) except -1
    cdef bint _is_stuck(self, Py_ssize_t size) except -1
    @cython.locals(queue=SendQueue)
    cpdef _enter(self, object entry, Py_ssize_t size)
    cpdef _queue_pong(self, bytes frame)
    cdef bint _is_closing(self) except -1
    cdef _tell_drained(self, bint good)
    cpdef _call_done(self, object done, bint good)
    cdef _admit(self)
    cpdef _refuse_waiters(self)
    cpdef _finish_output(self, bytes close_frame, on_finished)
    cpdef bint _output_drained(self) except -1
    cpdef bint _ping_answered(self, Py_ssize_t place) except -1
    cdef _release_answer(self)
    cdef bint _released(self, int cause) except -1
    cpdef _kick_output(self, bint at_once)
    cpdef _gather(self)
    cdef _write_out(self)
    cdef _write_some(self, SendQueue queue)
    @cython.locals(room=Py_ssize_t, written=Py_ssize_t)
    cdef _write_within(self, SendQueue queue, FlowControl flow)
    cdef _write_control(self)
    cdef bint _past(self) except -1
    @cython.locals(sent=Py_ssize_t)
    cdef _write_messages(self, SendQueue queue)
    @cython.locals(sent=Py_ssize_t)
    cdef _write(self, SendQueue queue, list batch)
    @cython.locals(at=Py_ssize_t, stop=Py_ssize_t)
    cdef _cut(self, SendQueue queue, list batch, Py_ssize_t sent)
    cdef _left(self, SendQueue queue, Py_ssize_t count)
    cdef _await_event(self)
    cdef _forget_event(self)
