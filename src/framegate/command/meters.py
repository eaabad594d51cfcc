"""What is counted of commands. Labels are bounded: doors that are known, and a limited number of tags."""

from __future__ import annotations

from collections.abc import Callable

from framegate.contract.command import CommandRecord, Outcome
from framegate.observe.metrics import Counter, Histogram, Metrics

DOORS = frozenset(("rest", "north", "local", "rule", "bridge", "console"))
"""What stands before the colon of an origin; anything else counts as "other"."""
ERROR_TAGS_MAX = 500
"""Tags whose failed writes are counted each by itself; those that come later count as "other"."""
OTHER = "other"
_NS_PER_MS = 1_000_000


class Meters:
    """Counters of one desk."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._tags: set[str] = set()
        self._doors: dict[tuple[str, Outcome], tuple[Counter, Histogram]] = {}

    def watch(self, waiting: Callable[[], int]) -> None:
        """Have the commands that have no outcome yet counted at each scrape."""
        self._metrics.gauge("edge_commands_waiting").read = lambda: float(waiting())

    def ended(self, record: CommandRecord) -> None:
        """A command has its outcome."""
        assert record.outcome is not None
        ended, took_ms = self._of(door_of(record.origin), record.outcome)
        ended.value += 1
        took_ms.observe(max(0, record.ended - record.received) / _NS_PER_MS)
        if record.outcome is not Outcome.CONFIRMED:
            self._metrics.counter("edge_write_error_total", tag=self._label(record.command.tag)).value += 1

    def refused(self, origin: str) -> None:
        """A command was turned away and is not kept."""
        self._metrics.counter("edge_commands_refused_total", door=door_of(origin)).value += 1

    def _of(self, door: str, outcome: Outcome) -> tuple[Counter, Histogram]:
        found = self._doors.get((door, outcome))
        if found is None:
            ended = self._metrics.counter("edge_commands_total", outcome=outcome.name.lower(), door=door)
            found = self._doors[door, outcome] = ended, self._metrics.histogram("edge_command_duration_ms", door=door)
        return found

    def _label(self, tag: str) -> str:
        if tag not in self._tags:
            if len(self._tags) >= ERROR_TAGS_MAX:
                return OTHER
            self._tags.add(tag)
        return tag


def door_of(origin: str) -> str:
    """The door that an origin names."""
    door = origin.partition(":")[0]
    return door if door in DOORS else OTHER
