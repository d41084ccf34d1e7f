from __future__ import annotations

from stompbridge.admin.recent import KEPT, Recent
from stompbridge.config import Settings
from stompbridge.gateway.closing import CloseReason
from tests.gateway.world import World


def test_the_last_are_kept() -> None:
    world, recent = World(Settings()), Recent()
    assert recent.newest(5) == []
    world.shared.on_closed = recent.add
    for _ in range(KEPT + 5):
        client, _ = world.client()
        client.on_lost(CloseReason.CLIENT_LOST)
    closed = recent.newest(KEPT + 5)
    assert len(closed) == KEPT
    assert closed[0].id == client.sender_id
    assert closed[:3] == recent.newest(3)
