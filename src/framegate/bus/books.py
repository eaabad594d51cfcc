"""Books: everything small that is written along with the frames - catalogue, layouts, cursors, rewinds,
gaps, dead letters, states of rules, marks, trim.

One group commit carries their changes and the frames that need them, so that no frame is ever without its names.
"""

from __future__ import annotations

from collections.abc import Callable

from framegate.bus.catalogue import DurableCatalogue
from framegate.bus.cursor import DurableCursors
from framegate.bus.fault import FORMAT, damaged
from framegate.bus.gaps import GapBook
from framegate.bus.layout import Layouts
from framegate.bus.letters import LetterBook
from framegate.bus.mark import HighWaterMark
from framegate.bus.marks import Marks
from framegate.bus.options import StoreOptions
from framegate.bus.rewinds import RewindBook
from framegate.bus.rules import RuleBook
from framegate.contract.errors import StoreFailed
from framegate.contract.frame import Int32Column, Position
from framegate.contract.ports import Change, Disk

FORMAT_VERSION = 1
TWIN_PREFIX = b"c"  # names are kept twice, in files of two families: without them every row would be lost
_FORMAT_KEY = b"format"
_TRIM_KEY = b"trim"


class Books:
    """The small families of one store.

    trim    first position that is kept; every position below it was delivered, or is in a gap
    oldest  first position that may be read: `trim`, once that is durable
    """

    def __init__(self, disk: Disk, options: StoreOptions) -> None:
        self._disk = disk
        self.catalogue = DurableCatalogue(disk)
        self.layouts = Layouts(disk)
        self.cursors = DurableCursors(disk)
        self.gaps = GapBook(disk)
        self.letters = LetterBook(disk)
        self.rewinds = RewindBook(disk)
        self.rules = RuleBook(disk)
        self.marks = Marks(disk, min(options.retention_bytes, options.keep_acked_bytes or options.retention_bytes))
        self.trim = self.oldest = Position(1)
        self._changes: list[Change] = []

    def load(self, mark: HighWaterMark) -> list[str]:
        """Read the store, with what is known from outside it; returns the connectors whose cursor is lost.

        raises  StoreFailed - E3003 an entry is damaged; E3005 a newer release wrote it
        """
        version = _number(self._disk, _FORMAT_KEY)
        if version is None:
            self._changes.append(("meta", _FORMAT_KEY, FORMAT_VERSION.to_bytes(8, "big")))
        elif version > FORMAT_VERSION:
            raise StoreFailed(
                f"durable log: format {version} is newer than this release's {FORMAT_VERSION}; start the newer release",
                code=FORMAT,
            )
        self.trim = self.oldest = max(trim_of(self._disk), mark.trim)
        self.catalogue.load(mark.tags)
        self.layouts.load()
        self.gaps.load()
        self.letters.load()
        self.rewinds.load()
        self.marks.load()
        return self.cursors.restore(mark.cursors)

    @property
    def is_named(self) -> Callable[[Int32Column], bool] | None:
        """What a replay asks of each record; None where no name was ever lost."""
        return self.catalogue.holds if self.catalogue.has_holes else None

    def trim_to(self, position: Position) -> None:
        """Rows below a position go; durable with the next group commit, and only then `trimmed`."""
        self.trim = position
        self.marks.drop(position)
        self.gaps.prune(min(position, self.cursors.floor(position)))
        self._changes.append(("meta", _TRIM_KEY, position.to_bytes(8, "big")))

    def trimmed(self) -> None:
        """The new beginning and the gaps before it are durable: rows below may be deleted, and are read no more."""
        self.oldest = self.trim
        self.gaps.settle()

    def mark(self, durable: Position) -> HighWaterMark:
        """What the store holds once the group that ends at `durable` is synced."""
        return HighWaterMark(durable, len(self.catalogue), self.trim, self.cursors.positions())

    def take_changes(self) -> list[Change]:
        """What is not yet on its way to the store; the caller now owns it."""
        changes, self._changes = self._changes, []
        for names in (self.catalogue.take_changes(), self.layouts.take_changes()):
            changes += names
            changes += [("meta", TWIN_PREFIX + key, value) for _, key, value in names]
        for book in (self.cursors, self.gaps, self.letters, self.marks, self.rewinds):
            changes += book.take_changes()
        return changes


def trim_of(disk: Disk) -> Position:
    """First position that a disk's store keeps; raises StoreFailed."""
    return Position(_number(disk, _TRIM_KEY) or 1)


def _number(disk: Disk, key: bytes) -> int | None:
    data = disk.get("meta", key)
    if data is None:
        return None
    if len(data) != 8:
        raise damaged(f"entry {key.decode()}", f"{len(data)} bytes long")
    return int.from_bytes(data, "big")
