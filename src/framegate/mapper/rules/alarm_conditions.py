"""Conditions of an alarm: does it hold for this value, at this time? States and delays are not theirs.

A condition that holds is left only beyond its hysteresis. Each judges one value after the other, Good ones only, and
says nothing of time but where time is what it judges (rate of change, stale).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from framegate.contract.errors import Misconfigured
from framegate.contract.frame import Kind, Tag
from framegate.mapper.rules.durations import nanoseconds

Scalar: TypeAlias = float | int | bool | str
LEVELS = ("high_high", "high", "low", "low_low")
CONDITIONS = (*LEVELS, "rate_of_change", "deviation", "discrete", "stale")
RATE_SAMPLES_MAX = 1_000
"""Values within `per` that a rate of change remembers; of more, the newest."""


class Condition(Protocol):
    """One way to be in alarm.

    limit  what an operator is shown beside the value
    """

    name: str
    limit: Scalar | None

    def judge(self, now_ns: int, value: Scalar, was: bool) -> bool:
        """Whether it holds for a value; `was`: it held before."""

    def pass_time(self, now_ns: int, was: bool) -> bool:
        """Whether it holds without a new value."""

    def save(self) -> Any:
        """What JSON can hold."""

    def load(self, state: Any) -> None: ...

    def shift(self, by_ns: int) -> None:
        """Time has jumped: what is remembered moves along."""


class _Timeless:
    """A condition that remembers nothing."""

    def __init__(self, name: str, limit: Scalar | None) -> None:
        self.name, self.limit = name, limit

    def pass_time(self, now_ns: int, was: bool) -> bool:
        return was

    def save(self) -> Any:
        return None

    def load(self, state: Any) -> None:
        """Nothing to take."""

    def shift(self, by_ns: int) -> None:
        """Nothing moves."""


class Level(_Timeless):
    """At or beyond a limit, above it (high) or below (low)."""

    def __init__(self, name: str, limit: float, hysteresis: float) -> None:
        super().__init__(name, limit)
        self._sign = 1.0 if name.startswith("high") else -1.0
        self._on, self._hysteresis = self._sign * limit, hysteresis

    def judge(self, now_ns: int, value: Scalar, was: bool) -> bool:
        beyond = self._sign * float(value)
        if was and self._hysteresis:
            return beyond > self._on - self._hysteresis
        return beyond >= self._on


class Deviation(_Timeless):
    """At least `limit` away from a setpoint; nothing is judged before the setpoint is known.

    A setpoint that is a tag comes by `load`, value after value.
    """

    def __init__(self, limit: float, setpoint: float | None, hysteresis: float) -> None:
        super().__init__("deviation", limit)
        self.setpoint = setpoint
        self._is_fixed = setpoint is not None
        self._on, self._hysteresis = limit, hysteresis

    def judge(self, now_ns: int, value: Scalar, was: bool) -> bool:
        if self.setpoint is None:
            return was
        away = abs(float(value) - self.setpoint)
        if was and self._hysteresis:
            return away > self._on - self._hysteresis
        return away >= self._on

    def save(self) -> Any:
        return self.setpoint

    def load(self, state: Any) -> None:
        if not self._is_fixed and state is not None:
            self.setpoint = float(state)


class Discrete(_Timeless):
    """One of some values."""

    def __init__(self, values: Sequence[Scalar]) -> None:
        super().__init__("discrete", values[0] if len(values) == 1 else ", ".join(map(str, values)))
        self._values = tuple(values)

    def judge(self, now_ns: int, value: Scalar, was: bool) -> bool:
        return value in self._values


class RateOfChange(_Timeless):
    """A change by `limit` or more within `per`, up or down.

    Compared is the newest value that is `per` old, or the oldest there is; where that is older than `per`, the change
    is taken in proportion.
    """

    def __init__(self, limit: float, per_ns: int, hysteresis: float) -> None:
        super().__init__("rate_of_change", limit)
        self._on, self._per_ns, self._hysteresis = limit, per_ns, hysteresis
        self._seen: deque[tuple[int, float]] = deque(maxlen=RATE_SAMPLES_MAX)

    def judge(self, now_ns: int, value: Scalar, was: bool) -> bool:
        seen = self._seen
        seen.append((now_ns, float(value)))
        while len(seen) > 1 and seen[1][0] <= now_ns - self._per_ns:
            seen.popleft()
        then_ns, before = seen[0]
        change = abs(float(value) - before)
        elapsed = now_ns - then_ns
        if elapsed > self._per_ns:
            change *= self._per_ns / elapsed
        if was and self._hysteresis:
            return change > self._on - self._hysteresis
        return change >= self._on

    def save(self) -> Any:
        return list(self._seen)

    def load(self, state: Any) -> None:
        self._seen.extend((int(time), float(value)) for time, value in state)

    def shift(self, by_ns: int) -> None:
        moved = [(time + by_ns, value) for time, value in self._seen]
        self._seen.clear()
        self._seen.extend(moved)


class Stale(_Timeless):
    """No Good value for so long; counted from the first moment on, too."""

    def __init__(self, after_ns: int) -> None:
        super().__init__("stale", after_ns / 1e9)
        self._after_ns = after_ns
        self._last_ns = 0

    def judge(self, now_ns: int, value: Scalar, was: bool) -> bool:
        self._last_ns = now_ns
        return False

    def pass_time(self, now_ns: int, was: bool) -> bool:
        self._last_ns = self._last_ns or now_ns
        return now_ns - self._last_ns >= self._after_ns

    def save(self) -> Any:
        return self._last_ns

    def load(self, state: Any) -> None:
        self._last_ns = int(state)

    def shift(self, by_ns: int) -> None:
        if self._last_ns:
            self._last_ns += by_ns


def conditions_of(options: Mapping[str, Any], tag: Tag) -> list[Condition]:
    """Every condition that a row asks for.

    raises  Misconfigured E5038 - none at all, or one that the input's type cannot have; E5037 - a duration
    """
    hysteresis = float(options.get("hysteresis", 0.0))
    made: list[Condition] = [Level(name, float(options[name]), hysteresis) for name in LEVELS if name in options]
    if "rate_of_change" in options:
        row = options["rate_of_change"]
        made.append(RateOfChange(float(row["limit"]), nanoseconds(row, "per", least=1), hysteresis))
    if "deviation" in options:
        row = options["deviation"]
        setpoint = None if isinstance(row["setpoint"], str) else float(row["setpoint"])
        made.append(Deviation(float(row["limit"]), setpoint, hysteresis))
    if made and tag.type.kind in {Kind.OBJECT, Kind.BOOL}:
        text = f"{made[0].name}: {tag.name} is {tag.type.value}, and limits are for numbers; use discrete"
        raise Misconfigured(text, code="E5038")
    if "discrete" in options:
        values = options["discrete"]
        made.append(Discrete(values if isinstance(values, list) else [values]))
    if "stale" in options:
        made.append(Stale(nanoseconds(options, "stale", least=10**9)))
    if not made:
        raise Misconfigured(f"an alarm needs at least one of {', '.join(CONDITIONS)}", code="E5038")
    return made
