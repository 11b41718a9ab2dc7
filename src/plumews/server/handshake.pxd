# Types for handshake.py where it is compiled.

cimport cython

from ..http11.handshake cimport check_upgrade, offered_subprotocols
from ..http11.origin cimport check_host
from ..http11.parser cimport HeadReader
from ..http11.request cimport Request, address_of
from .admission cimport ConnectionSlot
from .responder cimport HandshakeResponder, log_untrusted_proxy


cdef class ServerHandshake:
    cdef object _body
    cdef object _conn
    cdef object _context
    cdef double _due
    cdef bytes _head
    cdef bint _paused
    cdef HeadReader _reader
    cdef readonly HandshakeResponder _responder
    cdef ConnectionSlot _slot

    cpdef connected(self)
    cpdef received(self, bytes data)
    cdef _admit_address(self)
    cdef _take_slot(self, ConnectionSlot slot)
    @cython.locals(request=Request)
    cdef _read(self, bytes data)
    cdef _keep(self, bytes data)
    @cython.locals(peer=str)
    cdef _decide(self, Request request)
    cdef _admit(self, Request request)
    cdef _accept(self, endpoint, Request request)
    @cython.locals(rest=bytearray)
    cdef _open(self, endpoint, subprotocol, agreement, bytes wire)
