# Types for keepalive.py where it is compiled.

cdef class Keepalive:
    cdef object _deadline
    cdef bint _doubt
    cdef double _next_ping
    cdef object _on_dead
    cdef readonly dict _outstanding
    cdef object _ping_period
    cdef object _pong_wait
    cdef bint _running
    cdef object _send_ping
    cdef object _timers
    cdef public double last_pong
    cdef public double last_received
    cdef public double latency
    cdef public bint listening

    cdef _plan_ping(self, double now)
    cdef _schedule(self, double now)
