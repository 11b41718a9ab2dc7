"""Revocation of tokens before they expire: all tokens of a user until now, or one token by ``jti``.

RFC 7519 section 4.1.7. The clock is passed in. A revocation is forgotten only when no token that it covers can be valid
any more, and at most ``max_entries`` are kept. Each subscriber is called once for each revocation. Any thread may call:
steps that must be atomic are single operations on a dict.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .. import limits
from ..callback_list import CallbackList
from ..errors import RevocationsFull

__all__ = ["Revocation", "Revocations"]


@dataclass(frozen=True, slots=True)
class Revocation:
    """Revocation of the tokens of a user issued until a point in time, or of one token.

    Args:
        user_id: ``sub`` of the revoked tokens, or None for a revocation by ``jti``.
        jti: ``jti`` of the revoked token, or None for a revocation by user.
        at: time of the revocation, in seconds since 1970.
        leeway: seconds by which the clocks of issuers may be ahead (default 0).
    """

    user_id: str | None
    jti: str | None
    at: float
    leeway: float = 0.0

    def covers(self, claims: Mapping[str, Any]) -> bool:
        """Return whether this revokes a token with these ``claims``. A token of the user without ``iat`` is revoked."""
        return _covers(self, claims, self.leeway)


class Revocations:
    """Revoked tokens of this process. Several authenticators may share one object.

    Args:
        token_life: seconds from ``iat`` to ``exp`` of the longest-lived token. Revocations are forgotten after that
            time, and tokens that may live longer are refused. With None (default) the revocation of a user, or of a
            ``jti`` without ``until``, is kept for the lifetime of this object.
        max_entries: most revocations to keep (default ``limits.REVOCATIONS``, 100,000).
        clock: returns the seconds since 1970.

    Raises:
        ValueError: ``token_life`` or ``max_entries`` is not positive.
    """

    def __init__(
        self,
        *,
        token_life: float | None = None,
        max_entries: int = limits.REVOCATIONS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if token_life is not None and not (math.isfinite(token_life) and token_life > 0):
            raise ValueError(f"token_life must be more than 0 seconds, or None, not {token_life}")
        if max_entries < 1:
            raise ValueError(f"max_entries must be 1 or more (the default is {limits.REVOCATIONS}), not {max_entries}")
        self.token_life = token_life
        self._leeway = 0.0
        self._max_entries = max_entries
        self._clock = clock
        self._kept: dict[tuple[str, str], tuple[Revocation, float]] = {}  # with the time when it may be forgotten
        self._subscribers: CallbackList[Callable[[Revocation], object]] = CallbackList()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {len(self._kept)}>"

    def __len__(self) -> int:
        return len(self._kept)

    def allow_leeway(self, leeway: float) -> None:
        """Count tokens as issued up to ``leeway`` seconds before their ``iat``, because issuers' clocks may be ahead.

        An authenticator calls this with its own leeway. The largest leeway counts, also for earlier revocations.
        """
        self._leeway = max(self._leeway, leeway)

    def revoke_user(self, user_id: str) -> None:
        """Refuse the tokens of a user that were issued until now. Later tokens stay valid.

        Times in tokens are usually whole seconds, so a token issued in the current second may be refused, too. The
        same holds for a token issued within the leeway of an authenticator from now, because the issuer's clock may be
        ahead.

        Args:
            user_id: ``sub`` of the tokens.

        Raises:
            TypeError: ``user_id`` is not a ``str``.
            RevocationsFull: as in :meth:`revoke_token`.
        """
        self._revoke("user_id", user_id, Revocation(user_id, None, self._clock(), self._leeway), math.inf)

    def revoke_token(self, jti: str, until: float | None = None) -> None:
        """Refuse one token.

        Args:
            jti: ``jti`` of the token.
            until: ``exp`` of the token, in seconds since 1970. The revocation may be forgotten after it (default
                None: never).

        Raises:
            TypeError: ``jti`` is not a ``str``.
            ValueError: ``until`` is not a number.
            RevocationsFull: ``max_entries`` revocations are kept already. Subscribers have been called, so live
                connections end, but new connections are not refused.
        """
        if until is not None and (isinstance(until, bool) or not isinstance(until, (int, float)) or math.isnan(until)):
            raise ValueError(f"until must be a number of seconds since 1970, the exp of the token, not {until!r}")
        self._revoke("jti", jti, Revocation(None, jti, self._clock()), math.inf if until is None else until)

    def revoked(self, claims: Mapping[str, Any]) -> bool:
        """Return whether a token with these ``claims`` is revoked."""
        kept = self._kept
        if not kept:
            return False
        for kind, name in (("user_id", claims.get("sub")), ("jti", claims.get("jti"))):
            entry = kept.get((kind, name)) if isinstance(name, str) else None
            if entry is not None and _covers(entry[0], claims, self._leeway):
                return True
        return False

    def subscribe(self, callback: Callable[[Revocation], object]) -> Callable[[], None]:
        """Call ``callback(revocation)`` at each revocation, in the thread that revokes.

        Args:
            callback: plain function. Its exception is raised by the revoking call after all subscribers were called.

        Returns:
            A function that ends the subscription.
        """
        return self._subscribers.add(callback)

    def _revoke(self, kind: str, name: str, revocation: Revocation, until: float) -> None:
        if not isinstance(name, str):
            raise TypeError(f"{kind} must be a str, as in the token, not {type(name).__name__}")
        if self.token_life is not None:
            until = min(until, revocation.at + self.token_life)
        full = not self._keep((kind, name), revocation, until)
        failure: Exception | None = None
        for callback in self._subscribers:
            try:
                callback(revocation)
            except Exception as exc:  # noqa: PERF203 - a failing subscriber must not keep the revocation from the others
                failure = failure or exc
        if full:
            raise RevocationsFull(
                f"{self._max_entries} revocations are kept, which is the bound; max_entries raises it, "
                "and with token_life the old ones are forgotten"
            ) from failure
        if failure is not None:
            raise failure

    def _keep(self, key: tuple[str, str], revocation: Revocation, until: float) -> bool:
        kept = self._kept.get(key)
        if kept is None and len(self._kept) >= self._max_entries:
            # A token may be issued one leeway ahead of our clock, and is valid for one leeway after its exp.
            over = revocation.at - 2 * self._leeway
            for old, (_, end) in list(self._kept.items()):
                if end < over:
                    self._kept.pop(old, None)
            if len(self._kept) >= self._max_entries:
                return False
        if kept is not None:  # the clock may have been set back, and no refused token becomes valid again
            revocation = max(revocation, kept[0], key=lambda one: one.at)
            until = max(until, kept[1])
        self._kept[key] = (revocation, until)
        return True


def _covers(revocation: Revocation, claims: Mapping[str, Any], leeway: float) -> bool:
    if revocation.jti is not None:
        return claims.get("jti") == revocation.jti
    return claims.get("sub") == revocation.user_id and not _issued(claims) > revocation.at + leeway


def _issued(claims: Mapping[str, Any]) -> float:
    """Return when a token was issued, or NaN without a usable ``iat``."""
    issued = claims.get("iat")
    number = isinstance(issued, (int, float)) and not isinstance(issued, bool) and -math.inf < issued < math.inf
    return issued if number else math.nan  # type: ignore[return-value]
