"""Layouts: what an encoder works out once per tag array and uses on every scan.

Looked up by the identity of `batch.tag`, which drivers keep; failing that (rows read back from the store, rows cut at a
cursor) by the array's bytes. Bounded both ways, oldest first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from framegate.contract.frame import Int32Column

LAYOUTS_MAX = 4096  # tag arrays remembered by identity, and as many by content
L = TypeVar("L")


class Layouts(Generic[L]):
    """A bounded cache of layouts; an entry holds its array, so that an identity is never given again."""

    __slots__ = ("_by_content", "_by_identity", "_make")

    def __init__(self, make: Callable[[Int32Column], L]) -> None:
        self._make = make
        self._by_identity: dict[int, tuple[Int32Column, L]] = {}
        self._by_content: dict[bytes, L] = {}

    def of(self, tag: Int32Column) -> L:
        entry = self._by_identity.get(id(tag))
        if entry is not None:
            return entry[1]
        content = tag.tobytes()
        layout = self._by_content.get(content)
        if layout is None:
            layout = self._make(tag)
            _bound(self._by_content)
            self._by_content[content] = layout
        _bound(self._by_identity)
        self._by_identity[id(tag)] = (tag, layout)
        return layout

    def forget(self) -> None:
        """Drop everything, because the catalogue has changed."""
        self._by_identity.clear()
        self._by_content.clear()


K = TypeVar("K")
V = TypeVar("V")


def _bound(entries: dict[K, V]) -> None:
    if len(entries) >= LAYOUTS_MAX:
        del entries[next(iter(entries))]
