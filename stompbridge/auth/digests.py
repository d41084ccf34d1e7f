"""What was found out about credentials, without keeping the credentials."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from secrets import token_bytes
from typing import Generic, TypeVar

T = TypeVar("T")


class Digests:
    """Digests under a key that this process alone has: of no use to whoever reads them elsewhere."""

    __slots__ = ("_key",)

    def __init__(self) -> None:
        self._key = token_bytes(32)

    def of(self, *parts: str | bytes) -> bytes:
        """32 bytes for ``parts``; other parts, or the same text divided otherwise, have other ones."""
        digest = hashlib.blake2b(key=self._key, digest_size=32)
        for part in parts:
            data = part.encode() if isinstance(part, str) else part
            digest.update(len(data).to_bytes(8, "big"))
            digest.update(data)
        return digest.digest()


class Remembered(Generic[T]):
    """At most ``size`` values by digest; the one that was not asked for longest is forgotten first."""

    __slots__ = ("_size", "_values")

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: OrderedDict[bytes, tuple[T, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: bytes, now: float) -> T | None:
        """The value, unless its time is up."""
        entry = self._values.get(key)
        if entry is None:
            return None
        value, until = entry
        if now >= until:
            del self._values[key]
            return None
        self._values.move_to_end(key)
        return value

    def put(self, key: bytes, value: T, until: float) -> None:
        """Keeps ``value`` until ``until`` on the caller's clock."""
        self._values[key] = (value, until)
        self._values.move_to_end(key)
        if len(self._values) > self._size:
            self._values.popitem(last=False)

    def clear(self) -> None:
        """Forgets everything."""
        self._values.clear()
