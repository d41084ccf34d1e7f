from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from stompbridge.auth import jwks
from stompbridge.auth.base import AuthRefused, AuthUnavailable, Credentials, Identity
from stompbridge.auth.jwt import TOKEN_MAX, TokenAuthenticator, find_token
from stompbridge.config import Jwt

RSA = rsa.generate_private_key(65537, 2048)
OTHER_RSA = rsa.generate_private_key(65537, 2048)
P256 = ec.generate_private_key(ec.SECP256R1())
ED25519 = ed25519.Ed25519PrivateKey.generate()
SECRET = b"0123456789abcdef" * 4
NOW = 1_800_000_000.0
CLAIMS: dict[str, Any] = {"sub": "alice", "aud": "chat", "iss": "https://id.example", "exp": NOW + 60}
KEYS: dict[str, Any] = {
    "rsa": RSAAlgorithm.to_jwk(RSA.public_key(), as_dict=True),
    "ec": ECAlgorithm.to_jwk(P256.public_key(), as_dict=True),
    "ed": OKPAlgorithm.to_jwk(ED25519.public_key(), as_dict=True),
    "shared": {"kty": "oct", "k": base64.urlsafe_b64encode(SECRET).decode().rstrip("=")},
}
SIGNERS: dict[str, tuple[Any, str]] = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), (RSA, "rsa")),
    **dict.fromkeys(("HS256", "HS384", "HS512"), (SECRET, "shared")),
    "ES256": (P256, "ec"),
    "EdDSA": (ED25519, "ed"),
}


def pem(key: Any) -> bytes:
    data: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return data


def jwk_set(*kids: str) -> bytes:
    return json.dumps({"keys": [{**KEYS[kid], "kid": kid} for kid in kids]}).encode()


def token(key: Any = RSA, algorithm: str = "RS256", kid: str | None = "rsa", /, **claims: Any) -> str:
    """A token; a claim of ``...`` is left out."""
    values = {name: value for name, value in {**CLAIMS, **claims}.items() if value is not ...}
    return jwt.encode(values, key, algorithm, headers={} if kid is None else {"kid": kid})


def raw_token(header: Mapping[str, Any] | bytes, claims: Mapping[str, Any] | bytes, signature: bytes = b"") -> str:
    parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, claims)]
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (*parts, signature))


def signed(claims: Mapping[str, Any] | bytes) -> str:
    """Claims that no library would write, signed all the same."""
    data = raw_token({"alg": "RS256", "kid": "rsa"}, claims).rpartition(".")[0]
    signature = jwt.get_algorithm_by_name("RS256").sign(data.encode(), RSA)
    return f"{data}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"


def bearing(text: str) -> Credentials:
    return Credentials(
        login=None, passcode=None, host=None, headers={"passcode": text}, upgrade={}, address="192.0.2.1"
    )


@pytest.fixture(scope="module")
def keys_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    path.touch(0o600)
    path.write_bytes(jwk_set(*KEYS))
    return path


@pytest.fixture(scope="module")
def verifier(keys_file: Path) -> TokenAuthenticator:
    """Knows the keys, and takes all algorithms. Needs no start to verify."""
    authenticator = TokenAuthenticator(
        Jwt(jwks_file=str(keys_file), algorithms=tuple(SIGNERS), audience="chat", issuer="https://id.example"),  # type: ignore[arg-type]
        clock=lambda: NOW,
    )
    authenticator.keys.load()
    return authenticator


def configured(keys_file: Path, **settings: Any) -> TokenAuthenticator:
    values = {"jwks_file": str(keys_file), "audience": "chat", "issuer": "https://id.example", **settings}
    authenticator = TokenAuthenticator(Jwt(**values), clock=lambda: NOW)
    authenticator.keys.load()
    return authenticator


async def refusal(verifier: TokenAuthenticator, text: str) -> str:
    """The cause; the client is always told the same."""
    with pytest.raises(AuthRefused) as info:
        await verifier.authenticate(bearing(text))
    assert info.value.text == "Access refused\n"
    assert text not in info.value.cause
    return info.value.cause


@pytest.mark.parametrize("algorithm", SIGNERS)
async def test_each_algorithm(verifier: TokenAuthenticator, algorithm: str) -> None:
    key, kid = SIGNERS[algorithm]
    identity = await verifier.authenticate(bearing(token(key, algorithm, kid, groups=["staff"])))
    assert identity == Identity("alice", frozenset({"staff"}), NOW + 60)
    forged = token(key, algorithm, kid)[:-8] + "A" * 8
    assert "InvalidSignatureError" in await refusal(verifier, forged)


