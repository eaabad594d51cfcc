"""What became of commands, by the door they came through, as the metrics have counted it since the start."""

from __future__ import annotations

from dataclasses import dataclass

from framegate.observe.metrics import Counter, Metrics


@dataclass(frozen=True, slots=True)
class DoorHealth:
    """Outcomes of the commands of one door; those that were turned away and not kept do not count."""

    name: str
    confirmed: int = 0
    rejected: int = 0
    not_sent: int = 0
    unknown: int = 0


def doors_of(metrics: Metrics) -> tuple[DoorHealth, ...]:
    """Every door through which a command has come to an outcome, in order of their names."""
    counts: dict[str, dict[str, int]] = {}
    for spec, children in metrics.collect():
        if spec.name != "edge_commands_total":
            continue
        for labels, child in children:
            named = dict(labels)
            assert isinstance(child, Counter)
            counts.setdefault(named["door"], {})[named["outcome"]] = child.value
    return tuple(DoorHealth(door, **outcomes) for door, outcomes in sorted(counts.items()))
