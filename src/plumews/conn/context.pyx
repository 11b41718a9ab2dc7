# cython: language_level=3, binding=False, auto_pickle=False
"""``context.py`` in C. Invariant: whatever is raised inside, the context is left."""

from cpython.contextvars cimport PyContext_Enter, PyContext_Exit

from .attributes cimport Attributes

__all__ = ["InContext"]


cdef class InContext(Attributes):
    """See ``context.py``."""

    def _within(self, function, *args):
        context = self._context
        if context is None or self._inside:
            return function(*args)
        self._inside = True
        try:
            return context.run(function, *args)
        finally:
            self._inside = False

    cdef list _dispatch_within(self, list events):
        context = self._context
        if context is None or self._inside:
            return self._dispatch(events)
        PyContext_Enter(context)
        self._inside = True
        try:
            return self._dispatch(events)
        finally:
            self._inside = False
            PyContext_Exit(context)

    cdef list _dispatch(self, list events):
        raise NotImplementedError
