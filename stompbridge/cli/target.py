"""Which bridge a command is about, and the token for it: options, environment variables, or its configuration file.

The file is not checked: it may be the business of another user, whose secrets cannot be read here.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from stompbridge.cli.common import Failure

DEFAULT_URL = "http://127.0.0.1:8081"
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@dataclass(frozen=True, slots=True)
class Target:
    """Where the admin listener is. ``token`` is empty where there is none, ``token_problem`` says why one that is
    configured cannot be had."""

    url: str
    token: str = field(default="", repr=False)
    token_problem: str = ""


def find(
    url: str | None, token_file: Path | None, config: Path | None, environ: Mapping[str, str] = os.environ
) -> Target:
    """Options win over the environment, and this over the file. Raises :class:`.Failure`."""
    admin = _admin_table(config) if config is not None else {}
    folder = config.parent if config is not None else Path()
    for key in ("host", "port", "enabled", "token", "token_file"):
        value = environ.get(f"STOMPBRIDGE_ADMIN__{key.upper()}")
        if value is not None:
            admin[key] = value
    url = url or environ.get("STOMPBRIDGE_ADMIN_URL") or _own_url(admin, config)
    token, problem = "", ""
    if token_file is not None:
        token, problem = _token(token_file)
        if problem:
            raise Failure(problem)
    elif admin.get("token_file"):
        token, problem = _token(folder / str(admin["token_file"]))
    else:
        token = str(admin.get("token") or "")
    return Target(_checked(url), token, problem)


def _admin_table(path: Path) -> dict[str, Any]:
    try:
        document = tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise Failure(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise Failure(f"{path}: is not TOML: {error}") from None
    admin = document.get("admin", {})
    if not isinstance(admin, dict):
        raise Failure(f"{path}: admin must be a table: [admin]")
    return admin


def _own_url(admin: Mapping[str, Any], config: Path | None) -> str:
    if str(admin.get("enabled", True)).lower() == "false":
        where = config or "the environment variable STOMPBRIDGE_ADMIN__ENABLED"
        raise Failure(f"{where} says admin.enabled = false: that bridge answers no questions; set it to true, restart")
    host, port = str(admin.get("host", "127.0.0.1")), str(admin.get("port", 8081))
    host = _EVERYWHERE.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _checked(url: str) -> str:
    given = url
    if "://" not in url:
        url = f"http://{url}"
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.username is not None or parts.query or parts.fragment or not url.isprintable():
        raise Failure(f"{given!r} is no address of an admin listener, such as {DEFAULT_URL}")
    return url.rstrip("/")


def _token(path: Path) -> tuple[str, str]:
    """The token in a file, or else what is wrong with it."""
    from stompbridge.config_file import read_private

    try:
        lines = read_private(path).splitlines()
    except ValueError as error:
        return "", f"{path}: the token {error}"
    if len(lines) != 1 or not lines[0].strip():
        return "", f"{path}: must hold one line, the admin token"
    return lines[0].strip(), ""
