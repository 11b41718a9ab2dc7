"""What a door asks: who is it, and who may enter a room (layer 2).

The two questions are apart, so that a program may answer either with code of its own; each method may be plain or
``async def``. Invariant: what a client showed to get in is in no repr.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..http11.models import Request
from ..users import UserInfo

__all__ = ["RoomAuthorization", "RoomAuthorizer", "TokenAuthenticator"]


class TokenAuthenticator(Protocol):
    """Verifies tokens. ``HS256TokenAuth`` is one; yours may know other algorithms, or ask a store of sessions."""

    def verify_jwt(self, token: str, /) -> Mapping[str, Any] | Awaitable[Mapping[str, Any]]:
        """Return the claims of ``token``, or raise ``InvalidToken``.

        A plain method is called on the event loop and must be quick; one that waits is ``async def``.
        """


class RoomAuthorizer(Protocol):
    """Decides who enters a room. ``RoomPasswords`` is one.

    It may have ``authorize_room(authorization: RoomAuthorization) -> bool`` as well, plain or ``async def``, which
    then is asked instead, for every room: it sees the request, the user and the claims, too.
    """

    def check_room_password(self, room: str, password: str | None, /) -> bool | Awaitable[bool]:
        """Whether ``password`` (``None``: none was given) opens ``room``.

        A plain method is called in a thread, so it may take its time; one that is ``async def`` is awaited.
        """


@dataclass(frozen=True, slots=True)
class RoomAuthorization:
    """Somebody who wants to enter ``room``, and all that is known of them.

    Args:
        request: the opening request; the address of the client and its headers are there.
        room: the room, whose name is within the policy.
        password: the room password that was given; ``None`` without one.
        user: whom the token speaks of; ``None`` without a token.
        claims: what the token says, verified; empty without one.
        anonymous: whether there was no token.
    """

    request: Request = field(repr=False)
    room: str
    password: str | None = field(default=None, repr=False)
    user: UserInfo | None = None
    claims: Mapping[str, Any] = field(default_factory=dict, repr=False, hash=False)
    anonymous: bool = True
