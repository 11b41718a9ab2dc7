"""Who may: tokens signed with HS256, and passwords of rooms (layer 2).

RFC 7519 (JWT), RFC 7515 (JWS), RFC 8725 (what goes wrong with them), RFC 8018 (PBKDF2); after the seed's room auth.
No sockets and no event loop, and the clock is handed in. Invariants: no secret, password or token stands in a
message, a repr or an exception chain; secrets are compared in constant time; whatever a stranger sends ends in
``InvalidToken`` or ``False``.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import math
import re
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, NoReturn

from jwt import InvalidKeyError, PyJWS, PyJWTError

from . import limits
from .authorizing import RoomAuthorizer, TokenAuthenticator
from .errors import InvalidToken, TokenExpired, WeakSecret
from .users import UserInfo, extract_user_info

__all__ = ["RoomAuthorizer", "SimpleRoomAuth", "TokenAuthenticator", "UserInfo", "extract_user_info"]

#: The only algorithm: a choice left to the token is a choice left to the attacker (RFC 8725 section 3.1).
_ALGORITHM: Final = "HS256"

#: RFC 7515 section 2: base64url without padding. Decoders forgive what stands outside of it; we do not.
_TOKEN_SHAPE: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")

#: Headers by which a token brings the key it wants to be checked with (RFC 7515 sections 4.1.2 to 4.1.6).
_OWN_KEY: Final = ("jku", "jwk", "x5u", "x5c")

#: The end of the year 9999. Beyond it are milliseconds taken for seconds, and ways never to expire.
_LAST_SECOND: Final = 253_402_300_799

_SALT_SIZE: Final = 16


class _PasswordHash(NamedTuple):
    salt: bytes
    digest: bytes


class SimpleRoomAuth:
    """Room passwords, and tokens signed with one shared secret (the seed's SimpleRoomAuth).

    ``secret`` signs the tokens: 32 bytes or more (text counts as UTF-8), copied; ``None`` means passwords only.
    ``issuer`` and ``audience`` are what ``iss`` and ``aud`` of a token must say. ``leeway`` (seconds, default 0)
    forgives clocks that differ; ``require_exp`` (default False, as in the seed) refuses tokens that never expire.
    ``rounds`` is the work of PBKDF2 for one password; ``clock`` returns the seconds since 1970.

    Every method may be called from any thread. Raises ``WeakSecret`` for a secret that is too short or is known to
    others, ``TypeError`` for one of another type, ``ValueError`` for a bad ``leeway`` or ``rounds``.
    """

    def __init__(
        self,
        secret: bytes | bytearray | str | None = None,
        *,
        issuer: str | None = None,
        audience: str | None = None,
        leeway: float = 0.0,
        require_exp: bool = False,
        rounds: int = limits.PASSWORD_ROUNDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not (math.isfinite(leeway) and leeway >= 0):
            raise ValueError(f"leeway must be 0 or more seconds, not {leeway}")
        if rounds < 1:
            raise ValueError(f"rounds must be 1 or more (the default is {limits.PASSWORD_ROUNDS}), not {rounds}")
        self._jws = PyJWS(algorithms=[_ALGORITHM])
        self._secret = None if secret is None else self._checked_secret(secret)
        self._issuer = issuer
        self._audience = audience
        self._leeway = leeway
        self._require_exp = require_exp
        self._rounds = rounds
        self._clock = clock
        # Needs no lock: an entry is put in, taken out and read whole, and the hashing works on what was read.
        self._passwords: dict[str, _PasswordHash] = {}

    def __repr__(self) -> str:
        tokens = "no tokens" if self._secret is None else "tokens"
        return f"<{type(self).__name__}: {tokens}, {len(self._passwords)} room passwords>"

    def set_room_password(self, room: str, password: str) -> None:
        """Protect ``room`` with ``password``, in place of the one it had. As slow as a check.

        Raises ``ValueError`` unless the password is text of 1 to ``limits.PASSWORD_SIZE`` bytes of UTF-8:
        the empty one would let in whoever gives none.
        """
        encoded = _encoded_password(password)
        if not encoded:
            raise ValueError(
                f"a room password must be text of 1 to {limits.PASSWORD_SIZE} bytes of UTF-8; "
                "to open the room again use remove_room_password"
            )
        salt = secrets.token_bytes(_SALT_SIZE)
        self._passwords[room] = _PasswordHash(salt, self._hash(encoded, salt))

    def remove_room_password(self, room: str) -> None:
        """Open ``room`` to everybody; nothing happens if it was open."""
        self._passwords.pop(room, None)

    def has_room_password(self, room: str) -> bool:
        """Whether ``room`` has a password."""
        return room in self._passwords

    def check_room_password(self, room: str, password: str | None) -> bool:
        """Whether ``password`` opens ``room``; a room without a password is open (the seed).

        Slow on purpose: about a tenth of a second of one core where the room has a password. The work holds
        neither the GIL nor a lock, so a server calls this in a thread and goes on serving.
        """
        stored = self._passwords.get(room)
        if stored is None:
            return True
        encoded = _encoded_password(password)
        return bool(encoded) and hmac.compare_digest(self._hash(encoded, stored.salt), stored.digest)

    def verify_jwt(self, token: str | bytes) -> dict[str, Any]:
        """The claims of a token that was signed with the secret and is valid now.

        A token is valid from its ``nbf`` until after its ``exp`` (at that very second it still is, as in the
        seed), with ``leeway`` on both sides. One that has an ``aud`` while no ``audience`` is set here is for
        somebody else (RFC 7519 section 4.1.3). Raises ``TokenExpired``, or ``InvalidToken`` with the reason.
        """
        if self._secret is None:
            raise InvalidToken("tokens cannot be checked, no secret configured")
        claims = _json_object(self._signed_payload(_checked_shape(token), self._secret))
        if claims is None:
            raise InvalidToken("its payload is not a JSON object with each name once")
        self._check_times(claims)
        self._check_parties(claims)
        return claims

    def seconds_left(self, claims: Mapping[str, Any]) -> float | None:
        """For how long a token with these verified ``claims`` is still good, in seconds by the clock here.

        The leeway counts; less than 0 when it has ended, ``None`` if it never does.
        """
        exp = claims.get("exp")
        return None if exp is None else float(exp) + self._leeway - self._clock()

    def _checked_secret(self, secret: bytes | bytearray | str) -> bytes:
        if not isinstance(secret, (bytes, bytearray, str)):
            raise TypeError(f"the secret must be bytes, str or None, not {type(secret).__name__}")
        key = secret.encode() if isinstance(secret, str) else bytes(secret)
        if len(key) < limits.SECRET_SIZE:
            raise WeakSecret(
                f"the secret is {len(key)} bytes long and must have at least {limits.SECRET_SIZE}; "
                f"secrets.token_bytes({limits.SECRET_SIZE}) makes one"
            )
        try:
            self._jws.get_algorithm_by_name(_ALGORITHM).prepare_key(key)
        except InvalidKeyError:
            key = b""
        if not key:
            raise WeakSecret("the secret is a PEM or SSH key, which others may know; secrets.token_bytes(32) makes one")
        return key

    def _hash(self, password: bytes, salt: bytes) -> bytes:
        return hashlib.pbkdf2_hmac("sha512", password, salt, self._rounds)

    def _signed_payload(self, token: str, secret: bytes) -> bytes:
        """The bytes that the signature vouches for; the header is judged before any of it is believed."""
        header = _json_object(_decoded(token.partition(".")[0]))
        if header is None:
            raise InvalidToken("its header is not a JSON object with each name once")
        if header.get("alg") != _ALGORITHM:
            raise InvalidToken(f"its alg must be {_ALGORITHM}")
        if "crit" in header:
            raise InvalidToken("it has a crit header, and no extension is understood here")
        if any(name in header for name in _OWN_KEY):
            raise InvalidToken(f"it brings the key to check it with ({', '.join(_OWN_KEY)})")
        key_id = header.get("kid", "")
        if not isinstance(key_id, str) or "/" in key_id or "\\" in key_id:
            raise InvalidToken("its kid must be a plain name, not a path or an address")
        try:
            payload = self._jws.decode_complete(token, secret, algorithms=[_ALGORITHM])["payload"]
        except (PyJWTError, ValueError, RecursionError):
            payload = None  # raised outside, for the frames of this exception hold the secret
        if not isinstance(payload, bytes):
            raise InvalidToken("it is malformed, or its signature is not ours")
        return payload

    def _check_times(self, claims: dict[str, Any]) -> None:
        """RFC 7519 sections 4.1.4 to 4.1.6. ``iat`` says nothing about validity, but has to be a time."""
        now = self._clock()
        exp, nbf, _ = (_seconds(claims, name) for name in ("exp", "nbf", "iat"))
        if exp is None and self._require_exp:
            raise InvalidToken("it has no exp, and one is required here")
        if exp is not None and now > exp + self._leeway:
            raise TokenExpired
        if nbf is not None and now < nbf - self._leeway:
            raise InvalidToken("not yet valid (nbf)")

    def _check_parties(self, claims: dict[str, Any]) -> None:
        """RFC 7519 sections 4.1.1 and 4.1.3."""
        if self._issuer is not None and claims.get("iss") != self._issuer:
            raise InvalidToken("its issuer (iss) is not the one trusted here")
        audience = claims.get("aud")
        if self._audience not in (audience if isinstance(audience, list) else [audience]):
            raise InvalidToken("its audience (aud) is not the one served here")


def _encoded_password(password: str | None) -> bytes:
    """The password in UTF-8; empty where there is none, or none that could have been set."""
    if not isinstance(password, str) or len(password) > limits.PASSWORD_SIZE:
        return b""
    try:
        encoded = password.encode()
    except UnicodeEncodeError:
        return b""
    return encoded if len(encoded) <= limits.PASSWORD_SIZE else b""


def _checked_shape(token: str | bytes) -> str:
    if not isinstance(token, (str, bytes)):
        raise InvalidToken(f"a token is str or bytes, not {type(token).__name__}")
    if len(token) > limits.TOKEN_SIZE:
        raise InvalidToken(f"longer than {limits.TOKEN_SIZE} bytes")
    text = token.decode("ascii", "replace") if isinstance(token, bytes) else token
    if not _TOKEN_SHAPE.fullmatch(text):
        raise InvalidToken("not three parts of unpadded base64url with dots between")
    return text


def _decoded(segment: str) -> bytes:
    """One part of a token; empty where its length is impossible."""
    if len(segment) % 4 == 1:
        return b""
    return base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))


def _json_object(raw: bytes) -> dict[str, Any] | None:
    """A JSON object that every parser reads alike (RFC 8259 section 4, RFC 7515 section 4); else ``None``."""
    try:
        value = json.loads(raw.decode(), object_pairs_hook=_unique, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name stands twice")
    return members


def _no_number(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _seconds(claims: dict[str, Any], name: str) -> float | None:
    """A NumericDate (RFC 7519 section 2), or ``None`` where the claim is absent."""
    if name not in claims:
        return None
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _LAST_SECOND:
        raise InvalidToken(f"its {name} must be a number of seconds since 1970, before the year 10000")
    return value
