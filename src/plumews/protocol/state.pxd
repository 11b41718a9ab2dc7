# Types for state.py where it is compiled.

cdef class ProtocolState:
    cdef public object close_rcvd
    cdef public object close_sent
    cdef public bint cut
    cdef public object error
    cdef public object parser
    cdef public object state
