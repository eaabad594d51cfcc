"""A group: what one commit writes in one piece, and who waits for it."""

from __future__ import annotations

from collections.abc import Callable

from framegate.contract.frame import Position
from framegate.contract.ports import Change


class Group:
    """Changes that become durable together.

    frames  records of rows, the marks at some of them, and states that must not be durable before them
    size    bytes of the frames
    other   changes of the books
    last    durable head once this group is durable
    then    called when the books are;  kept: called when the frames are
    """

    __slots__ = ("frames", "kept", "last", "other", "size", "then")

    def __init__(self) -> None:
        self.frames: list[Change] = []
        self.other: list[Change] = []
        self.size = 0
        self.last = Position(0)
        self.then: list[Callable[[], None]] = []
        self.kept: list[Callable[[], None]] = []

    @property
    def is_empty(self) -> bool:
        return not (self.frames or self.other or self.then or self.kept)

    def changes(self) -> list[Change]:
        """The books first: no frame is ever without its names."""
        return [*self.other, *self.frames]

    def joined(self, later: Group) -> Group:
        """Both as one, in order, for writing again."""
        both = Group()
        both.frames = self.frames + later.frames
        both.other = self.other + later.other
        both.size = self.size + later.size
        both.last = max(self.last, later.last)
        both.then = self.then + later.then
        both.kept = self.kept + later.kept
        return both

    def without_frames(self, durable: Position) -> tuple[Group, Group]:
        """While the disk is full: the books now, the frames later; the durable head stays where it is."""
        now, later = Group(), Group()
        now.other, now.then, now.last = self.other, self.then, durable
        later.frames, later.size, later.kept = self.frames, self.size, self.kept
        return now, later
