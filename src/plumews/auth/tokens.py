"""Verification of tokens signed with HS256.

RFC 7519 (JWT), RFC 7515 (JWS), RFC 8725 (JWT best current practices). There is no I/O, and the clock is passed in. No
secret and no token appears in an error, a repr or an exception chain. A token is only ever checked with a configured
key. Any malformed token raises ``InvalidToken``.
"""

from __future__ import annotations

import base64
import hmac
import json
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn

from .. import limits
from ..errors import InvalidToken, TokenExpired, TokenRevoked, WeakSecret
from ..validation import check_time
from .revocation import Revocations

__all__ = ["HS256TokenAuth", "Secret", "Secrets"]

#: Secret of one key. Text is encoded as UTF-8.
Secret = bytes | bytearray | str

#: One secret, or secrets by their ``kid`` with the current one first.
Secrets = Secret | Mapping[str, Secret]

#: The only algorithm: a choice left to the token is a choice left to the attacker (RFC 8725 section 3.1).
_ALGORITHM: Final = "HS256"

#: PEM (RFC 7468) and SSH (RFC 4253 section 6.6) keys of asymmetric algorithms, of which one half is public.
_ASYMMETRIC_KEY: Final = re.compile(
    rb"----[- ]BEGIN [A-Z0-9 ]+[- ]----|\A(?:sk-)?(?:ssh-(?:rsa|dss|ed25519)|ecdsa-sha2-nistp)"
)

#: RFC 7515 section 2: base64url without padding. Decoders ignore other characters, and this pattern refuses them.
_TOKEN_SHAPE: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")

#: Headers that name or contain a key to check the token with (RFC 7515 sections 4.1.2 to 4.1.6).
_OWN_KEY: Final = ("jku", "jwk", "x5u", "x5c")

#: End of the year 9999. Later times are milliseconds taken for seconds, or attempts never to expire.
_LAST_SECOND: Final = 253_402_300_799


