"""Whom a token speaks of (layer 2).

Claims (RFC 7519 section 4) that somebody verified become a `UserInfo`. Invariant: what is in it has the type that it
says; the claims as they came are beside it, and not in its repr.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["UserInfo", "extract_user_info"]


@dataclass(frozen=True, slots=True)
class UserInfo:
    """User that a token speaks of; what it does not say is empty.

    Attributes:
        id: the ``sub`` of the token.
        name, email: how the user is called, and reached.
        roles: what the user may do, in the application's own words.
        claims: all of the token.

    A program with another way to know its users makes one itself, ``UserInfo("42", "Ada")``, and sets
    ``conn.user_info`` before the connection joins a room. Raises ``TypeError`` if ``id`` is no ``str``.
    """

    id: str = ""
    name: str = ""
    email: str = ""
    roles: tuple[str, ...] = ()
    claims: Mapping[str, Any] = field(default_factory=dict, repr=False, hash=False)

    def __post_init__(self) -> None:
        if not isinstance(self.id, str):
            raise TypeError(f"the id of a user must be a str, not {type(self.id).__name__}: str(id) makes one")


def extract_user_info(claims: Mapping[str, Any] | None) -> UserInfo:
    """The user that verified ``claims`` describe (the seed's ExtractUserInfo).

    ``sub`` becomes ``id``; ``name`` and ``email`` keep their names; ``roles`` is a list. Values of another type
    are passed over, also inside the list; ``claims`` still has them. ``None`` gives an empty ``UserInfo``.
    """
    if claims is None:
        return UserInfo()
    id_, name, email = (value if isinstance(value := claims.get(key), str) else "" for key in ("sub", "name", "email"))
    listed = claims.get("roles")
    roles = tuple(role for role in listed if isinstance(role, str)) if isinstance(listed, (list, tuple)) else ()
    return UserInfo(id_, name, email, roles, dict(claims))
