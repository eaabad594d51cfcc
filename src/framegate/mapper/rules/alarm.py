"""Rules of kind alarm: conditions over one tag, each with delays, a state machine and operators who answer it.

    value -> condition (hysteresis) -> on- and off-delay -> state machine -> a row of the tag alarm.<rule>.<condition>

Every transition is a row whose text tells all of it as JSON, so that receivers, the log and `edge alarms` know the
same. Time is the gateway's, not the device's. A Bad row changes nothing but that a value is missing (stale). Time that
jumps by more than BLIND_S was time in which nobody looked: it counts for no delay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from math import isfinite
from typing import Any

import numpy as np
import orjson

from framegate.contract.errors import DeviceRefused, FrameBroken, GatewayError, Misconfigured
from framegate.contract.frame import Batch, TagId, ValueType, uniform_quality, uniform_time
from framegate.contract.quality import Quality, is_good
from framegate.mapper.rules.alarm_conditions import Condition, Scalar, conditions_of
from framegate.mapper.rules.alarm_states import ACTIONS, TRANSITIONS, Event, State, next_state
from framegate.mapper.rules.durations import nanoseconds
from framegate.mapper.rules.rule import RuleContext
from framegate.observe.rule_face import AlarmRow

SHELVE_S_MAX = 7 * 86_400.0
NOTE_CHARACTERS_MAX = 500
TEXT_CHARACTERS_MAX = 200
"""Of a text value that a row repeats."""
BLIND_S = 60
STEP_BACK_S = 10
PRIORITY_DEFAULT = "medium"
STATE_BROKEN = "E5033"
_NS = 1_000_000_000
_PROCESS, _TIME = "process", "time"


class Alarm:
    """One condition with its delays and its state; values of the slots are what is saved."""

    __slots__ = (
        "by", "changed_ns", "condition", "holds", "is_active", "is_told", "note", "priority", "since_ns", "state",
        "tag_id", "until_ns", "value",
    )  # fmt: skip

    SAVED = ("holds", "changed_ns", "is_active", "is_told", "since_ns", "by", "note", "value", "until_ns")

    def __init__(self, condition: Condition, tag_id: TagId, priority: str) -> None:
        self.condition, self.tag_id, self.priority = condition, tag_id, priority
        self.state = State.NORMAL
        self.holds = self.is_active = self.is_told = False  # holds: before its delay
        self.changed_ns = self.since_ns = self.until_ns = 0
        self.by, self.note = _PROCESS, ""
        self.value: Scalar | None = None

    def save(self) -> dict[str, Any]:
        kept = {name: getattr(self, name) for name in self.SAVED}
        return {**kept, "state": self.state.value, "condition": self.condition.save()}

    def load(self, kept: Mapping[str, Any]) -> None:
        for name in self.SAVED:
            setattr(self, name, kept[name])
        self.state = State(kept["state"])
        self.condition.load(kept["condition"])


class AlarmRule:
    """Satisfies mapper.rules.rule.Rule and HasAlarms."""

    def __init__(self, name: str, options: Mapping[str, Any], context: RuleContext) -> None:
        self.name = name
        (self._tag,) = context.inputs([options["input"]])
        self._on_ns, self._off_ns = nanoseconds(options, "on_delay"), nanoseconds(options, "off_delay")
        self._is_latching = bool(options.get("latch", False))
        self._message = str(options.get("message", ""))
        self._setpoint = _setpoint(options, context)
        self.inputs = [self._tag.id] if self._setpoint is None else [self._tag.id, self._setpoint]
        self._alarms: dict[str, Alarm] = {}
        for condition in conditions_of(options, self._tag):
            tag_id = context.output(f"alarm.{name}.{condition.name}", name, ValueType.STRING)
            self._alarms[condition.name] = Alarm(condition, tag_id, _priority(options, condition.name))
        self._now_ns = 0
        self._value: Scalar | None = None
        self._rows: list[tuple[int, bytes]] = []

    # -- rows and time --------------------------------------------------------------------------------------------

    def take(self, batch: Batch) -> Sequence[Batch]:
        """Judge the input's values, one after the other."""
        now = batch.gateway_time
        self._pass(now)
        for index in np.flatnonzero(np.isin(batch.tag, self.inputs)).tolist():
            value = _value_at(batch, index)
            if value is None:
                continue
            if batch.tag[index] == self._setpoint:
                self._alarms["deviation"].condition.load(value)
            if batch.tag[index] == self._tag.id:
                self._value = value
            if self._value is not None:
                self._judge(now, self._value)
        return self._told(now)

    def tick(self, now_ns: int) -> Sequence[Batch]:
        """Delays, shelving and staleness that have run out; an alarm's first word."""
        self._pass(now_ns)
        for alarm in self._alarms.values():
            if not alarm.is_told:
                alarm.since_ns = now_ns
                self._tell(alarm, now_ns)
            self._follow(alarm, now_ns, alarm.condition.pass_time(now_ns, alarm.holds))
            if alarm.state is State.SHELVED and now_ns >= alarm.until_ns:
                self._enter(alarm, Event.UNSHELVE, now_ns, _TIME, "")
        return self._told(now_ns)

    def _pass(self, now_ns: int) -> None:
        """Time goes on, or jumps: then everything that is timed moves along."""
        jump = now_ns - self._now_ns
        if self._now_ns and not -STEP_BACK_S * _NS <= jump <= BLIND_S * _NS:
            for alarm in self._alarms.values():
                alarm.changed_ns += jump
                alarm.condition.shift(jump)
        if jump > 0 or jump < -STEP_BACK_S * _NS:
            self._now_ns = now_ns

    def _judge(self, now_ns: int, value: Scalar) -> None:
        for alarm in self._alarms.values():
            self._follow(alarm, now_ns, alarm.condition.judge(now_ns, value, alarm.holds))

    def _follow(self, alarm: Alarm, now_ns: int, holds: bool) -> None:
        if holds != alarm.holds:
            alarm.holds, alarm.changed_ns = holds, now_ns
        if holds == alarm.is_active or now_ns - alarm.changed_ns < (self._on_ns if holds else self._off_ns):
            return
        alarm.is_active = holds
        event = Event.RAISE if holds else Event.LATCH if self._is_latching else Event.CLEAR
        if not alarm.state.is_hidden:
            self._enter(alarm, event, now_ns, _PROCESS, "")

    # -- operators ------------------------------------------------------------------------------------------------

    def alarms(self) -> Sequence[AlarmRow]:
        """Every alarm of this rule as it stands."""
        return [self._row(alarm) for alarm in self._alarms.values()]

    def operate(self, condition: str, action: str, now_ns: int, by: str, note: str, until: int) -> Sequence[Batch]:
        """Do as an operator asks; see rule.HasAlarms."""
        alarm = self._alarms.get(condition)
        if alarm is None:
            text = f"alarm {self.name}.{condition}: no such alarm; `edge alarms ls --all` lists them"
            raise DeviceRefused(text, code="E5034", quality=Quality.BAD_NODE_ID_UNKNOWN)
        event = Event(action) if action in ACTIONS else None
        if event is None or next_state(alarm.state, event) is None:
            possible = [one.value for one in TRANSITIONS[alarm.state] if one.value in ACTIONS]
            text = f"alarm {self.name}.{condition}: it is {alarm.state.value}; possible now: {', '.join(possible)}"
            raise _refused(text)
        if event is Event.SHELVE:
            if not 0 < until - now_ns <= SHELVE_S_MAX * _NS:
                limit = f"{SHELVE_S_MAX / 86_400:g} days"
                raise _refused(
                    f"alarm {self.name}.{condition}: it can be shelved for {limit} at most, and not for nothing"
                )
            alarm.until_ns = until
        self._enter(alarm, event, now_ns, by, note[:NOTE_CHARACTERS_MAX])
        return self._told(now_ns)

    # -- state ----------------------------------------------------------------------------------------------------

    def save(self) -> bytes:
        """JSON; a row's limits are not part of it, so that an alarm stays shelved when they change."""
        alarms = {name: alarm.save() for name, alarm in self._alarms.items()}
        return orjson.dumps({"now": self._now_ns, "value": self._value, "alarms": alarms})

    def load(self, state: bytes) -> None:
        """Conditions that the row still has go on as they were."""
        try:
            kept = orjson.loads(state)
            for name, alarm in self._alarms.items():
                if name in kept["alarms"]:
                    alarm.load(kept["alarms"][name])
            self._now_ns, self._value = int(kept["now"]), kept["value"]
        except (ValueError, KeyError, TypeError) as error:
            raise FrameBroken(f"state of rule {self.name}: {error!r}; it begins anew", code=STATE_BROKEN) from error

    def close(self) -> None:
        """Nothing is held."""

    # -------------------------------------------------------------------------------------------------------------

    def _enter(self, alarm: Alarm, event: Event, now_ns: int, by: str, note: str) -> None:
        """One transition, and the next where an alarm that comes back to sight is still active."""
        following = next_state(alarm.state, event)
        assert following is not None, f"alarm {alarm.condition.name}: no transition from {alarm.state} on {event}"
        was_hidden = alarm.state.is_hidden
        alarm.state = following
        if was_hidden and following is State.NORMAL and alarm.is_active:
            alarm.state = TRANSITIONS[following][Event.RAISE]
        if alarm.state is not State.SHELVED:
            alarm.until_ns = 0
        alarm.since_ns, alarm.by, alarm.note, alarm.value = now_ns, by, note, _short(self._value)
        self._tell(alarm, now_ns)

    def _tell(self, alarm: Alarm, now_ns: int) -> None:
        alarm.is_told = True
        row = self._row(alarm)
        text = orjson.dumps(
            {
                "id": row.id,
                "condition": row.condition,
                "state": row.state,
                "active": row.is_active,
                "acknowledged": row.is_acknowledged,
                "priority": row.priority,
                "tag": row.tag,
                "value": row.value,
                "limit": row.limit,
                "time": _moment(now_ns),
                "by": row.by,
                "note": row.note,
                "message": row.message,
                **({"until": _moment(row.until_ns)} if row.until_ns else {}),
            }
        )
        self._rows.append((alarm.tag_id, text))

    def _told(self, now_ns: int) -> Sequence[Batch]:
        """The transitions so far as one batch; an alarm may be in it more than once, oldest first."""
        if not self._rows:
            return ()
        rows, self._rows = self._rows, []
        value = np.empty(len(rows), np.object_)
        value[:] = [text.decode() for _, text in rows]
        tag = np.array([tag for tag, _ in rows], np.int32)
        return (Batch(tag, value, uniform_quality(Quality.GOOD), uniform_time(now_ns), now_ns),)

    def _row(self, alarm: Alarm) -> AlarmRow:
        return AlarmRow(
            id=f"{self.name}.{alarm.condition.name}",
            rule=self.name,
            condition=alarm.condition.name,
            state=alarm.state.value,
            is_active=alarm.is_active,
            is_acknowledged=alarm.state.is_acknowledged,
            priority=alarm.priority,
            tag=self._tag.name,
            value=alarm.value,
            limit=alarm.condition.limit,
            since_ns=alarm.since_ns,
            by=alarm.by,
            note=alarm.note,
            message=self._message,
            until_ns=alarm.until_ns,
        )


