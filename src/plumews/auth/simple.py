"""Tokens and room passwords put together, as the seed has them (layer 2).

`SimpleRoomAuth` is an `HS256TokenAuth` and `RoomPasswords`; `SecureRoomAuth` is the same with rules and counters. What
verifies and what hashes stands in their modules. Any thread may call.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from .. import limits
from ..errors import InvalidToken, WeakSecret
from ..users import UserInfo, extract_user_info
from .interfaces import RoomAuthorizer, TokenAuthenticator
from .passwords import RoomPasswords
from .revocation import Revocations
from .strength import PasswordStrength, validate_room_password
from .tokens import HS256TokenAuth, Secret, Secrets, check_leeway

__all__ = [
    "AuthMetrics",
    "RoomAuthorizer",
    "SecureRoomAuth",
    "SimpleRoomAuth",
    "TokenAuthenticator",
    "UserInfo",
    "extract_user_info",
]

logger = logging.getLogger("plumews.auth")

#: What stands in secrets that somebody typed, and in the lists of who guesses them (the seed's).
_WEAK_WORDS: Final = (b"secret", b"password", b"123456")


class SimpleRoomAuth:
    """Room passwords, and tokens signed with HS256 (the seed's SimpleRoomAuth).

    ``secret`` signs the tokens: 32 bytes or more, or a mapping ``{kid: secret}``, as in :class:`HS256TokenAuth`, where
    ``issuer``, ``audience``, ``leeway``, ``require_exp`` and ``revocations`` are explained; ``None`` means
    passwords only. ``rounds`` is the work for one password, as in :class:`RoomPasswords`. ``clock`` returns the
    seconds since 1970. Its two halves are ``tokens`` (``None`` without a secret) and ``passwords``; it has their
    methods, too.

    Every method may be called from any thread. Raises as :class:`HS256TokenAuth` and :class:`RoomPasswords`.
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
        check_leeway(leeway)
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
        """The claims of a token that is ours and valid now, as :meth:`HS256TokenAuth.verify_jwt`."""
        return self._tokens().verify_jwt(token)

    def seconds_left(self, claims: Mapping[str, Any]) -> float | None:
        """For how long a token with these claims is still good, as :meth:`HS256TokenAuth.seconds_left`.

        The same without a secret: a subclass that verifies tokens of another kind has claims, too.
        """
        if self.tokens is not None:
            return self.tokens.seconds_left(claims)
        exp = claims.get("exp")
        return None if exp is None else float(exp) + self._leeway - self._clock()

    def add_key(self, kid: str, secret: Secret, *, current: bool = False) -> None:
        """Accept another key, as :meth:`HS256TokenAuth.add_key`; ``InvalidToken`` if no secret was configured."""
        self._tokens().add_key(kid, secret, current=current)

    def remove_key(self, kid: str | None) -> None:
        """Refuse a key from now on, as :meth:`HS256TokenAuth.remove_key`."""
        self._tokens().remove_key(kid)

    def signs_with(self, secret: Secret) -> bool:
        """Whether ``secret`` is one of the keys, as :meth:`HS256TokenAuth.signs_with`; False where there are none."""
        return self.tokens is not None and self.tokens.signs_with(secret)

    def revoke_user(self, user_id: str) -> None:
        """Refuse the tokens that were issued to this user until now, as :meth:`Revocations.revoke_user`."""
        self.revocations.revoke_user(user_id)

    def revoke_token(self, jti: str, until: float | None = None) -> None:
        """Refuse one token; ``until`` is its ``exp``, as :meth:`Revocations.revoke_token`."""
        self.revocations.revoke_token(jti, until)

    def _tokens(self) -> HS256TokenAuth:
        if self.tokens is None:
            raise InvalidToken("tokens cannot be checked, no secret configured")
        return self.tokens

    # --- passwords --------------------------------------------------------------------------------

    def set_room_password(self, room: str, password: str) -> None:
        """Protect ``room`` with ``password``; slow, as :meth:`RoomPasswords.set_room_password`."""
        self.passwords.set_room_password(room, password)

    def set_room_password_hash(self, room: str, text: str) -> None:
        """Protect ``room`` with a password that was hashed before, as :meth:`RoomPasswords.set_room_password_hash`."""
        self.passwords.set_room_password_hash(room, text)

    def room_password_hash(self, room: str) -> str | None:
        """The hash of the room's password as text, as :meth:`RoomPasswords.room_password_hash`."""
        return self.passwords.room_password_hash(room)

    def remove_room_password(self, room: str) -> None:
        """Open ``room`` to everybody; nothing happens if it was open."""
        self.passwords.remove_room_password(room)

    def has_room_password(self, room: str) -> bool:
        """Whether ``room`` has a password."""
        return self.passwords.has_room_password(room)

    def room_password_salt(self, room: str) -> bytes | None:
        """What changes with the password of ``room``; ``None`` without one."""
        return self.passwords.room_password_salt(room)

    def check_room_password(self, room: str, password: str | None) -> bool:
        """Whether ``password`` opens ``room``; slow, as :meth:`RoomPasswords.check_room_password`."""
        return self.passwords.check_room_password(room, password)


@dataclass(slots=True)
class AuthMetrics:
    """What one :class:`SecureRoomAuth` has counted (the seed's names).

    Args:
        jwt_verification_failures: tokens that were refused.
        weak_room_passwords: passwords that were not set, for they are empty or easy to guess.
        successful_authentications: tokens that were good, and passwords that opened a protected room; what a server
            remembers of passwords does not come here.
    """

    jwt_verification_failures: int = 0
    weak_room_passwords: int = 0
    successful_authentications: int = 0


class SecureRoomAuth(SimpleRoomAuth):
    """`SimpleRoomAuth` that wants a long secret and strong room passwords, and counts (the seed's SecureRoomAuth).

    Args:
        secret: as in :class:`SimpleRoomAuth`, but needed; a word that is often in secrets is warned of in the log.
        min_secret_length: bytes that each secret must have (default 32, and never fewer).
        password_strength: the rules for room passwords (default :class:`PasswordStrength`).
        allow_weak_room_passwords: do not apply them (default False).
        options: the other arguments of :class:`SimpleRoomAuth`.

    Raises:
        WeakSecret: a secret is too short. TypeError, ValueError: as in :class:`SimpleRoomAuth`.
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
        """What was counted until now: a copy."""
        counted = self._metrics
        return AuthMetrics(
            counted.jwt_verification_failures, counted.weak_room_passwords, counted.successful_authentications
        )

    def reset_metrics(self) -> None:
        """Count from 0 again."""
        self._metrics = AuthMetrics()

    def verify_jwt(self, token: str | bytes) -> dict[str, Any]:
        """As :meth:`SimpleRoomAuth.verify_jwt`, counted."""
        try:
            claims = super().verify_jwt(token)
        except InvalidToken:
            self._metrics.jwt_verification_failures += 1
            raise
        self._metrics.successful_authentications += 1
        return claims

    def add_key(self, kid: str, secret: Secret, *, current: bool = False) -> None:
        """As :meth:`SimpleRoomAuth.add_key`, with the length that secrets must have here."""
        self._check_secret(secret)
        super().add_key(kid, secret, current=current)

    def set_room_password(self, room: str, password: str) -> None:
        """As :meth:`SimpleRoomAuth.set_room_password`, but ``WeakRoomPassword`` for what is easy to guess."""
        try:
            if self._strength is not None:
                validate_room_password(password, self._strength)
            super().set_room_password(room, password)
        except ValueError:
            self._metrics.weak_room_passwords += 1
            raise

    def check_room_password(self, room: str, password: str | None) -> bool:
        """As :meth:`SimpleRoomAuth.check_room_password`, counted."""
        protected = self.has_room_password(room)
        right = super().check_room_password(room, password)
        if right and protected:
            self._metrics.successful_authentications += 1
        return right

    def room_password_salt(self, room: str) -> bytes | None:
        """As :meth:`SimpleRoomAuth.room_password_salt`: no rule of the check here is lost where it is remembered."""
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
