"""The server's own certificate: from two PEM files to what a TLS handshake needs."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from stompbridge.config_file import read_private


class CertificateError(ValueError):
    """A certificate or its key cannot be used. ``key`` is the setting that names the file at fault, ``cause`` what is
    wrong with it."""

    def __init__(self, key: str, file: str, cause: str) -> None:
        super().__init__(f"{key} = {file}: {cause}")
        self.key = key
        self.file = file
        self.cause = cause


def server_context(cert: str, key: str) -> ssl.SSLContext:
    """A context with the certificate, and its chain, of the PEM file ``cert`` and the private key of ``key``.

    TLS 1.2 and 1.3 without renegotiation. Raises :class:`CertificateError`.
    """
    _look_into("listen.tls_cert", cert, "-----BEGIN CERTIFICATE-----", "certificate", _read)
    _look_into("listen.tls_key", key, "PRIVATE KEY-----", "private key", read_private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    # RFC 6455 is HTTP/1.1's: a client that could do HTTP/2 as well has to know.
    context.set_alpn_protocols(["http/1.1"])

    def refuse_password() -> NoReturn:
        # Else OpenSSL asks for it on the terminal.
        raise CertificateError("listen.tls_key", key, "is encrypted; store it without a passphrase")

    try:
        context.load_cert_chain(cert, key, refuse_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise CertificateError("listen.tls_key", key, f"is not the key of the certificate in {cert}") from None
        cause = f"cannot be used with the key in {key}: {error.reason or error}"
        raise CertificateError("listen.tls_cert", cert, cause) from None
    return context


def expires_at(cert: str) -> float | None:
    """When the first certificate of the PEM file ``cert`` ends, in seconds since 1970; ``None`` where that cannot be
    told: OpenSSL takes certificates that are not quite as they should be."""
    # A library that takes its time to load, and is not needed without TLS.
    from cryptography.x509 import load_pem_x509_certificates

    try:
        return load_pem_x509_certificates(_read(Path(cert)).encode())[0].not_valid_after_utc.timestamp()
    except ValueError:
        return None


def _look_into(setting: str, file: str, mark: str, what: str, read: Callable[[Path], str]) -> None:
    try:
        text = read(Path(file))
    except ValueError as error:
        raise CertificateError(setting, file, str(error)) from None
    if mark not in text:
        raise CertificateError(setting, file, f"holds no {what} in PEM form")


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
