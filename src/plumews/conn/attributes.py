"""Setting an attribute that a connection has not says where it belongs (layer 3).

The same in Cython is ``attributes.pyx``, which costs attributes that exist no Python call; built, it is imported
instead of this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .attribute_hints import of_its_own

__all__ = ["Attributes"]


class Attributes:
    """Base class of connections. A subclass with a ``__dict__`` takes attributes of its own."""

    __slots__ = ()

    if not TYPE_CHECKING:  # checkers would take it for a sign that any attribute may be set

        def __setattr__(self, name: str, value: object) -> None:
            try:
                object.__setattr__(self, name, value)
            except AttributeError:
                of_its_own(self, name)
                raise
