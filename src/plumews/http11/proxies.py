"""Clients behind trusted proxies: parser of ``Forwarded`` (RFC 7239) and of ``X-Forwarded-For``, ``-Proto``, ``-Host``.

Each proxy appends the address of its peer at the right. The first address from the right that is not trusted is the
client, which may have forged the entries to its left. Invariants: headers of a peer that is not trusted are ignored.
Parsing is linear in the size of the head, and the number of entries is bounded.
"""

from __future__ import annotations

import ipaddress
import string
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from .. import limits
from ..errors import InvalidHeader
from ..rate_limit import Address, parse_address
from ..validation import entries_of
from .headers import BLANKS, is_token, parse_host, quoted_string, skip_blanks, token_end
from .request import Request, address_of

__all__ = ["Client", "Hop", "TrustedProxies", "address_of", "forwarded_hops", "x_forwarded_hops"]

_UNIX: Final = "unix"
_SECURE: Final = {"http": False, "https": True, "ws": False, "wss": True}

#: Characters of an obfuscated address or port behind its underscore (RFC 7239 section 6.3).
_HIDDEN: Final = frozenset(string.ascii_letters + string.digits + "._-")

#: Characters that need quotation marks. Proxies leave them out, and strict parsers refuse that.
_UNQUOTED: Final = str.maketrans("", "", ":[]")

#: Parameters of an element that cannot be parsed.
_UNKNOWN: Final = {"for": "unknown"}


class Client(NamedTuple):
    """Client as the socket shows it, or as the outermost trusted proxy saw it.

    Attributes:
        address: Address without port, empty on a Unix socket.
        secure: True if the client uses TLS.
        host: Host that the client asked for, ``None`` if the ``Host`` header says it.
    """

    address: str
    secure: bool
    host: str | None = None


class TrustedProxies:
    """Proxies whose headers are trusted, by the entries of the option ``trusted_proxies``."""

    __slots__ = ("_networks", "_unix")

    def __init__(self, entries: Iterable[str]) -> None:
        entries = entries_of("trusted_proxies", entries, '"10.0.0.0/8"')
        self._unix = _UNIX in entries
        self._networks = tuple(_network(entry) for entry in entries if entry != _UNIX)

    def client_of(self, request: Request) -> Client:
        """Return the client that sent ``request``, whose ``remote_address`` and ``secure`` are those of the socket.

        A proxy that hides the address of its client (``unknown``, ``_hidden``, a name) counts as the client. Raise
        `InvalidHeader` (400) if headers of a trusted proxy contradict each other, or a scheme or host is invalid.
        """
        peer = Client(address_of(request.remote_address), request.secure)
        if not self.trusts_peer(request.remote_address):
            return peer
        standard = self._outermost(peer, forwarded_hops(request), "Forwarded")
        older = self._outermost(peer, x_forwarded_hops(request), "X-Forwarded-For")
        if standard is None or older is None:
            return standard or older or peer
        # One header is written by the proxy. The client may have sent the other one through it.
        if standard[:2] != older[:2] or (standard.host and older.host and standard.host != older.host):
            raise InvalidHeader("the Forwarded and X-Forwarded headers contradict each other")
        return standard if standard.host else older

    def is_proxy(self, address: str) -> bool:
        """Return True if ``address`` is that of a trusted proxy."""
        return self.trusts_peer((address, 0))

    def trusts_peer(self, remote_address: Any) -> bool:
        """Return True if the peer with ``remote_address`` is a trusted proxy."""
        if not isinstance(remote_address, tuple):
            return self._unix
        address = parse_address(remote_address[0])
        return address is not None and self._trusts(address)

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self._networks)

    def _outermost(self, peer: Client, hops: Iterator[Hop], name: str) -> Client | None:
        """Return the client as the outermost trusted proxy saw it, ``None`` without entries."""
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


# --- trusted networks -----------------------------------------------------------------------------


