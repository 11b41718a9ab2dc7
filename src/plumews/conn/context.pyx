# cython: language_level=3, binding=False, auto_pickle=False
"""``context.py`` in C. Invariant: the context is left on every exception."""

from cpython.contextvars cimport PyContext_Enter, PyContext_Exit

from .attributes cimport Attributes

__all__ = ["ContextRunner"]


cdef class ContextRunner(Attributes):
    """See ``context.py``."""

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
        raise NotImplementedError
