"""Redirects of the opening handshake (RFC 9110 section 15.4), without I/O.

Invariants: a redirect never leads from ``wss`` to ``ws``. Credentials are sent to the first origin alone. The number of
redirects of one attempt is bounded.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final
from urllib.parse import urljoin

from ..errors import InvalidURI, RedirectError
from .uri import WebSocketURI, parse_uri

__all__ = ["REDIRECTS", "REDIRECT_STATUSES", "Redirects"]

#: Redirects that are followed in one attempt.
REDIRECTS: Final = 10

#: Statuses that are followed.
REDIRECT_STATUSES: Final = frozenset({301, 302, 303, 307, 308})
_PERMANENT: Final = frozenset({301, 308})

#: Headers that are sent to the first origin alone, in lower case.
_OF_ORIGIN: Final = frozenset({"authorization", "cookie", "host"})

_LOCATION_SIZE: Final = 8192
_TO_WEBSOCKET: Final = {"http": "ws", "https": "wss"}


class Redirects:
    """Redirects of one client, over all its attempts.

    An attempt begins at the original URI. After permanent redirects (301, 308) it begins at their target, until an
    attempt fails there.

    Args:
        uri: Original URI.
    """

    __slots__ = ("_followed", "_only_permanent", "_start", "current", "is_kept", "original")

    def __init__(self, uri: WebSocketURI) -> None:
        #: URI that the application gave.
        self.original = uri
        #: URI of the next request.
        self.current = uri
        #: True if this attempt began at the target of permanent redirects.
        self.is_kept = False
        self._start = uri
        self._followed = 0
        self._only_permanent = True

    @property
    def sends_credentials(self) -> bool:
        """True if the next request goes to the first origin: ``Authorization`` and ``Cookie`` may be sent."""
        return self.current.origin == self.original.origin

    def headers(self, pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return the headers of the next request: another origin gets no ``Authorization``, ``Cookie`` and ``Host``."""
        if self.sends_credentials:
            return list(pairs)
        return [(name, value) for name, value in pairs if name.lower() not in _OF_ORIGIN]

    def follow(self, status: int, locations: list[str]) -> WebSocketURI:
        """Follow a redirect. Return the URI of the next request.

        The credentials of the original URI stay those of its origin. A target cannot bring its own.

        Args:
            status: One of `REDIRECT_STATUSES`.
            locations: Values of ``Location``.

        Raises:
            RedirectError: There were 10 redirects, the target is ``ws`` after ``wss``, or ``Location`` is missing,
                repeated or malformed.
        """
        here = str(self.current)
        if self._followed == REDIRECTS:
            raise RedirectError(here, f"more than {REDIRECTS} redirects", status)
        if len(locations) != 1:
            raise RedirectError(here, f"the response has {len(locations)} Location headers, expected one", status)
        target = self._target(locations[0].strip(), here, status)
        if self.current.secure and not target.secure:
            raise RedirectError(here, f"the redirect from wss to {target} is not followed", status)
        self._followed += 1
        self._only_permanent = self._only_permanent and status in _PERMANENT
        self.current = target
        if self._only_permanent:
            self._start = target
        return target

    def begin(self) -> WebSocketURI:
        """Begin the next attempt. Return the URI of its first request."""
        self._followed = 0
        self._only_permanent = True
        self.current = self._start
        self.is_kept = self._start is not self.original
        return self._start

    def forget(self) -> None:
        """Begin the next attempt at the original URI."""
        self._start = self.original

    def _target(self, location: str, here: str, status: int) -> WebSocketURI:
        if len(location) > _LOCATION_SIZE:
            raise RedirectError(here, f"the Location header exceeds {_LOCATION_SIZE} characters", status)
        try:
            # A Location header in Latin-1 may be UTF-8.
            joined = urljoin(self.current.url, location.encode("latin-1").decode(errors="surrogateescape"))
            scheme, separator, rest = joined.partition("://")
            scheme = scheme.lower()
            uri = parse_uri(f"{_TO_WEBSOCKET.get(scheme, scheme)}{separator}{rest.partition('#')[0]}")
        except ValueError as exc:
            detail = str(exc) if isinstance(exc, InvalidURI) else "malformed"
            raise RedirectError(here, f"invalid Location header: {detail}", status) from None
        same = uri.origin == self.original.origin
        user, password = (self.original.user, self.original.password) if same else (None, None)
        return replace(uri, user=user, password=password)
