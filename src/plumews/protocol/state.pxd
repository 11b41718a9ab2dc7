# Types for state.py where it is compiled.

cdef object _CONNECTING, _OPEN, _CLOSING, _CLOSED, _NO_STATUS, _Parser, _SLACK, _new_close
cdef dict _REPLIES
cdef int _CLOSE


cdef class ProtocolState:
    cdef readonly bint client
    cdef public object close_rcvd
    cdef public object close_sent
    cdef public bint cut
    cdef public bint late
    cdef public object error
    cdef public object parser
    cdef public object state

    cpdef peer_closed(self, code, reason)
    cpdef close_frame(self, code, reason=*)
    cpdef reply_frame(self)
    cpdef bint ends_well(self) except -1
    cpdef losing(self)
    cpdef lost(self)
