"""Who is at the other end when a proxy is in between (layer 2).

RFC 7239, and the ``X-Forwarded-*`` headers that were there before it. Each proxy adds, at the right, the address that
it was connected from. So the list is read from the right, for as long as who wrote an entry is trusted: the first
address that is not trusted is the client, and what stands to the left of it is what the client made up. Invariants:
headers of a peer that is not trusted are not looked at; work is linear in the head, and entries are bounded.
"""

from __future__ import annotations

import ipaddress
import string
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple, TypeAlias

from .. import limits
from ..errors import InvalidHeader
from ..validation import entries_of
from .headers import is_token, parse_host
from .models import Request

__all__ = ["Client", "Hop", "TrustedProxies", "address_of", "forwarded_hops", "x_forwarded_hops"]

_Address: TypeAlias = "ipaddress.IPv4Address | ipaddress.IPv6Address"

_UNIX: Final = "unix"
_SECURE: Final = {"http": False, "https": True, "ws": False, "wss": True}

#: What an identifier that hides an address, or a port, is made of behind its underscore (RFC 7239 section 6.3).
_HIDDEN: Final = frozenset(string.ascii_letters + string.digits + "._-")


_BLANKS: Final = " \t"
_TOKEN_ENDS: Final = frozenset(' \t,;="')

#: What proxies write without the quotation marks that it needs; stricter parsers than ours refuse it.
_UNQUOTED: Final = str.maketrans("", "", ":[]")

#: Of an element that cannot be read.
_UNKNOWN: Final = {"for": "unknown"}


class Client(NamedTuple):
    """What is known about a client: from the socket, or as the outermost trusted proxy saw it.

    ``address`` is without port, empty on a Unix socket; ``secure`` is whether it came through TLS; ``host`` is the host
    that it asked for, ``None`` if that is what the ``Host`` header says.
    """

    address: str
    secure: bool
    host: str | None = None


class TrustedProxies:
    """The proxies that are believed.

    Args:
        entries: addresses (``"192.0.2.1"``), networks (``"10.0.0.0/8"``), and ``"unix"`` for all who come over a
            Unix socket.

    Raises:
        TypeError: ``entries`` is no list of ``str``.
        ValueError: an entry is none of these.
    """

    __slots__ = ("_networks", "_unix")

    def __init__(self, entries: Iterable[str]) -> None:
        entries = entries_of("trusted_proxies", entries, '"10.0.0.0/8"')
        self._unix = _UNIX in entries
        self._networks = tuple(_network(entry) for entry in entries if entry != _UNIX)

    def client_of(self, request: Request) -> Client:
        """The client that sent ``request``, whose ``remote_address`` and ``secure`` say what the socket does.

        A proxy that writes no address of its client (``unknown``, ``_hidden``, a name) stands for it. Raises
        `InvalidHeader` (400) for headers of a trusted proxy that contradict each other, and for a scheme or a host that
        is none.
        """
        peer = Client(address_of(request.remote_address), request.secure)
        if not self.trusts_peer(request.remote_address):
            return peer
        standard = self._outermost(peer, forwarded_hops(request), "Forwarded")
        older = self._outermost(peer, x_forwarded_hops(request), "X-Forwarded-For")
        if standard is None or older is None:
            return standard or older or peer
        # One of them is written by the proxy, and the other may be what the client sent through it.
        if standard[:2] != older[:2] or (standard.host and older.host and standard.host != older.host):
            raise InvalidHeader("the Forwarded and X-Forwarded headers contradict each other")
        return standard if standard.host else older

    def is_proxy(self, address: str) -> bool:
        """Whether the proxy with ``address`` is one of them."""
        return self.trusts_peer((address, 0))

    def trusts_peer(self, remote_address: Any) -> bool:
        """Return whether whoever is connected from there is one of them."""
        if not isinstance(remote_address, tuple):
            return self._unix
        address = _parse_address(remote_address[0])
        return address is not None and self._trusts(address)

    def _trusts(self, address: _Address) -> bool:
        return any(address in network for network in self._networks)

    def _outermost(self, peer: Client, hops: Iterator[Hop], name: str) -> Client | None:
        """The client as the last trusted proxy on the way to it saw it; ``None`` without any hop."""
        client = None
        for number, hop in enumerate(hops):
            if number == limits.FORWARDED_HOPS:
                raise InvalidHeader(f"the {name} header has more than {limits.FORWARDED_HOPS} trusted entries")
            address = None if hop.node is None else _node(hop.node)
            seen_at = (client or peer).address if address is None else str(address)
            secure = peer.secure if hop.scheme is None else _secure(hop.scheme, name)
            client = Client(seen_at, secure, None if hop.host is None else _host(hop.host, name))
            if address is None or not self._trusts(address):
                break
        return client


