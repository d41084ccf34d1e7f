"""Files that the configuration names: the certificate, secrets, users, and keys."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

from stompbridge.auth.factory import make_authenticator
from stompbridge.config import Jwt, Settings
from stompbridge.config_file import redact
from stompbridge.doctor.finding import Finding, error, ok, reach, skipped, warning

SOON = timedelta(days=14)
"""Before its end a certificate gets a warning."""
_TIMEOUT = 5.0


def check_certificate(settings: Settings) -> list[Finding]:
    """Dates and names of ``listen.tls_cert``. That the key fits is a matter of the configuration, checked before."""
    file = settings.listen.tls_cert
    if not file:
        return [skipped("certificate", "no TLS here: listen.tls_cert is not set")]
    from cryptography import x509

    try:
        chain = x509.load_pem_x509_certificates(Path(file).read_bytes())
    except (OSError, ValueError) as problem:
        return [error("certificate", f"cannot be read: {problem}", "a PEM file in listen.tls_cert", file)]
    own, now = chain[0], datetime.now(UTC)
    try:
        names = own.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        shown = [str(name.value) for name in names]
    except (x509.ExtensionNotFound, ValueError):
        shown = []
    findings = [_check_names(shown, file)]
    for number, certificate in enumerate(chain):
        begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        which = "the certificate" if not number else f"certificate {number + 1} of its chain"
        renew = "a renewed one in its place, then SIGHUP"
        if end <= now:
            findings.append(error("certificate.dates", f"{which} has expired on {end:%Y-%m-%d}", renew, file))
        elif begin > now:
            remedy = "this machine's clock, or another certificate"
            findings.append(
                error("certificate.dates", f"{which} is valid from {begin:%Y-%m-%d %H:%M} UTC", remedy, file)
            )
        elif end - now < SOON:
            findings.append(warning("certificate.dates", f"{which} expires on {end:%Y-%m-%d}", renew, file))
        elif not number:
            findings.append(ok("certificate.dates", f"valid until {end:%Y-%m-%d}", file))
    return findings


def _check_names(names: list[str], file: str) -> Finding:
    if not names:
        remedy = "a certificate with the server's name as its subject alternative name"
        return error("certificate.names", "names no server: browsers refuse it", remedy, file)
    rest = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ok("certificate.names", f"for {', '.join(names[:10])}{rest}", file)


def check_secrets(settings: Settings, config: Path | None) -> list[Finding]:
    """Who may read files of secrets, and write them."""
    findings = []
    count = 0
    for key, path in _secret_files(settings, config):
        try:
            mode = path.stat().st_mode
        except OSError as problem:
            findings.append(error("secrets", f"{key}: {problem.strerror}", "the right path, or the rights", str(path)))
            continue
        count += 1
        if mode & 0o004:
            detail = f"{key} can be read by everybody on this machine"
            findings.append(error("secrets", detail, f"chmod o-rwx {path}", str(path)))
        elif mode & 0o002:
            findings.append(error("secrets", f"{key} can be written by everybody", f"chmod o-w {path}", str(path)))
    if not findings:
        findings.append(ok("secrets", f"{count} files with secrets, none of them for everybody") if count else _none())
    return findings


def _none() -> Finding:
    return skipped("secrets", "no files with secrets")


def _secret_files(settings: Settings, config: Path | None) -> Iterator[tuple[str, Path]]:
    folder = config.parent if config is not None else Path()
    listen, auth = settings.listen, settings.auth
    files = {
        "listen.tls_key": listen.tls_key,
        "broker.urls_file": settings.broker.urls_file,
        "dedup.redis_url_file": settings.dedup.redis_url_file,
        "auth.default_passcode_file": auth.default_passcode_file,
        "admin.token_file": settings.admin.token_file,
        "auth.users_file": auth.users_file if auth.backend == "static" else "",
        "auth.jwt.key_file": auth.jwt.key_file if any(name.startswith("HS") for name in auth.jwt.algorithms) else "",
    }
    for key, file in files.items():
        if file:
            yield key, folder / file
    if config is not None and _has_secrets(tomllib.loads(config.read_text("utf-8"))):
        yield "the configuration file, which holds a password or a token,", config


def _has_secrets(value: object, key: str = "") -> bool:
    if isinstance(value, dict):
        return any(_has_secrets(inner, name) for name, inner in value.items())
    if isinstance(value, list):
        return any(_has_secrets(inner, key) for inner in value)
    if not isinstance(value, str) or not value:
        return False
    if key in ("default_passcode", "token"):
        return True
    # Everybody knows the password that RabbitMQ comes with.
    return key.endswith(("url", "urls")) and redact(value) != value and "//guest:guest@" not in value


async def check_auth(settings: Settings) -> list[Finding]:
    """What ``auth.backend`` needs."""
    auth = settings.auth
    match auth.backend:
        case "static":
            return [_check_readable(settings, "auth.users", auth.users_file)]
        case "jwt" if auth.jwt.jwks_url:
            return [await _check_jwks(auth.jwt)]
        case "jwt":
            return [_check_readable(settings, "auth.keys", auth.jwt.key_file or auth.jwt.jwks_file)]
        case "http":
            return [await _check_webhook(auth.http.url)]
    return [skipped("auth", f"nothing to look at for auth.backend = {auth.backend!r}")]


def _check_readable(settings: Settings, name: str, file: str) -> Finding:
    authenticator = make_authenticator(settings)
    assert authenticator is not None
    try:
        authenticator.reload()
    except ValueError as problem:
        return error(name, str(problem), "the file, its rights, or the path in the configuration", file)
    return ok(name, "readable", file)


async def _check_jwks(settings: Jwt) -> Finding:
    from stompbridge.auth.fetch import FetchError, fetch, make_client
    from stompbridge.auth.jwks import SIZE_MAX, parse_jwks

    url = settings.jwks_url
    remedy = "the server behind auth.jwt.jwks_url, and the way to it"
    async with make_client(url, at_a_time=1) as client:
        try:
            status, data = await fetch(client, "GET", url, within=_TIMEOUT, size=SIZE_MAX)
            if status != 200:
                return error("auth.keys", f"HTTP status {status}", remedy, url)
            keys = parse_jwks(data, frozenset[str](settings.algorithms))
        except (FetchError, ValueError) as problem:
            return error("auth.keys", str(problem), remedy, url)
    return ok("auth.keys", f"{len(keys)} keys", url)


async def _check_webhook(url: str) -> Finding:
    parts = urlsplit(url)
    assert parts.hostname is not None
    shown = f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
    problem = await reach(parts.hostname, int(shown.rpartition(":")[2]), _TIMEOUT)
    if problem:
        return error("auth.webhook", problem, "the server behind auth.http.url, and the way to it", shown)
    return ok("auth.webhook", "accepts connections", shown)
