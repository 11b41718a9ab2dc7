"""Proxies of a client: which one a URI goes through, and the HTTP method CONNECT (RFC 9110 section 9.3.6). No I/O.

Invariants: credentials of a proxy stand in no error text and no ``repr``. Loopback is never reached through a proxy
that only the environment names. Bytes behind the reply to CONNECT belong to the tunnel.
"""

from __future__ import annotations

import functools
import ipaddress
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from ..errors import InvalidMessage, InvalidURI, ProxyError
from ..http11.models import Response
from ..http11.response_parser import ResponseReader
from ..rate_limit import parse_address
from .uri import Authority, WebSocketURI, parse_authority

__all__ = ["NoProxy", "Proxy", "Tunnel", "is_loopback", "parse_proxy", "proxy_for"]

logger = logging.getLogger("plumews.client")

#: Default ports of the schemes of proxies (RFC 9110 section 4.2, RFC 1928 section 3).
_PORTS: Final = {"http": 80, "https": 443, "socks4": 1080, "socks4a": 1080, "socks5": 1080, "socks5h": 1080}

#: Interim responses that a proxy may send before its reply.
_INTERIM: Final = 8


@dataclass(frozen=True, slots=True, repr=False)
class Proxy(Authority):
    """Proxy by its URL, such as ``http://user:password@proxy.example:3128``.

    Args:
        scheme: ``http``, ``https`` (TLS to the proxy), ``socks4``, ``socks4a``, ``socks5`` or ``socks5h``. The proxy
            resolves names for ``socks4a`` and ``socks5h``.
    """

    scheme: str = field(default="http", kw_only=True)

    @property
    def secure(self) -> bool:
        """True if the client speaks TLS to the proxy."""
        return self.scheme == "https"

    @property
    def socks(self) -> bool:
        """True for a SOCKS proxy."""
        return self.scheme.startswith("socks")

    @property
    def resolves(self) -> bool:
        """True if the proxy resolves names itself."""
        return self.scheme not in ("socks4", "socks5")

    def __str__(self) -> str:
        return f"{self.scheme}://{Authority.__str__(self)}"


def parse_proxy(text: str) -> Proxy:
    """Return the proxy at a URL. Without a scheme it is an ``http`` proxy.

    Raises:
        InvalidURI: The URL is malformed, or its scheme is not supported. The text does not contain the credentials.
        TypeError: ``text`` is no ``str``.
    """
    if not isinstance(text, str):
        raise TypeError(f"the URL of a proxy is a str, not {type(text).__name__}")
    scheme, separator, rest = text.partition("://")
    scheme, rest = (scheme.lower(), rest) if separator else ("http", text)
    if scheme not in _PORTS:
        raise InvalidURI(f"invalid proxy URL: the scheme must be one of {', '.join(_PORTS)}")
    place = rest.removesuffix("/")
    if any(char in place for char in "/?#"):
        raise InvalidURI("invalid proxy URL: a path is not allowed, and / ? # in a password must be %-encoded")
    authority = parse_authority(place, _PORTS[scheme], "proxy URL")
    return Proxy(authority.host, authority.port, authority.user, authority.password, scheme=scheme)


def proxy_for(
    uri: WebSocketURI, proxy: str | Literal[True] | None = True, environ: Mapping[str, str] = os.environ
) -> Proxy | None:
    """Return the proxy for a URI, or ``None`` for a direct connection.

    Args:
        uri: URI to connect to.
        proxy: URL of the proxy, True for that of the environment (default), or ``None`` for none.
        environ: Environment. ``HTTPS_PROXY`` is for ``wss``, ``HTTP_PROXY`` for ``ws``, ``ALL_PROXY`` for both.
            ``NO_PROXY`` lists exceptions, see `NoProxy`. Names in lower case come first. ``HTTP_PROXY`` in capitals is
            ignored in a CGI program, where a client can set it.

    Raises:
        InvalidURI: The URL is malformed. The text names the variable.
        TypeError: ``proxy`` has another type.
    """
    if proxy is None:
        return None
    if proxy is not True:
        if not isinstance(proxy, str):
            raise TypeError(f"proxy must be the URL of a proxy, True or None, not {proxy!r}")
        return parse_proxy(proxy)
    if not environ or is_loopback(uri.host):
        return None
    name, url = _variable(environ, "https_proxy" if uri.secure else "http_proxy")
    if not url:
        name, url = _variable(environ, "all_proxy")
    if not url or _no_proxy(_variable(environ, "no_proxy")[1]).matches(uri.host, uri.port):
        return None
    try:
        return parse_proxy(url)
    except InvalidURI as exc:
        raise InvalidURI(f"{exc} (environment variable {name})") from None


def _variable(environ: Mapping[str, str], name: str) -> tuple[str, str]:
    lower = environ.get(name, "").strip()
    if lower:
        return name, lower
    name = name.upper()
    if name == "HTTP_PROXY" and "REQUEST_METHOD" in environ:
        return name, ""
    return name, environ.get(name, "").strip()


@functools.lru_cache(maxsize=64)
def is_loopback(host: str) -> bool:
    """Return True for ``localhost``, names below it (RFC 6761 section 6.3), and loopback addresses."""
    name = host.removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = parse_address(host)
    return address is not None and address.is_loopback


