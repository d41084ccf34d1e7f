from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench import sizing
from tests.bench.sizing import Load, Measured

COST = Measured(
    kib=8, kib_kernel=4, kib_binding=2, idle_us=5, write_us=5, message_us=50, rabbitmq_us=60, redis_us=10, connects=1000
)


@pytest.mark.parametrize(
    ("processes", "members", "reached"), [(1, 20, 1.0), (2, 1, 1.0), (2, 2, 1.5), (100_000, 20, 20.0)]
)
def test_processes_reached(processes: int, members: int, reached: float) -> None:
    assert sizing.processes_reached(processes, members) == pytest.approx(reached, rel=1e-3)


def test_one_process_is_enough_for_few() -> None:
    found = sizing.size(6000, COST, Load())
    assert (found.processes, found.copies, found.clusters) == (1, 1.0, 1)
    assert found.sends == 100
    assert found.deliveries == 2000
    assert found.rabbitmq_cores == pytest.approx(100 * 60e-6 / 0.6)
    assert found.redis_cores == pytest.approx(2000 * 10e-6 / 0.6)
    assert found.gib_process == pytest.approx(6000 * 12 / 2**20)
    assert found.rabbitmq_gib == pytest.approx(300 * 2 / 2**20)
    assert found.back_seconds == 6


def test_a_process_has_no_more_connections_than_it_may() -> None:
    idle = Load(sends_per_minute=0.0001, by_room=True)
    assert sizing.size(sizing.MOST_CONNECTIONS, COST, idle).processes == 1
    assert sizing.size(sizing.MOST_CONNECTIONS + 1, COST, idle).processes == 2


@given(
    st.integers(1, 20_000_000),
    st.floats(0, 60),
    st.integers(1, 1000),
    st.builds(Measured, **{field: st.floats(0.1, 500) for field in Measured.__dataclass_fields__}),
)
def test_no_process_is_too_busy_and_a_room_in_one_place_is_cheaper(
    connections: int, sends: float, members: int, cost: Measured
) -> None:
    anywhere = sizing.size(connections, cost, Load(sends, members))
    together = sizing.size(connections, cost, Load(sends, members, by_room=True))
    for found in (anywhere, together):
        spent = (
            connections * cost.idle_us + found.sends * found.copies * cost.message_us + found.deliveries * cost.write_us
        )
        assert spent / 1e6 <= found.processes * sizing.BUSY * (1 + 1e-9)
        assert 1 <= found.copies <= min(found.processes, members) * (1 + 1e-6)
    assert together.processes <= anywhere.processes
    assert together.rabbitmq_cores <= anywhere.rabbitmq_cores * (1 + 1e-9)
