"""Authentication of clients: tokens, passwords, revocation, and the life of a token on a connection.

May import the root vocabulary and the packages up to ``conn``. Imports neither ``hub`` nor ``server``.
"""

from __future__ import annotations

from .interfaces import RoomAuthorization, RoomAuthorizer, TokenAuthenticator
from .passwords import RoomPasswords
from .revocation import Revocation, Revocations
from .simple import AuthMetrics, SecureRoomAuth, SimpleRoomAuth
from .strength import PasswordStrength, generate_secure_secret, validate_room_password
from .tokens import HS256TokenAuth

__all__ = [
    "AuthMetrics",
    "HS256TokenAuth",
    "PasswordStrength",
    "Revocation",
    "Revocations",
    "RoomAuthorization",
    "RoomAuthorizer",
    "RoomPasswords",
    "SecureRoomAuth",
    "SimpleRoomAuth",
    "TokenAuthenticator",
    "generate_secure_secret",
    "validate_room_password",
]
