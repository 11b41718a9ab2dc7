# Types for tls.py where it is compiled.

cimport cython

from .loop_context cimport LoopContext
from .timers cimport Deadline
from .tls_records cimport RecordCounter

cdef object Context, _SSLError, _SSLWantReadError
cdef int _HANDSHAKE, _OPEN, _CLOSING, _CLOSED, _NOTHING
cdef Py_ssize_t _READ_SIZE, _PIECE, _MOST_ANSWERS


cdef class TLSCore:
    # What a read and a write touch.
    cdef int _stage
    cdef int _fd
    cdef bint _handed
    cdef bint _reading
    cdef bint _paused
    cdef bint _stopped
    cdef bint _speaks
    cdef bint _at_end
    cdef bint _fin
    cdef bint _full
    cdef bint _connected
    cdef Py_ssize_t _records
    cdef Py_ssize_t _answers
    cdef RecordCounter _counter
    cdef object _above
    cdef readonly object _below
    cdef object _ssl
    cdef readonly object _incoming
    cdef object _outgoing
    cdef bytearray _buffer
    cdef object _view
    cdef list _held
    cdef readonly object failure
    # The rest.
    cdef object _loop
    cdef LoopContext _state
    cdef object _context
    cdef object _object
    cdef object _on_handshake
    cdef Deadline _deadline
    cdef double _handshake_timeout
    cdef double _shutdown_timeout

    @cython.locals(done=bint)
    cdef _shake(self)
    cdef _tell(self, failure)
    cpdef _time_out(self)
    cdef _fail(self, exc)
    @cython.locals(done=bint, filled=Py_ssize_t)
    cdef _read(self)
    @cython.locals(filled=Py_ssize_t, got=Py_ssize_t)
    cdef Py_ssize_t _fill(self, object room, Py_ssize_t size) except -1
    cpdef _go_on(self)
    cdef _resume_below(self)
    @cython.locals(size=Py_ssize_t, taken=Py_ssize_t)
    cpdef write(self, data)
    @cython.locals(at=Py_ssize_t, taken=Py_ssize_t)
    cdef _write_long(self, data)
    @cython.locals(taken=Py_ssize_t)
    cdef Py_ssize_t _encrypt(self, data) except -2
    @cython.locals(at=Py_ssize_t)
    cdef _hold(self, data)
    @cython.locals(held=list, taken=Py_ssize_t)
    cdef _write_held(self)
    @cython.locals(sent=Py_ssize_t)
    cdef _send(self)
    cdef _answer(self)
    cpdef bint is_closing(self) except -1
    cpdef close(self)
    cdef _shut_down(self)
    cdef _drain(self)
    cdef _close_below(self)
    cpdef abort(self)
