"""Parser of ``Sec-WebSocket-Extensions``.

The grammar is that of RFC 6455 section 9.1, with the tokens and quoted strings of RFC 9110 section 5.6. Invariants:
each character is read once, without regular expressions. Malformed input raises `InvalidHeader` and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

from ..errors import InvalidHeader
from .headers import is_token

__all__ = ["Extension", "Parameter", "parse_extensions"]

#: Name and value, ``None`` without a value.
Parameter: TypeAlias = "tuple[str, str | None]"

#: Name and parameters in order. The name of a parameter may occur twice.
Extension: TypeAlias = "tuple[str, list[Parameter]]"

_BLANKS: Final = " \t"
_ENDS: Final = frozenset(' \t,;="')


def parse_extensions(values: Sequence[str]) -> list[Extension]:
    """Return the extensions in all lines of the header, in order. Empty elements of the list are ignored.

    Raises:
        InvalidHeader: 400, a line does not follow the grammar.
    """
    extensions: list[Extension] = []
    for value in values:
        _Line(value).parse(extensions)
    return extensions


class _Line:
    """Cursor in one line."""

    __slots__ = ("_at", "_text")

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def parse(self, extensions: list[Extension]) -> None:
        while self._at < len(self._text):
            if self._next() not in ("", ","):
                extensions.append(self._extension())
            if self._next() not in ("", ","):
                raise _invalid("a comma before the next extension")
            self._at += 1

    def _extension(self) -> Extension:
        name = self._token("the name of an extension")
        parameters: list[Parameter] = []
        while self._next() == ";":
            self._at += 1
            self._next()
            parameters.append(self._parameter())
        return name, parameters

    def _parameter(self) -> Parameter:
        name = self._token("the name of a parameter")
        if self._next() != "=":
            return name, None
        self._at += 1
        if self._next() == '"':
            return name, self._quoted()
        return name, self._token("the value of a parameter")

    def _next(self) -> str:
        """Skip blanks and return the next character, empty at the end."""
        text, at = self._text, self._at
        while at < len(text) and text[at] in _BLANKS:
            at += 1
        self._at = at
        return text[at : at + 1]

    def _token(self, what: str) -> str:
        text, start = self._text, self._at
        at = start
        while at < len(text) and text[at] not in _ENDS:
            at += 1
        self._at = at
        token = text[start:at]
        if not is_token(token):
            raise _invalid(f"a token as {what}")
        return token

    def _quoted(self) -> str:
        """Read a quoted string and return it without its quotation marks and backslashes."""
        text, at = self._text, self._at + 1
        characters: list[str] = []
        while at < len(text) and text[at] != '"':
            if text[at] == "\\":
                at += 1
            characters.append(text[at : at + 1])
            at += 1
        if at >= len(text):
            raise _invalid("a quotation mark at the end of a value")
        self._at = at + 1
        return "".join(characters)


def _invalid(expected: str) -> InvalidHeader:
    return InvalidHeader(f"invalid Sec-WebSocket-Extensions header: expected {expected}")