def address_of(remote_address: Any) -> str:
    """The address in what a socket says of its peer: without port, IPv4 as such, empty if it has none."""
    if not isinstance(remote_address, tuple):
        return ""
    host: str = remote_address[0]
    return host[7:] if host.startswith("::ffff:") and "." in host else host


# --- what is trusted ------------------------------------------------------------------------------


def _network(entry: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(entry)
    except ValueError as exc:
        raise ValueError(
            f"invalid trusted proxy {entry!r}: expected an address, a network such as 10.0.0.0/8 or 'unix' ({exc})"
        ) from None


def _parse_address(text: str) -> _Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return address if mapped is None else mapped


# --- entries of the headers ---------------------------------------------------------------------------


class _Malformed(Exception):
    """A line that does not follow the grammar."""


class Hop(NamedTuple):
    """What one proxy says of who connected to it; ``None`` is what it does not say."""

    node: str | None
    scheme: str | None
    host: str | None


def forwarded_hops(request: Request) -> Iterator[Hop]:
    """The entries of ``Forwarded``; one that cannot be read is of an unknown node."""
    # Line by line, so that a quote which a client left open cannot swallow the line that the proxy added.
    for line in reversed(request.headers.get_all("Forwarded")):
        for pairs in reversed(_elements(line)):
            yield Hop(pairs.get("for"), pairs.get("proto") or None, pairs.get("host") or None)


def x_forwarded_hops(request: Request) -> Iterator[Hop]:
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


# --- what an entry says ---------------------------------------------------------------------------


def _node(text: str) -> _Address | None:
    """Return the address of a node (RFC 7239 section 6) in any form that proxies write, ``None`` if it has none."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or ":" not in host or not (rest == "" or (rest[0] == ":" and _is_port(rest[1:]))):
            return None
        return _ipv6(host)
    host, colon, port = text.rpartition(":")
    if ":" in host:  # IPv6 without brackets; what stands behind its last colon is a port only if it must be
        return _ipv6(text) or (_ipv6(host) if _is_port(port) else None)
    if colon and not _is_port(port):
        return None
    return _parse_address(host if colon else text)


def _ipv6(text: str) -> _Address | None:
    """Parse an address without its zone, which has a meaning on the proxy alone (RFC 4007 section 6)."""
    return _parse_address(text.partition("%")[0])


def _is_hidden(text: str) -> bool:
    return len(text) > 1 and text[0] == "_" and _HIDDEN.issuperset(text[1:])


def _is_port(text: str) -> bool:
    return not text or _is_hidden(text) or (text.isascii() and text.isdecimal() and len(text) <= 5)


def _secure(scheme: str, name: str) -> bool:
    secure = _SECURE.get(scheme.lower())
    if secure is None:
        kin = "Forwarded" if name == "Forwarded" else "X-Forwarded-Proto"
        raise InvalidHeader(f"invalid {kin} header: expected http or https as the scheme")
    return secure


def _host(text: str, name: str) -> str:
    try:
        parse_host(text)
    except ValueError:
        kin = "Forwarded" if name == "Forwarded" else "X-Forwarded-Host"
        raise InvalidHeader(f"invalid {kin} header: expected a host and maybe a port") from None
    return text.lower()
