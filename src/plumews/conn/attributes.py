"""Base class of connections that explains failed assignments to attributes.

``attributes.pyx`` is the same in Cython, and costs existing attributes no Python call. It is imported instead of this
module where it is built.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .attribute_hints import refuse_attribute

__all__ = ["Attributes"]


class Attributes:
    """Base class of connections. Subclasses with a ``__dict__`` accept further attributes."""

    __slots__ = ()

    if not TYPE_CHECKING:  # checkers would take it for a sign that any attribute may be set

        def __setattr__(self, name: str, value: object) -> None:
            try:
                object.__setattr__(self, name, value)
            except AttributeError:
                refuse_attribute(self, name)
                raise
