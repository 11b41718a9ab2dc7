# Types for core.py where it is compiled.

cimport cython

from ..deflate.outbound cimport OutboundDeflate
from .context cimport ContextRunner
from .receive_queue cimport ReceiveQueue
from ..deflate.inbound cimport InboundDeflate
from .keepalive cimport Keepalive
from ..transport.loop_context cimport LoopContext
from ..protocol.state cimport ProtocolState
from ..transport.writer cimport Writer

cdef object Context, _OPEN, _get_ident, build_frame, limits, monotonic
cdef int _TEXT, _BINARY, _CLOSE, _PING, _PONG, _BEGIN, _CHUNK, _END
cdef Py_ssize_t _STRIDE, _LARGE_READ
cdef int _COMPRESSED, _GO_ON, _LATER, _LONGEST_HEADER, _SHORT


cdef class ConnCore(ContextRunner):
    cdef public list _backlog
    cdef public list _behind
    cdef bint _blocked
    cdef readonly OutboundDeflate _deflate
    cdef public object _handshake
    cdef public bint _ended
    cdef object _feed
    cdef readonly bint _in_batch
    cdef bint _in_place
    cdef readonly ReceiveQueue _inbox
    cdef public object _incoming
    cdef readonly InboundDeflate _inflate
    cdef public Keepalive _keepalive
    cdef bint _lent
    cdef readonly object _loop
    cdef public object _on_failure
    cdef public object _on_message
    cdef Py_ssize_t _quick_size
    cdef Py_ssize_t _read_most
    cdef public bint _reading_paused
    cdef public bint _reads_to_end
    cdef public object _rest
    cdef readonly ProtocolState _rules
    cdef public object _filter
    cdef readonly object _shared
    cdef readonly LoopContext _state
    cdef public object _stream
    cdef readonly unsigned long _thread
    cdef public object _transport
    cdef double _until
    cdef readonly Writer _writer

    cpdef _receive(self, data)
    cdef _read(self, Py_ssize_t nbytes)
    cdef _take_up(self, list events)
    cdef _halted(self, data)
    cpdef list _next_events(self)
    @cython.locals(held=bint, state=LoopContext)
    cdef _handle(self, list events)
    cdef bint _goes_on(self) except -1
    cdef bint _has_enough(self) except -1
    @cython.locals(position=Py_ssize_t, look=Py_ssize_t, outcome=int, over=list, room=Py_ssize_t)
    cdef list _dispatch(self, list events)
    @cython.locals(kind=int, outcome=int)
    cdef int _tell(self, tuple event) except -1
    cdef _deliver(self, int kind, data)
    @cython.locals(held=bint)
    cpdef _update_reading(self)
    cdef bint _wants_more(self) except -1
    @cython.locals(opcode=int, most=Py_ssize_t, size=Py_ssize_t, thread="unsigned long")
    cdef bint _queue_now(self, message) except -1
    cdef bint _send_now(self, message) except -1
    cpdef _kick(self)
    cpdef _kick_later(self)