# --- exceptions -------------------------------------------------------------------------------------


class NoProxy:
    """Exceptions from the proxies of the environment, as ``NO_PROXY`` lists them.

    Entries are separated by commas or blanks:

    - ``*``: all hosts.
    - ``example.com``, ``.example.com`` or ``*.example.com``: this name and the names below it, not
      ``notexample.com``.
    - ``10.0.0.1``, ``::1`` or ``[::1]``: this address.
    - ``10.0.0.0/8`` or ``fd00::/8``: the addresses of this network. Names are not resolved.
    - A port behind a name or an address, such as ``example.com:8443`` or ``[::1]:8443``: on this port alone.

    A malformed entry is ignored, with one warning in the log ``plumews.client``.
    """

    __slots__ = ("_entries",)

    def __init__(self, text: str) -> None:
        self._entries = []
        for word in text.replace(",", " ").split():
            entry = _entry(word.lower())
            if entry is None:
                logger.warning("entry ignored in NO_PROXY: %s is no name, address or network", ascii(word[:100]))
            else:
                self._entries.append(entry)

    def matches(self, host: str, port: int) -> bool:
        """Return True if ``host`` is reached without a proxy on ``port``."""
        address = parse_address(host.partition("%")[0])
        name = host.removesuffix(".")
        for pattern, only in self._entries:
            if only is not None and only != port:
                continue
            if isinstance(pattern, str):
                if not pattern or (address is None and (name == pattern or name.endswith(f".{pattern}"))):
                    return True
            elif address is not None and address in pattern:
                return True
        return False


def _entry(text: str) -> tuple[str | ipaddress.IPv4Network | ipaddress.IPv6Network, int | None] | None:
    """Return the name, "" for all, or the network of an entry, and its port. Return ``None`` if it is malformed."""
    if text == "*":
        return "", None
    if "/" in text or (text.count(":") > 1 and not text.startswith("[")):
        try:
            return ipaddress.ip_network(text, strict=False), None
        except ValueError:
            return None
    try:
        authority = parse_authority(text.removeprefix("*").removeprefix("."), 0, "entry")
    except InvalidURI:
        return None
    address = parse_address(authority.host)
    pattern = authority.host.removesuffix(".") if address is None else ipaddress.ip_network(address)
    return None if authority.user is not None else (pattern, authority.port or None)


#: Cached: it is parsed once, and warns once.
_no_proxy = functools.lru_cache(maxsize=8)(NoProxy)


# --- CONNECT ----------------------------------------------------------------------------------------


class Tunnel:
    """Opening of a tunnel through an HTTP proxy by CONNECT (RFC 9110 section 9.3.6).

    Any 2xx opens the tunnel, whatever lengths its headers name. Interim responses are passed over, eight at most.

    Args:
        target: Host and port behind the proxy.
        proxy: Proxy, whose credentials are sent as basic authentication.
        user_agent: Value of ``User-Agent``, or ``None``.

    Attributes:
        request: Bytes to send.
        rest: Bytes behind the reply, which belong to the tunnel, once it is open.
    """

    __slots__ = ("_interim", "_proxy", "_reader", "request", "rest")

    def __init__(self, target: Authority, proxy: Proxy, user_agent: str | None = None) -> None:
        lines = [f"CONNECT {target.netloc} HTTP/1.1", f"Host: {target.netloc}"]
        if proxy.authorization is not None:
            lines.append(f"Proxy-Authorization: {proxy.authorization}")
        if user_agent is not None:
            lines.append(f"User-Agent: {user_agent}")
        self.request = "\r\n".join([*lines, "", ""]).encode("latin-1")
        self.rest = b""
        self._proxy = proxy
        self._reader = ResponseReader(tunnel=True)
        self._interim = _INTERIM

    def feed(self, data: bytes) -> bool:
        """Read bytes of the proxy. Return True once the tunnel is open.

        Raises:
            ProxyError: The proxy refused, with its status, or the reply is malformed or too large.
        """
        while True:
            try:
                reply = self._reader.feed(data)
            except InvalidMessage as exc:
                raise ProxyError(str(self._proxy), f"malformed reply: {exc}") from exc
            if reply is None:
                return False
            data = self._reader.rest
            if not self._is_interim(reply):
                break
            self._interim -= 1
            self._reader = ResponseReader(tunnel=True)
            if not data:
                return False
        if not 200 <= reply.status < 300:
            raise self._refusal(reply)
        self.rest = data
        return True

    def feed_eof(self) -> ProxyError:
        """Return the error of a proxy that closed the connection before its reply was complete."""
        return ProxyError(str(self._proxy), "the proxy closed the connection before its reply")

    def _is_interim(self, reply: Response) -> bool:
        return 100 <= reply.status < 200 and reply.status != 101 and self._interim > 0

    def _refusal(self, reply: Response) -> ProxyError:
        detail = f"the proxy refused: {reply.status} {reply.reason[:100]}".rstrip()
        if reply.status == 407:
            given = "rejects the credentials" if self._proxy.user is not None else "requires user and password"
            detail = f"the proxy {given}: 407"
        return ProxyError(str(self._proxy), detail, reply.status, tuple(reply.headers.raw_items()))
