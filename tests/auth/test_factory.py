from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stompbridge import config
from stompbridge.auth.base import AuthRefused
from stompbridge.auth.factory import make_authenticator
from stompbridge.auth.http import WebhookAuthenticator
from stompbridge.auth.jwt import TokenAuthenticator
from stompbridge.auth.static import StaticUsers, hash_password
from stompbridge.auth.throttle import Throttled

JWT = {
    "auth.backend": "jwt",
    "auth.jwt.jwks_url": "https://id.example/keys",
    "auth.jwt.audience": "a",
    "auth.jwt.issuer": "i",
}


@pytest.mark.parametrize(
    ("overrides", "kind"),
    [
        ({"auth.backend": "static", "auth.users_file": "users.toml"}, StaticUsers),
        (JWT, TokenAuthenticator),
        ({"auth.backend": "http", "auth.http.url": "https://hook.example/"}, WebhookAuthenticator),
    ],
)
def test_a_backend_is_guarded(overrides: dict[str, str], kind: type) -> None:
    authenticator = make_authenticator(config.load(None, {}, overrides))
    assert isinstance(authenticator, Throttled)
    assert isinstance(authenticator.authenticator, kind)


@pytest.mark.parametrize("overrides", [{}, {"auth.backend": "rabbitmq", "broker.kind": "rabbitmq"}])
def test_backends_of_others(overrides: dict[str, str]) -> None:
    assert make_authenticator(config.load(None, {}, overrides)) is None


async def test_limits_come_from_the_configuration(tmp_path: Path, ask: Any) -> None:
    path = tmp_path / "users.toml"
    path.touch(0o600)
    path.write_text(f'[users.alice]\npassword = "{hash_password("right")}"')
    config_file = tmp_path / "bridge.toml"
    config_file.write_text(
        "[auth]\nbackend = 'static'\nusers_file = 'users.toml'\nfailures = 2\nfailure_window = '1h'\n"
    )
    authenticator = make_authenticator(config.load(config_file, {}, {}))
    assert authenticator is not None
    await authenticator.start()
    assert (await authenticator.authenticate(ask("alice", "right"))).user == "alice"
    causes = []
    for _ in range(3):
        with pytest.raises(AuthRefused) as info:
            await authenticator.authenticate(ask("alice", "wrong"))
        causes.append(info.value.cause)
    assert causes == ["wrong password"] * 2 + ["refused unseen: too many refusals of this address"]
    await authenticator.stop()


async def test_a_login_beside_a_token_locks_nobody_out(ask: Any, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text('{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}')
    overrides = {**JWT, "auth.jwt.jwks_url": "", "auth.jwt.jwks_file": str(path), "auth.failures": "1"}
    authenticator = make_authenticator(config.load(None, {}, overrides))
    assert authenticator is not None
    await authenticator.start()
    for number in range(3):
        with pytest.raises(AuthRefused) as info:
            await authenticator.authenticate(ask("alice", "no token", address=f"192.0.2.{number}"))
        assert info.value.cause == "no token"
    await authenticator.stop()


def test_no_library_is_loaded_before_it_is_needed() -> None:
    code = (
        "import sys, stompbridge.cli, stompbridge.auth.factory, stompbridge.config as c\n"
        "c.load(None, {}, {})\n"
        "stompbridge.auth.factory.make_authenticator(c.Settings())\n"
        "print([name for name in ('httpx', 'jwt', 'argon2', 'cryptography') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "[]\n"
