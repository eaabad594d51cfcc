"""The account a witness keeps of what reached the remote: which frames, in which order, how often.

Positions are gapless per gateway, so loss, repeats and order can be counted exactly by somebody who knows nothing of
the gateway's inside. Payloads are read with independent decoders (json, the generated protobuf class), never with the
encoders' own code; docs/reference/payloads.md gives their shapes. Transport is the test's business: it calls `take`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import zstandard

from framegate.contract._generated import frame_pb2
from framegate.contract.quality import is_bad


class Frame(NamedTuple):
    """One value as it arrived; times in the unit of the encoding (JSON: ms, protobuf: ns).

    is_backfill  marked as a stored row that newer ones have overtaken
    """

    position: int
    tag: str
    value: Any
    time: int
    quality: int
    is_backfill: bool = False

    @property
    def is_bad(self) -> bool:
        return is_bad(self.quality)


class Notice(NamedTuple):
    """Positions that the gateway says are lost."""

    first: int
    last: int
    reason: str


class Account:
    """What has arrived.

    frames        by position, as first seen, in order of first arrival
    last          newest live frame by tag
    out_of_order  frames first seen after a later frame of the same tag in the same lane (live, or back-fill)
    conflicts     frames that came again with the same position and other content: a position was used twice
    """

    def __init__(self, encoding: str = "json-batch", compress: str = "none") -> None:
        self.frames: dict[int, Frame] = {}
        self.last: dict[str, Frame] = {}
        self._last_backfill: dict[str, Frame] = {}
        self.notices: list[Notice] = []
        self.topics: set[str] = set()
        self.messages = self.repeats = self.out_of_order = self.conflicts = self.newest = 0
        self._decode = _DECODERS[encoding]
        self._unpack = zstandard.ZstdDecompressor().decompress if compress == "zstd" else bytes

    def take(self, topic: str, payload: bytes) -> None:
        """Book one message."""
        self.messages += 1
        self.topics.add(topic)
        for item in self._decode(self._unpack(payload)):
            if isinstance(item, Notice):
                self.notices.append(item)
            else:
                self._book(item)

    def positions(self, payload: bytes) -> list[int]:
        """Positions of the frames that a message holds; not booked."""
        return [item.position for item in self._decode(self._unpack(payload)) if isinstance(item, Frame)]

    def lost(self, through: int) -> int:
        """Positions from 1 to `through` that neither arrived nor were announced as lost."""
        announced = {position for gap in self.notices for position in range(gap.first, min(gap.last, through) + 1)}
        return sum(position not in self.frames and position not in announced for position in range(1, through + 1))

    def of(self, tag: str) -> list[Frame]:
        """Frames of one tag, in order of first arrival."""
        return [frame for frame in list(self.frames.values()) if frame.tag == tag]

    def _book(self, frame: Frame) -> None:
        known = self.frames.get(frame.position)
        if known is not None:
            self.repeats += 1
            self.conflicts += known != frame._replace(is_backfill=known.is_backfill)
            return
        self.frames[frame.position] = frame
        self.newest = max(self.newest, frame.position)
        last = self._last_backfill if frame.is_backfill else self.last
        before = last.get(frame.tag)
        if before is not None and before.position > frame.position:
            self.out_of_order += 1
        else:
            last[frame.tag] = frame


def _json_frames(payload: bytes) -> Iterator[Frame | Notice]:
    message = json.loads(payload)
    is_backfill = message.get("backfill", False)
    if "gap" in message:
        yield Notice(message["gap"]["first"], message["gap"]["last"], message["gap"]["reason"])
    elif "frames" in message:
        for position, row in enumerate(message["frames"], message["pos"]):
            yield Frame(position, row["tag"], row["value"], row["ts"], row["qos"], is_backfill)
    else:
        yield Frame(message["pos"], message["tag"], message["value"], message["ts"], message["qos"], is_backfill)


def _protobuf_frames(payload: bytes) -> Iterator[Frame]:
    batch = frame_pb2.FrameBatch.FromString(payload)
    columns = (batch.double_value, batch.int_value, batch.uint_value, batch.bool_value, batch.other_value)
    filled = [column for column in columns if column]
    assert len(filled) == 1, "exactly one value column is filled"
    rows = len(batch.name)
    values = [_other(value) for value in batch.other_value] if batch.other_value else list(filled[0])
    positions = [position for run in batch.run for position in range(run.pos, run.pos + run.rows)]
    times, qualities = _spread(batch.ts, rows), _spread(batch.qos, rows)
    for position, tag, value, time, quality in zip(positions, batch.name, values, times, qualities, strict=True):
        # The value of a Bad row has no meaning; NaN, the usual one, would differ from itself.
        yield Frame(position, tag, None if is_bad(quality) else value, time, quality, batch.backfill)


def _spread(column: Any, rows: int) -> list[int]:
    """One entry stands for every row."""
    return list(column) * rows if len(column) == 1 else list(column)


def _other(value: Any) -> Any:
    kind = value.WhichOneof("kind")
    content: Any = getattr(value, kind) if kind else None
    return base64.b64encode(content).decode() if kind == "bytes_value" else content


_DECODERS: dict[str, Callable[[bytes], Iterator[Frame | Notice]]] = {
    "json": _json_frames,
    "json-batch": _json_frames,
    "protobuf": _protobuf_frames,
}
