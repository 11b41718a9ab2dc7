# cython: language_level=3, binding=False, auto_pickle=False
"""``context.py`` in C. Invariant: the context is left on every exception."""

from cpython.contextvars cimport PyContext_Enter, PyContext_Exit

from .attribute_hints import refuse_attribute

__all__ = ["ContextRunner"]

cdef extern from *:
    """
    #define plumews_failed() (-1) /* an exception is set */
    """
    int plumews_failed() except -1
    int PyObject_GenericSetAttr(object instance, object name, object value) noexcept


cdef class ContextRunner:
    """See ``context.py``."""

    def __setattr__(self, name, value):
        # An assignment that succeeds enters no ``try`` block, which would cost more than the assignment.
        if PyObject_GenericSetAttr(self, name, value) < 0:
            failed(self, name)

    def _run_in_context(self, function, *args):
        context = self._context
        if context is None or self._in_context:
            return function(*args)
        self._in_context = True
        try:
            return context.run(function, *args)
        finally:
            self._in_context = False

    cdef list _dispatch_in_context(self, list events):
        context = self._context
        if context is None or self._in_context:
            return self._dispatch(events)
        PyContext_Enter(context)
        self._in_context = True
        try:
            return self._dispatch(events)
        finally:
            self._in_context = False
            PyContext_Exit(context)

    cdef list _dispatch(self, list events):
        raise NotImplementedError  # abstract: ConnCore implements it


cdef int failed(ContextRunner instance, name) except -1:
    try:
        plumews_failed()
    except AttributeError:
        refuse_attribute(instance, name)
        raise
    return 0
