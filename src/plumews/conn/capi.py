"""Calls of CPython's C API for ``core``, with twins in plain Python.

``capi.pyx`` is the same in Cython, and is imported instead where it is built. Plain Python cannot enter a context
without a call of :meth:`contextvars.Context.run`, so here :func:`enter_context` returns False. It needs no
:func:`remove_new`, because an attribute that was never set raises AttributeError.
"""

from __future__ import annotations

from contextvars import Context

from .attribute_hints import refuse_attribute

__all__ = ["enter_context", "leave_context", "remove_new", "set_attribute"]


def set_attribute(instance: object, name: str, value: object) -> None:
    """Set an attribute as a class without ``__setattr__`` does, but explain a failure by :func:`refuse_attribute`."""
    try:
        object.__setattr__(instance, name, value)
    except AttributeError:
        refuse_attribute(instance, name)
        raise


def enter_context(context: Context) -> bool:
    """Enter ``context`` and return True, or return False where that takes a call of ``context.run``."""
    return False


def leave_context(context: Context) -> None:
    """Leave ``context`` after :func:`enter_context` has returned True."""


def remove_new(cls: type) -> None:
    """Remove ``__new__`` of an extension type, so that only a call of ``cls`` makes an object."""
