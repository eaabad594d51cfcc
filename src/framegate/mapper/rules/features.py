"""Features: what a model is given, gathered from the rows of its input tags.

    pump1.temp                                              its newest value
    {tag: pump1.temp, window: 1m, function: avg}            a figure over the values of the last minute
    {tag: pump1.temp, last: 16}                             its last 16 values, oldest first: 16 features

Values count by their source time; only Good and Uncertain ones are kept, and the newest status of each tag says
whether its features stand. Pure: no clock, the moment is handed in.
"""

from __future__ import annotations

import hashlib
import struct
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from framegate.contract.errors import GatewayError, Misconfigured
from framegate.contract.frame import Batch, Float64Column, Kind, Tag, ValueType
from framegate.contract.quality import Quality, is_bad, is_good
from framegate.endpoint.quantity import seconds_from
from framegate.mapper.rules.rule import RuleContext

FEATURES_MAX = 4_096
WINDOW_S_MAX = 86_400.0
SAMPLES_MAX = 4_096
"""Values kept for one window; of more the oldest go, and what follows from the window is Uncertain."""
SAMPLES_TOTAL_MAX = 60_000
"""Values kept for one rule: 16 bytes of its state each."""
_NOT_NUMBERS = (ValueType.STRING, ValueType.BYTES, ValueType.JSON)
_Figure: TypeAlias = Callable[[Float64Column], float]
FUNCTIONS: Mapping[str, _Figure] = {
    "avg": lambda values: float(values.mean()),
    "min": lambda values: float(values.min()),
    "max": lambda values: float(values.max()),
    "sum": lambda values: float(values.sum()),
    "count": lambda values: float(len(values)),
    "std": lambda values: float(values.std()),  # of the population
    "first": lambda values: float(values[0]),
    "last": lambda values: float(values[-1]),
    "range": lambda values: float(np.ptp(values)),
}
_OF_NOTHING = {"count": 0.0, "sum": 0.0}


@dataclass(frozen=True, slots=True)
class Feature:
    """One input of the row; window 0 and last 1: the newest value."""

    tag: Tag
    window_ns: int = 0
    function: str = ""
    last: int = 1

    @property
    def size(self) -> int:
        return 1 if self.window_ns else self.last


class Vector(NamedTuple):
    """values float64[features] and the worst status of what they follow from; no values where that is Bad."""

    values: Float64Column
    quality: int


class _Series:
    """What is kept for one feature, oldest first. status: of its newest row."""

    __slots__ = ("feature", "is_cut", "samples", "samples_max", "status")

    def __init__(self, feature: Feature, samples_max: int) -> None:
        self.feature = feature
        self.samples_max = samples_max if feature.window_ns else feature.last
        self.samples: deque[tuple[int, float]] = deque(maxlen=self.samples_max)
        self.status = int(Quality.BAD_WAITING_FOR_INITIAL_DATA)
        self.is_cut = False

    def take(self, time_ns: int, value: float, status: int) -> None:
        self.status = status
        if not is_bad(status):
            self.is_cut = bool(self.feature.window_ns) and len(self.samples) == self.samples_max
            self.samples.append((time_ns, value))

    def values(self, now_ns: int) -> tuple[Sequence[float], int]:
        """Features and their status at a moment; no features where it is Bad."""
        if is_bad(self.status):
            return (), self.status
        if not self.feature.window_ns:
            if len(self.samples) < self.feature.last:
                return (), Quality.BAD_WAITING_FOR_INITIAL_DATA
            return [value for _, value in self.samples], self.status
        while self.samples and self.samples[0][0] <= now_ns - self.feature.window_ns:
            self.samples.popleft()
            self.is_cut = False
        status = Quality.UNCERTAIN if self.is_cut and is_good(self.status) else self.status
        if not self.samples:
            nothing = _OF_NOTHING.get(self.feature.function)
            return ((), Quality.BAD_NO_DATA) if nothing is None else ((nothing,), status)
        with np.errstate(all="ignore"):  # NaN and infinity are legal values
            return (FUNCTIONS[self.feature.function](np.array([value for _, value in self.samples])),), status


