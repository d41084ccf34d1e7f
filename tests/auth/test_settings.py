"""The [auth] section: what it accepts, and that it keeps its secrets."""

from __future__ import annotations

from pathlib import Path

import pytest

from stompbridge import config
from stompbridge.config import ConfigError

JWT = {"auth.backend": "jwt", "auth.jwt.jwks_url": "https://id/", "auth.jwt.audience": "a", "auth.jwt.issuer": "i"}
KEY_FILE = {**JWT, "auth.jwt.jwks_url": "", "auth.jwt.key_file": "key"}
HTTP = {"auth.backend": "http", "auth.http.url": "https://hook.example/auth"}
STATIC = {"auth.backend": "static", "auth.users_file": "users"}


@pytest.mark.parametrize(
    "overrides",
    [
        STATIC,
        {"auth.backend": "rabbitmq", "broker.kind": "rabbitmq"},
        JWT,
        {**JWT, "auth.jwt.jwks_url": "http://127.0.0.1:9000/keys", "auth.jwt.cookie": "__Host-session"},
        {**JWT, "auth.jwt.jwks_url": "", "auth.jwt.jwks_file": "keys", "auth.jwt.algorithms": '["HS256", "RS256"]'},
        KEY_FILE,
        {**KEY_FILE, "auth.jwt.algorithms": '["HS256", "HS512"]'},
        HTTP,
        {**HTTP, "auth.http.url": "http://localhost:9000/"},
        {**HTTP, "auth.http.url": "http://[::1]:9000/"},
        {**STATIC, "auth.default_login": "guest", "auth.default_passcode": "guest"},
        # What another backend needs is not asked for.
        {"auth.jwt.jwks_url": "http://elsewhere.example/", "auth.http.url": "?"},
    ],
)
def test_what_fits(overrides: dict[str, str]) -> None:
    config.load(None, {}, overrides)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"auth.backend": "statik"}, 'auth.backend = "statik": must be one of'),
        ({"auth.backend": "static"}, 'auth.users_file = "": must name the users\' file for auth.backend = "static"'),
        ({"auth.backend": "rabbitmq"}, 'auth.backend = "rabbitmq": needs broker.kind = "rabbitmq"'),
        ({"auth.backend": "http"}, 'auth.http.url = "": must be an "https://" URL'),
        ({**HTTP, "auth.http.url": "http://hook.example/"}, 'must be an "https://" URL; "http://" is for this machine'),
        ({**HTTP, "auth.http.url": "ftp://127.0.0.1/"}, "auth.http.url"),
        ({**HTTP, "auth.http.url": "https://"}, "auth.http.url"),
        ({**HTTP, "auth.http.url": "https://h:99999/"}, "auth.http.url"),
        ({**HTTP, "auth.http.url": "https://h:0/"}, "auth.http.url"),
        ({**HTTP, "auth.http.url": "http://u:secret@h/"}, 'auth.http.url = "http://u:***@h/"'),
        ({"auth.http.timeout": "0s"}, 'auth.http.timeout = "0s": must be at least "1ms"'),
        ({"auth.failure_window": "0s"}, 'auth.failure_window = "0s": must be at least "1ms"'),
        ({"auth.failures": "0"}, "auth.failures = 0: must be a whole number from 1"),
        ({**JWT, "auth.jwt.jwks_url": ""}, 'auth.jwt.key_file = "": must be given, or auth.jwt.jwks_file or'),
        (
            {**JWT, "auth.jwt.jwks_file": "keys"},
            'auth.jwt.jwks_url = "https://id/": cannot be had beside auth.jwt.jwks_file: the keys have one source',
        ),
        ({**KEY_FILE, "auth.jwt.jwks_file": "keys"}, "cannot be had beside auth.jwt.key_file"),
        ({**JWT, "auth.jwt.jwks_url": "http://id.example/"}, 'auth.jwt.jwks_url = "http://id.example/": must be an "h'),
        ({**JWT, "auth.jwt.audience": ""}, 'auth.jwt.audience = "": must be given: a token for or from somebody else'),
        ({**JWT, "auth.jwt.issuer": ""}, 'auth.jwt.issuer = "": must be given'),
        ({**JWT, "auth.jwt.user_claim": ""}, "auth.jwt.user_claim"),
        ({**JWT, "auth.jwt.jwks_refresh": "0s"}, 'auth.jwt.jwks_refresh = "0s": must be at least "1s"'),
        ({**JWT, "auth.jwt.algorithms": "[]"}, "auth.jwt.algorithms = []: must name at least one"),
        ({**JWT, "auth.jwt.algorithms": '["none"]'}, 'auth.jwt.algorithms[0] = "none": must be one of "ES256"'),
        (
            {**JWT, "auth.jwt.algorithms": '["RS256", "HS256"]'},
            'auth.jwt.algorithms = ["RS256", "HS256"]: HS256 needs a shared secret, which no URL gives',
        ),
        (
            {**KEY_FILE, "auth.jwt.algorithms": '["RS256", "HS256"]'},
            "HS256 needs a shared secret and others a public key",
        ),
        ({**JWT, "auth.jwt.cookie": "a b"}, 'auth.jwt.cookie = "a b": is no name that a cookie can have'),
        ({**JWT, "auth.default_login": "x"}, 'auth.default_login = "x": has no meaning with auth.backend = "jwt"'),
        ({**STATIC, "auth.default_login": "x"}, "needs auth.default_passcode or auth.default_passcode_file"),
        ({"auth.default_passcode": "secret"}, 'auth.default_passcode = "***": needs auth.default_login'),
        ({"auth.default_pascode": "secret"}, "did you mean auth.default_passcode?"),
    ],
)
def test_what_does_not(overrides: dict[str, str], expected: str) -> None:
    with pytest.raises(ConfigError) as info:
        config.load(None, {}, overrides)
    assert expected in str(info.value)
    assert "\n" not in str(info.value)
    assert "secret" not in str(info.value).replace("shared secret", "")