async def test_reads_of_keys_are_counted(keys_file: Path) -> None:
    verifier = configured(keys_file)
    verifier.keys.reads, verifier.keys.failures = 3, 1
    assert verifier.counters() == {"key_reads": 3, "key_read_failures": 1}


async def test_the_default_algorithms_leave_the_shared_secret_out(keys_file: Path) -> None:
    verifier = configured(keys_file)
    assert (await verifier.authenticate(bearing(token(ED25519, "EdDSA", "ed")))).user == "alice"
    for algorithm in ("HS256", "RS512", "PS256"):
        key, kid = SIGNERS[algorithm]
        assert "algorithm is not one of" in await refusal(verifier, token(key, algorithm, kid))


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", "", "HS999", None, 1, ["RS256"], {}])
async def test_no_algorithm(verifier: TokenAuthenticator, algorithm: Any) -> None:
    assert await refusal(verifier, raw_token({"alg": algorithm, "kid": "rsa"}, CLAIMS)) == (
        "the token's algorithm is not one of auth.jwt.algorithms"
    )
    assert "algorithm" in await refusal(verifier, raw_token({"kid": "rsa"}, CLAIMS, b"x"))


@pytest.mark.parametrize("kid", ["rsa", None, "shared"])
async def test_a_public_key_is_no_shared_secret(verifier: TokenAuthenticator, kid: str | None) -> None:
    """The attack of signing with HMAC, and the public key for the secret."""
    public = pem(RSA)
    for secret in (public, public.strip(), json.dumps(KEYS["rsa"]).encode()):
        header = {"alg": "HS256"} if kid is None else {"alg": "HS256", "kid": kid}
        data = raw_token(header, CLAIMS).rpartition(".")[0]
        signature = jwt.get_algorithm_by_name("HS256").sign(data.encode(), secret)
        forged = f"{data}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"
        cause = await refusal(verifier, forged)
        assert cause in (
            "the token's key is unknown, or not for its algorithm",
            "the token is not valid: InvalidSignatureError",
        )
        if kid == "rsa":
            assert "not for its algorithm" in cause


async def test_a_key_is_for_its_own_algorithms(verifier: TokenAuthenticator) -> None:
    assert "not for its algorithm" in await refusal(verifier, token(RSA, "RS256", "ec"))
    assert "not for its algorithm" in await refusal(verifier, token(P256, "ES256", "rsa"))
    assert "InvalidSignatureError" in await refusal(verifier, token(OTHER_RSA, "RS256", "rsa"))


async def test_headers_that_bring_a_key_along_are_ignored(verifier: TokenAuthenticator) -> None:
    own = RSAAlgorithm.to_jwk(OTHER_RSA.public_key(), as_dict=True)
    headers = {"kid": "rsa", "jwk": own, "jku": "https://evil.example/keys", "x5u": "https://evil.example/"}
    forged = jwt.encode(CLAIMS, OTHER_RSA, "RS256", headers=headers)
    assert "InvalidSignatureError" in await refusal(verifier, forged)