class Features:
    """All features of one rule, in the order of its row."""

    def __init__(self, features: Sequence[Feature]) -> None:
        windows = sum(1 for feature in features if feature.window_ns)
        lasts = sum(feature.last for feature in features if not feature.window_ns)
        samples_max = min(SAMPLES_MAX, max(1, (SAMPLES_TOTAL_MAX - lasts) // max(1, windows)))
        self._series = [_Series(feature, samples_max) for feature in features]
        self._by_tag: dict[int, list[_Series]] = {}
        for series in self._series:
            self._by_tag.setdefault(series.feature.tag.id, []).append(series)
        self.inputs = frozenset(feature.tag.id for feature in features)
        self.size = sum(feature.size for feature in features)
        self._identity = hashlib.sha256(
            repr([(one.tag.name, one.window_ns, one.function, one.last) for one in features]).encode()
        ).digest()

    def take(self, batch: Batch) -> bool:
        """Keep the rows of input tags; returns whether there were any."""
        places = [place for place, tag in enumerate(batch.tag.tolist()) if tag in self._by_tag]
        if not places or batch.kind is Kind.OBJECT:
            return False
        quality = np.broadcast_to(batch.quality, batch.rows)[places].tolist()
        time = np.broadcast_to(batch.source_time, batch.rows)[places].tolist()
        value = batch.value[places].astype(np.float64).tolist()
        for place, row_time, row_value, status in zip(places, time, value, quality, strict=True):
            for series in self._by_tag[int(batch.tag[place])]:
                series.take(row_time, row_value, status)
        return True

    def vector(self, now_ns: int) -> Vector:
        values: list[float] = []
        worst = int(Quality.GOOD)
        for series in self._series:
            part, status = series.values(now_ns)
            if is_bad(status):
                return Vector(np.empty(0), int(status))
            worst = max(worst, int(status))
            values += part
        return Vector(np.array(values, np.float64), worst)

    def save(self) -> bytes:
        """Per feature: status uint32, cut uint8, count uint32, times int64[count], values float64[count]."""
        parts = [self._identity]
        for series in self._series:
            parts.append(struct.pack("<IBI", series.status, series.is_cut, len(series.samples)))
            parts.append(np.array([time for time, _ in series.samples], "<i8").tobytes())
            parts.append(np.array([value for _, value in series.samples], "<f8").tobytes())
        return b"".join(parts)

    def load(self, state: bytes) -> None:
        """Raises GatewayError E5070: damaged, or of other inputs; nothing is changed then."""
        if state[:32] != self._identity:
            raise GatewayError("the windows kept are of other inputs; they are collected anew", code="E5070")
        place, loaded = 32, []
        try:
            for series in self._series:
                status, is_cut, count = struct.unpack_from("<IBI", state, place)
                times = np.frombuffer(state, "<i8", count, place + 9).tolist()
                values = np.frombuffer(state, "<f8", count, place + 9 + 8 * count).tolist()
                loaded.append((series, status, bool(is_cut), list(zip(times, values, strict=True))))
                place += 9 + 16 * count
        except (struct.error, ValueError) as error:
            raise GatewayError(
                f"the windows kept are damaged ({error}); they are collected anew", code="E5070"
            ) from error
        for series, status, is_cut, samples in loaded:
            series.status, series.is_cut = status, is_cut
            series.samples = deque(samples, series.samples_max)


def features_of(rows: Sequence[Any], rule: str, context: RuleContext) -> Features:
    """Features of the inputs of a row.

    raises Misconfigured E5030 - an input that stands for no tag; E5059 - for text; E5069 - a window that cannot be kept
    """
    features = [feature for row in rows for feature in _features(row, rule, context)]
    size = sum(feature.size for feature in features)
    if not 0 < size <= FEATURES_MAX:
        raise Misconfigured(f"rule {rule}: has {size} features; 1 to {FEATURES_MAX} are allowed", code="E5069")
    return Features(features)


def _features(row: Any, rule: str, context: RuleContext) -> list[Feature]:
    form: Mapping[str, Any] = row if isinstance(row, Mapping) else {"tag": row}
    tags = sorted(context.inputs([str(form.get("tag", ""))]), key=lambda tag: tag.id)
    texts = [tag.name for tag in tags if tag.type in _NOT_NUMBERS]
    if texts:
        raise Misconfigured(f"rule {rule}: {texts[0]} is text; a model takes numbers and booleans", code="E5059")
    if "window" not in form:
        last = form.get("last", 1)
        if not isinstance(last, int) or not 0 < last <= FEATURES_MAX:
            raise Misconfigured(f"rule {rule}: last must be 1 to {FEATURES_MAX}", code="E5069")
        return [Feature(tag, last=last) for tag in tags]
    try:
        window_s = seconds_from(form["window"])
    except ValueError as error:
        raise Misconfigured(f"rule {rule}: window: {error}", code="E5069") from error
    function = str(form.get("function"))
    if not 0 < window_s <= WINDOW_S_MAX or function not in FUNCTIONS:
        text = f"rule {rule}: a window is up to 24h long and has one of the functions {', '.join(FUNCTIONS)}"
        raise Misconfigured(text, code="E5069")
    return [Feature(tag, round(window_s * 1e9), function) for tag in tags]
