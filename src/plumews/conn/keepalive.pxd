# Types for keepalive.py where it is compiled.

from ..transport.timers cimport Deadline, Timers

cdef class Keepalive:
    cdef object _acknowledged
    cdef object _clock_ping
    cdef Deadline _deadline
    cdef bint _doubt
    cdef double _last_progress
    cdef double _next_ping
    cdef readonly dict _outstanding
    cdef object _peer
    cdef object _ping_position
    cdef double _progress_until
    cdef bint _running
    cdef double _sampled_at
    cdef Timers _timers
    cdef public object flow
    cdef public double held_since
    cdef public double last_pong
    cdef public double last_received
    cdef public double latency
    cdef public bint listening
    cdef readonly object ping_period
    cdef readonly object pong_wait

    cdef _look(self, object peer)
    cdef _plan_ping(self, double now)
    cdef _schedule(self, double now)
    cdef double _last_sign(self)
    cdef bint _is_silent(self, double now) except -1
    cdef bint _answers_nothing(self, double now) except -1
    cdef _sample(self, object peer, double now)
    cdef _limit_progress(self, double now)
    cdef bint _has_progress(self, object peer, double now) except -1
