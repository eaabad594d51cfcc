"""Alarms of expressions: one row when a tag's expression begins to fail, one when it works again.

They live as long as the gateway, over every change of the mapping. A tag that flaps is told at most once per
TELL_INTERVAL_NS, and its last state is always told in the end. Rows are of the text tag `alarm.mapping`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

import numpy as np
import orjson

from framegate.contract.frame import Batch, TagId, uniform_quality, uniform_time
from framegate.contract.ports import Log
from framegate.contract.quality import Quality
from framegate.observe.metrics import Metrics

ALARM_TAG = "alarm.mapping"
ALARM_DEVICE = "gateway"
TELL_INTERVAL_NS = 10_000_000_000  # of one tag
TOLD_MAX = 64  # alarms that go on at once; the others follow, none is dropped
LOGGED_MAX = 8  # of those, how many the log repeats; the rows hold all


class Alarms:
    """States of all failing tags. Used from the loop thread.

    tag_id   tag whose rows tell of them; None while there is no expression that could fail
    failing  reason by tag id, of every tag whose expression fails now
    """

    def __init__(self, tag_id: TagId | None, log: Log, metrics: Metrics) -> None:
        self.tag_id = tag_id
        self.failing: dict[int, str] = {}
        self._log = log
        self._failures = metrics.counter("edge_mapping_failures_total")
        metrics.gauge("edge_mapping_failing_tags").read = lambda: float(len(self.failing))
        self._told: set[int] = set()  # tags whose failing was told, and whose clearing was not
        self._told_at: dict[int, int] = {}
        self._waiting: deque[int] = deque()  # tags whose state differs from what was told, each once
        self._is_waiting: set[int] = set()
        self._names: dict[int, str] = {}

    def look(self, failed: Mapping[int, str], fine: AbstractSet[int], names: Mapping[int, str]) -> None:
        """What a run of expressions found.

        failed  reason by tag id;  fine  tags whose expressions worked;  names  of all these tags
        """
        self._failures.value += len(failed)
        for tag_id, reason in failed.items():
            if tag_id not in self.failing:
                self._names[tag_id] = names[tag_id]
                self._wait(tag_id)
            self.failing[tag_id] = reason
        if self.failing:
            for tag_id in (self.failing.keys() & fine) - failed.keys():
                del self.failing[tag_id]
                self._wait(tag_id)

    def keep(self, tags: AbstractSet[int]) -> None:
        """Clear what fails no longer because its expression is gone."""
        for tag_id in self.failing.keys() - tags:
            del self.failing[tag_id]
            self._wait(tag_id)

    @property
    def has_waiting(self) -> bool:
        """Something is still to be told."""
        return bool(self._waiting)

    def take(self, now_ns: int) -> Sequence[Batch]:
        """The alarms that are to be told now, at most TOLD_MAX, as one batch."""
        if not self._waiting:
            return ()
        told: list[str] = []
        for _ in range(len(self._waiting)):
            tag_id = self._waiting.popleft()
            if len(told) == TOLD_MAX or not self._may_tell(tag_id, now_ns):
                self._waiting.append(tag_id)
                continue
            self._is_waiting.discard(tag_id)
            text = self._tell(tag_id, now_ns, is_logged=len(told) < LOGGED_MAX)
            if text:
                told.append(text)
        if not told:
            return ()
        value = np.empty(len(told), np.object_)
        value[:] = told
        tag = np.full(len(told), self.tag_id, np.int32)
        return (Batch(tag, value, uniform_quality(Quality.GOOD), uniform_time(now_ns), now_ns),)

    def _wait(self, tag_id: int) -> None:
        if tag_id not in self._is_waiting:
            self._is_waiting.add(tag_id)
            self._waiting.append(tag_id)

    def _may_tell(self, tag_id: int, now_ns: int) -> bool:
        """A clock that was set back must not silence a tag."""
        last = self._told_at.get(tag_id)
        return last is None or not 0 <= now_ns - last < TELL_INTERVAL_NS

    def _tell(self, tag_id: int, now_ns: int, *, is_logged: bool) -> str:
        """Text of the alarm; "" when the state is again the one that was told."""
        reason = self.failing.get(tag_id)
        is_active = reason is not None
        name = self._names[tag_id]
        if is_active == (tag_id in self._told):
            return ""
        self._told_at[tag_id] = now_ns
        if is_active:
            self._told.add(tag_id)
        else:
            self._told.discard(tag_id)
        if is_logged and is_active:
            self._log.warning("expression_failing", tag=name, reason=reason)
        elif is_logged:
            self._log.info("expression_cleared", tag=name)
        return orjson.dumps(
            {"tag": name, "state": "active" if is_active else "cleared", "reason": reason or ""}
        ).decode()
