"""TLS 1.3 records of a client that OpenSSL would not make: key updates at will, empty records, any content type."""

from __future__ import annotations

import ssl
import struct
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

ALERT, HANDSHAKE, DATA = 21, 22, 23


class RecordForger:
    """Records behind the handshake of ``tls``, which must not write any more (RFC 8446 sections 5.2 and 7.1).

    ``tls`` is a client's object whose context has a key log at ``keys``, for this connection alone.
    """

    def __init__(self, tls: ssl.SSLObject, keys: Path) -> None:
        cipher = tls.cipher()
        assert cipher is not None
        assert "AES" in cipher[0]
        self._hash = SHA384() if "SHA384" in cipher[0] else SHA256()
        self._size = 32 if "AES_256" in cipher[0] else 16
        (secret,) = (
            line.split()[2] for line in keys.read_text().splitlines() if line.startswith("CLIENT_TRAFFIC_SECRET_0")
        )
        self._begin(bytes.fromhex(secret))

    def _begin(self, secret: bytes) -> None:
        self._secret = secret
        self._key = AESGCM(self._expand(b"key", self._size))
        self._iv = int.from_bytes(self._expand(b"iv", 12), "big")
        self._number = 0

    def _expand(self, label: bytes, size: int) -> bytes:
        label = b"tls13 " + label
        return HKDFExpand(self._hash, size, struct.pack("!HB", size, len(label)) + label + b"\0").derive(self._secret)

    def record(self, kind: int, data: bytes, *, padding: int = 0) -> bytes:
        """Return one record of content type ``kind``."""
        inner = data + bytes([kind]) + bytes(padding)
        head = struct.pack("!BHH", DATA, 0x0303, len(inner) + 16)
        nonce = (self._iv ^ self._number).to_bytes(12, "big")
        self._number += 1
        return head + self._key.encrypt(nonce, inner, head)

    def key_update(self) -> bytes:
        """Return a KeyUpdate that asks for one in return."""
        record = self.record(HANDSHAKE, b"\x18\0\0\x01\x01")
        self._begin(self._expand(b"traffic upd", self._hash.digest_size))
        return record