class HS256TokenAuth:
    """Verifier of tokens signed with HS256 (RFC 7518 section 3.2), which can also be revoked.

    Every method may be called from any thread.

    Args:
        secret: one secret of 32 bytes or more, or several by their ``kid``, ``{"2026-11": new, "2026-10": old}``.
            With one secret no ``kid`` is looked up. With several a token is checked with the key that its ``kid``
            names, or with the current key, the first, if it has no ``kid``. An unknown ``kid`` is refused. Secrets are
            copied.
        issuer: required value of ``iss`` (default None: any).
        audience: required value of ``aud`` (default None: tokens with an ``aud`` are refused).
        leeway: seconds by which clocks may differ (default 0).
        require_exp: True refuses tokens that never expire (default False).
        revocations: revocations to share with other authenticators (default: its own).
        clock: returns the seconds since 1970.

    Raises:
        WeakSecret: a secret is too short, or is a key that others may know.
        TypeError: an argument is of the wrong type.
        ValueError: ``leeway`` is out of range, a ``kid`` is no plain name, or the mapping is empty.
    """

    def __init__(
        self,
        secret: Secrets,
        *,
        issuer: str | None = None,
        audience: str | None = None,
        leeway: float = 0.0,
        require_exp: bool = False,
        revocations: Revocations | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        check_time("leeway", leeway, zero=True)
        for claim, expected in (("issuer", issuer), ("audience", audience)):
            if expected is not None and not isinstance(expected, str):
                raise TypeError(f"{claim} must be a str or None, not {type(expected).__name__}")
        self.revocations = Revocations(clock=clock) if revocations is None else revocations
        self.revocations.allow_leeway(leeway)
        keys: Mapping[str | None, Secret]
        if isinstance(secret, Mapping):
            keys = {_checked_key_id(key_id): key for key_id, key in secret.items()}
        else:
            keys = {None: secret}
        if not keys:
            raise ValueError("the mapping of secrets is empty; it must have one secret or more by their kid")
        # No lock is needed: a key is stored, removed and looked up in one step each.
        self._keys = {key_id: self._checked_secret(key) for key_id, key in keys.items()}
        self._current = next(iter(self._keys))
        self._issuer = issuer
        self._audience = audience
        self._leeway = leeway
        self._require_exp = require_exp
        self._clock = clock

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: keys {self.key_ids}>"

    @property
    def leeway(self) -> float:
        """Seconds by which clocks may differ."""
        return self._leeway

    # --- the keys ---------------------------------------------------------------------------------

    @property
    def key_ids(self) -> tuple[str | None, ...]:
        """Names (``kid``) of the keys, the current one first. None is the secret that was given without a ``kid``."""
        others = [key_id for key_id in list(self._keys) if key_id != self._current]
        return (self._current, *others)

    def add_key(self, kid: str, secret: Secret, *, current: bool = False) -> None:
        """Accept tokens that name ``kid`` and are signed with ``secret``. It replaces an earlier key of that name.

        Args:
            kid: name of the key.
            secret: 32 bytes or more.
            current: True makes it the key for tokens without a ``kid`` as well (default False).

        Raises:
            WeakSecret, TypeError, ValueError: as in the constructor.
        """
        self._keys[_checked_key_id(kid)] = self._checked_secret(secret)
        if current:
            self._current = kid

    def remove_key(self, kid: str | None) -> None:
        """Refuse tokens that are signed with this key from now on.

        Args:
            kid: name of the key. None is the secret that was given without a ``kid``.

        Raises:
            KeyError: there is no such key.
            ValueError: it is the current key. Make another key the current one first.
        """
        if kid not in self._keys:
            raise KeyError(f"there is no key {kid!r}, only {self.key_ids}")
        if kid == self._current:
            raise ValueError(f"{kid!r} is the current key; make another the current one first, by add_key")
        self._keys.pop(kid, None)

    def signs_with(self, secret: Secret) -> bool:
        """Return whether ``secret`` is one of the keys. Other secrets of a program must differ from them."""
        given = secret.encode() if isinstance(secret, str) else bytes(secret)
        return any(hmac.compare_digest(given, key) for key in list(self._keys.values()))

    # --- revoking ---------------------------------------------------------------------------------

    def revoke_user(self, user_id: str) -> None:
        """Refuse the tokens issued to this user (``sub``) until now, as :meth:`Revocations.revoke_user` does."""
        self.revocations.revoke_user(user_id)

    def revoke_token(self, jti: str, until: float | None = None) -> None:
        """Refuse the token of this ``jti``, as :meth:`Revocations.revoke_token` does."""
        self.revocations.revoke_token(jti, until)

    # --- verifying --------------------------------------------------------------------------------

    def verify_jwt(self, token: str | bytes) -> dict[str, Any]:
        """Return the claims of a token that is signed with a key and valid now.

        A token is valid from its ``nbf`` up to and including the second of its ``exp``, with ``leeway`` on both sides.
        A token with an ``aud`` is refused if no ``audience`` is set (RFC 7519 section 4.1.3). ``sub`` and ``jti`` must
        be strings if they are present.

        Args:
            token: JWT of at most 8 KiB.

        Raises:
            TokenExpired: its ``exp`` has passed.
            TokenRevoked: it was revoked.
            InvalidToken: it is not valid for another reason, which the text names.
        """
        claims = _json_object(self._signed_payload(_checked_shape(token)))
        if claims is None:
            raise InvalidToken("its payload is not a JSON object with each name once")
        _check_names(claims)
        self._check_times(claims)
        self._check_parties(claims)
        if self.revocations.revoked(claims):
            raise TokenRevoked
        return claims

    def seconds_left(self, claims: Mapping[str, Any]) -> float | None:
        """Return the seconds that a token with these verified ``claims`` is still valid, leeway included.

        The result is negative after its end, and None for a token that never expires.
        """
        exp = claims.get("exp")
        return None if exp is None else float(exp) + self._leeway - self._clock()

    def _checked_secret(self, secret: Secret) -> bytes:
        if not isinstance(secret, (bytes, bytearray, str)):
            raise TypeError(f"the secret must be bytes or str, not {type(secret).__name__}")
        key = secret.encode() if isinstance(secret, str) else bytes(secret)
        if len(key) < limits.SECRET_SIZE:
            raise WeakSecret(
                f"jwt secret too weak: minimum {limits.SECRET_SIZE} bytes required, got {len(key)}; "
                "plumews.generate_secure_secret() makes one"
            )
        if _ASYMMETRIC_KEY.search(key):
            raise WeakSecret(
                "the secret is a PEM or SSH key, which others may know; plumews.generate_secure_secret() makes one"
            )
        return key

    def _signed_payload(self, token: str) -> bytes:
        """Return the signed payload. The header is checked before the signature."""
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
        # Imported here, because it takes 60 ms and only programs that verify tokens need it.
        from jwt import PyJWS, PyJWTError

        secret = self._key(header.get("kid"))
        try:
            payload = PyJWS(algorithms=[_ALGORITHM]).decode_complete(token, secret, algorithms=[_ALGORITHM])["payload"]
        except (PyJWTError, ValueError, RecursionError):
            payload = None  # raised below, because frames of this exception hold the secret
        del secret  # programs may log the variables of this frame
        if not isinstance(payload, bytes):
            raise InvalidToken("it is malformed, or its signature is not ours")
        return payload

    def _key(self, key_id: str | None) -> bytes:
        if key_id is not None and (key_id in self._keys or list(self._keys) != [None]):
            secret = self._keys.get(key_id)
        else:
            secret = self._keys.get(self._current)
        if secret is None:
            raise InvalidToken("its kid is not that of a key here")
        return secret

    def _check_times(self, claims: dict[str, Any]) -> None:
        """Check ``exp``, ``nbf`` and ``iat`` (RFC 7519 sections 4.1.4 to 4.1.6). ``iat`` only has to be a time."""
        now = self._clock()
        exp, nbf, iat = (_seconds(claims, name) for name in ("exp", "nbf", "iat"))
        if exp is None and self._require_exp:
            raise InvalidToken("it has no exp, and one is required here")
        if exp is not None and now > exp + self._leeway:
            raise TokenExpired
        if nbf is not None and now < nbf - self._leeway:
            raise InvalidToken("not yet valid (nbf)")
        life = self.revocations.token_life
        if life is not None and (exp is None or iat is None or exp - iat > life):
            raise InvalidToken(f"it must say by iat and exp that it lives {life:g} seconds or less")

    def _check_parties(self, claims: dict[str, Any]) -> None:
        """Check ``iss`` and ``aud`` (RFC 7519 sections 4.1.1 and 4.1.3)."""
        if self._issuer is not None and claims.get("iss") != self._issuer:
            raise InvalidToken("its issuer (iss) is not the one trusted here")
        audience = claims.get("aud")
        if self._audience not in (audience if isinstance(audience, list) else [audience]):
            raise InvalidToken("its audience (aud) is not the one served here")


def _check_names(claims: dict[str, Any]) -> None:
    """Check ``sub`` and ``jti`` (RFC 7519 sections 4.1.2 and 4.1.7). Only strings can be revoked."""
    for name in ("sub", "jti"):
        if not isinstance(claims.get(name, ""), str):
            raise InvalidToken(f'its {name} must be a string, such as "42"')


def _checked_key_id(key_id: object) -> str:
    if not isinstance(key_id, str) or not key_id or "/" in key_id or "\\" in key_id:
        raise ValueError(f"a kid must be a plain name, such as '2026-11', not {key_id!r}")
    return key_id


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
    """Decode one part of a token. Return b"" for a length that base64 cannot have."""
    if len(segment) % 4 == 1:
        return b""
    return base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))


def _json_object(raw: bytes) -> dict[str, Any] | None:
    """Parse a JSON object that every parser reads alike (RFC 8259 section 4, RFC 7515 section 4), else return None."""
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
    """Return a claim that is a NumericDate (RFC 7519 section 2). Return None if it is absent."""
    if name not in claims:
        return None
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _LAST_SECOND:
        raise InvalidToken(f"its {name} must be a number of seconds since 1970, before the year 10000")
    return value
