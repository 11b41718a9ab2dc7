# cython: language_level=3, binding=False, auto_pickle=False
"""``attributes.py`` in C. An assignment that succeeds enters no ``try`` block, which would cost more than it."""

from .attribute_hints import refuse_attribute

__all__ = ["Attributes"]

cdef extern from *:
    """
    #define plumews_failed() (-1) /* an exception is set */
    """
    int plumews_failed() except -1
    int PyObject_GenericSetAttr(object instance, object name, object value) noexcept


cdef class Attributes:
    """See ``attributes.py``."""

    def __setattr__(self, name, value):
        if PyObject_GenericSetAttr(self, name, value) < 0:
            failed(self, name)


cdef int failed(Attributes instance, name) except -1:
    try:
        plumews_failed()
    except AttributeError:
        refuse_attribute(instance, name)
        raise
    return 0
