"""WebSocket URIs (RFC 6455 section 3, RFC 3986), without I/O.

Invariant: no error text, ``str`` or ``repr`` contains the user, the password or the query of a URI.
"""

from __future__ import annotations

import functools
import ipaddress
import string
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import quote, unquote, urlencode

from ..errors import InvalidURI
from ..http11.headers import parse_host

__all__ = ["Authority", "WebSocketURI", "basic_auth", "host_for_url", "parse_authority", "parse_host_name", "parse_uri"]

#: Characters of the longest URI whose parts are cached.
_CACHED_SIZE: Final = 512

_PORTS: Final = {"ws": 80, "wss": 443}
_HEX: Final = frozenset(string.hexdigits)
_ZONE: Final = frozenset(string.ascii_letters + string.digits + "-._~")

#: Characters of a DNS name and of one label of it (RFC 1035 section 2.3.4).
_NAME_SIZE: Final = 253
_LABEL_SIZE: Final = 63

#: Characters that stay as they are when those outside ASCII are percent-encoded.
_KEPT: Final = "".join(map(chr, range(0x21, 0x7F)))


@dataclass(frozen=True, slots=True, repr=False)
class Authority:
    """Host, port and credentials of a URI or of the URL of a proxy.

    Args:
        host: Host in lower case: a name in ASCII, or an address. An IPv6 address has no brackets, and may have a zone.
        port: Port.
        user: User, decoded, or ``None``.
        password: Password, decoded, or ``None``.
    """

    host: str
    port: int
    user: str | None = None
    password: str | None = None

    @property
    def netloc(self) -> str:
        """``host:port`` with brackets around an IPv6 address and without its zone, as ``CONNECT`` has it."""
        return f"{host_for_url(self.host)}:{self.port}"

    @property
    def is_address(self) -> bool:
        """True if the host is an IP address."""
        return _is_address(self.host)

    @property
    def tls_name(self) -> str:
        """Name that the TLS certificate is checked against.

        The zone of an address and the dot behind a name are left out. :mod:`ssl` sends no SNI for an address (RFC 6066
        section 3).
        """
        return self.host.partition("%")[0].removesuffix(".")

    @property
    def sni(self) -> str | None:
        """Name for the TLS extension SNI, ``None`` if the host is an address."""
        return None if self.is_address else self.tls_name

    @property
    def authorization(self) -> str | None:
        """Value of ``Authorization`` for the credentials, or ``None`` without a user."""
        return None if self.user is None else basic_auth(self.user, self.password or "")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self}>"

    def __str__(self) -> str:
        return f"{host_for_url(self.host, zone=True)}:{self.port}"


@dataclass(frozen=True, slots=True, repr=False)
class WebSocketURI(Authority):
    """``ws`` or ``wss`` URI.

    Args:
        secure: True for ``wss``.
        resource: Path and query, in ASCII, such as ``/chat?room=blue``.
    """

    secure: bool = field(default=False, kw_only=True)
    resource: str = field(default="/", kw_only=True)

    @property
    def scheme(self) -> str:
        """``ws`` or ``wss``."""
        return "wss" if self.secure else "ws"

    @property
    def host_header(self) -> str:
        """Value of ``Host``: without the zone, and without the default port."""
        return host_for_url(self.host) if self.port == _PORTS[self.scheme] else self.netloc

    @property
    def origin(self) -> tuple[bool, str, int]:
        """TLS, host and port. Two URIs with the same one have the same origin."""
        return self.secure, self.host, self.port

    @property
    def url(self) -> str:
        """Whole URI without the credentials. The query may be secret: never log it."""
        return f"{self._start}{self.resource}"

    @property
    def _start(self) -> str:
        host = host_for_url(self.host, zone=True).replace("%", "%25")
        return f"{self.scheme}://{host}" + ("" if self.port == _PORTS[self.scheme] else f":{self.port}")

    def with_query(self, parameters: Mapping[str, str]) -> WebSocketURI:
        """Return the URI with the query ``parameters``, which replace those with the same names."""
        path, _, query = self.resource.partition("?")
        kept = [part for part in query.split("&") if part and unquote(part.partition("=")[0]) not in parameters]
        return replace(self, resource=f"{path}?{'&'.join([*kept, urlencode(parameters)])}")

    def __str__(self) -> str:
        path, mark, _ = self.resource.partition("?")
        return f"{self._start}{path}{mark and '?…'}"


