from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.bench import proc
from tests.bench.proc import Snapshot, Stat, Usage

LINE = "77 ({name}) S 12 77 77 0 -1 4194560 1 2 3 4 100 20 5 1 20 0 4 0 9999 123456 321 18446744073709551615\n"


@pytest.mark.parametrize("name", ["beam.smp", "a b", ") S 1 (", "x)", ""])
def test_the_name_of_a_process_may_be_anything(name: str) -> None:
    assert proc.parse_stat(LINE.format(name=name)) == Stat(parent=12, ticks=126, pages=321)


def test_a_tree_holds_all_descendants() -> None:
    table = {pid: Stat(parent, 0, 0) for pid, parent in {1: 0, 5: 1, 4: 5, 3: 4, 9: 1, 10: 9}.items()}
    assert proc.tree(table, 5) == {5, 4, 3}
    assert proc.tree(table, 1) == set(table)
    assert proc.tree(table, 77) == set()


def test_usage_of_this_process_and_its_children() -> None:
    alone = proc.usage([os.getpid()])
    assert alone.cpu > 0
    assert alone.rss > 1 << 20
    hog = "import sys; block = b'x' * (32 << 20); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", hog], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert proc.usage([os.getpid()]).rss - alone.rss > 30 << 20
        assert proc.usage([os.getpid(), child.pid]).rss < alone.rss + proc.usage([child.pid]).rss + (16 << 20)
        child.communicate()
    assert proc.usage([child.pid]) == Usage()


def test_shares_of_a_core() -> None:
    before = Snapshot(10.0, {"bridge": Usage(1.0, 0), "rabbitmq": Usage(5.0, 0)}, own=2.0, machine=100.0)
    after = Snapshot(12.0, {"bridge": Usage(1.5, 0), "rabbitmq": Usage(5.25, 0)}, own=3.0, machine=102.0)
    assert after.cpu_since(before) == {"bridge": 0.5, "rabbitmq": 0.25}
    assert after.own_share_since(before) == 0.5
    assert after.other_share_since(before) == pytest.approx(0.125)


def test_a_snapshot_of_now() -> None:
    before = Snapshot.take({"own": [os.getpid()]})
    sum(range(300_000))
    after = Snapshot.take({"own": [os.getpid()]})
    assert after.at > before.at
    assert after.own > before.own
    assert after.machine >= before.machine > 0


def test_the_kernel_has_memory_of_its_own() -> None:
    assert proc.kernel_memory() > 1 << 20
