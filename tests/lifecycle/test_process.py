"""What the process makes of what the system gives it."""

from __future__ import annotations

import gc

from stompbridge.lifecycle.process import COLLECTOR, calm_collector


def test_garbage_is_looked_for_less_often_and_not_among_what_stays() -> None:
    before = gc.get_threshold()
    try:
        calm_collector()
        assert gc.get_threshold() == COLLECTOR
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
