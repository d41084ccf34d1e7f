"""Settings of the door: TLS, proxies, limits."""

from __future__ import annotations

from pathlib import Path

import pytest

from stompbridge import config
from stompbridge.config import ConfigError, Settings
from tests.support.certificates import Certificate


def load(tmp_path: Path, text: str) -> Settings:
    path = tmp_path / "stompbridge.toml"
    path.write_text(text)
    return config.load(path, {}, {})


def problem(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as error:
        load(tmp_path, text)
    [line] = str(error.value).splitlines()
    start = f"{tmp_path / 'stompbridge.toml'}: "
    return line.removeprefix(start)


def test_files_start_at_the_configuration_s_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = Certificate(tmp_path)
    settings = load(tmp_path, '[listen]\ntls_cert = "server.crt"\ntls_key = "server.key"\n')
    assert (settings.listen.tls_cert, settings.listen.tls_key) == (str(certificate.cert), str(certificate.key))
    monkeypatch.chdir(tmp_path)
    names = {"listen.tls_cert": "server.crt", "listen.tls_key": str(certificate.key)}
    assert config.load(None, {}, names).listen.tls_cert == str(certificate.cert)


def test_a_pair_that_is_none(tmp_path: Path) -> None:
    certificate, other = Certificate(tmp_path), Certificate(tmp_path, "other")
    assert problem(tmp_path, '[listen]\ntls_cert = "server.crt"\ntls_key = "other.key"\n') == (
        f'listen.tls_key = "{other.key}": is not the key of the certificate in {certificate.cert}'
    )


@pytest.mark.parametrize(("given", "missing"), [("tls_cert", "listen.tls_key"), ("tls_key", "listen.tls_cert")])
def test_half_a_pair(tmp_path: Path, given: str, missing: str) -> None:
    found = problem(tmp_path, f'[listen]\n{given} = "server.pem"\n')
    assert found == f'{missing} = "": is needed, too, as listen.{given} is set'


def test_a_missing_certificate(tmp_path: Path) -> None:
    Certificate(tmp_path)
    found = problem(tmp_path, '[listen]\ntls_cert = "absent.crt"\ntls_key = "server.key"\n')
    assert found == f'listen.tls_cert = "{tmp_path}/absent.crt": cannot be read: No such file or directory'


@pytest.mark.parametrize("network", ["10.0.0.1/8", "10.0.0.0/40", "proxy.example", ""])
def test_what_is_no_network(tmp_path: Path, network: str) -> None:
    found = problem(tmp_path, f'[listen]\ntrusted_proxies = ["10.0.0.0/8", "{network}"]\n')
    assert found.startswith(f'listen.trusted_proxies[1] = "{network}": must be a network such as "10.0.0.0/8": '), found


def test_networks(tmp_path: Path) -> None:
    settings = load(tmp_path, '[listen]\ntrusted_proxies = ["10.0.0.0/8", "::1"]\nproxy_protocol = true\n')
    assert settings.listen.trusted_proxies == ("10.0.0.0/8", "::1")


def test_proxy_headers_of_nobody(tmp_path: Path) -> None:
    assert problem(tmp_path, "[listen]\nproxy_protocol = true\n") == (
        "listen.proxy_protocol = true: needs listen.trusted_proxies: nobody else's PROXY header is believed"
    )


def test_proxy_headers_before_tls(tmp_path: Path) -> None:
    certificate = Certificate(tmp_path)
    text = f'[listen]\n{certificate.toml()}proxy_protocol = true\ntrusted_proxies = ["10.0.0.0/8"]\n'
    assert problem(tmp_path, text) == (
        "listen.proxy_protocol = true: cannot be combined with listen.tls_cert; "
        "let the proxy end TLS, or leave the PROXY protocol out"
    )
