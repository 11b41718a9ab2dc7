# Types for handshake.py where it is compiled.

cimport cython

from ..conn.core cimport ConnCore
from ..conn.opening cimport opened
from ..http11.handshake cimport accepted, check_upgrade, offered_subprotocols
from ..http11.origin cimport check_origin
from ..http11.parser cimport HeadReader
from ..http11.request cimport Request, address_of
from .admission cimport ConnectionSlot
from .context cimport ServerContext
from .responder cimport HandshakeResponder, log_untrusted_proxy

cdef object _DEBUG, logger


cdef class ServerHandshake:
    cdef object _body
    cdef ConnCore _conn
    cdef ServerContext _context
    cdef double _due
    cdef bytes _head
    cdef str _key
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
    @cython.locals(conn=ConnCore, context=ServerContext, peer=str)
    cdef _decide(self, Request request)
    @cython.locals(conn=ConnCore, context=ServerContext)
    cdef _admit(self, Request request)
    @cython.locals(conn=ConnCore, context=ServerContext)
    cdef _accept(self, endpoint, Request request)
    @cython.locals(conn=ConnCore, context=ServerContext, request=Request, rest=bytearray, sent=Py_ssize_t)
    cdef _open(self, endpoint, subprotocol, agreement, bytes wire)
