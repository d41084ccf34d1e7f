from __future__ import annotations

import pytest

from tests.bench import micro


@pytest.mark.parametrize("part", micro.PARTS)
def test_every_piece_can_be_called_again_and_again(part: str) -> None:
    for piece in micro.PARTS[part]():
        for _ in range(3):
            piece.call()


def test_figures_are_for_one_message() -> None:
    calls = []
    piece = micro.Piece("a piece", lambda: calls.append(1), messages=1000)
    figures = micro.measure(piece, repeats=3, seconds=0.001)
    assert len(figures) == 3
    assert len(calls) > 3
    assert 0 < min(figures) < 1000


def test_the_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(micro, "CALL_SECONDS", 0.001)
    assert micro.main(["--only", "ack encode", "--repeats", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["part", "piece", "ns", "median"]
    assert [line.split()[:4] for line in lines[2:]] == [["amqp", "AMQP", "ack", "encode"]]