def test_a_secret_of_the_wrong_type_is_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "bridge.toml"
    path.write_text("[auth]\ndefault_passcode = 12345")
    with pytest.raises(ConfigError) as info:
        config.load(path, {}, {})
    assert str(info.value) == f'{path}: auth.default_passcode = "***": must be text in quotes'


def test_the_default_passcode_is_not_shown() -> None:
    overrides = {**STATIC, "auth.default_login": "guest", "auth.default_passcode": "s3cret"}
    text = config.show(config.load(None, {}, overrides))
    assert 'default_passcode = "***"' in text
    assert "s3cret" not in text
    assert 'default_passcode = ""' in config.show(config.Settings())


def test_the_default_passcode_may_be_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "bridge.toml"
    path.write_text("[auth]\ndefault_login = 'guest'\ndefault_passcode_file = 'passcode'")
    secret = tmp_path / "passcode"
    secret.touch(0o600)
    secret.write_text(" # sec ret\n")
    assert config.load(path, {}, {}).auth.default_passcode == " # sec ret"
    start = f'{path}: auth.default_passcode_file = "passcode": '
    for content, problem in (
        ("", "must hold one line, the passcode"),
        ("\n", "must hold one line, the passcode"),
        ("secret\nsecret\n", "must hold one line, the passcode"),
    ):
        secret.write_text(content)
        with pytest.raises(ConfigError) as info:
            config.load(path, {}, {})
        assert str(info.value) == start + problem
    secret.chmod(0o644)
    with pytest.raises(ConfigError, match="can be read by everybody"):
        config.load(path, {}, {})


def test_files_start_where_the_configuration_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bridge.toml"
    path.write_text("[auth]\nusers_file = 'users'\n[auth.jwt]\nkey_file = '/etc/key'\njwks_file = 'keys/set.json'")
    auth = config.load(path, {}, {}).auth
    assert auth.users_file == f"{tmp_path}/users"
    assert (auth.jwt.key_file, auth.jwt.jwks_file) == ("/etc/key", f"{tmp_path}/keys/set.json")
    monkeypatch.chdir(tmp_path)
    assert config.load(Path("bridge.toml"), {}, {}).auth == auth
    assert config.load(None, {}, {"auth.users_file": "users"}).auth.users_file == f"{tmp_path}/users"
    assert config.load(None, {}, {}).auth.users_file == ""
