"""Room passwords as salted PBKDF2 hashes, rules for strong passwords, and random secrets.

RFC 8018 (PBKDF2). No password is stored, and none appears in an error or a repr. Hashes are compared in constant
time. No lock is held while a password is hashed.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from typing import Final, NamedTuple

from .. import limits
from ..errors import WeakRoomPassword

__all__ = ["PasswordStrength", "RoomPasswords", "generate_secure_secret", "validate_room_password"]

_SALT_SIZE: Final = 16

#: Text form of a hash: cost$salt$hash, salt and hash in base64.
_HASH_TEXT: Final = re.compile(r"([0-9]{1,8})\$([A-Za-z0-9+/]{1,128}={0,2})\$([A-Za-z0-9+/]{1,128}={0,2})")

#: Bytes of a digest: 64 in hashes that are made here. 32 are accepted as well.
_DIGEST_SIZES: Final = (64, 32)


class _PasswordHash(NamedTuple):
    rounds: int
    salt: bytes
    digest: bytes


class RoomPasswords:
    """Passwords of rooms. A room without a password is open to everybody.

    Every method may be called from any thread. Setting or checking a password takes about 0.1 s of one core. A
    coroutine calls ``await asyncio.to_thread(passwords.set_room_password, room, password)``. Hashing holds neither
    the GIL nor a lock, so a server continues to serve.

    Args:
        rounds: PBKDF2-HMAC-SHA512 rounds for one password, 1 or more (default ``limits.PASSWORD_ROUNDS``, 210,000).

    Raises:
        ValueError: ``rounds`` is below 1.
    """

    def __init__(self, *, rounds: int = limits.PASSWORD_ROUNDS) -> None:
        if rounds < 1:
            raise ValueError(f"rounds must be 1 or more (the default is {limits.PASSWORD_ROUNDS}), not {rounds}")
        self._rounds = rounds
        # No lock is needed: an entry is stored, removed and read in one step, and hashing works on the entry read.
        self._passwords: dict[str, _PasswordHash] = {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {len(self._passwords)}>"

    def __len__(self) -> int:
        return len(self._passwords)

    def set_room_password(self, room: str, password: str) -> None:
        """Protect ``room`` with ``password``, which replaces an earlier one. This is as slow as a check.

        Args:
            room: name of the room.
            password: text of 1 to ``limits.PASSWORD_SIZE`` (4,096) bytes of UTF-8.

        Raises:
            ValueError: ``password`` is empty, too long, or not text. The empty password would admit clients that
                send none.
        """
        encoded = _encode_password(password)
        if not encoded:
            raise ValueError(
                f"a room password must be text of 1 to {limits.PASSWORD_SIZE} bytes of UTF-8; "
                "to open the room again use remove_room_password"
            )
        salt = secrets.token_bytes(_SALT_SIZE)
        self._passwords[room] = _PasswordHash(self._rounds, salt, _hash(encoded, salt, self._rounds))

    def set_room_password_hash(self, room: str, text: str) -> None:
        """Protect ``room`` with a password of which only the hash is known. Nothing is hashed, so this is fast.

        Args:
            room: name of the room.
            text: hash of the form ``cost$salt$hash``, as :meth:`room_password_hash` returns it.

        Raises:
            ValueError: the cost is not within ``limits.PASSWORD_COSTS`` (100,000 to 2,000,000 rounds), the salt has
                not 16 to 64 bytes, the hash has neither 32 nor 64 bytes, or the text has another form.
        """
        self._passwords[room] = _parse_hash(text)

    def room_password_hash(self, room: str) -> str | None:
        """Return the hash of the room's password as text, for a file or a database. Return None without a password."""
        stored = self._passwords.get(room)
        if stored is None:
            return None
        salt, digest = (base64.b64encode(part).decode() for part in (stored.salt, stored.digest))
        return f"{stored.rounds}${salt}${digest}"

    def remove_room_password(self, room: str) -> None:
        """Open ``room`` to everybody. Do nothing if it has no password."""
        self._passwords.pop(room, None)

    def has_room_password(self, room: str) -> bool:
        """Return whether ``room`` has a password."""
        return room in self._passwords

    def room_password_salt(self, room: str) -> bytes | None:
        """Return the salt of the room's password, which changes with the password. Return None without a password."""
        stored = self._passwords.get(room)
        return None if stored is None else stored.salt

    def check_room_password(self, room: str, password: str | None) -> bool:
        """Return whether ``password`` opens ``room``. Slow if the room has a password, and True if it has none."""
        stored = self._passwords.get(room)
        if stored is None:
            return True
        encoded = _encode_password(password)
        if not encoded:
            return False
        return hmac.compare_digest(
            _hash(encoded, stored.salt, stored.rounds, len(stored.digest)),
            stored.digest,
        )