def make(name: str, options: Mapping[str, Any], context: RuleContext) -> AlarmRule:
    """A rule of kind alarm; raises Misconfigured."""
    return AlarmRule(name, options, context)


def _setpoint(options: Mapping[str, Any], context: RuleContext) -> TagId | None:
    setpoint = options.get("deviation", {}).get("setpoint")
    if not isinstance(setpoint, str):
        return None
    (tag,) = context.inputs([setpoint])
    if tag.type in {ValueType.STRING, ValueType.BYTES, ValueType.JSON}:
        raise Misconfigured(f"deviation: setpoint {setpoint} is {tag.type.value}; it must be a number", code="E5038")
    return tag.id


def _priority(options: Mapping[str, Any], condition: str) -> str:
    given = options.get("priority", PRIORITY_DEFAULT)
    return str(given.get(condition, PRIORITY_DEFAULT)) if isinstance(given, Mapping) else str(given)


def _value_at(batch: Batch, index: int) -> Scalar | None:
    """A Good value; None for what is not Good, or is no value at all."""
    quality = int(batch.quality[0 if len(batch.quality) == 1 else index])
    value = batch.value[index]
    value = value.item() if isinstance(value, np.generic) else value
    if not is_good(quality) or not isinstance(value, bool | int | float | str):
        return None
    return None if isinstance(value, float) and not isfinite(value) else value


def _short(value: Scalar | None) -> Scalar | None:
    return value[:TEXT_CHARACTERS_MAX] if isinstance(value, str) else value


def _moment(ns: int) -> str:
    text = datetime.fromtimestamp(ns // 1_000_000 / 1_000, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def _refused(text: str) -> GatewayError:
    return DeviceRefused(text, code="E5035", quality=Quality.BAD_OUT_OF_RANGE)
