from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from stompbridge.auth import jwks
from stompbridge.auth.jwks import Key, KeySet, parse_jwks, read_key_file
from stompbridge.config import Jwt

RSA = rsa.generate_private_key(65537, 2048)
SHORT_RSA = rsa.generate_private_key(65537, 1024)
P256 = ec.generate_private_key(ec.SECP256R1())
ED25519 = ed25519.Ed25519PrivateKey.generate()
RSA_ALGORITHMS = {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
ALL = frozenset(RSA_ALGORITHMS | {"HS256", "HS384", "HS512", "ES256", "ES384", "ES512", "EdDSA"})

RSA_JWK = RSAAlgorithm.to_jwk(RSA.public_key(), as_dict=True)
EC_JWK = ECAlgorithm.to_jwk(P256.public_key(), as_dict=True)
OKP_JWK = OKPAlgorithm.to_jwk(ED25519.public_key(), as_dict=True)
OCT_JWK = {"kty": "oct", "k": "A" * 64}


def pem(key: Any) -> bytes:
    data: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return data


def jwk_set(*entries: Any) -> bytes:
    return json.dumps({"keys": entries}).encode()


# One key in a PEM file


@pytest.mark.parametrize(
    ("key", "algorithms"),
    [
        (RSA, RSA_ALGORITHMS),
        (P256, {"ES256"}),
        (ec.generate_private_key(ec.SECP384R1()), {"ES384"}),
        (ec.generate_private_key(ec.SECP521R1()), {"ES512"}),
        (ED25519, {"EdDSA"}),
        (ed448.Ed448PrivateKey.generate(), {"EdDSA"}),
    ],
)
def test_a_public_key_is_bound_to_its_algorithms(tmp_path: Path, key: Any, algorithms: set[str]) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(pem(key))
    asymmetric = frozenset(name for name in ALL if not name.startswith("HS"))
    assert read_key_file(path, asymmetric).algorithms == algorithms
    # With secrets allowed beside, it does not become one.
    assert read_key_file(path, ALL).algorithms == algorithms


def test_a_shared_secret(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.touch(0o600)
    path.write_text("s" * 48 + "\n")
    key = read_key_file(path, frozenset({"HS256", "HS512"}))
    assert (key.material, key.algorithms) == (b"s" * 48, {"HS256"})
    assert "sss" not in repr(key)
    path.chmod(0o644)
    with pytest.raises(ValueError, match="secret: can be read by everybody"):
        read_key_file(path, frozenset({"HS256"}))


@pytest.mark.parametrize(
    ("content", "allowed", "problem"),
    [
        (pem(RSA), {"HS256"}, "holds a PEM key, which is no shared secret; auth.jwt.algorithms lists HS ones"),
        (b"secret" * 5, {"HS256"}, "the key is too short, or of a kind that is not supported"),
        (b"secret" * 6, {"HS512"}, "the key fits HS256, and auth.jwt.algorithms none of them"),
        (b"\xff", {"HS256"}, "is not UTF-8 text"),
        (b"secret", {"RS256"}, "holds no PEM public key"),
        (b"", {"RS256"}, "holds no PEM public key"),
        (pem(SHORT_RSA), {"RS256"}, "the key is too short, or of a kind that is not supported"),
        (pem(P256), {"RS256", "EdDSA"}, "the key fits ES256, and auth.jwt.algorithms none of them"),
        (pem(x25519.X25519PrivateKey.generate()), {"EdDSA"}, "of a kind that is not supported"),
        (pem(ec.generate_private_key(ec.SECP256K1())), {"ES256"}, "of a kind that is not supported"),
        (
            RSA.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            {"RS256"},
            "holds a private key; only the public one belongs here",
        ),
    ],
)
def test_a_bad_key_file_is_named(tmp_path: Path, content: bytes, allowed: set[str], problem: str) -> None:
    path = tmp_path / "key"
    path.touch(0o600)
    path.write_bytes(content)
    with pytest.raises(ValueError, match="key") as info:
        read_key_file(path, frozenset(allowed))
    assert str(info.value).startswith(f"{path}: ")
    assert problem in str(info.value)
    assert "secret" not in str(info.value).replace("shared secret", "")


def test_a_key_file_that_is_not_there(tmp_path: Path) -> None:
    for allowed in ({"HS256"}, {"RS256"}):
        with pytest.raises(ValueError, match="none: cannot be read: No such file or directory"):
            read_key_file(tmp_path / "none", frozenset(allowed))


# A set of keys


def test_a_set_of_keys() -> None:
    keys = parse_jwks(jwk_set({**RSA_JWK, "kid": "r"}, {**EC_JWK, "kid": "e"}, {**OKP_JWK, "kid": "o"}, OCT_JWK), ALL)
    assert {key.kid: set(key.algorithms) for key in keys} == {
        "r": RSA_ALGORITHMS,
        "e": {"ES256"},
        "o": {"EdDSA"},
        None: {"HS256", "HS384"},
    }


def test_a_key_may_name_its_algorithm() -> None:
    (key,) = parse_jwks(jwk_set({**RSA_JWK, "alg": "PS256", "use": "sig", "key_ops": ["verify"]}), ALL)
    assert key.algorithms == {"PS256"}


def test_only_the_public_half_of_a_private_key_is_kept() -> None:
    entries = [algorithm.to_jwk(key, as_dict=True) for algorithm, key in ((RSAAlgorithm, RSA), (ECAlgorithm, P256))]
    entries.append(OKPAlgorithm.to_jwk(ED25519, as_dict=True))
    for entry in entries:
        assert "d" in entry
        entry.pop("key_ops", None)
        (key,) = parse_jwks(jwk_set(entry), ALL)
        assert not hasattr(key.material, "private_bytes")


@pytest.mark.parametrize(
    "entry",
    [
        1,
        {},
        {"kty": ["RSA"]},
        {"kty": "XYZ"},
        {**RSA_JWK, "use": "enc"},
        {**RSA_JWK, "key_ops": ["sign"]},
        {**RSA_JWK, "key_ops": "verify"},
        {**RSA_JWK, "alg": "RSA-OAEP"},
        {**RSA_JWK, "alg": "HS256"},
        {**RSA_JWK, "alg": 1},
        {**RSA_JWK, "alg": ["RS256"]},
        {**RSA_JWK, "kid": 1},
        {**RSA_JWK, "n": 1},
        {**RSA_JWK, "n": "!"},
        {**RSA_JWK, "e": "AA"},
        {"kty": "RSA"},
        {**EC_JWK, "x": "AA"},
        {**EC_JWK, "crv": "secp256k1"},
        {**EC_JWK, "crv": "P-384"},
        {**OKP_JWK, "crv": "X25519"},
        {**OKP_JWK, "x": None},
        {"kty": "oct"},
        {"kty": "oct", "k": "AAAA"},
        {"kty": "oct", "k": 1},
        RSAAlgorithm.to_jwk(SHORT_RSA.public_key(), as_dict=True),
    ],
)
def test_keys_of_no_use_are_left_out(entry: Any) -> None:
    (key,) = parse_jwks(jwk_set(entry, {**EC_JWK, "kid": "e"}), ALL)
    assert key.kid == "e"
    with pytest.raises(ValueError, match=r"holds no key that fits auth\.jwt\.algorithms"):
        parse_jwks(jwk_set(entry), ALL)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"1", b"{}", b'{"keys": {}}', b"\xff", b"[" * 100_000])