def _hash(password: bytes, salt: bytes, rounds: int, size: int = _DIGEST_SIZES[0]) -> bytes:
    return hashlib.pbkdf2_hmac("sha512", password, salt, rounds, size)


def _parse_hash(text: str) -> _PasswordHash:
    """Parse the text form of a hash. No error repeats the text: a hash can be guessed at offline."""
    found = _HASH_TEXT.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError("the hash of a room password must be text of the form cost$salt$hash, salt and hash in base64")
    rounds = int(found[1])
    fewest, most = limits.PASSWORD_COSTS
    if not fewest <= rounds <= most:
        raise ValueError(f"the cost of a room password's hash must be {fewest} to {most} rounds, not {rounds}")
    salt, digest = (_decode_base64(part) for part in (found[2], found[3]))
    if not _SALT_SIZE <= len(salt) <= 64:
        raise ValueError(f"the salt of a room password's hash must be 16 to 64 bytes, not {len(salt)}")
    if len(digest) not in _DIGEST_SIZES:
        raise ValueError(f"a room password's hash must be 64 or 32 bytes, not {len(digest)}")
    return _PasswordHash(rounds, salt, digest)


def _decode_base64(text: str) -> bytes:
    """Decode base64 with or without padding. Return b"" for a length that base64 cannot have."""
    bare = text.rstrip("=")
    return b"" if len(bare) % 4 == 1 else base64.b64decode(bare + "=" * (-len(bare) % 4))


def _encode_password(password: str | None) -> bytes:
    """Return ``password`` in UTF-8. Return b"" for None and for text that no room password can be."""
    if not isinstance(password, str) or len(password) > limits.PASSWORD_SIZE:
        return b""
    try:
        encoded = password.encode()
    except UnicodeEncodeError:
        return b""
    return encoded if len(encoded) <= limits.PASSWORD_SIZE else b""


@dataclass(frozen=True, slots=True)
class PasswordStrength:
    """Rules for room passwords.

    Args:
        min_length: fewest code points (default 8).
        max_length: most code points (default 1024).
        require_upper: True requires an upper-case letter of any script (default True).
        require_lower: True requires a lower-case letter of any script (default True).
        require_digit: True requires a decimal digit of any script (default True).
        require_special: True requires a character that is neither letter, digit nor space (default False).

    Raises:
        ValueError: no password can have these lengths.
    """

    min_length: int = limits.PASSWORD_MIN_LENGTH
    max_length: int = limits.PASSWORD_MAX_LENGTH
    require_upper: bool = True
    require_lower: bool = True
    require_digit: bool = True
    require_special: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.min_length <= self.max_length:
            raise ValueError(
                "min_length must be 1 or more and max_length no less than that, "
                f"not {self.min_length} and {self.max_length}"
            )


_DEFAULT = PasswordStrength()


def validate_room_password(password: str, strength: PasswordStrength = _DEFAULT) -> None:
    """Raise ``WeakRoomPassword`` unless ``password`` obeys the rules of ``strength``.

    Args:
        password: text to be judged. No error repeats it.
        strength: rules to apply (default ``PasswordStrength()``).

    Raises:
        WeakRoomPassword: a rule is broken. The text names each broken rule.
    """
    if not isinstance(password, str):
        raise WeakRoomPassword(f"it must be a str, not {type(password).__name__}")
    if not strength.min_length <= len(password) <= strength.max_length:
        raise WeakRoomPassword(f"it must have {strength.min_length} to {strength.max_length} characters")
    rules = (
        (strength.require_upper, str.isupper, "an upper-case letter"),
        (strength.require_lower, str.islower, "a lower-case letter"),
        (strength.require_digit, str.isdecimal, "a digit"),
        (strength.require_special, _is_special, "a special character"),
    )
    missing = [name for required, kind, name in rules if required and not any(map(kind, password))]
    if missing:
        raise WeakRoomPassword(f"it must have {', '.join(missing)}")


def generate_secure_secret(n: int = limits.SECRET_SIZE) -> bytes:
    """Return a random secret for signing tokens.

    Args:
        n: bytes of the secret, 32 or more (default 32).

    Raises:
        ValueError: ``n`` is below 32.
    """
    if n < limits.SECRET_SIZE:
        raise ValueError(
            f"validation error on secret: length should be at least {limits.SECRET_SIZE} bytes, and is to be {n}"
        )
    return secrets.token_bytes(n)


def _is_special(char: str) -> bool:
    return char.isprintable() and not char.isalnum() and not char.isspace()
