"""Self-signed certificate for benchmarks over TLS, made when it is needed. Needs ``cryptography``."""

from __future__ import annotations

import datetime
import importlib.util
import os
import ssl
from pathlib import Path

from .running import HOST

#: Names the file with certificate and key to a server.
VARIABLE = "BENCH_CERTIFICATE"


def available() -> bool:
    """Return True if ``cryptography`` is installed."""
    return importlib.util.find_spec("cryptography") is not None


def make(path: Path) -> None:
    """Write a certificate of one day, P-256, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, HOST)])
    now, hour = datetime.datetime.now(datetime.timezone.utc), datetime.timedelta(hours=1)
    certificate = x509.CertificateBuilder(
        name, name, key.public_key(), x509.random_serial_number(), now - hour, now + 24 * hour
    ).sign(key, hashes.SHA256())
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + secret)


def environment(directory: Path) -> dict[str, str]:
    """The environment of a server that is to speak TLS, with a certificate in ``directory``."""
    path = directory / "certificate.pem"
    make(path)
    return {VARIABLE: str(path)}


def context() -> ssl.SSLContext | None:
    """The context of a server; None where it is to speak without TLS."""
    if VARIABLE not in os.environ:
        return None
    found = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    found.load_cert_chain(os.environ[VARIABLE])
    return found
