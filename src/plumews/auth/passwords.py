"""Passwords of rooms, kept as salted hashes that are slow to make (layer 2).

RFC 8018 (PBKDF2); after the seed's room auth. Invariants: no password is kept, nor stands in a message or a repr;
hashes are compared in constant time; no lock is held while hashing.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from typing import Final, NamedTuple

from .. import limits

__all__ = ["RoomPasswords"]

_SALT_SIZE: Final = 16

#: What `room_password_hash` writes, and the seed kept: cost$salt$hash, the latter two in base64.
_TEXT: Final = re.compile(r"([0-9]{1,8})\$([A-Za-z0-9+/]{1,128}={0,2})\$([A-Za-z0-9+/]{1,128}={0,2})")

#: The sizes of a hash: ours, and that of the seed's first generation.
_DIGEST_SIZES: Final = (64, 32)


class _PasswordHash(NamedTuple):
    rounds: int
    salt: bytes
    digest: bytes


class RoomPasswords:
    """The passwords of rooms; a room without one is open to everybody (the seed).

    ``rounds`` is the work of PBKDF2-HMAC-SHA512 for one password (default ``limits.PASSWORD_ROUNDS``).

    Every method may be called from any thread. To set a password, or to check one, takes a tenth of a second of one
    core; in a coroutine say ``await asyncio.to_thread(passwords.set_room_password, room, password)``. The work holds
    neither the GIL nor a lock, so a server goes on serving. Raises ``ValueError`` for ``rounds`` below 1.
    """

    def __init__(self, *, rounds: int = limits.PASSWORD_ROUNDS) -> None:
        if rounds < 1:
            raise ValueError(f"rounds must be 1 or more (the default is {limits.PASSWORD_ROUNDS}), not {rounds}")
        self._rounds = rounds
        # Needs no lock: an entry is put in, taken out and read whole, and the hashing works on what was read.
        self._passwords: dict[str, _PasswordHash] = {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {len(self._passwords)}>"

    def __len__(self) -> int:
        return len(self._passwords)

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
        self._passwords[room] = _PasswordHash(self._rounds, salt, _hash(encoded, salt, self._rounds))

    def set_room_password_hash(self, room: str, text: str) -> None:
        """Protect ``room`` with the password whose hash ``text`` is, as :meth:`room_password_hash` gives it.

        Not slow. Raises ``ValueError`` unless it is ``cost$salt$hash``: the cost from ``limits.PASSWORD_COSTS``
        (100,000 to 2,000,000 rounds), a salt of 16 to 64 bytes and a hash of 32 or 64 in base64.
        """
        self._passwords[room] = _parsed(text)

    def room_password_hash(self, room: str) -> str | None:
        """The hash of the room's password as text, to be kept in a file or a database; ``None`` without one."""
        stored = self._passwords.get(room)
        if stored is None:
            return None
        salt, digest = (base64.b64encode(part).decode() for part in (stored.salt, stored.digest))
        return f"{stored.rounds}${salt}${digest}"

    def remove_room_password(self, room: str) -> None:
        """Open ``room`` to everybody; nothing happens if it was open."""
        self._passwords.pop(room, None)

    def has_room_password(self, room: str) -> bool:
        """Whether ``room`` has a password."""
        return room in self._passwords

    def room_password_salt(self, room: str) -> bytes | None:
        """What the password of ``room`` is salted with, which changes with it; ``None`` without a password."""
        stored = self._passwords.get(room)
        return None if stored is None else stored.salt

    def check_room_password(self, room: str, password: str | None) -> bool:
        """Whether ``password`` opens ``room``; a room without a password is open (the seed). Slow on purpose."""
        stored = self._passwords.get(room)
        if stored is None:
            return True
        encoded = _encoded_password(password)
        if not encoded:
            return False
        return hmac.compare_digest(
            _hash(encoded, stored.salt, stored.rounds, len(stored.digest)),
            stored.digest,
        )


def _hash(password: bytes, salt: bytes, rounds: int, size: int = _DIGEST_SIZES[0]) -> bytes:
    return hashlib.pbkdf2_hmac("sha512", password, salt, rounds, size)


def _parsed(text: str) -> _PasswordHash:
    """The hash that ``text`` describes. The text is no secret that guesses itself, but stays out of the errors."""
    found = _TEXT.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError("the hash of a room password must be text of the form cost$salt$hash, salt and hash in base64")
    rounds = int(found[1])
    fewest, most = limits.PASSWORD_COSTS
    if not fewest <= rounds <= most:
        raise ValueError(f"the cost of a room password's hash must be {fewest} to {most} rounds, not {rounds}")
    salt, digest = (_decoded(part) for part in (found[2], found[3]))
    if not _SALT_SIZE <= len(salt) <= 64:
        raise ValueError(f"the salt of a room password's hash must be 16 to 64 bytes, not {len(salt)}")
    if len(digest) not in _DIGEST_SIZES:
        raise ValueError(f"a room password's hash must be 64 or 32 bytes, not {len(digest)}")
    return _PasswordHash(rounds, salt, digest)


def _decoded(text: str) -> bytes:
    """Base64 with or without padding; empty where its length is impossible."""
    bare = text.rstrip("=")
    return b"" if len(bare) % 4 == 1 else base64.b64decode(bare + "=" * (-len(bare) % 4))


def _encoded_password(password: str | None) -> bytes:
    """The password in UTF-8; empty where there is none, or none that could have been set."""
    if not isinstance(password, str) or len(password) > limits.PASSWORD_SIZE:
        return b""
    try:
        encoded = password.encode()
    except UnicodeEncodeError:
        return b""
    return encoded if len(encoded) <= limits.PASSWORD_SIZE else b""
