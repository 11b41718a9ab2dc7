# Types for config_values.py where it is compiled.

from .receive_queue cimport ReceiveQueue

cdef ConfigValues _newest


cdef class ConfigValues:
    cdef readonly object config
    cdef readonly ReceiveQueue inbox
    cdef readonly object max_frames
    cdef readonly object max_size
    cdef readonly object ping_period
    cdef readonly object pong_wait
    cdef readonly Py_ssize_t queue_bytes
    cdef readonly Py_ssize_t queue_size
    cdef readonly Py_ssize_t quick_size
    cdef readonly Py_ssize_t read_most
    cdef readonly object unanswered_limit
    cdef readonly object unsent_limit


cpdef ConfigValues values_of(config)
