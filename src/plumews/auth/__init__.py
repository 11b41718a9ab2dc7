"""Authentication of clients: tokens, passwords, revocation, and the lifetime of a token on a connection.

May import the root vocabulary and the packages up to ``conn``. Imports neither ``hub`` nor ``server``.
"""

from __future__ import annotations

from ..users import UserInfo, extract_user_info
from .interfaces import RoomAuth, RoomAuthorization, RoomAuthorizer, TokenAuthenticator
from .passwords import PasswordStrength, RoomPasswords, generate_secure_secret, validate_room_password
from .revocation import Revocation, Revocations
from .simple import AuthMetrics, SecureRoomAuth, SimpleRoomAuth
from .tokens import HS256TokenAuth

__all__ = [
    "AuthMetrics",
    "HS256TokenAuth",
    "PasswordStrength",
    "Revocation",
    "Revocations",
    "RoomAuth",
    "RoomAuthorization",
    "RoomAuthorizer",
    "RoomPasswords",
    "SecureRoomAuth",
    "SimpleRoomAuth",
    "TokenAuthenticator",
    "UserInfo",
    "extract_user_info",
    "generate_secure_secret",
    "validate_room_password",
]
