"""What an application puts in place of our own authentication: two protocols (layer 2).

Who is it: a :class:`TokenAuthenticator`. May they enter this room: a :class:`RoomAuthorizer`. Each method may be a
plain function or ``async def``; ``SimpleRoomAuth`` is both.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from .auth import UserInfo
from .http11 import Request

__all__ = ["RoomAuthorization", "RoomAuthorizer", "TokenAuthenticator"]


class TokenAuthenticator(Protocol):
    """Verifies tokens: yours may know other algorithms, or ask a service."""

    def verify_jwt(self, token: str, /) -> Mapping[str, Any] | Awaitable[Mapping[str, Any]]:
        """Return the claims of ``token``, or raise ``InvalidToken``. A plain function is called on the loop."""


class RoomAuthorizer(Protocol):
    """Decides who enters a room. A plain method is called in a thread, so it may take its time."""

    def check_room_password(self, room: str, password: str | None, /) -> bool | Awaitable[bool]:
        """Whether ``password`` (``None``: none was given) opens ``room``."""


@dataclass(frozen=True)
class RoomAuthorization:
    """What ``authorize_room(authorization)`` of an authorizer is asked, in place of ``check_room_password``.

    Attributes:
        request: the request that opened the connection, or is to.
        room: its name, which the policy allows.
        password: what the client gave, ``None`` for nothing; in no ``repr``.
        user: whom the token speaks of; ``None`` without one.
        claims: those of the token; empty without one.
        anonymous: whether there was no token.
    """

    request: Request
    room: str
    password: str | None = field(default=None, repr=False)
    user: UserInfo | None = None
    claims: Mapping[str, Any] = field(default_factory=dict, repr=False)
    anonymous: bool = True
