"""The user that a token identifies.

Verified claims (RFC 7519 section 4) become a `UserInfo`. Invariant: each field has its declared type. The claims are
kept as received, and are not part of the repr.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["UserInfo", "extract_user_info"]


@dataclass(frozen=True, slots=True)
class UserInfo:
    """User identified by a token. Missing claims become empty fields.

    An application that knows its users in another way creates an instance itself, ``UserInfo("42", "Ada")``, and sets
    ``conn.user_info`` before the connection joins a room.

    Args:
        id: User id, the claim ``sub``.
        name: Display name, the claim ``name``.
        email: Email address, the claim ``email``.
        roles: Permissions in the application's own words, the claim ``roles``.
        claims: All claims of the token.

    Raises:
        TypeError: ``id`` is no ``str``.
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
    """Return the user that verified ``claims`` describe.

    Args:
        claims: Claims of a verified token. ``sub`` becomes ``id``, ``roles`` is a list of ``str``. A value of
            another type is left out, also inside the list. ``None`` gives an empty ``UserInfo``.

    Returns:
        The user. Its ``claims`` are a copy of all ``claims``.
    """
    if claims is None:
        return UserInfo()
    id_, name, email = (value if isinstance(value := claims.get(key), str) else "" for key in ("sub", "name", "email"))
    listed = claims.get("roles")
    roles = tuple(role for role in listed if isinstance(role, str)) if isinstance(listed, (list, tuple)) else ()
    return UserInfo(id_, name, email, roles, dict(claims))
