# Types for admission.py where it is compiled.

cimport cython

from ..rate_limit cimport TokenBucket

cdef object Refused, address_group, limits


cdef class Admission:
    cdef readonly AddressLimits _addresses
    cdef readonly TokenBucket _bucket
    cdef double _most
    cdef double _most_opening
    cdef object _proxies
    cdef public Py_ssize_t connections
    cdef public Py_ssize_t opening

    @cython.locals(wait=double)
    cpdef ConnectionSlot admit(self, address, double now)


cdef class ConnectionSlot:
    cdef Admission _admission
    cdef set _connections
    cdef object _key
    cdef bint _opening
    cdef readonly double since

    cpdef hold(self, set connections)
    cpdef known_as(self, str address, double now)
    cpdef opened(self)


cdef class _Address:
    cdef TokenBucket bucket
    cdef Py_ssize_t count
    cdef double last


cdef class AddressLimits:
    cdef object _idle
    cdef object _internet
    cdef dict _present
    cdef object _private

    @cython.locals(known=_Address)
    cpdef Py_ssize_t count(self, key) except -1
    @cython.locals(known=_Address, wait=double)
    cpdef enter(self, str address, double now)
    @cython.locals(known=_Address)
    cpdef leave(self, key)
    @cython.locals(known=_Address)
    cdef _forget(self, double now)
