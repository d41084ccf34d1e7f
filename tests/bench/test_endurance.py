from __future__ import annotations

import pytest

from tests.bench.endurance import judge
from tests.bench.scenarios import Result

MIB = 1 << 20


def judged(*sizes: float, warm_up: float = 60) -> Result:
    result = Result("soak", "named", 1)
    samples = [(10.0 * at, int(size * MIB)) for at, size in enumerate(sizes)]
    judge({"bridge": samples, "redis": [(at, 8 * MIB) for at, _ in samples]}, warm_up, result)
    return result


def test_growth_before_the_warm_up_does_not_count() -> None:
    result = judged(*range(10, 80, 10), *[80.0] * 60)
    assert result.figures["grew"] == 0
    assert result.figures["mib_bridge_end"] == 80
    assert result.figures["mib_redis_begin"] == 8


def test_steady_growth_is_seen() -> None:
    result = judged(*(80 + at / 6 for at in range(90)))
    assert result.figures["grew"] == 1
    assert result.notes[0].startswith("bridge grew from ")


@pytest.mark.parametrize("sizes", [[80.0, 82.0] * 45, [*[80.0] * 60, 200.0, *[80.0] * 30], [80.0]])
def test_noise_is_not_growth(sizes: list[float]) -> None:
    assert judged(*sizes, warm_up=0).figures["grew"] == 0
