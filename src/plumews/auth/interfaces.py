"""Interfaces between a server and the application's code that authenticates and authorizes.

``TokenAuthenticator`` identifies a client, ``RoomAuthorizer`` admits it to a room, and ``RoomAuth`` does both. An
application may replace either. Each method may be a plain function or ``async def``. No repr shows what a client sent
to authenticate itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..http11.models import Request
from ..users import UserInfo

__all__ = ["RoomAuth", "RoomAuthorization", "RoomAuthorizer", "TokenAuthenticator"]


class TokenAuthenticator(Protocol):
    """Verifier of tokens, such as ``HS256TokenAuth``. Others may know other algorithms, or ask a session store."""

    def verify_jwt(self, token: str, /) -> Mapping[str, Any] | Awaitable[Mapping[str, Any]]:
        """Return the claims of ``token``, or raise ``InvalidToken``.

        A plain method runs on the event loop and must not block. A method that waits is ``async def``.
        """


class RoomAuthorizer(Protocol):
    """Authorizer of clients that enter a room, such as ``RoomPasswords``.

    It may also have ``authorize_room(authorization: RoomAuthorization) -> bool``, plain or ``async def``. That method
    then decides about every room instead. It sees the request, the user and the claims as well.
    """

    def check_room_password(self, room: str, password: str | None, /) -> bool | Awaitable[bool]:
        """Return whether ``password`` opens ``room``. It is None if the client sent none.

        A plain method runs in a thread and may block. A coroutine function is awaited on the event loop.
        """


class RoomAuth(TokenAuthenticator, RoomAuthorizer, Protocol):
    """Authenticator and authorizer in one object, such as :class:`plumews.SimpleRoomAuth`."""

    def has_room_password(self, room: str, /) -> bool:
        """Return whether ``room`` has a password. Such a room is known."""


@dataclass(frozen=True, slots=True)
class RoomAuthorization:
    """Request of a client to enter a room, with all that is known of the client.

    Args:
        request: opening request, with the address of the client and its headers.
        room: name of the room, valid by the policy for names.
        password: room password that the client sent, or None.
        user: user of the verified token, or None without a token.
        claims: claims of the verified token, empty without one.
        anonymous: True if the client sent no token.
    """

    request: Request = field(repr=False)
    room: str
    password: str | None = field(default=None, repr=False)
    user: UserInfo | None = None
    claims: Mapping[str, Any] = field(default_factory=dict, repr=False, hash=False)
    anonymous: bool = True