@pytest.mark.parametrize(
    ("claims", "cause"),
    [
        ({"aud": ...}, "MissingRequiredClaimError"),
        ({"aud": "other"}, "InvalidAudienceError"),
        ({"aud": ["other", "chats"]}, "InvalidAudienceError"),
        ({"aud": []}, "MissingRequiredClaimError"),
        ({"aud": ["chat", 1]}, "InvalidAudienceError"),
        ({"aud": {"chat": 1}}, "InvalidAudienceError"),
        ({"iss": ...}, "MissingRequiredClaimError"),
        ({"iss": "https://id.example/"}, "InvalidIssuerError"),
        ({"iss": "id"}, "InvalidIssuerError"),
        ({"exp": ...}, "MissingRequiredClaimError"),
        ({"exp": NOW}, "the token has expired"),
        ({"exp": int(NOW)}, "the token has expired"),
        ({"exp": NOW - 0.5}, "the token has expired"),
        ({"exp": 0}, "the token has expired"),
        ({"exp": -1.5}, "the token has expired"),
        ({"exp": str(int(NOW + 60))}, "claim 'exp' is no date"),
        ({"exp": True}, "claim 'exp' is no date"),
        ({"exp": [NOW + 60]}, "claim 'exp' is no date"),
        ({"exp": {}}, "claim 'exp' is no date"),
        ({"exp": None}, "MissingRequiredClaimError"),
        ({"nbf": NOW + 0.5}, "the token is not valid yet"),
        ({"nbf": int(NOW) + 1}, "the token is not valid yet"),
        ({"nbf": "0"}, "claim 'nbf' is no date"),
        ({"nbf": None}, "claim 'nbf' is no date"),
        ({"sub": ...}, "claim 'sub' is no name"),
        ({"sub": ""}, "claim 'sub' is no name"),
        ({"groups": "staff"}, "claim 'groups' is no list of names"),
        ({"groups": ["staff", 1]}, "claim 'groups' is no list of names"),
        ({"groups": {"staff": True}}, "claim 'groups' is no list of names"),
        ({"groups": None}, "claim 'groups' is no list of names"),
    ],
)
async def test_claims_that_do_not_do(verifier: TokenAuthenticator, claims: dict[str, Any], cause: str) -> None:
    assert cause in await refusal(verifier, signed({k: v for k, v in {**CLAIMS, **claims}.items() if v is not ...}))


@pytest.mark.parametrize("user", [7, True, ["alice"], {"name": "alice"}, None])
async def test_a_user_that_is_no_text(verifier: TokenAuthenticator, user: Any) -> None:
    assert "claim 'sub' is no name" in await refusal(verifier, signed({**CLAIMS, "sub": user}))


@pytest.mark.parametrize("number", ["Infinity", "-Infinity", "NaN", "1e400", "1" + "0" * 400, "1" * 5000])
@pytest.mark.parametrize("claim", ["exp", "nbf"])
async def test_dates_beyond_all_numbers(verifier: TokenAuthenticator, claim: str, number: str) -> None:
    claims = json.dumps({**CLAIMS, claim: 0}).replace(f'"{claim}": 0', f'"{claim}": {number}')
    assert await refusal(verifier, signed(claims.encode())) in (
        f"the token's claim '{claim}' is no date",
        "the token is not valid: DecodeError",
    )


@pytest.mark.parametrize(
    ("exp", "expires_at"),
    [(int(NOW) + 1, NOW + 1), (NOW + 0.25, NOW + 0.25), (NOW + 1e9, NOW + 1e9), (10**17, 1e17)],
)
async def test_the_session_ends_when_the_token_expires(
    verifier: TokenAuthenticator, exp: float, expires_at: float
) -> None:
    assert (await verifier.authenticate(bearing(token(exp=exp)))).expires_at == expires_at


@pytest.mark.parametrize("nbf", [NOW, int(NOW), NOW - 0.5, 0])
async def test_a_token_that_is_valid_already(verifier: TokenAuthenticator, nbf: float) -> None:
    assert (await verifier.authenticate(bearing(token(nbf=nbf)))).user == "alice"


async def test_clocks_may_differ(keys_file: Path) -> None:
    verifier = configured(keys_file, leeway=5.0)
    identity = await verifier.authenticate(bearing(token(exp=NOW - 4, nbf=NOW + 4)))
    assert identity.expires_at == NOW + 1
    assert "expired" in await refusal(verifier, token(exp=NOW - 5))
    assert "not valid yet" in await refusal(verifier, token(nbf=NOW + 6))


async def test_other_claims(keys_file: Path) -> None:
    verifier = configured(keys_file, user_claim="preferred_username", groups_claim="https://id.example/roles")
    text = token(sub=..., preferred_username="bob", aud=["other", "chat"], **{"https://id.example/roles": ["a", "b"]})
    assert await verifier.authenticate(bearing(text)) == Identity("bob", frozenset({"a", "b"}), NOW + 60)


async def test_without_a_kid_there_must_be_no_choice(verifier: TokenAuthenticator, tmp_path: Path) -> None:
    assert (await verifier.authenticate(bearing(token(RSA, "RS256", None)))).user == "alice"
    two = tmp_path / "two.json"
    two.write_text(json.dumps({"keys": [{**KEYS["rsa"], "kid": "a"}, {**KEYS["rsa"], "kid": "b"}]}))
    assert "key is unknown" in await refusal(configured(two), token(RSA, "RS256", None))
    assert (await configured(two).authenticate(bearing(token(RSA, "RS256", "b")))).user == "alice"


