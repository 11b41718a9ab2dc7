# Types for core.py where it is compiled.

cimport cython

from . cimport capi
from ..deflate.inbound cimport InboundDeflate
from ..deflate.outbound cimport OutboundDeflate
from ..protocol.state cimport ProtocolState
from ..transport.channel cimport flag
from ..transport.loop_context cimport LoopContext, loop_context
from ..transport.read_waiter cimport ReadWaiter
from .awaitables cimport MessageChannel, NextMessage, SendMessage
from .config_values cimport ConfigValues, values_of
from .keepalive cimport Keepalive
from .receive_queue cimport ReceiveQueue

cdef object Context, _get_ident, _get_running_loop, build_frame, limits, monotonic
cdef tuple _NOTHING
cdef int _TEXT, _BINARY, _CLOSE, _PING, _PONG, _BEGIN, _CHUNK, _END
cdef Py_ssize_t _STRIDE, _LARGE_READ
cdef int _GO_ON, _LATER, _LONGEST_HEADER, _NONE_AT_END, _SHORT


cdef class ConnCore(MessageChannel):
    # A read, a send and a delivery.
    cdef readonly object _loop
    cdef public ProtocolState _rules
    cdef public Keepalive _keepalive
    cdef public object _parser
    cdef public object _handshake
    cdef public object _on_message
    cdef public object _filter
    cdef public object _context
    cdef public list _backlog
    cdef public object _later
    cdef public object _rest
    cdef public object _stream
    cdef public object _incoming
    cdef public OutboundDeflate _deflate
    cdef public InboundDeflate _inflate
    cdef public object _shared
    cdef readonly object _config
    cdef public object _transport
    cdef public list _catch_up_hooks
    cdef readonly double _until
    cdef public Py_ssize_t _quick_size
    cdef Py_ssize_t _read_most
    cdef public unsigned long _thread
    cdef public int _slow_hubs
    cdef public flag _blocked
    cdef public flag _ended
    cdef public flag _open
    cdef readonly flag _in_batch
    cdef flag _in_context
    cdef flag _in_place
    cdef flag _lent
    cdef public flag _reading_paused
    cdef public flag _reads_to_end
    cdef public flag _failed
    # Slow ways, and the end.
    cdef public Py_ssize_t _end_waiters
    cdef public object _on_failure
    cdef public list _reporters
    cdef public list _loss_watchers
    cdef public Py_ssize_t _logged_in
    cdef public tuple _lost
    cdef public object _closed_future
    cdef public object _slot
    cdef public list _close_callbacks
    cdef public object _answer_deadline
    cdef public object _close_deadline
    cdef public object _discard_deadline
    cdef public object _end_look
    cdef public object _evict_deadline
    # For the application.
    cdef public object _peername
    cdef public object _sockname
    cdef public object _id
    cdef public dict _metadata
    cdef public object _request
    cdef public object _response
    cdef public object _accepted_with
    cdef public tuple _attempt
    cdef public object _subprotocol
    cdef public object _user_info

    cdef list _dispatch_in_context(self, list events)
    cdef _read(self, Py_ssize_t nbytes)
    cpdef _take_up(self, list events)
    @cython.locals(held=bint, more=list, state=LoopContext)
    cdef _handle(self, list events)
    @cython.locals(position=Py_ssize_t, look=Py_ssize_t, outcome=int, over=list, room=Py_ssize_t)
    cpdef list _dispatch(self, list events)
    @cython.locals(kind=int)
    cdef int _tell(self, tuple event) except -1
    @cython.locals(plain=bint)
    cpdef _deliver(self, int kind, data)
    @cython.locals(inbox=ReceiveQueue)
    cpdef ReceiveQueue _own_inbox(self)
    @cython.locals(held=bint)
    cpdef _update_reading(self)
    @cython.locals(following=NextMessage)
    cdef NextMessage _next(self, int iterating)
    @cython.locals(inbox=ReceiveQueue, state=LoopContext)
    cdef _take_now(self, bint at_once)
    cdef ReadWaiter _wait_now(self)
    cdef bint _is_read_to_end(self) except -1
    @cython.locals(sent=SendMessage)
    cdef SendMessage _sent(self, message)
    @cython.locals(opcode=int, most=Py_ssize_t, size=Py_ssize_t, thread="unsigned long")
    cdef bint _queue_now(self, message) except -1
    cpdef _kick(self)
    cpdef _kick_later(self)