def test_what_is_no_set_of_keys(data: bytes) -> None:
    with pytest.raises(ValueError, match="is no JSON Web Key Set"):
        parse_jwks(data, ALL)


JSON = st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=3))


@settings(deadline=None)
@given(
    st.sampled_from([RSA_JWK, EC_JWK, OKP_JWK, OCT_JWK]),
    st.dictionaries(st.sampled_from(["n", "e", "d", "p", "x", "y", "crv", "k", "alg", "use", "kid", "key_ops"]), JSON),
)
def test_no_entry_but_is_a_key_or_left_out(entry: dict[str, Any], changes: dict[str, Any]) -> None:
    try:
        (key,) = parse_jwks(jwk_set({**entry, **changes}), ALL)
    except ValueError:
        return
    assert key.algorithms
    assert key.algorithms == jwks.algorithms_of(key.material) or key.algorithms == {changes["alg"]}


# The keys at hand


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


Make = Callable[..., Any]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def make(clock: Clock) -> AsyncIterator[Make]:
    made: list[Watched] = []

    def one(**settings: Any) -> Watched:
        made.append(Watched(Jwt(audience="a", issuer="i", **settings), clock))
        return made[-1]

    yield one
    for keys in made:
        await asyncio.wait_for(keys.stop(), 5)


