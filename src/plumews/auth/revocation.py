"""Which tokens are no longer good although they were signed and have not expired (layer 2).

By user (the tokens issued until now) or by ``jti`` (RFC 7519 section 4.1.7). The clock is handed in. Invariants: what
was revoked is forgotten only when no such token can be valid any more; there is never more than ``max_entries`` of it;
who subscribed hears of each revocation once. Any thread may call: a step that has to be whole is one of a dict.
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
    """Revocation of the tokens of ``user_id`` issued until ``at``, or of the one token ``jti``.

    ``at`` is the second of the revocation since 1970. ``leeway`` is how many seconds the clocks of issuers may be ahead
    (default 0). Of ``user_id`` and ``jti`` one is ``None``.
    """

    user_id: str | None
    jti: str | None
    at: float
    leeway: float = 0.0

    def covers(self, claims: Mapping[str, Any]) -> bool:
        """Return whether a token with these ``claims`` is revoked. A token without an ``iat`` is."""
        return _covers(self, claims, self.leeway)


class Revocations:
    """The revoked tokens of this process; several authenticators may share one.

    ``token_life`` (seconds) is how long a token is good at most, from its ``iat`` to its ``exp``: a revocation is
    forgotten after that. With ``None`` (default) nothing is known of that, and the revocation of a user, or of a
    ``jti`` without an ``until``, is kept for as long as this object. ``max_entries`` bounds what is kept (default
    ``limits.REVOCATIONS``); ``clock`` returns the seconds since 1970.

    Raises ``ValueError`` for a ``token_life`` or ``max_entries`` that is not positive.
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
        self._kept: dict[tuple[str, str], tuple[Revocation, float]] = {}  # with the second when it may be forgotten
        self._subscribers: CallbackList[Callable[[Revocation], object]] = CallbackList()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {len(self._kept)}>"

    def __len__(self) -> int:
        return len(self._kept)

    def allow_leeway(self, leeway: float) -> None:
        """Count tokens as issued up to ``leeway`` seconds before their ``iat``, as clocks of issuers may be ahead.

        An authenticator calls this with its own leeway. Of several, the largest counts, also for earlier revocations.
        """
        self._leeway = max(self._leeway, leeway)

    def revoke_user(self, user_id: str) -> None:
        """Refuse the tokens of ``user_id`` (``sub``) that were issued (``iat``) until now; later ones are good.

        Times in tokens are whole seconds as a rule: one that is issued in this very second may be refused, too. So
        may one that is issued within the leeway of an authenticator from now: the issuer's clock may be ahead.
        Raises ``TypeError`` unless it is a ``str``, ``RevocationsFull`` as :meth:`revoke_token`.
        """
        self._revoke("user_id", user_id, Revocation(user_id, None, self._clock(), self._leeway), math.inf)

    def revoke_token(self, jti: str, until: float | None = None) -> None:
        """Refuse the token whose ``jti`` is this; ``until`` (its ``exp``) the revocation is kept.

        Raises ``TypeError`` unless ``jti`` is a ``str``, ``ValueError`` for an ``until`` that is no number, and
        ``RevocationsFull`` where no more can be kept: who subscribed has been told then, new connections are not
        refused.
        """
        if until is not None and (isinstance(until, bool) or not isinstance(until, (int, float)) or math.isnan(until)):
            raise ValueError(f"until must be a number of seconds since 1970, the exp of the token, not {until!r}")
        self._revoke("jti", jti, Revocation(None, jti, self._clock()), math.inf if until is None else until)

    def revoked(self, claims: Mapping[str, Any]) -> bool:
        """Whether a token with these ``claims`` is revoked."""
        kept = self._kept
        if not kept:
            return False
        for kind, name in (("user_id", claims.get("sub")), ("jti", claims.get("jti"))):
            entry = kept.get((kind, name)) if isinstance(name, str) else None
            if entry is not None and _covers(entry[0], claims, self._leeway):
                return True
        return False

    def subscribe(self, callback: Callable[[Revocation], object]) -> Callable[[], None]:
        """Have ``callback(revocation)`` called at each revocation, in the thread that revokes.

        Returns what ends that. An exception of ``callback`` reaches who revoked, when all have been told.
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
            except Exception as exc:  # noqa: PERF203 - one that fails must not keep it from the others
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
            # A token may be issued one leeway ahead of our clock, and is good for one leeway after its exp.
            over = revocation.at - 2 * self._leeway
            for old, (_, end) in list(self._kept.items()):
                if end < over:
                    self._kept.pop(old, None)
            if len(self._kept) >= self._max_entries:
                return False
        if kept is not None:  # the clock may have been set back: what was refused before stays refused
            revocation = max(revocation, kept[0], key=lambda one: one.at)
            until = max(until, kept[1])
        self._kept[key] = (revocation, until)
        return True


def _covers(revocation: Revocation, claims: Mapping[str, Any], leeway: float) -> bool:
    if revocation.jti is not None:
        return claims.get("jti") == revocation.jti
    return claims.get("sub") == revocation.user_id and not _issued(claims) > revocation.at + leeway


def _issued(claims: Mapping[str, Any]) -> float:
    """When a token was issued; not a number where it does not say so."""
    issued = claims.get("iat")
    number = isinstance(issued, (int, float)) and not isinstance(issued, bool) and -math.inf < issued < math.inf
    return issued if number else math.nan  # type: ignore[return-value]
