"""Recorded values, and rules that are run against them beside any gateway: offline, and the same answer every time.

A recording is JSON lines, or a copy of a data folder:

    {"tag": "pump3.flow", "time": "2026-01-01T00:00:00Z", "value": 12.5, "quality": "Good"}

`time` is ISO 8601 or ns since 1970 UTC; `quality` a StatusCode or its name, Good where it is absent. Time goes second
by second, as on a live gateway.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import orjson

from framegate.bus import inspect
from framegate.contract.errors import Misconfigured
from framegate.contract.frame import (
    Batch,
    Placed,
    Position,
    Value,
    ValueType,
    uniform_quality,
    uniform_time,
)
from framegate.contract.ports import Catalogue, Clock, Log
from framegate.contract.quality import Quality
from framegate.gateway.rules import PlainCatalogue
from framegate.mapper.rules.engine import Engine, Entry

LINE_BYTES_MAX = 1 << 20
TICKS_MAX = 86_400
"""Seconds without a row that are told one by one; a longer silence is one tick."""
UNREADABLE = "E5040"
_NS = 1_000_000_000
_TYPES = {bool: ValueType.BOOL, int: ValueType.INT64, float: ValueType.FLOAT64, str: ValueType.STRING}
_WIDER = (ValueType.BOOL, ValueType.INT64, ValueType.FLOAT64, ValueType.STRING)
_CODES = {"".join(part.capitalize() for part in quality.name.split("_")).casefold(): quality for quality in Quality}
Sample = tuple[str, int, Value, int]
"""Tag, ns UTC, value, StatusCode."""


def read_samples(file: Path) -> list[Sample]:
    """Rows of a file of JSON lines, in order of time; raises Misconfigured E5040 with file and line."""
    samples: list[Sample] = []
    try:
        with file.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    samples.append(_sample(line, f"{file}:{number}"))
    except OSError as error:
        raise Misconfigured(f"recording {file}: {error.strerror}", code=UNREADABLE) from error
    samples.sort(key=lambda sample: sample[1])
    return samples


def intern_samples(samples: Sequence[Sample], catalogue: Catalogue) -> None:
    """Tags of a recording, with the type that takes all of their values."""
    types: dict[str, ValueType] = {}
    for tag, _, value, _ in samples:
        if value is not None:
            types[tag] = max(types.get(tag, ValueType.BOOL), _TYPES[type(value)], key=_WIDER.index)
    for tag in dict.fromkeys(sample[0] for sample in samples):
        catalogue.intern(tag, "recording", types.get(tag, ValueType.FLOAT64), "", "R")


def batches_of(samples: Iterable[Sample], catalogue: Catalogue) -> Iterator[Batch]:
    """One batch per row."""
    for tag, time, value, status in samples:
        known = catalogue.find(tag)
        assert known is not None, "interned before"
        column = np.zeros(1, known.type.kind.value)
        quality = status
        try:
            column[0] = value if value is not None else 0
        except (TypeError, ValueError, OverflowError):
            quality = int(Quality.BAD_TYPE_MISMATCH)
        yield Batch(np.array([known.id], np.int32), column, uniform_quality(quality), uniform_time(time), time)


@contextmanager
def recorded(frames: Path) -> Iterator[tuple[Catalogue, Sequence[str], Iterator[Batch]]]:
    """A recording: its catalogue, the names of its tags and its rows; what rules had derived is left out.

    frames  a file of JSON lines, or a copy of a data folder
    raises  Misconfigured E5040, StoreFailed
    """
    if not frames.is_dir():
        samples = read_samples(frames)
        plain = PlainCatalogue()
        intern_samples(samples, plain)
        yield plain, list(dict.fromkeys(sample[0] for sample in samples)), batches_of(samples, plain)
        return
    with inspect.recorded(frames) as (catalogue, batches):
        names = [name for tag_id, name in catalogue.names(0) if name and not _is_derived(catalogue, tag_id)]
        yield catalogue, names, (batch for batch in batches if not _is_derived(catalogue, int(batch.tag[0])))


def derive(
    entries: Sequence[Entry], batches: Iterable[Batch], catalogue: Catalogue, clock: Clock, log: Log
) -> Iterator[Batch]:
    """What rules derive from rows, and from each other."""
    engine = Engine(entries, catalogue, clock, log, TICKS_MAX)
    position = last_ns = 0
    for batch in batches:
        last_ns = max(last_ns, batch.gateway_time)
        placed = Placed(Position(position + 1), batch)
        engine.feed(placed)
        position = placed.last
        engine.reach(position)
        derived = list(engine.outputs)
        engine.clear(())
        yield from derived
    engine.advance(math.ceil(last_ns / _NS) * _NS)  # the last second comes to its end
    yield from engine.outputs


def _sample(line: bytes, where: str) -> Sample:
    if len(line) > LINE_BYTES_MAX:
        raise Misconfigured(f"recording {where}: the line has more than {LINE_BYTES_MAX} bytes", code=UNREADABLE)
    try:
        row = orjson.loads(line)
        value, status = row.get("value"), row.get("quality", 0)
        status = _CODES[status.casefold()] if isinstance(status, str) else int(status)
        if value is None and status < Quality.BAD:
            status = Quality.BAD_NO_DATA
        return _text(row["tag"]), _time(row["time"]), _scalar(value), int(status) & 0xFFFF_FFFF
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        text = f"recording {where}: {error!r}; a line is {{tag, time, value, quality}}"
        raise Misconfigured(text, code=UNREADABLE) from error


def _text(given: object) -> str:
    if not isinstance(given, str):
        raise TypeError("tag is a text")
    return given


def _scalar(given: object) -> bool | int | float | str | None:
    if not isinstance(given, bool | int | float | str | None):
        raise TypeError("value is a number, a text, true or false")
    return given


def _time(given: object) -> int:
    if isinstance(given, bool) or not isinstance(given, str | int):
        raise TypeError("time is ns since 1970 UTC, or ISO 8601")
    if isinstance(given, int):
        return given
    moment = datetime.fromisoformat(given)
    delta = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * _NS + delta.microseconds * 1_000


def _is_derived(catalogue: Catalogue, tag_id: int) -> bool:
    return catalogue.tag(tag_id).device.startswith("rule/")