async def test_a_key_file(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(pem(RSA))
    verifier = configured(path, jwks_file="", key_file=str(path))
    assert (await verifier.authenticate(bearing(token(RSA, "RS256", "any")))).user == "alice"
    assert "not for its algorithm" in await refusal(verifier, token(P256, "ES256", "any"))
    path.touch(0o600)
    path.chmod(0o600)
    path.write_bytes(SECRET + b"\n")
    verifier = configured(path, jwks_file="", key_file=str(path), algorithms=("HS256", "HS512"))
    assert (await verifier.authenticate(bearing(token(SECRET, "HS512", None)))).user == "alice"


@pytest.mark.parametrize(
    "text",
    [
        "..",
        "a.b.c",
        raw_token(b"{", CLAIMS),
        raw_token(b"[]", CLAIMS),
        raw_token(b"[" * 5000, CLAIMS),
        raw_token(b"\xff", CLAIMS),
        raw_token({"alg": "RS256", "kid": 1}, CLAIMS),
        raw_token({"alg": "RS256", "kid": "rsa", "crit": ["x"], "x": 1}, CLAIMS),
        raw_token({"alg": "RS256", "kid": "rsa", "b64": False, "crit": ["b64"]}, CLAIMS),
        "\U0001f600.b.c",
    ],
)
async def test_what_is_no_token(verifier: TokenAuthenticator, text: str) -> None:
    assert await refusal(verifier, text) == "the token is malformed"


@pytest.mark.parametrize("claims", [b"{", b"[]", b"\xff", b"[" * 5000, b"null"])
async def test_claims_that_are_none(verifier: TokenAuthenticator, claims: bytes) -> None:
    assert "the token" in await refusal(verifier, signed(claims))


async def test_a_token_that_is_too_long(verifier: TokenAuthenticator) -> None:
    assert await refusal(verifier, token(padding="x" * TOKEN_MAX)) == "the token is too long"


async def test_no_token(verifier: TokenAuthenticator, ask: Any) -> None:
    with pytest.raises(AuthRefused, match="no token") as info:
        await verifier.authenticate(ask("alice", "guest"))
    assert info.value.text == "Access refused\n"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "b64", "zip", "jwk"]), JSON),
    st.dictionaries(st.sampled_from(["sub", "aud", "iss", "exp", "nbf", "iat", "jti", "groups"]), JSON),
)
def test_any_token_is_verified_or_refused(
    verifier: TokenAuthenticator, header: dict[str, Any], claims: dict[str, Any]
) -> None:
    texts = [raw_token({"alg": "RS256", "kid": "rsa", **header}, {**CLAIMS, **claims}), signed({**CLAIMS, **claims})]
    for index, text in enumerate(texts):
        # Nothing is waited for: the keys are there.
        with pytest.raises((AuthRefused, StopIteration)) as info:
            verifier.authenticate(bearing(text)).send(None)
        if isinstance(info.value, AuthRefused):
            assert info.value.text == "Access refused\n"
        else:
            assert index == 1
            assert isinstance(info.value.value, Identity)
            assert info.value.value.user


# Where the token is


HEADERS_TOKEN, COOKIE_TOKEN, UPGRADE_TOKEN = "h.h.h", "c.c.c", "u.u.u"


@pytest.mark.parametrize(
    ("headers", "upgrade", "found"),
    [
        ({}, {}, None),
        ({"authorization": "Bearer h.h.h"}, {}, HEADERS_TOKEN),
        ({"authorization": "bearer   h.h.h "}, {}, HEADERS_TOKEN),
        ({"authorization": "h.h.h"}, {}, HEADERS_TOKEN),
        ({"token": "h.h.h", "passcode": "x.x.x"}, {}, HEADERS_TOKEN),
        ({"authorization": "Basic aGk=", "token": "", "passcode": "h.h.h"}, {}, HEADERS_TOKEN),
        ({"passcode": "guest"}, {"cookie": "session=c.c.c"}, COOKIE_TOKEN),
        ({"passcode": "a b c"}, {"cookie": 'a=x.x.x; session="c.c.c"; b=1'}, COOKIE_TOKEN),
        ({"passcode": "h.h.h"}, {"cookie": "session=c.c.c"}, HEADERS_TOKEN),
        ({}, {"cookie": "session2=x.x.x; xsession=x.x.x;;session; =x.x.x"}, None),
        ({}, {"cookie": "session=", "authorization": "Bearer u.u.u"}, UPGRADE_TOKEN),
        ({}, {"authorization": "Bearer u.u.u"}, UPGRADE_TOKEN),
        ({}, {"authorization": "BEARER u.u.u"}, UPGRADE_TOKEN),
        ({}, {"authorization": "u.u.u"}, None),
        ({}, {"authorization": "Bearer"}, None),
        ({}, {"authorization": "Bearer u.u.u u.u.u"}, None),
        ({}, {"authorization": "Basic u.u.u"}, None),
        ({"Authorization": "Bearer h.h.h"}, {}, None),
    ],
)
def test_where_a_token_is_found(headers: dict[str, str], upgrade: dict[str, str], found: str | None, ask: Any) -> None:
    assert find_token(ask(headers=headers, upgrade=upgrade), Jwt(cookie="session")) == found


