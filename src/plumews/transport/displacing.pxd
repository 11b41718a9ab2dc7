# Types for displacing.py where it is compiled.

cimport cython

from ..protocol.message cimport EncodedMessage
from .channel cimport Channel
from .send_queue cimport SendQueue


@cython.locals(queue=SendQueue, before=Py_ssize_t, dropped=Py_ssize_t)
cpdef Py_ssize_t displace(Channel channel, EncodedMessage message) except? -1
@cython.locals(queue=SendQueue, dropped=Py_ssize_t)
cpdef Py_ssize_t conflate(Channel channel, EncodedMessage message, object key) except? -1
@cython.locals(dropped=Py_ssize_t)
cpdef Py_ssize_t drop_queued(Channel channel) except? -1
