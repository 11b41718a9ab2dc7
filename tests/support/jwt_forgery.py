"""Hand-made tokens, including tokens that no library signs."""

from __future__ import annotations

import base64
import hmac
import json
from typing import Any

import pytest

from plumews.auth.simple import SimpleRoomAuth
from plumews.errors import InvalidToken

SECRET = bytes(range(32))
NOW = 1_700_000_000
HEADER = {"alg": "HS256", "typ": "JWT"}


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def as_json(value: object) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value).encode()


def sign(claims: object, header: object = HEADER, key: bytes = SECRET, digest: str = "sha256") -> str:
    """Return a signed token. ``claims`` and ``header`` may be raw bytes."""
    head = f"{b64(as_json(header))}.{b64(as_json(claims))}"
    return f"{head}.{b64(hmac.new(key, head.encode(), digest).digest())}"


def at(now: float = NOW, **options: Any) -> SimpleRoomAuth:
    return SimpleRoomAuth(SECRET, clock=lambda: now, **options)


GOOD = sign({"sub": "42"})


def refusal(token: Any, verifier: SimpleRoomAuth | None = None) -> InvalidToken:
    """Return the error that refuses ``token``. It must repeat no part of it."""
    with pytest.raises(InvalidToken) as caught:
        (verifier or at()).verify_jwt(token)
    error = caught.value
    assert error.__cause__ is None
    assert error.__context__ is None
    text = token.decode("latin-1") if isinstance(token, bytes) else str(token)
    for part in text.split("."):
        assert len(part) < 8 or part not in str(error)
    return error
