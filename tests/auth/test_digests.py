from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from stompbridge.auth.digests import Digests, Remembered

DIGESTS = Digests()
PARTS = st.lists(st.text(max_size=3) | st.binary(max_size=3), max_size=4)


@settings(deadline=None)
@given(PARTS, PARTS)
def test_other_parts_have_other_digests(one: list[str | bytes], other: list[str | bytes]) -> None:
    def encoded(parts: list[str | bytes]) -> list[bytes]:
        return [part.encode() if isinstance(part, str) else part for part in parts]

    assert (DIGESTS.of(*one) == DIGESTS.of(*other)) == (encoded(one) == encoded(other))


def test_each_process_has_a_key_of_its_own() -> None:
    assert Digests().of("a") != Digests().of("a")
    assert Digests().of("a").find(b"a" * 4) == -1


def test_what_was_not_asked_for_longest_is_forgotten() -> None:
    remembered: Remembered[int] = Remembered(2)
    remembered.put(b"a", 1, 10.0)
    remembered.put(b"b", 2, 10.0)
    assert remembered.get(b"a", 0.0) == 1
    remembered.put(b"c", 3, 10.0)
    assert [remembered.get(key, 0.0) for key in (b"a", b"b", b"c")] == [1, None, 3]
    remembered.put(b"a", 4, 10.0)
    assert len(remembered) == 2
    remembered.clear()
    assert len(remembered) == 0


def test_nothing_is_remembered_beyond_its_time() -> None:
    remembered: Remembered[int] = Remembered(2)
    remembered.put(b"a", 1, 10.0)
    assert remembered.get(b"a", 9.9) == 1
    assert remembered.get(b"a", 10.0) is None
    assert len(remembered) == 0
