"""Checks of the ``Origin`` and ``Host`` headers.

A browser sends the origin of the page with the handshake, together with the cookies of the *server*: without a check
any site could act as its visitor (RFC 6455 section 10.2, RFC 6454). With DNS rebinding, the name of a site resolves to
127.0.0.1, and its page reaches a local server, with the name of the site as ``Host``. Invariant: comparison is exact,
on scheme, host and port, or a pattern matches the whole origin.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Final, NamedTuple, TypeAlias

from ..constants import ErrorCode
from ..errors import InvalidHeader, InvalidOrigin
from ..rate_limit import parse_address
from ..validation import entries_of
from .headers import parse_host
from .redaction import quoted
from .request import Request

__all__ = [
    "LOOPBACK_HOSTS",
    "AllowedOrigin",
    "Origin",
    "allowed_hosts",
    "allowed_origins",
    "check_host",
    "check_origin",
    "is_loopback",
    "parse_origin",
    "seen_by_refusal",
]

#: Names of this machine. RFC 6761 section 6.3 reserves ``localhost`` and all names below it.
LOOPBACK_HOSTS: Final = ("localhost", "*.localhost", "127.0.0.1", "::1")

#: Entry of the option ``origins``.
AllowedOrigin: TypeAlias = "str | re.Pattern[str] | None"

_ANY: Final = "*"

#: Most characters of an origin: a scheme, a name of 253 characters (RFC 1035 section 2.3.4), and a port.
_LONGEST: Final = 270
_ORIGIN: Final = "http:// or https://, a host and maybe a port"
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}

#: Invalid parts of an origin that may be secrets: user and password before the host, query and fragment.
_USER: Final = re.compile(r"^([A-Za-z]+://)?.*@")
_QUERY: Final = re.compile(r"[?#].*")


class Origin(NamedTuple):
    """Normalised origin (RFC 6454 section 4)."""

    scheme: str
    host: str
    port: int


def parse_origin(text: str) -> Origin:
    """Parse an origin such as ``https://example.com`` or ``http://example.com:8080`` (RFC 6454 section 6.1).

    Case and the default port make no difference. Raise ``ValueError`` for anything but a scheme (``http`` or
    ``https``), a host in ASCII, and an optional port. ``null``, user names, paths and a trailing slash are invalid.
    """
    scheme, separator, authority = text.partition("://")
    default_port = _DEFAULT_PORTS.get(scheme.lower())
    if not separator or default_port is None:
        raise ValueError(f"invalid origin {text!r}: expected {_ORIGIN}")
    try:
        host, port = parse_host(authority)
    except ValueError:
        raise ValueError(f"invalid origin {text!r}: expected {_ORIGIN}, without a slash behind it or a *") from None
    return Origin(scheme.lower(), host, default_port if port is None else port)


def check_origin(
    request: Request, allowed: Collection[AllowedOrigin] | None, secure: bool, required: bool = False
) -> None:
    """Raise unless the request has no ``Origin``, the server's own, or an ``allowed`` one.

    The server's own host is the one that the outermost trusted proxy was asked for, or else that of ``Host``. True for
    ``secure`` means that the client of that proxy uses TLS. With ``required`` a request must have an ``Origin``, for
    servers that authenticate by cookie. ``"null"`` is the origin of sandboxed pages and files.

    Raises:
        InvalidOrigin: 403, the origin is not allowed.
        InvalidHeader: 400, there are two ``Origin`` headers.
    """
    values = request._values_of(b"origin")
    if len(values) > 1:
        raise InvalidHeader("more than one Origin header")
    if not values:
        if required:
            raise InvalidOrigin("forbidden origin")
        return
    if allowed is not None and (_ANY in allowed or (values[0] == "null" and "null" in allowed)):
        return
    origin, own = _origin_or_none(values[0]), _origin_or_none(_own_origin(request, secure))
    if origin is None or not (origin == own or _is_listed(origin, values[0], allowed or ())):
        raise InvalidOrigin("forbidden origin")


def _origin_or_none(text: str | None) -> Origin | None:
    try:
        origin = None if text is None else parse_origin(text)
    except ValueError:
        origin = None
    return origin


def _own_origin(request: Request, secure: bool) -> str | None:
    hosts = [request.forwarded_host] if request.forwarded_host else request._values_of(b"host")
    return f"{'https' if secure else 'http'}://{hosts[0]}" if len(hosts) == 1 else None


def _is_listed(origin: Origin, text: str, allowed: Collection[AllowedOrigin]) -> bool:
    for entry in allowed:
        if isinstance(entry, re.Pattern):
            if len(text) <= _LONGEST and entry.fullmatch(text.lower()):
                return True
        elif _origin_or_none(entry) == origin:
            return True
    return False


def check_host(request: Request, allowed_hosts: Collection[str] | None) -> None:
    """Raise unless the ``Host`` header names one of ``allowed_hosts``, with any port. ``None`` checks nothing.

    The ``Host`` header decides, and not what proxies say: a page cannot set it. A request of HTTP/1.0 may have no
    ``Host``: browsers do not send such requests.

    Raises:
        InvalidHeader: 403, the host is not allowed. 400, there is not exactly one valid ``Host`` header.
    """
    if allowed_hosts is None or _ANY in allowed_hosts:
        return
    hosts = request._values_of(b"host")
    if not hosts and request.http_version == "1.0":
        return
    if len(hosts) != 1:
        raise InvalidHeader("exactly one Host header required")
    try:
        host, _ = parse_host(hosts[0])
    except ValueError:
        raise InvalidHeader("invalid Host header: expected a name or an address, and maybe a port") from None
    if host not in allowed_hosts and not _is_named(host, allowed_hosts):
        raise InvalidHeader("forbidden host", status=403, code=ErrorCode.FORBIDDEN_HOST)


def seen_by_refusal(request: Request, code: str) -> str:
    """Return the origin or host that a refusal with ``code`` compared, for the log. Return "" for other codes.

    The client is not told: the names of this server are not for pages of other sites.
    """
    if code == InvalidOrigin.code:
        page = request.headers.get("Origin")
        own = _own_origin(request, request.secure)
        shown = "no origin" if page is None else quoted(_USER.sub(r"\1", _QUERY.sub("", page), count=1))
        return f"a page of {shown}, and this is {quoted(own)}"
    if code == ErrorCode.FORBIDDEN_HOST:
        return f"as {quoted(request.headers.get('Host'))}"
    return ""


def _is_named(host: str, allowed_hosts: Collection[str]) -> bool:
    """Return True if an entry names ``host`` in another case, in brackets, or by a pattern such as ``*.localhost``."""
    for entry in map(str.lower, allowed_hosts):
        if host.endswith(entry[1:]) if entry.startswith("*.") else host == entry.strip("[]"):
            return True
    return False


def allowed_origins(given: Iterable[AllowedOrigin] | None) -> tuple[AllowedOrigin, ...] | None:
    """Return the entries of the option ``origins``. Raise ``ValueError`` for an entry that can never match."""
    if given is None:
        return None
    kinds = (str, re.Pattern, type(None))
    entries = entries_of("origins", given, '"https://example.com"', kinds, "str, patterns (re.compile) and None")
    for entry in entries:
        if isinstance(entry, re.Pattern):
            if not isinstance(entry.pattern, str):
                raise TypeError(f"origins: a pattern must be one of str, not of bytes: {entry.pattern!r}")
        elif entry is not None and entry not in ("null", _ANY):
            parse_origin(entry)
    return entries


def allowed_hosts(given: Iterable[str] | None) -> tuple[str, ...] | None:
    """Return the entries of the option ``allowed_hosts``. Raise as :func:`allowed_origins`, and for an empty list."""
    if given is None:
        return None
    entries = entries_of("allowed_hosts", given, '"example.com"')
    if not entries:
        raise ValueError('allowed_hosts must have an entry, or nobody could come in: "*" is any host')
    for host in entries:
        label = host.removeprefix("*.")
        if ":" in label and not label.startswith("["):
            label = f"[{label}]"  # an IPv6 address
        try:
            valid = host == _ANY or parse_host(label)[1] is None
        except ValueError:
            valid = False
        if not valid:
            raise ValueError(f"invalid allowed host {host!r}: expected a name or an address, without a port")
    return entries


def is_loopback(host: str) -> bool:
    """Return True if ``host``, a name or an address as given to ``bind``, is the loopback interface."""
    name = host.lower().strip("[]")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = parse_address(name)
    return address is not None and address.is_loopback