class Watched(KeySet):
    """Tells when it has read the keys."""

    def __init__(self, settings: Jwt, clock: Clock) -> None:
        super().__init__(settings, clock)
        self._waiting: list[tuple[Callable[[], bool], asyncio.Event]] = []

    async def _read_once(self) -> None:
        await super()._read_once()
        for condition, met in self._waiting:
            if condition():
                met.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        if not condition():
            met = asyncio.Event()
            self._waiting.append((condition, met))
            await asyncio.wait_for(met.wait(), 5)


async def until_read(keys: Watched, reads: int) -> None:
    await keys.until(lambda: keys.reads >= reads and keys._reading is None)


def entries(*kids: str) -> bytes:
    return jwk_set(*({**EC_JWK, "kid": kid} for kid in kids))


def test_a_key_is_found_by_its_name_and_algorithm(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(jwk_set({**RSA_JWK, "kid": "a"}, {**EC_JWK, "kid": "a"}, {**EC_JWK, "kid": "b"}))
    keys = KeySet(Jwt(jwks_file=str(path)))
    assert not keys
    keys.load()
    assert keys

    def found(kid: str | None, algorithm: str) -> str | None:
        key = keys.find(kid, algorithm)
        return None if key is None else f"{key.kid} {min(key.algorithms)}"

    assert [found("a", "RS256"), found("a", "ES256"), found("b", "ES256")] == ["a RS256", "a ES256", "b ES256"]
    assert [found("b", "RS256"), found("c", "ES256"), found("a", "HS256"), found("a", "PS256")] == [None] * 4
    # Without a name, only where there is no choice.
    assert [found(None, "RS256"), found(None, "ES256")] == ["a RS256", None]


def test_the_key_of_a_key_file_serves_any_name(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(pem(RSA))
    keys = KeySet(Jwt(key_file=str(path)))
    keys.load()
    assert keys.find("x", "RS256") == keys.find(None, "RS256") is not None
    assert keys.find("x", "ES256") is None


async def test_a_key_file_is_read_at_the_start_and_at_reload(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    keys = make(key_file=str(path))
    with pytest.raises(ValueError, match=r"key\.pem: cannot be read"):
        await keys.start()
    path.write_bytes(pem(RSA))
    await keys.start()
    await keys.look_again()
    path.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="holds no PEM public key"):
        keys.reload()
    assert keys.find(None, "RS256") is not None
    path.write_bytes(pem(P256))
    keys.reload()
    assert keys.find(None, "RS256") is None
    assert keys.find(None, "ES256") is not None


async def test_a_file_of_keys(make: Make, tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "keys.json"
    keys = make(jwks_file=str(path))
    with pytest.raises(ValueError, match=r"keys\.json: cannot be read: No such file"):
        await keys.start()
    path.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"keys\.json: is no JSON Web Key Set"):
        await keys.start()
    path.write_bytes(entries("a"))
    await keys.start()
    path.write_bytes(entries("a", "b"))
    await keys.look_again()
    assert keys.find("b", "ES256") is not None
    path.unlink()
    clock.now += jwks.PAUSE
    await keys.look_again()
    assert (keys.stale, keys.failures, bool(keys)) == (True, 1, True)
    with pytest.raises(ValueError, match="cannot be read"):
        keys.reload()
    path.write_bytes(entries("c"))
    keys.reload()
    assert keys.find("c", "ES256") is not None


async def test_a_file_with_a_secret_is_private(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(jwk_set(OCT_JWK))
    path.chmod(0o644)
    keys = make(jwks_file=str(path), algorithms=("HS256",))
    with pytest.raises(ValueError, match=r"keys\.json: can be read by everybody"):
        await keys.start()
    path.chmod(0o600)
    await keys.start()
    assert keys.find(None, "HS256") is not None


async def test_a_url_is_read_at_the_start(make: Make, web: Any, clock: Clock) -> None:
    web.respond = lambda _body: ok(entries("a"))
    keys = make(jwks_url=web.url)
    await keys.start()
    await until_read(keys, 1)
    assert (keys.find("a", "ES256") is not None, keys.stale) == (True, False)
    assert web.requests[0][0].startswith("GET /path ")


async def test_a_secret_from_a_url_is_none(make: Make, web: Any) -> None:
    web.respond = lambda _body: ok(jwk_set(OCT_JWK, {**EC_JWK, "kid": "a"}))
    keys = make(jwks_url=web.url, algorithms=("HS256", "ES256"))
    await keys.start()
    await until_read(keys, 1)
    assert keys.find(None, "HS256") is None
    assert keys.find(None, "ES256") is not None


def ok(body: bytes, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


BAD = [
    None,
    ok(entries("b"), "500 Internal Server Error"),
    ok(entries("b"), "404 Not Found"),
    ok(b"", "302 Found"),
    ok(b"secret nonsense"),
    ok(jwk_set()),
    ok(b" " * (jwks.SIZE_MAX + 1)),
]


@pytest.mark.parametrize("response", BAD)
async def test_old_keys_stay_while_new_ones_cannot_be_had(
    make: Make, web: Any, clock: Clock, response: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    web.respond = lambda _body: ok(entries("a"))
    keys = make(jwks_url=web.url)
    await keys.start()
    await until_read(keys, 1)
    web.respond = lambda _body: response
    for _ in range(2):
        clock.now += jwks.PAUSE
        await keys.look_again()
    assert keys.find("a", "ES256") is not None
    assert (keys.stale, keys.failures) == (True, 2)
    web.respond = lambda _body: ok(entries("b"))
    clock.now += jwks.PAUSE
    await keys.look_again()
    assert keys.find("a", "ES256") is None
    assert (keys.find("b", "ES256") is not None, keys.stale) == (True, False)
    # Once when it begins, once when it ends.
    log = capsys.readouterr().out
    assert (log.count("jwt_keys_unavailable"), log.count("jwt_keys_available")) == (1, 1)
    assert "secret" not in log


async def test_a_provider_that_is_away_at_the_start_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, make: Make, web: Any
) -> None:
    monkeypatch.setattr(jwks, "PAUSE", 0.01)
    web.respond = lambda _body: None
    keys = make(jwks_url=web.url, jwks_refresh=3600.0)
    await keys.start()
    await until_read(keys, 3)
    assert (bool(keys), keys.stale) == (False, True)
    web.respond = lambda _body: ok(entries("a"))
    await keys.until(lambda: bool(keys))
    assert not keys.stale


async def test_keys_are_read_anew_now_and_then(make: Make, web: Any) -> None:
    web.respond = lambda _body: ok(entries("a"))
    keys = make(jwks_url=web.url, jwks_refresh=0.01)
    await keys.start()
    await until_read(keys, 3)
    web.respond = lambda _body: ok(entries("b"))
    await keys.until(lambda: keys.find("b", "ES256") is not None)


async def test_reload_reads_a_url_soon(make: Make, web: Any) -> None:
    web.respond = lambda _body: ok(entries("a"))
    keys = make(jwks_url=web.url)
    keys.reload()
    await keys.start()
    await until_read(keys, 1)
    keys.reload()
    await until_read(keys, 2)


async def test_looking_again_is_rate_limited_and_shared(make: Make, web: Any, clock: Clock) -> None:
    web.respond = lambda _body: ok(entries("a"))
    keys = make(jwks_url=web.url)
    await keys.start()
    await until_read(keys, 1)
    clock.now += jwks.PAUSE - 0.1
    await asyncio.gather(*(keys.look_again() for _ in range(9)))
    assert keys.reads == 1
    clock.now += 0.1
    web.hold = True
    web.asked.clear()
    looks = [asyncio.create_task(keys.look_again()) for _ in range(9)]
    await asyncio.wait_for(web.asked.wait(), 5)
    # Who goes away does not end it for the others.
    looks[0].cancel()
    late = asyncio.create_task(keys.look_again())
    web.release()
    await asyncio.wait_for(asyncio.gather(*looks[1:], late), 5)
    assert (keys.reads, len(web.requests)) == (2, 2)


async def test_stopping_while_keys_are_read(make: Make, web: Any) -> None:
    web.hold = True
    keys = make(jwks_url=web.url)
    await keys.start()
    await asyncio.wait_for(web.asked.wait(), 5)
    await asyncio.wait_for(keys.stop(), 5)
    assert not keys


def test_a_key_does_not_show_itself() -> None:
    assert "ssss" not in repr(Key(b"ssss", frozenset({"HS256"})))
