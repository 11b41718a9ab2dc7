# Types for websocket_key.pyx.

cpdef bint is_key(str text) except -1
cpdef bytes accept_value(str key)
