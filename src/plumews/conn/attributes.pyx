# cython: language_level=3, binding=False, auto_pickle=False
"""``attributes.py`` in C. What goes well costs no ``try``, which is dear in comparison."""

from .attribute_hints import of_its_own

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
        of_its_own(instance, name)
        raise
    return 0