def _network(entry: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(entry)
    except ValueError as exc:
        raise ValueError(
            f"invalid trusted proxy {entry!r}: expected an address, a network such as 10.0.0.0/8 or 'unix' ({exc})"
        ) from None


# --- entries of the headers ---------------------------------------------------------------------------


class _Malformed(Exception):
    """The line does not follow the grammar."""


class Hop(NamedTuple):
    """Entry that one proxy wrote about its peer. ``None`` is a missing part."""

    node: str | None
    scheme: str | None
    host: str | None


def forwarded_hops(request: Request) -> Iterator[Hop]:
    """Yield the entries of ``Forwarded``, the newest first. One that cannot be parsed has an unknown node."""
    # Line by line: a quote that the client left open cannot hide the line that the proxy added.
    for line in reversed(request._values_of(b"forwarded")):
        for pairs in reversed(_elements(line)):
            yield Hop(pairs.get("for"), pairs.get("proto") or None, pairs.get("host") or None)


def x_forwarded_hops(request: Request) -> Iterator[Hop]:
    """Yield the entries of ``X-Forwarded-For``, the newest first, with their scheme and host."""
    nodes, schemes, hosts = (
        _list(request, key) for key in (b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host")
    )
    if not nodes and (schemes or hosts):
        yield Hop(None, _at(schemes, 0), _at(hosts, 0))
    for place, node in enumerate(nodes):
        yield Hop(node, _at(schemes, place), _at(hosts, place))


def _list(request: Request, key: bytes) -> list[str]:
    values = [_bare(element) for line in request._values_of(key) for element in line.split(",")]
    return [value for value in reversed(values) if value]


def _bare(text: str) -> str:
    """Return ``text`` without the blanks and the quotation marks around it."""
    text = text.strip(BLANKS)
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text


def _at(values: list[str], place: int) -> str | None:
    """Return the value for the entry at ``place``. Most proxies write one value for all entries, some one for each."""
    return values[min(place, len(values) - 1)] if values else None


def _elements(line: str) -> list[dict[str, str]]:
    """Return the elements of a line, each a mapping from a parameter in lower case."""
    try:
        return _strict_elements(line)
    except _Malformed:
        # A quote that the client left open must not hide the element that the proxy added on the same line. That
        # element has no comma.
        return [_lenient_element(element) for element in line.split(",") if element.strip(BLANKS)]


def _lenient_element(text: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for part in filter(None, map(_bare, text.split(";"))):
        name, equals, value = part.partition("=")
        name = name.strip(BLANKS).lower()
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
        at = skip_blanks(line, at)
        if at < end and line[at] not in ",;":
            start, at = at, token_end(line, at)
            name = line[start:at].lower()
            if line[at : at + 1] != "=" or not is_token(name) or name in pairs:
                raise _Malformed
            value, at = _value(line, at + 1)
            pairs[name] = value
            at = skip_blanks(line, at)
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
    """Return the token or quoted string at ``at``, and its end (RFC 9110 section 5.6.4)."""
    if line[at : at + 1] == '"':
        quoted = quoted_string(line, at)
        if quoted is None:
            raise _Malformed
        return quoted
    end = token_end(line, at)
    if not is_token(line[at:end].translate(_UNQUOTED)):
        raise _Malformed
    return line[at:end], end


# --- nodes, schemes and hosts ---------------------------------------------------------------------


def _node(text: str) -> Address | None:
    """Return the address of a node (RFC 7239 section 6) in any form that proxies write, ``None`` if it has none."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or ":" not in host or not (rest == "" or (rest[0] == ":" and _is_port(rest[1:]))):
            return None
        return _ipv6(host)
    host, colon, port = text.rpartition(":")
    if ":" in host:  # IPv6 without brackets: its last part is a port only if it cannot be part of the address
        return _ipv6(text) or (_ipv6(host) if _is_port(port) else None)
    if colon and not _is_port(port):
        return None
    return parse_address(host if colon else text)


def _ipv6(text: str) -> Address | None:
    """Parse an address without its zone, which has a meaning on the proxy alone (RFC 4007 section 6)."""
    return parse_address(text.partition("%")[0])


def _is_hidden(text: str) -> bool:
    return len(text) > 1 and text[0] == "_" and _HIDDEN.issuperset(text[1:])


def _is_port(text: str) -> bool:
    return not text or _is_hidden(text) or (text.isascii() and text.isdecimal() and len(text) <= 5)


def _secure(scheme: str, name: str) -> bool:
    secure = _SECURE.get(scheme.lower())
    if secure is None:
        header = "Forwarded" if name == "Forwarded" else "X-Forwarded-Proto"
        raise InvalidHeader(f"invalid {header} header: expected http or https as the scheme")
    return secure


def _host(text: str, name: str) -> str:
    try:
        parse_host(text)
    except ValueError:
        header = "Forwarded" if name == "Forwarded" else "X-Forwarded-Host"
        raise InvalidHeader(f"invalid {header} header: expected a host and maybe a port") from None
    return text.lower()
