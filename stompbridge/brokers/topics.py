"""Matching of routing keys against binding patterns, as an AMQP 0-9-1 topic exchange does it (section 3.1.3.3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


def words_of(key: str) -> list[str]:
    """The words of a routing key or pattern. The empty key has none; ``a..b`` has an empty one in the middle."""
    return key.split(".") if key else []


def has_wildcards(pattern: str) -> bool:
    """Whether ``*`` or ``#`` stands as a whole word in ``pattern``; inside a word they are ordinary characters."""
    if "*" not in pattern and "#" not in pattern:
        return False
    return any(word in ("*", "#") for word in words_of(pattern))


class _Node(Generic[T]):
    """One position in the trie. ``values`` holds what ends here, by the pattern's own text: ``#`` and ``#.#``
    end at the same place."""

    __slots__ = ("any", "children", "many", "repeats", "values")

    def __init__(self, repeats: bool = False) -> None:
        self.children: dict[str, _Node[T]] = {}
        self.any: _Node[T] | None = None
        self.many: _Node[T] | None = None
        self.repeats = repeats
        self.values: dict[str, T] = {}

    @property
    def empty(self) -> bool:
        return not (self.values or self.children or self.any or self.many)


class TopicTrie(Generic[T]):
    """A map from binding patterns to values, asked by routing key.

    ``*`` stands for exactly one word, ``#`` for any number of them. Patterns without either cost one dict look-up.
    The others are walked word by word with the set of all positions that the key may have reached, so that the work
    for a key is at most its words times the trie's nodes, however many ``#`` a pattern has. ``visited`` counts the
    positions looked at since the start.
    """

    __slots__ = ("_exact", "_factory", "_root", "_wild", "visited")

    def __init__(self, factory: Callable[[], T]) -> None:
        self._factory = factory
        self._exact: dict[str, T] = {}
        self._root: _Node[T] = _Node()
        self._wild = 0
        self.visited = 0

    def __len__(self) -> int:
        return len(self._exact) + self._wild

    def node(self, pattern: str) -> T:
        """The value of ``pattern``, made by the factory at its first use."""
        if not has_wildcards(pattern):
            value = self._exact.get(pattern)
            if value is None:
                value = self._exact[pattern] = self._factory()
            return value
        node = self._root
        for word in words_of(pattern):
            node = self._step(node, word)
        value = node.values.get(pattern)
        if value is None:
            value = node.values[pattern] = self._factory()
            self._wild += 1
        return value

    def get(self, pattern: str) -> T | None:
        """The value of exactly this pattern text."""
        if not has_wildcards(pattern):
            return self._exact.get(pattern)
        path = self._path(pattern)
        return path[-1][1].values.get(pattern) if path else None

    def remove(self, pattern: str) -> T | None:
        """Takes the pattern out, with the nodes that only it needed. Returns its value, ``None`` if there was none."""
        if not has_wildcards(pattern):
            return self._exact.pop(pattern, None)
        path = self._path(pattern)
        if not path:
            return None
        value = path[-1][1].values.pop(pattern, None)
        if value is None:
            return None
        self._wild -= 1
        for index in range(len(path) - 1, 0, -1):
            word, node = path[index]
            if not node.empty:
                break
            parent = path[index - 1][1]
            if word == "*":
                parent.any = None
            elif word == "#":
                parent.many = None
            else:
                del parent.children[word]
        return value

    def items(self) -> list[tuple[str, T]]:
        """All patterns and their values."""
        found = list(self._exact.items())
        nodes = [self._root] if self._wild else []
        while nodes:
            node = nodes.pop()
            found.extend(node.values.items())
            nodes.extend(node.children.values())
            nodes.extend(child for child in (node.any, node.many) if child is not None)
        return found

    def match(self, key: str) -> list[T]:
        """The values of all patterns that match the routing key, each once, in no particular order."""
        exact = self._exact.get(key)
        found = [] if exact is None else [exact]
        if not self._wild:
            return found
        active: set[_Node[T]] = {self._root}
        if self._root.many is not None:
            active.add(self._root.many)
        visited = len(active)
        for word in words_of(key):
            reached: set[_Node[T]] = set()
            for node in active:
                if node.repeats:
                    reached.add(node)
                child = node.children.get(word)
                if child is not None:
                    reached.add(child)
                    if child.many is not None:
                        reached.add(child.many)
                child = node.any
                if child is not None:
                    reached.add(child)
                    if child.many is not None:
                        reached.add(child.many)
            if not reached:
                break
            active = reached
            visited += len(active)
        else:
            for node in active:
                if node.values:
                    found.extend(node.values.values())
        self.visited += visited
        return found

    def _step(self, node: _Node[T], word: str) -> _Node[T]:
        if word == "#":
            if node.repeats:
                return node
            if node.many is None:
                node.many = _Node(repeats=True)
            return node.many
        if word == "*":
            if node.any is None:
                node.any = _Node()
            return node.any
        child = node.children.get(word)
        if child is None:
            child = node.children[word] = _Node()
        return child

    def _path(self, pattern: str) -> list[tuple[str, _Node[T]]]:
        """The nodes of a pattern with the words that lead there, from the root; empty if they are not all there."""
        node = self._root
        path = [("", node)]
        for word in words_of(pattern):
            if word == "#":
                if node.repeats:
                    continue
                child = node.many
            else:
                child = node.any if word == "*" else node.children.get(word)
            if child is None:
                return []
            node = child
            path.append((word, node))
        return path
