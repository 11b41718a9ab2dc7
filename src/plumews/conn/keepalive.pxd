# Types for keepalive.py where it is compiled.

cdef class Keepalive:
    cdef object _acknowledged
    cdef double _asked_at
    cdef object _clock_ping
    cdef object _deadline
    cdef bint _doubt
    cdef double _last_taken
    cdef double _next_ping
    cdef readonly dict _outstanding
    cdef object _peer
    cdef object _ping_at
    cdef object _ping_period
    cdef object _pong_wait
    cdef bint _running
    cdef double _taken_until
    cdef object _timers
    cdef public object flow
    cdef public double held_since
    cdef public double last_pong
    cdef public double last_received
    cdef public double latency
    cdef public bint listening

    cdef _look(self, object peer)
    cdef _plan_ping(self, double now)
    cdef _schedule(self, double now)
    cdef double _last_sign(self)
    cdef bint _is_silent(self, double now) except -1
    cdef bint _answers_nothing(self, double now) except -1
    cdef _ask(self, object peer, double now)
    cdef _arrive(self, double now)
    cdef bint _takes(self, object peer, double now) except -1
