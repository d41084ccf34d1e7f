from __future__ import annotations

import pytest
from websockets.frames import Close

from stompbridge.gateway.closing import CloseReason


def test_labels_are_unique_words() -> None:
    labels = [reason.label for reason in CloseReason]
    assert len(set(labels)) == len(labels)
    assert labels == [reason.name.lower() for reason in CloseReason]


@pytest.mark.parametrize("reason", [reason for reason in CloseReason if reason is not CloseReason.CLIENT_LOST])
def test_codes_and_texts_fit_a_close_frame(reason: CloseReason) -> None:
    assert len(Close(reason.code, reason.text).serialize()) <= 125


def test_a_lost_client_has_the_code_that_is_never_sent() -> None:
    assert CloseReason.CLIENT_LOST.code == 1006


def test_a_restart_is_worth_another_try_and_a_violation_is_not() -> None:
    assert CloseReason.SHUTDOWN.retry
    assert not CloseReason.PROTOCOL_ERROR.retry