def parse_uri(text: str) -> WebSocketURI:
    """Return the parts of a ``ws`` or ``wss`` URI.

    A user and a password are percent-decoded. A name outside ASCII is encoded by IDNA, a path outside ASCII by UTF-8
    and percent signs. An address of IPv6 stands in brackets, and may have a zone: ``[fe80::1%25eth0]``, also without
    the ``25``.

    Raises:
        InvalidURI: The text is no URI, has another scheme or a fragment, or a part of it is invalid.
        TypeError: ``text`` is no ``str``.
    """
    if not isinstance(text, str):
        raise TypeError(f"a WebSocket URI is a str, not {type(text).__name__}")
    # No secret is kept: a password, or a token in the query.
    kept = len(text) <= _CACHED_SIZE and "@" not in text and "?" not in text
    return _known_uri(text) if kept else _parse_uri(text)


def _parse_uri(text: str) -> WebSocketURI:
    scheme, separator, rest = text.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in _PORTS:
        hint = {"http": ": did you mean ws?", "https": ": did you mean wss?"}.get(scheme if separator else "", "")
        raise InvalidURI(f"invalid WebSocket URI: it must begin with ws:// or wss://{hint}")
    if "#" in rest:
        raise InvalidURI("invalid WebSocket URI: a fragment (#) is not allowed (RFC 6455 section 3)")
    end = min(at for at in (rest.find("/"), rest.find("?"), len(rest)) if at >= 0)
    resource = rest[end:]
    try:
        authority = parse_authority(rest[:end], _PORTS[scheme], "WebSocket URI")
    except InvalidURI:
        if "@" in rest[:end] or "@" not in resource:
            raise
        # The text of the error might quote a part of the password.
        raise InvalidURI("invalid WebSocket URI: a / or ? in the user or the password must be %-encoded") from None
    if not resource.startswith("/"):
        resource = f"/{resource}"
    return WebSocketURI(
        authority.host,
        authority.port,
        authority.user,
        authority.password,
        secure=scheme == "wss",
        resource=_in_ascii(resource),
    )


#: Cached: a program that opens many connections opens them to few servers.
_known_uri = functools.lru_cache(maxsize=64)(_parse_uri)


def parse_authority(text: str, default_port: int, kind: str) -> Authority:
    """Return the parts of ``user:password@host:port`` (RFC 3986 section 3.2).

    Raises:
        InvalidURI: A part is invalid. The text begins with ``invalid {kind}``, and contains neither user nor password.
    """
    credentials, at, place = text.rpartition("@")
    user = password = None
    if at:
        user, colon, secret = credentials.partition(":")
        user = _decoded(user, kind)
        password = _decoded(secret, kind) if colon else None
        if ":" in user:
            raise InvalidURI(f"invalid {kind}: a user name cannot contain a colon (RFC 7617 section 2)")
    host, port = _place(place, kind)
    return Authority(host, default_port if port is None else port, user, password)


def parse_host_name(text: str, kind: str) -> str:
    """Return a host that stands alone, as `Authority` has it. Brackets around an IPv6 address are optional.

    Raises:
        InvalidURI: It is neither a name nor an address. The text begins with ``invalid {kind}``.
    """
    return _host(f"[{text}]" if ":" in text and not text.startswith("[") else text, kind)


def host_for_url(host: str, *, zone: bool = False) -> str:
    """Return ``host`` with brackets if it is an IPv6 address, and with its zone if ``zone`` is true."""
    return f"[{host if zone else host.partition('%')[0]}]" if ":" in host else host


def basic_auth(user: str, password: str) -> str:
    """Return the value of ``Authorization`` for basic authentication (RFC 7617), in UTF-8."""
    return f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"


# --- parts ------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=64)
def _place(text: str, kind: str) -> tuple[str, int | None]:
    """Return host and port. Clients connect to few: they are kept, and no user or password with them."""
    host, port = _split_port(text, kind)
    return _host(host, kind), port


