"""Which texts come most often, among any number of them, in bounded memory."""

from __future__ import annotations

from collections.abc import Mapping

KEPT = 256
"""Texts whose counts are kept when there are too many."""
LIMIT = 4 * KEPT
"""Texts that are counted at a time."""
LONGEST = 512
"""Characters; longer texts are not counted."""


class Busiest:
    """Counts texts. With more than :data:`LIMIT` of them the rarer ones are forgotten, and the others' counts lowered
    by what the most frequent of these had, so that what was busy long ago gives way (Misra and Gries, 1982). A count is
    exact as long as nothing was forgotten, and never too high."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def add(self, text: str) -> None:
        """One more."""
        counts = self._counts
        count = counts.get(text)
        if count is not None:
            counts[text] = count + 1
        elif len(text) <= LONGEST:
            counts[text] = 1
            if len(counts) > LIMIT:
                self._forget()

    def counts(self) -> Mapping[str, int]:
        """What is known now."""
        return self._counts

    def _forget(self) -> None:
        floor = sorted(self._counts.values())[-KEPT - 1]
        self._counts = {text: count - floor for text, count in self._counts.items() if count > floor}
