from __future__ import annotations

import os
import resource
import time
from pathlib import Path

import pytest
from prometheus_client import ProcessCollector

from stompbridge.admin import kernel


def test_it_agrees_with_prometheus_client() -> None:
    theirs = {metric.name: metric.samples[0].value for metric in ProcessCollector(registry=None).collect()}
    ours = kernel.read()
    assert ours is not None
    assert ours.started_at == pytest.approx(theirs["process_start_time_seconds"])
    assert ours.cpu == pytest.approx(theirs["process_cpu_seconds"], abs=1.0)
    assert ours.resident == pytest.approx(theirs["process_resident_memory_bytes"], rel=0.2)
    assert ours.virtual == pytest.approx(theirs["process_virtual_memory_bytes"], rel=0.2)
    assert ours.open_files == pytest.approx(theirs["process_open_fds"], abs=3)
    assert ours.max_files == theirs["process_max_fds"] == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert ours.started_at < time.time()


def test_files_are_counted_by_the_folders_size_or_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "012":
        (tmp_path / name).touch()
    assert kernel.open_files(tmp_path) == os.stat(tmp_path).st_size
    monkeypatch.setattr(Path, "stat", lambda _path: os.stat_result((0,) * 10))
    assert kernel.open_files(tmp_path) == 3


def test_nothing_is_known_without_proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "_PROC", tmp_path)
    assert kernel.read() is None
    (tmp_path / "self").mkdir()
    (tmp_path / "self/stat").write_text("1 (python) S 1")
    assert kernel.read() is None
