"""The witness: reads what reached the broker and keeps account of it.

Positions are gapless per gateway, so what is missing, doubled or out of order can be counted exactly by somebody who
knows nothing of the gateway's inside.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

VALUES_MAX = 10_000
SPANS_MAX = 100_000


@dataclass(slots=True)
class Seen:
    """The newest frame of one tag."""

    value: Any
    time_ms: int
    quality: int


@dataclass(slots=True)
class Witness:
    """Counts frames from json-batch messages; `spans` are the runs of positions seen, in order of arrival."""

    messages: int = 0
    frames: int = 0
    bad: int = 0
    out_of_order: int = 0
    last: dict[str, Seen] = field(default_factory=dict)
    spans: list[tuple[int, int]] = field(default_factory=list)
    newest: int = 0

    def take(self, payload: bytes) -> None:
        """One message. Frames already seen (a repeat after an outage) change no value."""
        message = json.loads(payload)
        first, frames = int(message["pos"]), message["frames"]
        self.messages += 1
        self.frames += len(frames)
        stop = first + len(frames)
        if first > self.newest or stop - 1 > self.newest:
            for frame in frames:
                self._see(frame)
        if first < self.newest and stop - 1 > self.newest:
            self.out_of_order += 1
        self.newest = max(self.newest, stop - 1)
        if self.spans and self.spans[-1][1] == first:
            self.spans[-1] = (self.spans[-1][0], stop)
        elif len(self.spans) < SPANS_MAX:
            self.spans.append((first, stop))

    def _see(self, frame: dict[str, Any]) -> None:
        self.bad += frame["qos"] != 0
        if len(self.last) < VALUES_MAX or frame["tag"] in self.last:
            self.last[frame["tag"]] = Seen(frame["value"], frame["ts"], frame["qos"])

    def account(self, through: int = 0) -> dict[str, int]:
        """Frames missing and frames repeated, from position 1 to the newest seen or to `through` if that is later."""
        seen = lost = repeated = 0
        for first, stop in sorted(self.spans):
            lost += max(0, first - seen - 1)
            repeated += max(0, min(stop - 1, seen) - first + 1)
            seen = max(seen, stop - 1)
        return {"lost": lost + max(0, through - seen), "repeated": repeated}
