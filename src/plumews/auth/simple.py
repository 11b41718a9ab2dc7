"""Tokens and room passwords in one object.

``SimpleRoomAuth`` combines ``HS256TokenAuth`` and ``RoomPasswords``. ``SecureRoomAuth`` adds rules for secrets and
passwords, and counters. Every method may be called from any thread.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from .. import limits
from ..errors import InvalidToken, WeakSecret
from ..validation import check_time
from .passwords import PasswordStrength, RoomPasswords, validate_room_password
from .revocation import Revocations
from .tokens import HS256TokenAuth, Secret, Secrets

__all__ = ["AuthMetrics", "SecureRoomAuth", "SimpleRoomAuth"]

logger = logging.getLogger("plumews.auth")

#: Words that typed secrets contain, and lists of guesses as well.
_WEAK_WORDS: Final = (b"secret", b"password", b"123456")


class SimpleRoomAuth:
    """Room passwords, and tokens signed with HS256.

    Its parts are ``tokens`` (None without a secret) and ``passwords``. It has the methods of both.

    Args:
        secret: secret that signs the tokens, 32 bytes or more, or a mapping ``{kid: secret}``, as in
            :class:`HS256TokenAuth`. None (default) means passwords only.
        issuer, audience: as in :class:`HS256TokenAuth`.
        leeway: seconds by which clocks may differ (default 0).
        require_exp: True refuses tokens that never expire (default False).
        revocations: revocations to share with other authenticators (default: its own).
        rounds: work for one password, as in :class:`RoomPasswords` (default 210,000).
        clock: returns the seconds since 1970.

    Raises:
        WeakSecret: a secret is too short, or is a key that others may know.
        TypeError: an argument is of the wrong type.
        ValueError: ``leeway``, ``rounds`` or a ``kid`` is out of range.
    """

    def __init__(
        self,
        secret: Secrets | None = None,
        *,
        issuer: str | None = None,
        audience: str | None = None,
        leeway: float = 0.0,
        require_exp: bool = False,
        revocations: Revocations | None = None,
        rounds: int = limits.PASSWORD_ROUNDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.revocations = Revocations(clock=clock) if revocations is None else revocations
        check_time("leeway", leeway, zero=True)
        self.revocations.allow_leeway(leeway)
        self._leeway = leeway
        self._clock = clock
        self.passwords = RoomPasswords(rounds=rounds)
        self.tokens: HS256TokenAuth | None = None
        if secret is not None:
            self.tokens = HS256TokenAuth(
                secret,
                issuer=issuer,
                audience=audience,
                leeway=leeway,
                require_exp=require_exp,
                revocations=self.revocations,
                clock=clock,
            )

    def __repr__(self) -> str:
        tokens = "no tokens" if self.tokens is None else "tokens"
        return f"<{type(self).__name__}: {tokens}, {len(self.passwords)} room passwords>"

    # --- tokens -----------------------------------------------------------------------------------

    @property
    def leeway(self) -> float:
        """Seconds by which clocks may differ."""
        return self._leeway

    def verify_jwt(self, token: str | bytes) -> dict[str, Any]:
        """Return the claims of a valid token, as :meth:`HS256TokenAuth.verify_jwt` does."""
        return self._tokens().verify_jwt(token)

    def seconds_left(self, claims: Mapping[str, Any]) -> float | None:
        """Return how many seconds a token is still valid, as :meth:`HS256TokenAuth.seconds_left` does.

        It works without a secret, too: a subclass that verifies tokens of another kind has claims.
        """
        if self.tokens is not None:
            return self.tokens.seconds_left(claims)
        exp = claims.get("exp")
        return None if exp is None else float(exp) + self._leeway - self._clock()

    def add_key(self, kid: str, secret: Secret, *, current: bool = False) -> None:
        """Accept another key, as :meth:`HS256TokenAuth.add_key` does. Raise ``InvalidToken`` without a secret."""
        self._tokens().add_key(kid, secret, current=current)

    def remove_key(self, kid: str | None) -> None:
        """Refuse a key from now on, as :meth:`HS256TokenAuth.remove_key` does."""
        self._tokens().remove_key(kid)

    def signs_with(self, secret: Secret) -> bool:
        """Return whether ``secret`` is one of the keys. Return False if there are none."""
        return self.tokens is not None and self.tokens.signs_with(secret)

    def revoke_user(self, user_id: str) -> None:
        """Refuse the tokens issued to this user until now, as :meth:`Revocations.revoke_user` does."""
        self.revocations.revoke_user(user_id)

    def revoke_token(self, jti: str, until: float | None = None) -> None:
        """Refuse the token of this ``jti``, as :meth:`Revocations.revoke_token` does."""
        self.revocations.revoke_token(jti, until)

    def _tokens(self) -> HS256TokenAuth:
        if self.tokens is None:
            raise InvalidToken("tokens cannot be checked, no secret configured")
        return self.tokens

    # --- passwords --------------------------------------------------------------------------------

    def set_room_password(self, room: str, password: str) -> None:
        """Protect ``room`` with ``password``. Slow, as :meth:`RoomPasswords.set_room_password` is."""
        self.passwords.set_room_password(room, password)

    def set_room_password_hash(self, room: str, text: str) -> None:
        """Protect ``room`` with a known hash, as :meth:`RoomPasswords.set_room_password_hash` does."""
        self.passwords.set_room_password_hash(room, text)

    def room_password_hash(self, room: str) -> str | None:
        """Return the hash of the room's password as text, or None, as :meth:`RoomPasswords.room_password_hash` does."""
        return self.passwords.room_password_hash(room)

    def remove_room_password(self, room: str) -> None:
        """Open ``room`` to everybody. Do nothing if it has no password."""
        self.passwords.remove_room_password(room)

    def has_room_password(self, room: str) -> bool:
        """Return whether ``room`` has a password."""
        return self.passwords.has_room_password(room)

    def room_password_salt(self, room: str) -> bytes | None:
        """Return bytes that change with the password of ``room``. Return None without a password."""
        return self.passwords.room_password_salt(room)

    def check_room_password(self, room: str, password: str | None) -> bool:
        """Return whether ``password`` opens ``room``. Slow, as :meth:`RoomPasswords.check_room_password` is."""
        return self.passwords.check_room_password(room, password)


