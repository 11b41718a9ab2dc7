"""HTTP headers with the habits of ``websockets.datastructures``: keys iterate in lower case."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from ...http11 import headers as native
from ...http11.headers import MultipleValuesError
from .exceptions import InvalidHeaderValue

__all__ = ["Headers", "HeadersLike", "MultipleValuesError"]

#: Headers that a program gives.
HeadersLike: TypeAlias = "Headers | Mapping[str, str] | Iterable[tuple[str, str]]"


class Headers(native.Headers):
    """Ordered HTTP headers with case-insensitive lookup.

    Iteration, ``keys()``, ``items()`` and ``dict(headers)`` have the names in lower case. :meth:`raw_items` and
    ``str(headers)`` have them as spelled. ``headers[name] = value`` adds a line.

    Args:
        sources: one mapping or iterable of pairs.
        fields: more headers by name.

    Raises:
        InvalidHeaderValue: a value contains a control character, or one outside Latin-1.
        ValueError: a name is no token.
    """

    __slots__ = ()

    def __init__(self, *sources: HeadersLike, **fields: Any) -> None:
        if len(sources) > 1:
            raise TypeError(f"Headers takes one mapping or iterable of pairs, not {len(sources)}")
        super().__init__()
        self.update(*sources, **fields)

    def add(self, name: str, value: Any) -> None:
        """Add a line behind the others. A value that is no ``str``, such as a length, is converted to one."""
        text = value if isinstance(value, str) else str(value)
        try:
            super().add(name, text)
        except ValueError as exc:
            if isinstance(name, str) and native.is_token(name):
                raise InvalidHeaderValue(name, text) from exc
            raise

    def update(self, *sources: Any, **fields: Any) -> None:
        """Add the lines of a mapping, of pairs, or of keywords."""
        pairs = (source.raw_items() if isinstance(source, native.Headers) else source for source in sources)
        super().update(*pairs, **fields)

    def copy(self) -> Headers:
        """Return a copy."""
        return Headers(self)

    def clear(self) -> None:
        """Remove all lines."""
        self._pairs, self._values = [], {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __str__(self) -> str:
        return "".join(f"{name}: {value}\r\n" for name, value in self._pairs) + "\r\n"
