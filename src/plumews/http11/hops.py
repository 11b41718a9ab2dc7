"""What proxies write down about who connected to them, read from the right (layer 2).

``Forwarded`` (RFC 7239), and ``X-Forwarded-For``, ``-Proto`` and ``-Host``, which nobody ever defined. The entry at the
right is the newest: the proxy nearest to us wrote it. Whom to believe is not decided here, and neither is what an
entry means. Invariant: linear in the length of the headers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from .headers import is_token
from .models import Request

__all__ = ["Hop", "older_hops", "standard_hops"]

_BLANKS: Final = " \t"
_TOKEN_ENDS: Final = frozenset(' \t,;="')

#: What proxies write without the quotation marks that it needs; stricter parsers than ours refuse it.
_UNQUOTED: Final = str.maketrans("", "", ":[]")

#: Of an element that cannot be read.
_UNKNOWN: Final = {"for": "unknown"}


class _Malformed(Exception):
    """A line that does not follow the grammar."""


class Hop(NamedTuple):
    """What one proxy says of who connected to it; ``None`` is what it does not say."""

    node: str | None
    scheme: str | None
    host: str | None


def standard_hops(request: Request) -> Iterator[Hop]:
    """The entries of ``Forwarded``; one that cannot be read is of an unknown node."""
    # Line by line, so that a quote which a client left open cannot swallow the line that the proxy added.
    for line in reversed(request.headers.get_all("Forwarded")):
        for pairs in reversed(_elements(line)):
            yield Hop(pairs.get("for"), pairs.get("proto") or None, pairs.get("host") or None)


def older_hops(request: Request) -> Iterator[Hop]:
    """The entries of ``X-Forwarded-For``, each with what the other two say about it."""
    nodes, schemes, hosts = (_list(request, f"X-Forwarded-{name}") for name in ("For", "Proto", "Host"))
    if not nodes and (schemes or hosts):
        yield Hop(None, _at(schemes, 0), _at(hosts, 0))
    for place, node in enumerate(nodes):
        yield Hop(node, _at(schemes, place), _at(hosts, place))


def _list(request: Request, name: str) -> list[str]:
    values = [_bare(element) for line in request.headers.get_all(name) for element in line.split(",")]
    return [value for value in reversed(values) if value]


def _bare(text: str) -> str:
    """Return ``text`` without the blanks and the quotation marks around it."""
    text = text.strip(_BLANKS)
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text


def _at(values: list[str], place: int) -> str | None:
    """What belongs to the entry at ``place``: most proxies write one value for all, and some one for each."""
    return values[min(place, len(values) - 1)] if values else None


def _elements(line: str) -> list[dict[str, str]]:
    """Return the elements of a line, each a mapping from a parameter in lower case."""
    try:
        return _strict_elements(line)
    except _Malformed:
        # A quote that a client left open must not swallow the element that the proxy added on the same line. That
        # element has no comma.
        return [_lenient_element(element) for element in line.split(",") if element.strip(_BLANKS)]


def _lenient_element(text: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for part in filter(None, map(_bare, text.split(";"))):
        name, equals, value = part.partition("=")
        name = name.strip(_BLANKS).lower()
        if name in pairs or not equals:
            return _UNKNOWN
        pairs[name] = _bare(value)
    return pairs


def _strict_elements(line: str) -> list[dict[str, str]]:
    """Return the elements of a line that follows the grammar (RFC 7239 section 4)."""
    elements: list[dict[str, str]] = []
    pairs: dict[str, str] = {}
    at, end = 0, len(line)
    while True:
        at = _skip_blanks(line, at)
        if at < end and line[at] not in ",;":
            start, at = at, _token_end(line, at)
            name = line[start:at].lower()
            if line[at : at + 1] != "=" or not is_token(name) or name in pairs:
                raise _Malformed
            value, at = _value(line, at + 1)
            pairs[name] = value
            at = _skip_blanks(line, at)
        if at == end or line[at] == ",":
            if pairs:
                elements.append(pairs)
                pairs = {}
            if at == end:
                return elements
        elif line[at] != ";":
            raise _Malformed
        at += 1


def _value(line: str, at: int) -> tuple[str, int]:
    """The token or quoted string that begins at ``at``, and where it ends (RFC 9110 section 5.6.4)."""
    if line[at : at + 1] != '"':
        end = _token_end(line, at)
        if not is_token(line[at:end].translate(_UNQUOTED)):
            raise _Malformed
        return line[at:end], end
    parts: list[str] = []
    at += 1
    while at < len(line) and line[at] != '"':
        at += line[at] == "\\"
        parts.append(line[at : at + 1])
        at += 1
    if at >= len(line):
        raise _Malformed
    return "".join(parts), at + 1


def _skip_blanks(line: str, at: int) -> int:
    while at < len(line) and line[at] in _BLANKS:
        at += 1
    return at


def _token_end(line: str, at: int) -> int:
    while at < len(line) and line[at] not in _TOKEN_ENDS:
        at += 1
    return at
