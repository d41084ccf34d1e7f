"""Certificates for a test: signed by themselves, for ``localhost`` and 127.0.0.1."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)


class Certificate:
    """Two PEM files, ``cert`` and ``key``; ``serial`` tells one certificate from another."""

    def __init__(self, folder: Path, name: str = "server", passphrase: bytes | None = None, *, days: float = 1) -> None:
        """``days`` until it expires; below 0 it has expired already."""
        folder.mkdir(exist_ok=True)
        self.cert = folder / f"{name}.crt"
        self.key = folder / f"{name}.key"
        self._days = days
        self.serial = self.renew(passphrase)

    def renew(self, passphrase: bytes | None = None) -> int:
        """Writes another certificate and key to the same files; returns its serial number."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
        now = datetime.now(UTC)
        end = now + timedelta(days=self._days)
        names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
        cert = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(min(now, end) - timedelta(hours=1))
            .not_valid_after(end)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(key, hashes.SHA256())
        )
        encryption: KeySerializationEncryption = NoEncryption()
        if passphrase is not None:
            encryption = BestAvailableEncryption(passphrase)
        self.key.touch(mode=0o600)
        self.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
        self.cert.write_bytes(cert.public_bytes(Encoding.PEM))
        self.serial = cert.serial_number
        return self.serial

    def trust(self) -> ssl.SSLContext:
        """A client's context that trusts this certificate alone."""
        return ssl.create_default_context(cafile=str(self.cert))

    def toml(self) -> str:
        """The two settings."""
        return f'tls_cert = "{self.cert}"\ntls_key = "{self.key}"\n'
