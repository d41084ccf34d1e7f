"""Dockerfile and compose.yaml: what can be seen without an engine."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from stompbridge import __version__, config

ROOT = Path(__file__).parents[2]
CONTAINER = ROOT / "config/container"
BRIDGES = ("bridge-1", "bridge-2")


def instructions() -> list[str]:
    """The Dockerfile's instructions, each on one line."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text("utf-8"), flags=re.MULTILINE)
    return [line.strip() for line in re.sub(r"\\\n\s*", " ", text).splitlines() if line.strip()]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
    return loaded


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = compose["services"]
    return found


def test_the_image_runs_without_root_and_shell() -> None:
    last = instructions()
    last = last[max(n for n, line in enumerate(last) if line.startswith("FROM ")) :]
    assert last[0] == "FROM scratch"
    assert "USER 10001:10001" in last
    assert next(line for line in last if line.startswith("HEALTHCHECK")).endswith(' CMD ["stompbridge", "ready"]')
    assert last[-2:] == ['ENTRYPOINT ["stompbridge"]', 'CMD ["serve"]']
    assert not any(line.startswith("RUN ") for line in last)


def test_the_image_is_labelled_with_the_version() -> None:
    assert f"ARG VERSION={__version__}" in instructions()


def test_the_build_sees_what_the_wheel_is_made_of() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line and line[0] != "#"]
    assert lines[0] == "*"
    for line in lines:
        assert not line.startswith("!") or (ROOT / line[1:]).exists()
    assert {"!stompbridge", "!setup.cfg", "!pyproject.toml", "!README.md", "!LICENSE"} <= set(lines)


def test_services_are_hardened(services: dict[str, dict[str, Any]]) -> None:
    assert set(services) == {"nginx", *BRIDGES, "rabbitmq", "redis"}
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "healthcheck" in service, name
        assert "privileged" not in service, name
        # The image of the bridges has a user of its own.
        assert name in BRIDGES or not service["user"].startswith("0"), name
        # RabbitMQ writes below /etc and /var.
        assert service.get("read_only", False) is (name != "rabbitmq"), name


def test_only_this_machine_gets_in(services: dict[str, dict[str, Any]], compose: dict[str, Any]) -> None:
    assert {name: service["ports"] for name, service in services.items() if "ports" in service} == {
        "nginx": ["127.0.0.1:8080:8080"]
    }
    assert compose["networks"]["back"]["internal"] is True
    assert "nginx" not in [name for name, service in services.items() if "back" in service["networks"]]


def test_files_and_names_that_services_refer_to(services: dict[str, dict[str, Any]], compose: dict[str, Any]) -> None:
    text = (ROOT / "compose.yaml").read_text("utf-8")
    for file in re.findall(r"- (\./[^:]+):", text):
        assert (ROOT / file).is_file(), file
    for service in services.values():
        used = [one if isinstance(one, str) else one["source"] for one in service.get("secrets", ())]
        assert set(used) <= set(compose["secrets"])
        assert set(service["networks"]) <= set(compose["networks"])
        assert set(service.get("depends_on", ())) <= set(services)


def test_bridges_of_compose(
    services: dict[str, dict[str, Any]], compose: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_secrets(tmp_path)
    loaded = []
    for name in BRIDGES:
        environ = dict(services[name]["environment"])
        mounted = environ.pop("STOMPBRIDGE_CONFIG")
        assert f"./config/container/stompbridge.toml:{mounted}:ro" in services[name]["volumes"]
        environ["STOMPBRIDGE_BROKER__URLS_FILE"] = str(tmp_path / "broker-urls")
        environ["STOMPBRIDGE_DEDUP__REDIS_URL_FILE"] = str(tmp_path / "redis-url")
        settings = config.load(CONTAINER / "stompbridge.toml", environ, {})
        grace = float(services[name]["stop_grace_period"].removesuffix("s"))
        assert grace >= settings.drain_time + settings.shutdown_timeout + 5
        loaded.append(settings)
    assert len({settings.node for settings in loaded}) == len({settings.app.worker for settings in loaded}) == 2
    (settings, _) = loaded
    assert settings.listen.trusted_proxies == (services["nginx"]["networks"]["front"]["ipv4_address"],)
    raw = tomllib.loads((CONTAINER / "stompbridge.toml").read_text("utf-8"))
    for path in (raw["broker"]["urls_file"], raw["dedup"]["redis_url_file"]):
        folder, _, name = path.rpartition("/")
        assert folder == "/run/secrets"
        assert name in services[BRIDGES[0]]["secrets"]


def make_secrets(folder: Path) -> None:
    subprocess.run(
        [str(CONTAINER / "make-secrets"), str(folder), str(os.getgid())],
        check=True,
        timeout=10,
        stdin=subprocess.DEVNULL,
    )


def test_secrets(compose: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    make_secrets(folder)
    files = {path.name: path.read_text() for path in folder.iterdir() if path.name != ".gitignore"}
    assert {Path(secret["file"]).name for secret in compose["secrets"].values()} == set(files)
    assert {str(Path(secret["file"]).parent) for secret in compose["secrets"].values()} == {"config/container/secrets"}
    for name in files:
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o640
    assert (folder / ".gitignore").read_text() == "*\n"
    (password,) = re.findall(r"default_pass = (\S{48})", files["rabbitmq.conf"])
    assert files["broker-urls"] == f"amqp://stompbridge:{password}@rabbitmq:5672/%2F\n"
    (other,) = re.findall(r"requirepass (\S{48})", files["redis.conf"])
    assert files["redis-url"] == f"redis://:{other}@redis:6379/0\n"
    assert "maxmemory-policy noeviction" in files["redis.conf"]
    assert password != other
    make_secrets(folder)
    assert {name: (folder / name).read_text() for name in files} == files
