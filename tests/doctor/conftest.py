from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import pytest

from stompbridge import config
from stompbridge.doctor.examine import examine
from stompbridge.doctor.finding import Finding
from tests.support.ports import free_port

Findings = dict[str, list[Finding]]
Look = Callable[..., Awaitable[Findings]]


@pytest.fixture
def look(tmp_path: Path) -> Look:
    """``await look(text)`` is what the doctor finds for a configuration, by name."""

    async def examine_text(text: str, environ: Mapping[str, str] | None = None, mode: int = 0o600) -> Findings:
        path = tmp_path / "bridge.toml"
        path.touch()
        path.chmod(mode)
        path.write_text(text)
        ports = {"STOMPBRIDGE_LISTEN__PORT": str(free_port()), "STOMPBRIDGE_ADMIN__PORT": str(free_port())}
        settings = config.load(path, ports | dict(environ or {}), {})
        found: Findings = {}
        async for finding in examine(settings, path):
            assert finding.detail
            assert bool(finding.remedy) == (finding.result in ("warning", "error"))
            found.setdefault(finding.name, []).append(finding)
        return found

    return examine_text
