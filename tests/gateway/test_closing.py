from __future__ import annotations

import pytest
from websockets.frames import Close

from stompbridge.gateway.closing import CloseReason


def test_labels_are_unique_words() -> None:
    labels = [reason.label for reason in CloseReason]
    assert len(set(labels)) == len(labels)
    assert labels == [reason.name.lower() for reason in CloseReason]


# RFC 6455 section 7.4.1: for what was no WebSocket any more, or none yet.
NEVER_SENT = {CloseReason.CLIENT_LOST: 1006, CloseReason.TLS_FAILED: 1015}


@pytest.mark.parametrize("reason", [reason for reason in CloseReason if reason not in NEVER_SENT])
def test_codes_and_texts_fit_a_close_frame(reason: CloseReason) -> None:
    assert len(Close(reason.code, reason.text).serialize()) <= 125


def test_what_can_not_be_told_has_the_codes_that_are_never_sent() -> None:
    assert {reason: reason.code for reason in NEVER_SENT} == NEVER_SENT


def test_a_restart_is_worth_another_try_and_a_violation_is_not() -> None:
    assert CloseReason.SHUTDOWN.retry
    assert not CloseReason.PROTOCOL_ERROR.retry
