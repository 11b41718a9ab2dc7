"""Tokens put together by hand, so that what no library would sign can be signed."""

from __future__ import annotations

import base64
import hmac
import json
from typing import Any

from plumews.auth.simple import SimpleRoomAuth

SECRET = bytes(range(32))
NOW = 1_700_000_000
HEADER = {"alg": "HS256", "typ": "JWT"}


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def as_json(value: object) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value).encode()


def sign(claims: object, header: object = HEADER, key: bytes = SECRET, digest: str = "sha256") -> str:
    """A token; ``claims`` and ``header`` may be raw bytes."""
    head = f"{b64(as_json(header))}.{b64(as_json(claims))}"
    return f"{head}.{b64(hmac.new(key, head.encode(), digest).digest())}"


def at(now: float = NOW, **options: Any) -> SimpleRoomAuth:
    return SimpleRoomAuth(SECRET, clock=lambda: now, **options)


GOOD = sign({"sub": "42"})