@dataclass(slots=True)
class AuthMetrics:
    """Counters of one :class:`SecureRoomAuth`.

    Args:
        jwt_verification_failures: tokens refused.
        weak_room_passwords: passwords refused as empty or easy to guess when they were set.
        successful_authentications: valid tokens, and right passwords of protected rooms. Passwords that a server
            remembers as right are not checked again and not counted.
    """

    jwt_verification_failures: int = 0
    weak_room_passwords: int = 0
    successful_authentications: int = 0


class SecureRoomAuth(SimpleRoomAuth):
    """``SimpleRoomAuth`` that requires long secrets and strong room passwords, and counts.

    Args:
        secret: as in :class:`SimpleRoomAuth`, but required. A common word in it is logged as a warning.
        min_secret_length: bytes that each secret must have (default 32, the least).
        password_strength: rules for room passwords (default ``PasswordStrength()``).
        allow_weak_room_passwords: True skips the rules for room passwords (default False).
        options: other arguments of :class:`SimpleRoomAuth`.

    Raises:
        WeakSecret: a secret is too short.
        TypeError, ValueError: as in :class:`SimpleRoomAuth`.
    """

    def __init__(
        self,
        secret: Secrets,
        *,
        min_secret_length: int = limits.SECRET_SIZE,
        password_strength: PasswordStrength | None = None,
        allow_weak_room_passwords: bool = False,
        **options: Any,
    ) -> None:
        if secret is None:
            raise TypeError("SecureRoomAuth needs a secret; for passwords only there is SimpleRoomAuth()")
        self._min_secret_length = max(min_secret_length, limits.SECRET_SIZE)
        super().__init__(secret, **options)
        for key in secret.values() if isinstance(secret, Mapping) else (secret,):
            self._check_secret(key)
        self._strength = None if allow_weak_room_passwords else password_strength or PasswordStrength()
        self._metrics = AuthMetrics()

    def metrics(self) -> AuthMetrics:
        """Return a copy of the counters."""
        return replace(self._metrics)

    def reset_metrics(self) -> None:
        """Reset the counters to 0."""
        self._metrics = AuthMetrics()

    def verify_jwt(self, token: str | bytes) -> dict[str, Any]:
        """Return the claims of a valid token, as :meth:`SimpleRoomAuth.verify_jwt` does, and count it."""
        try:
            claims = super().verify_jwt(token)
        except InvalidToken:
            self._metrics.jwt_verification_failures += 1
            raise
        self._metrics.successful_authentications += 1
        return claims

    def add_key(self, kid: str, secret: Secret, *, current: bool = False) -> None:
        """Accept another key, as :meth:`SimpleRoomAuth.add_key` does, if it has the minimum length."""
        self._check_secret(secret)
        super().add_key(kid, secret, current=current)

    def set_room_password(self, room: str, password: str) -> None:
        """Protect ``room`` with ``password``. Raise ``WeakRoomPassword`` if it breaks a rule."""
        try:
            if self._strength is not None:
                validate_room_password(password, self._strength)
            super().set_room_password(room, password)
        except ValueError:
            self._metrics.weak_room_passwords += 1
            raise

    def check_room_password(self, room: str, password: str | None) -> bool:
        """Return whether ``password`` opens ``room``, and count a right one."""
        protected = self.has_room_password(room)
        right = super().check_room_password(room, password)
        if right and protected:
            self._metrics.successful_authentications += 1
        return right

    def room_password_salt(self, room: str) -> bytes | None:
        """Return bytes that change with the password of ``room``.

        It is defined beside :meth:`check_room_password` so that a server may remember right passwords.
        """
        return super().room_password_salt(room)

    def _check_secret(self, secret: Secret) -> None:
        key = secret.encode() if isinstance(secret, str) else bytes(secret)
        if len(key) < self._min_secret_length:
            raise WeakSecret(
                f"jwt secret too weak: got {len(key)} bytes, minimum {self._min_secret_length} bytes required; "
                "plumews.generate_secure_secret() makes one"
            )
        if any(word in key.lower() for word in _WEAK_WORDS):
            logger.warning("a jwt secret has a word in it that is easy to guess; generate_secure_secret makes others")