def _split_port(text: str, kind: str) -> tuple[str, int | None]:
    if text.startswith("["):
        host, bracket, rest = text.partition("]")
        if not bracket or rest[:1] not in ("", ":"):
            raise InvalidURI(f"invalid {kind}: expected [IPv6 address] or [IPv6 address]:port")
        host, port = host + bracket, rest[1:]
    else:
        host, _, port = text.partition(":")
        if ":" in port:
            raise InvalidURI(f"invalid {kind}: an IPv6 address must stand in brackets, such as [::1]")
    if not port:
        return host, None
    if not (port.isascii() and port.isdecimal() and len(port) <= 5 and 0 < int(port) <= 65535):
        raise InvalidURI(f"invalid {kind}: the port must be a number from 1 to 65535")
    return host, int(port)


def _host(text: str, kind: str) -> str:
    if not text:
        raise InvalidURI(f"invalid {kind}: it has no host")
    if text.startswith("[") and text.endswith("]"):
        return _ipv6(text[1:-1], kind)
    name = text.lower() if text.isascii() else _idna(text, kind)
    try:
        parse_host(name)
    except ValueError:
        raise InvalidURI(f"invalid {kind}: {text[:100]!r} is no host name") from None
    labels = name.removesuffix(".").split(".")
    last = labels[-1]
    if last.isdigit() or last.startswith("0x"):
        # Such names are addresses to resolvers: 127.1, 0x7f.1 and 2130706433 are 127.0.0.1.
        try:
            return str(ipaddress.IPv4Address(name))
        except ValueError:
            raise InvalidURI(f"invalid {kind}: {text[:100]!r} is no IPv4 address") from None
    if len(name) > _NAME_SIZE or not all(0 < len(label) <= _LABEL_SIZE for label in labels):
        raise InvalidURI(f"invalid {kind}: {text[:100]!r} is no host name: a label is empty or too long")
    return name


def _ipv6(text: str, kind: str) -> str:
    address, percent, zone = text.partition("%")
    if percent:
        zone = unquote(zone.removeprefix("25") or zone)
        if not (zone and _ZONE.issuperset(zone)):
            raise InvalidURI(f"invalid {kind}: invalid zone of an IPv6 address, expected such as [fe80::1%25eth0]")
    try:
        return str(ipaddress.IPv6Address(address)) + percent + zone
    except ValueError:
        raise InvalidURI(f"invalid {kind}: {address[:100]!r} is no IPv6 address") from None


def _idna(text: str, kind: str) -> str:
    if len(text) <= _NAME_SIZE:  # the codec takes quadratic time
        try:
            return text.encode("idna").decode().lower()
        except UnicodeError:
            pass
    raise InvalidURI(f"invalid {kind}: {text[:100]!r} is no host name in IDNA")


def _decoded(text: str, kind: str) -> str:
    """Return ``text`` without percent-encoding. An error does not quote it: it is secret."""
    for at, char in enumerate(text):
        if char == "%" and not (len(text) > at + 2 and _HEX.issuperset(text[at + 1 : at + 3])):
            raise InvalidURI(f"invalid {kind}: a % in the user or the password must be written as %25")
    try:
        decoded = unquote(text, errors="strict")
        decoded.encode()
    except UnicodeError:
        raise InvalidURI(f"invalid {kind}: the user or the password is not UTF-8") from None
    if any(char < " " or "\x7f" <= char <= "\x9f" for char in decoded):
        raise InvalidURI(f"invalid {kind}: the user or the password contains a control character")
    return decoded


def _in_ascii(resource: str) -> str:
    for char in resource:
        if char <= " " or char == "\x7f":
            what = "a space, write it as %20" if char == " " else "a control character"
            raise InvalidURI(f"invalid WebSocket URI: the path or the query contains {what}")
    if resource.isascii():
        return resource
    try:
        return quote(resource, safe=_KEPT)
    except UnicodeEncodeError:
        raise InvalidURI("invalid WebSocket URI: the path or the query contains a lone surrogate") from None


def _is_address(host: str) -> bool:
    return ":" in host or host.rpartition(".")[2].isdigit()
