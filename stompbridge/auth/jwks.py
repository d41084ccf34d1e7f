"""The keys that tokens are verified with, each bound to the algorithms that fit it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import jwt
import structlog
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import ECAlgorithm, HMACAlgorithm, OKPAlgorithm, RSAAlgorithm

from stompbridge.auth.fetch import FetchError, fetch, make_client
from stompbridge.config import Jwt
from stompbridge.config_file import read_private

_log = structlog.get_logger("stompbridge.auth")

Material: TypeAlias = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey | Ed448PublicKey | bytes

FETCH_TIMEOUT = 5.0
SIZE_MAX = 256 * 1024
"""Bytes of a set of keys."""
PAUSE = 10.0
"""Seconds between two reads for the sake of keys that are missing, whoever asks for them."""
RSA_BITS_MIN = 2048
"""RFC 7518, 3.3."""
SECRET_BYTES_MIN = {"HS256": 32, "HS384": 48, "HS512": 64}
"""RFC 7518, 3.2."""

_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_LOADERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "RSA": RSAAlgorithm.from_jwk,
    "EC": ECAlgorithm.from_jwk,
    "OKP": OKPAlgorithm.from_jwk,
    "oct": HMACAlgorithm.from_jwk,
}


@dataclass(frozen=True, slots=True)
class Key:
    """One key. Only tokens signed with one of ``algorithms`` are verified with it."""

    material: Material = field(repr=False)
    algorithms: frozenset[str]
    kid: str | None = None


def algorithms_of(material: object) -> frozenset[str]:
    """What a key can verify; nothing for one that is too short."""
    match material:
        case bytes():
            return frozenset(name for name, size in SECRET_BYTES_MIN.items() if len(material) >= size)
        case RSAPublicKey():
            return frozenset(_RSA if material.key_size >= RSA_BITS_MIN else ())
        case EllipticCurvePublicKey():
            return frozenset(_CURVES[name] for name in (material.curve.name,) if name in _CURVES)
        case Ed25519PublicKey() | Ed448PublicKey():
            return frozenset(("EdDSA",))
    return frozenset()


def read_key_file(path: Path, allowed: frozenset[str]) -> Key:
    """The one key of ``auth.jwt.key_file``. Raises ``ValueError`` that names the file and quotes nothing of it."""
    try:
        material: Material
        if allowed <= SECRET_BYTES_MIN.keys():
            material = read_private(path).strip().encode()
            # Whoever has the public key could sign with it.
            if b"-----BEGIN" in material:
                raise ValueError("holds a PEM key, which is no shared secret; auth.jwt.algorithms lists HS ones")
        else:
            material = _public_key(path.read_bytes())
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    fitting = algorithms_of(material)
    if not fitting:
        raise ValueError(f"{path}: the key is too short, or of a kind that is not supported")
    if not fitting & allowed:
        raise ValueError(f"{path}: the key fits {', '.join(sorted(fitting))}, and auth.jwt.algorithms none of them")
    return Key(material, fitting & allowed)


def _public_key(data: bytes) -> Any:
    if b"PRIVATE KEY" in data:
        raise ValueError("holds a private key; only the public one belongs here")
    try:
        return load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("holds no PEM public key") from None


def parse_jwks(data: bytes, allowed: frozenset[str]) -> tuple[Key, ...]:
    """The keys of a JSON Web Key Set (RFC 7517) that are for signatures and fit ``allowed``; others are left out, as
    its section 5 has it. Raises ``ValueError`` where there are none."""
    try:
        document = json.loads(data)
        entries = document["keys"]
    except (ValueError, RecursionError, TypeError, KeyError):
        entries = None
    if not isinstance(entries, list):
        raise ValueError("is no JSON Web Key Set")
    keys = tuple(key for entry in entries if (key := _key(entry, allowed)) is not None)
    if not keys:
        raise ValueError("holds no key that fits auth.jwt.algorithms")
    return keys


def _key(entry: object, allowed: frozenset[str]) -> Key | None:
    if not isinstance(entry, dict) or entry.get("use", "sig") != "sig":
        return None
    operations, kid, algorithm = entry.get("key_ops", ["verify"]), entry.get("kid"), entry.get("alg")
    loader = _LOADERS.get(str(entry.get("kty")))
    if loader is None or not isinstance(operations, list) or "verify" not in operations:
        return None
    # A private key is no reason to trust it less, but none to load it either.
    public = entry if entry["kty"] == "oct" else {name: value for name, value in entry.items() if name != "d"}
    try:
        material = loader(public)
    except (jwt.PyJWTError, ValueError, TypeError, KeyError, AttributeError, OverflowError, UnsupportedAlgorithm):
        return None
    fitting = algorithms_of(material) & allowed
    if algorithm is not None:
        fitting &= {algorithm} if isinstance(algorithm, str) else set()
    if not fitting or not (kid is None or isinstance(kid, str)):
        return None
    return Key(material, fitting, kid)


class KeySet:
    """The keys at hand, kept fresh. Those at hand stay in force while new ones cannot be had."""

    def __init__(self, settings: Jwt, now: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._allowed = frozenset[str](settings.algorithms)
        # A secret that everybody can fetch is none.
        self._from_url = self._allowed - SECRET_BYTES_MIN.keys()
        self._now = now
        self._keys: tuple[Key, ...] = ()
        self._client: httpx.AsyncClient | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._reading: asyncio.Task[None] | None = None
        self._wanted = asyncio.Event()
        self._read_at = float("-inf")
        self.stale = False
        """The last attempt to read the keys has failed."""
        self.reads = 0
        self.failures = 0

    def __bool__(self) -> bool:
        return bool(self._keys)

    def find(self, kid: str | None, algorithm: str) -> Key | None:
        """The key for a token; without ``kid``, the only one that fits. A key from ``key_file`` has no name and
        serves any token."""
        fitting = [key for key in self._keys if algorithm in key.algorithms]
        if self._settings.key_file:
            return fitting[0] if fitting else None
        if kid is None:
            return fitting[0] if len(fitting) == 1 else None
        return next((key for key in fitting if key.kid == kid), None)

    def load(self) -> None:
        """Reads the file, if there is one. Raises ``ValueError`` and keeps the keys at hand."""
        settings = self._settings
        if settings.key_file:
            self._keys = (read_key_file(Path(settings.key_file), self._allowed),)
        elif settings.jwks_file:
            self._keys = self._read_jwks_file(Path(settings.jwks_file))

    def reload(self) -> None:
        """Reads the keys anew: files at once, a URL soon. Raises ``ValueError`` and keeps the keys at hand."""
        self.load()
        if self._client is not None:
            self._wanted.set()

    async def start(self) -> None:
        """Reads files, and begins to read a URL. Raises ``ValueError``."""
        self.load()
        if self._settings.key_file:
            return
        if self._settings.jwks_url:
            self._client = make_client(self._settings.jwks_url, at_a_time=1)
        self._keeping = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """Ends its tasks and closes the connection."""
        for task in (self._keeping, self._reading):
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
        if self._client is not None:
            await self._client.aclose()

    async def look_again(self) -> None:
        """A key is missing: reads them anew, unless that was done just now."""
        if self._keeping is None:
            return
        if self._reading is not None or self._now() >= self._read_at + PAUSE:
            await self._read()

    async def _keep(self) -> None:
        if not self._keys:
            await self._read()
        while True:
            refresh = self._settings.jwks_refresh
            with suppress(TimeoutError):
                async with asyncio.timeout(min(refresh, PAUSE) if self.stale else refresh):
                    await self._wanted.wait()
            self._wanted.clear()
            await self._read()

    async def _read(self) -> None:
        """Reads the keys; who comes while that is being done waits for the same."""
        if self._reading is None:
            self._reading = asyncio.create_task(self._read_once())
        await asyncio.shield(self._reading)

    async def _read_once(self) -> None:
        self._read_at = self._now()
        self.reads += 1
        was_stale = self.stale
        try:
            self._keys = await self._obtain()
            self.stale = False
        except (FetchError, ValueError) as error:
            self.failures += 1
            self.stale = True
            if not was_stale:
                _log.warning("jwt_keys_unavailable", reason=str(error), keys=len(self._keys))
        else:
            if was_stale:
                _log.info("jwt_keys_available", keys=len(self._keys))
        finally:
            self._reading = None

    async def _obtain(self) -> tuple[Key, ...]:
        if self._client is None:
            return self._read_jwks_file(Path(self._settings.jwks_file))
        url = self._settings.jwks_url
        status, data = await fetch(self._client, "GET", url, within=FETCH_TIMEOUT, size=SIZE_MAX)
        if status != 200:
            raise FetchError(f"auth.jwt.jwks_url: HTTP status {status}")
        try:
            return parse_jwks(data, self._from_url)
        except ValueError as error:
            raise FetchError(f"auth.jwt.jwks_url: {error}") from None

    def _read_jwks_file(self, path: Path) -> tuple[Key, ...]:
        try:
            with path.open("rb") as file:
                keys = parse_jwks(file.read(SIZE_MAX), self._allowed)
            if any(isinstance(key.material, bytes) for key in keys):
                read_private(path)
        except OSError as error:
            raise ValueError(f"{path}: cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        return keys
