"""What proxies write down about who connected to them, read from the right (layer 2).

``Forwarded`` (RFC 7239), and ``X-Forwarded-For``, ``-Proto`` and ``-Host``, which nobody ever defined. The entry at the
right is the newest: the proxy nearest to us wrote it. Whom to believe is not decided here, and neither is what an
entry means. Invariant: linear in the length of the headers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from .errors import InvalidHeader
from .headers import is_token
from .http11 import Request

__all__ = ["Hop", "older_hops", "standard_hops"]

_BLANKS: Final = " \t"
_TOKEN_ENDS: Final = frozenset(' \t,;="')


class Hop(NamedTuple):
    """What one proxy says of who connected to it; ``None`` is what it does not say."""

    node: str | None
    scheme: str | None
    host: str | None


def standard_hops(request: Request) -> Iterator[Hop]:
    """The entries of ``Forwarded``; `InvalidHeader` for a malformed line, once it is its turn."""
    # Line by line, so that a quote which a client left open cannot swallow the line that the proxy added.
    for line in reversed(request.headers.get_all("Forwarded")):
        for pairs in reversed(_forwarded_elements(line)):
            yield Hop(pairs.get("for"), pairs.get("proto"), pairs.get("host"))


def older_hops(request: Request) -> Iterator[Hop]:
    """The entries of ``X-Forwarded-For``, each with what the other two say about it."""
    nodes, schemes, hosts = (_list(request, f"X-Forwarded-{name}") for name in ("For", "Proto", "Host"))
    if not nodes and (schemes or hosts):
        yield Hop(None, _at(schemes, 0), _at(hosts, 0))
    for place, node in enumerate(nodes):
        yield Hop(node, _at(schemes, place), _at(hosts, place))


def _list(request: Request, name: str) -> list[str]:
    values = [element.strip(_BLANKS) for line in request.headers.get_all(name) for element in line.split(",")]
    return [value for value in reversed(values) if value]


def _at(values: list[str], place: int) -> str | None:
    """What belongs to the entry at ``place``: most proxies write one value for all, and some one for each."""
    return values[min(place, len(values) - 1)] if values else None


def _forwarded_elements(line: str) -> list[dict[str, str]]:
    """The elements of a line, each a mapping from a parameter in lower case (RFC 7239 section 4)."""
    elements: list[dict[str, str]] = []
    pairs: dict[str, str] = {}
    at, end = 0, len(line)
    while True:
        at = _skip_blanks(line, at)
        if at < end and line[at] not in ",;":
            start, at = at, _token_end(line, at)
            name = line[start:at].lower()
            if line[at : at + 1] != "=" or not is_token(name) or name in pairs:
                raise _malformed()
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
            raise _malformed()
        at += 1


def _value(line: str, at: int) -> tuple[str, int]:
    """The token or quoted string that begins at ``at``, and where it ends (RFC 9110 section 5.6.4)."""
    if line[at : at + 1] != '"':
        end = _token_end(line, at)
        # Stricter parsers than ours refuse a port without quotes; proxies write it all the same.
        if not is_token(line[at:end].replace(":", "")):
            raise _malformed()
        return line[at:end], end
    parts: list[str] = []
    at += 1
    while at < len(line) and line[at] != '"':
        at += line[at] == "\\"
        parts.append(line[at : at + 1])
        at += 1
    if at >= len(line):
        raise _malformed()
    return "".join(parts), at + 1


def _skip_blanks(line: str, at: int) -> int:
    while at < len(line) and line[at] in _BLANKS:
        at += 1
    return at


def _token_end(line: str, at: int) -> int:
    while at < len(line) and line[at] not in _TOKEN_ENDS:
        at += 1
    return at


def _malformed() -> InvalidHeader:
    return InvalidHeader("invalid Forwarded header: expected name=value pairs, such as for=192.0.2.1;proto=https")
