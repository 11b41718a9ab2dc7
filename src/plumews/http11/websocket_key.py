"""The key of an opening handshake, and the value that answers it (RFC 6455 sections 4.1 and 4.2.2).

``websocket_key.pyx`` is the same in C. It is imported instead where it is built.
"""

from __future__ import annotations

import binascii
import hashlib
from typing import Final

from ..constants import ACCEPT_GUID

__all__ = ["accept_value", "is_key"]

#: Bytes of the nonce in Sec-WebSocket-Key, and of its base64 form.
_NONCE_SIZE: Final = 16
_KEY_SIZE: Final = 24


def is_key(text: str) -> bool:
    """Return True if ``text`` is the base64 form of 16 bytes."""
    if len(text) != _KEY_SIZE or not text.endswith("=="):
        return False
    try:
        # Characters of another alphabet are skipped, and there would be less than the nonce.
        size = len(binascii.a2b_base64(text))
    except ValueError:
        size = 0
    return size == _NONCE_SIZE


def accept_value(key: str) -> bytes:
    """Return the ``Sec-WebSocket-Accept`` value for ``key``.

    Raises:
        ValueError: it is not a valid key.
    """
    if not is_key(key):
        raise ValueError("invalid websocket key")
    digest = hashlib.sha1(key.encode() + ACCEPT_GUID, usedforsecurity=False).digest()
    return binascii.b2a_base64(digest, newline=False)
