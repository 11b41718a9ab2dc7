"""Parser of ``Sec-WebSocket-Extensions``.

The grammar is that of RFC 6455 section 9.1, with the tokens and quoted strings of RFC 9110 section 5.6. Invariants:
each character is read once, without regular expressions. Malformed input raises `InvalidHeader` and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

from ..errors import InvalidHeader
from .headers import is_token, quoted_string, skip_blanks, token_end

__all__ = ["Extension", "Parameter", "parse_extensions"]

#: Name and value, ``None`` without a value.
Parameter: TypeAlias = "tuple[str, str | None]"

#: Name and parameters in order. The name of a parameter may occur twice.
Extension: TypeAlias = "tuple[str, list[Parameter]]"


def parse_extensions(values: Sequence[str]) -> list[Extension]:
    """Return the extensions in all lines of the header, in order. Raise `InvalidHeader` (400) for a malformed line.

    Empty elements of the list are ignored.
    """
    return [extension for value in values for extension in _parse_line(value)]


def _parse_line(text: str) -> Iterator[Extension]:
    at = 0
    while at < len(text):
        at = skip_blanks(text, at)
        if text[at : at + 1] not in ("", ","):
            name, at = _token(text, at, "the name of an extension")
            parameters: list[Parameter] = []
            while text[at : at + 1] == ";":
                parameter, at = _parameter(text, skip_blanks(text, at + 1))
                parameters.append(parameter)
            yield name, parameters
        if text[at : at + 1] not in ("", ","):
            raise _invalid("a comma before the next extension")
        at += 1


def _parameter(text: str, at: int) -> tuple[Parameter, int]:
    """Return the parameter at ``at``, and the position of the next character that is no blank."""
    name, at = _token(text, at, "the name of a parameter")
    if text[at : at + 1] != "=":
        return (name, None), at
    at = skip_blanks(text, at + 1)
    if text[at : at + 1] != '"':
        value, at = _token(text, at, "the value of a parameter")
        return (name, value), at
    quoted = quoted_string(text, at)
    if quoted is None:
        raise _invalid("a quotation mark at the end of a value")
    return (name, quoted[0]), skip_blanks(text, quoted[1])


def _token(text: str, at: int, what: str) -> tuple[str, int]:
    end = token_end(text, at)
    if not is_token(text[at:end]):
        raise _invalid(f"a token as {what}")
    return text[at:end], skip_blanks(text, end)


def _invalid(expected: str) -> InvalidHeader:
    return InvalidHeader(f"invalid Sec-WebSocket-Extensions header: expected {expected}")