def test_where_it_is_not_looked_for(ask: Any) -> None:
    credentials = ask(headers={"passcode": "h.h.h"}, upgrade={"cookie": "session=c.c.c"})
    assert find_token(credentials, Jwt(connect_headers=("x-token",))) is None


# Keys from elsewhere


Start = Callable[..., Any]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def remote(web: Any, clock: Clock) -> AsyncIterator[TokenAuthenticator]:
    """Not started yet."""
    settings = Jwt(jwks_url=web.url, audience="chat", issuer="https://id.example")
    authenticator = TokenAuthenticator(settings, lambda: NOW, clock)
    yield authenticator
    await authenticator.stop()


def ok(body: bytes) -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


async def test_the_first_clients_wait_for_the_keys(remote: TokenAuthenticator, web: Any) -> None:
    web.respond = lambda _body: ok(jwk_set("rsa"))
    await remote.start()
    assert (await remote.authenticate(bearing(token()))).user == "alice"
    assert len(web.requests) == 1


async def test_without_keys_nobody_can_be_told(remote: TokenAuthenticator, web: Any) -> None:
    web.respond = lambda _body: None
    await remote.start()
    for _ in range(3):
        with pytest.raises(AuthUnavailable, match="there are no keys"):
            await remote.authenticate(bearing(token()))
    assert len(web.requests) == 1


async def test_a_new_key_is_fetched_once(remote: TokenAuthenticator, web: Any, clock: Clock) -> None:
    web.respond = lambda _body: ok(jwk_set("rsa"))
    await remote.start()
    await remote.authenticate(bearing(token()))
    web.respond = lambda _body: ok(jwk_set("rsa", "ec"))
    rotated = token(P256, "ES256", "ec")
    assert "key is unknown" in await refusal(remote, rotated)
    clock.now += jwks.PAUSE
    assert (await remote.authenticate(bearing(rotated))).user == "alice"
    for number in range(5):
        assert "key is unknown" in await refusal(remote, token(P256, "ES256", f"forged-{number}"))
    assert len(web.requests) == 2
    # A token that names no key is no reason to fetch any.
    clock.now += jwks.PAUSE
    await refusal(remote, token(ED25519, "EdDSA", None))
    assert len(web.requests) == 2


async def test_an_unknown_key_while_the_provider_is_away(remote: TokenAuthenticator, web: Any, clock: Clock) -> None:
    web.respond = lambda _body: ok(jwk_set("rsa"))
    await remote.start()
    await remote.authenticate(bearing(token()))
    web.respond = lambda _body: None
    clock.now += jwks.PAUSE
    with pytest.raises(AuthUnavailable, match="the token's key is unknown, and the keys cannot be read anew"):
        await remote.authenticate(bearing(token(P256, "ES256", "ec")))
    # The keys at hand stay in force.
    assert (await remote.authenticate(bearing(token()))).user == "alice"


async def test_start_and_reload(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    verifier = TokenAuthenticator(Jwt(key_file=str(path), audience="chat", issuer="https://id.example"), lambda: NOW)
    with pytest.raises(ValueError, match="cannot be read"):
        await verifier.start()
    path.write_bytes(pem(RSA))
    await verifier.start()
    path.write_bytes(pem(OTHER_RSA))
    verifier.reload()
    assert (await verifier.authenticate(bearing(token(OTHER_RSA)))).user == "alice"
    assert "InvalidSignatureError" in await refusal(verifier, token())
    await verifier.stop()
