from __future__ import annotations

import ssl
import time
from pathlib import Path

import pytest

from stompbridge.certificates import CertificateError, expires_at, server_context
from tests.support.certificates import Certificate


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return Certificate(tmp_path)


def refused(cert: Path, key: Path) -> CertificateError:
    with pytest.raises(CertificateError) as error:
        server_context(str(cert), str(key))
    assert str(error.value) == f"{error.value.key} = {error.value.file}: {error.value.cause}"
    return error.value


def test_a_context_for_a_server(certificate: Certificate) -> None:
    context = server_context(str(certificate.cert), str(certificate.key))
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert context.verify_mode is ssl.CERT_NONE


def test_both_may_be_in_one_file(certificate: Certificate) -> None:
    certificate.key.write_text(certificate.key.read_text() + certificate.cert.read_text())
    server_context(str(certificate.key), str(certificate.key))


def test_a_missing_file_is_named(certificate: Certificate, tmp_path: Path) -> None:
    missing = tmp_path / "missing.pem"
    error = refused(missing, certificate.key)
    assert (error.key, error.file) == ("listen.tls_cert", str(missing))
    assert error.cause == "cannot be read: No such file or directory"
    error = refused(certificate.cert, missing)
    assert (error.key, error.file) == ("listen.tls_key", str(missing))
    assert error.cause == "cannot be read: No such file or directory"


def test_a_key_for_everybody(certificate: Certificate) -> None:
    certificate.key.chmod(0o644)
    error = refused(certificate.cert, certificate.key)
    assert (error.key, error.cause) == ("listen.tls_key", "can be read by everybody on this machine: chmod o-rwx")


def test_files_that_hold_something_else(certificate: Certificate) -> None:
    error = refused(certificate.key, certificate.key)
    assert (error.key, error.cause) == ("listen.tls_cert", "holds no certificate in PEM form")
    certificate.cert.chmod(0o600)
    error = refused(certificate.cert, certificate.cert)
    assert (error.key, error.cause) == ("listen.tls_key", "holds no private key in PEM form")


def test_the_key_of_another_certificate(certificate: Certificate, tmp_path: Path) -> None:
    other = Certificate(tmp_path, "other")
    error = refused(certificate.cert, other.key)
    assert (error.key, error.cause) == ("listen.tls_key", f"is not the key of the certificate in {certificate.cert}")


def test_an_encrypted_key_asks_nobody(tmp_path: Path) -> None:
    certificate = Certificate(tmp_path, "encrypted", b"secret")
    error = refused(certificate.cert, certificate.key)
    assert (error.key, error.cause) == ("listen.tls_key", "is encrypted; store it without a passphrase")


def test_a_broken_certificate(certificate: Certificate) -> None:
    lines = certificate.cert.read_text().splitlines()
    certificate.cert.write_text("\n".join([lines[0], "AAAA", lines[-1]]))
    error = refused(certificate.cert, certificate.key)
    assert error.key == "listen.tls_cert"
    assert error.cause.startswith(f"cannot be used with the key in {certificate.key}: ")


def test_when_a_certificate_ends(certificate: Certificate, tmp_path: Path) -> None:
    ends = expires_at(str(certificate.cert))
    assert ends is not None
    assert abs(ends - time.time() - 86400) < 600
    odd = tmp_path / "odd.pem"
    odd.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    assert expires_at(str(odd)) is None
