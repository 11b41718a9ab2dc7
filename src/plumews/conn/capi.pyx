# cython: language_level=3, binding=False, auto_pickle=False
"""``capi.py`` in C. An assignment that succeeds enters no ``try`` block, which would cost more than the assignment."""

from cpython.contextvars cimport PyContext_Enter, PyContext_Exit

from .attribute_hints import refuse_attribute

__all__ = ["enter_context", "leave_context", "remove_new", "set_attribute"]

cdef extern from *:
    """
    #define plumews_failed() (-1) /* an exception is set */

    /* The dictionary of an immutable type, and what tells the method cache that it has changed. */
    #define plumews_remove_new(cls) PyDict_DelItemString(((PyTypeObject *)(cls))->tp_dict, "__new__")
    #define plumews_modified(cls) PyType_Modified((PyTypeObject *)(cls))
    """
    int plumews_remove_new(type cls) except -1
    void plumews_modified(type cls)
    int plumews_failed() except -1
    int PyObject_GenericSetAttr(object instance, object name, object value) noexcept


cpdef set_attribute(instance, name, value):
    """See ``capi.py``."""
    if PyObject_GenericSetAttr(instance, name, value) < 0:
        failed(instance, name)


cdef int failed(instance, name) except -1:
    try:
        plumews_failed()
    except AttributeError:
        refuse_attribute(instance, name)
        raise
    return 0


cpdef bint enter_context(context) except -1:
    """See ``capi.py``."""
    PyContext_Enter(context)
    return True


cpdef int leave_context(context) except -1:
    """See ``capi.py``."""
    PyContext_Exit(context)
    return 0


cpdef int remove_new(type cls) except -1:
    """See ``capi.py``. A call takes ``tp_new``. ``object.__new__``, which is found instead, refuses such a type."""
    if "__new__" in cls.__dict__:
        plumews_remove_new(cls)
        plumews_modified(cls)
    return 0
