"""TLS without I/O: bytes in, bytes out.

A blocking ``SSLSocket`` must not be read and written by two threads at the same time. Here only the computation is
under a lock, and never a system call. Layers can lie on each other: TLS to a server through an ``https`` proxy.
"""

from __future__ import annotations

import ssl
import threading

__all__ = ["TlsLayer"]

_READ = 64 * 1024


class TlsLayer:
    """TLS of one connection, above the socket or above another layer.

    Args:
        context: TLS context for clients.
        server_hostname: Name that the certificate is checked against, and SNI.
        below: Layer below, or ``None``.

    Attributes:
        ended: True once the peer has ended TLS.
    """

    __slots__ = ("_below", "_in", "_lock", "_object", "_out", "ended")

    def __init__(self, context: ssl.SSLContext, server_hostname: str, below: TlsLayer | None = None) -> None:
        self._in = ssl.MemoryBIO()
        self._out = ssl.MemoryBIO()
        self._object = context.wrap_bio(self._in, self._out, server_hostname=server_hostname)
        self._below = below
        self._lock = threading.Lock()
        self.ended = False

    @property
    def ssl_object(self) -> ssl.SSLObject:
        """Object with the certificate and the cipher."""
        return self._object

    def handshake(self, data: bytes) -> tuple[bytes, bool]:
        """Take received bytes. Return those to send, and True once the handshake is done.

        Raises:
            ssl.SSLError: The handshake failed.
        """
        if data:
            self._in.write(self._lower(data))
        done = False
        try:
            self._object.do_handshake()
            done = True
        except ssl.SSLWantReadError:
            pass
        return self._to_send(), done

    def encrypt(self, data: bytes) -> bytes:
        """Return the bytes to send for ``data``, behind those that TLS itself has to send."""
        with self._lock:
            if data:
                self._object.write(data)
            return self._to_send()

    def decrypt(self, data: bytes | memoryview) -> bytes:
        """Return what is complete after ``data`` was received. An error of TLS sets `ended`."""
        with self._lock:
            self._in.write(self._lower(data))
            parts = []
            try:
                while part := self._object.read(_READ):
                    parts.append(part)
                self.ended = True
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError:
                self.ended = True
            return b"".join(parts)

    def _lower(self, data: bytes | memoryview) -> bytes | memoryview:
        return data if self._below is None else self._below.decrypt(data)

    def _to_send(self) -> bytes:
        data = self._out.read()
        return data if self._below is None or not data else self._below.encrypt(data)
