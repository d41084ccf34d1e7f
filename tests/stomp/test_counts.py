"""What a session counts, in each way that bytes can arrive."""

from __future__ import annotations

from collections.abc import Callable

from stompbridge.stomp.session import COMMANDS, INVALID, frame_counts
from tests.stomp.conftest import Peer


def test_every_command_has_its_count() -> None:
    assert set(COMMANDS) == {
        *("CONNECT", "STOMP", "SEND", "SUBSCRIBE", "UNSUBSCRIBE", "ACK", "NACK"),
        *("BEGIN", "COMMIT", "ABORT", "DISCONNECT"),
    }
    assert frame_counts() == dict.fromkeys((*COMMANDS, INVALID), 0)


def counted(peer: Peer) -> dict[str, int]:
    return {command: count for command, count in peer.received.items() if count}


def test_frames_are_counted_once_by_command(make_peer: Callable[..., Peer]) -> None:
    peer = make_peer().connect()
    peer.send(b"SEND\ndestination:/queue/a\n\nx\0SEND\ndestination:/queue/a\n\ny\0")
    peer.command("SUBSCRIBE", "id:0", "destination:/queue/a")
    peer.command("DISCONNECT")
    peer.send(b"SEND\ndestination:/queue/a\n\nx\0")
    assert counted(peer) == {"CONNECT": 1, "SEND": 2, "SUBSCRIBE": 1, "DISCONNECT": 1}


def test_a_frame_that_is_refused_counts_as_its_command(make_peer: Callable[..., Peer]) -> None:
    peer = make_peer().connect()
    peer.command("SEND")
    peer.command("ACK", "id:none")
    assert counted(peer) == {"CONNECT": 1, "SEND": 1, "ACK": 1}


def test_what_is_out_of_place_is_counted_apart(make_peer: Callable[..., Peer]) -> None:
    peer = make_peer()
    peer.command("SEND", "destination:/queue/a")
    assert counted(peer) == {INVALID: 1}
    peer = make_peer().connect()
    for command in ("RECEIPT", "CONNECT"):
        peer.command(command)
    assert counted(peer) == {"CONNECT": 1, INVALID: 2}


def test_bytes_that_are_no_frame_count_once(make_peer: Callable[..., Peer]) -> None:
    peer = make_peer().connect()
    peer.send(b"SEND\nno colon\n\n\0more")
    assert counted(peer) == {"CONNECT": 1, INVALID: 1}
