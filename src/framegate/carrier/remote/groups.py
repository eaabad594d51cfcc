"""The plans that one process of a native driver knows, by number. The oldest makes room; numbers are used again."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from framegate.carrier.child.abi import Status
from framegate.carrier.child.wire import CELL_BYTES, MESSAGE_BYTES_MAX, PACKET_BYTES_MAX, Message
from framegate.carrier.remote.calls import Reply
from framegate.carrier.remote.plan import RemotePlan, tags_json
from framegate.carrier.remote.statuses import refusal, words_of
from framegate.contract.driver import BoundTag
from framegate.contract.errors import Misconfigured
from framegate.contract.frame import Batch, Kind, TagId, ValueColumn, uniform_quality, uniform_time
from framegate.contract.quality import Quality

TELL_BUDGET_S = 5.0
POLL_BUDGET_S = 8.0
POLL_BUDGET_ROW_S = 0.04
POLL_BUDGET_MAX_S = 100.0
"""Of one poll: less than the runtime's patience with one scan."""
TELLS_MAX = 64
"""Times that one plan is told: a driver may name the tags that it refuses one by one."""
REASON_CHARACTERS_MAX = 400


class Callee(Protocol):
    """Whom plans are told to."""

    async def call(
        self,
        kind: Message,
        status: int = 0,
        rows: int = 0,
        parts: Sequence[bytes | memoryview] = (),
        *,
        budget_s: float,
    ) -> Reply: ...


@dataclass(slots=True)
class Told:
    """A plan that the driver knows.

    number   of its group
    plan     what it reads: without the tags that it refused
    refused  those; reason: why, in its words
    budget_ms, answer_bytes  of one poll
    """

    number: int
    plan: RemotePlan
    refused: Sequence[BoundTag] = ()
    reason: str = ""
    budget_ms: int = 0
    answer_bytes: int = 0
    _bad: list[tuple[Any, ValueColumn]] = field(default_factory=list)

    def __post_init__(self) -> None:
        rows = self.plan.rows
        self.budget_ms = round(1000 * min(POLL_BUDGET_MAX_S, POLL_BUDGET_S + POLL_BUDGET_ROW_S * rows))
        self.answer_bytes = PACKET_BYTES_MAX if self.plan.has_text else rows * CELL_BYTES

    def bad_rows(self, now_ns: int) -> list[Batch]:
        """Rows that say that the refused tags cannot be read."""
        if not self._bad:
            readable = [tag for tag in self.refused if "R" in tag.access]
            for kind in Kind:
                ids = [tag.id for tag in readable if tag.type.kind is kind]
                if ids:
                    columns = np.array(ids, np.int32), np.zeros(len(ids), kind.value)
                    for column in columns:
                        column.flags.writeable = False
                    self._bad.append(columns)
        quality, time = uniform_quality(Quality.BAD_CONFIGURATION_ERROR), uniform_time(now_ns)
        return [Batch(tag, value, quality, time, now_ns) for tag, value in self._bad]


class Groups:
    """Plans by the number that the driver knows them by, the longest unused first."""

    def __init__(self, count_max: int) -> None:
        self._free = list(range(count_max - 1, -1, -1))
        self._told: OrderedDict[RemotePlan, Told] = OrderedDict()

    def find(self, plan: RemotePlan) -> Told | None:
        told = self._told.get(plan)
        if told is not None:
            self._told.move_to_end(plan)
        return told

    def has(self, tag_id: int) -> bool:
        """Whether the driver knows a tag, so that it can be written."""
        return any(tag_id in told.plan.ids for told in self._told.values())

    async def drop_changed(self, callee: Callee, tags: Mapping[TagId, BoundTag], where: str) -> None:
        """Have the driver forget plans with a tag that is another one now: a write must not go where it once was.

        raises NotConnected - it is gone; what refusal() makes of another answer - it does not forget
        """
        for plan, told in list(self._told.items()):
            if any(tags.get(tag.id, tag) != tag for tag in plan.tags):
                reply = await _plan(callee, told.number, (), where)
                if reply.status != Status.OK:
                    raise refusal(where, reply)
                del self._told[plan]
                self._free.append(told.number)

    async def tell(self, callee: Callee, plan: RemotePlan, where: str) -> Told:
        """Have the driver know a plan; tags that it refuses are left out of it.

        raises NotConnected - it is gone; Misconfigured - it refuses the plan, and names no tags, or ever more of them
        """
        if not self._free:
            _, oldest = self._told.popitem(last=False)
            self._free.append(oldest.number)
        number, taken = self._free[-1], plan
        reasons: dict[int, str] = {}
        for _ in range(TELLS_MAX):
            reply = await _plan(callee, number, taken.tags, where)
            named = {} if reply.status == Status.OK else _reasons(reply.body)
            news = {id_: named[id_] for id_ in taken.ids & named.keys()}
            if not news:
                break
            reasons |= news
            taken = taken.without(news)
        else:
            first = next(tag for tag in plan.tags if tag.id in reasons)
            text = f"{where}: refuses {len(reasons)} tags and more, such as {first.name}: {reasons[first.id]}"
            raise Misconfigured(f"{text}; correct their rows in variables.yml", code="E4515")
        if reply.status != Status.OK:
            raise refusal(where, reply)
        refused = [tag for tag in plan.tags if tag.id in reasons]
        told = Told(number, taken, refused, reasons[refused[0].id] if refused else "")
        self._free.pop()
        self._told[plan] = told
        return told


async def _plan(callee: Callee, number: int, tags: Sequence[BoundTag], where: str) -> Reply:
    text = tags_json(tags)
    if len(text) > MESSAGE_BYTES_MAX:
        words = (
            f"{where}: the tags of a scan class have {len(text):,} bytes as JSON, of {MESSAGE_BYTES_MAX:,}; divide it"
        )
        raise Misconfigured(words, code="E4515")
    return await callee.call(Message.PLAN, number, len(tags), (text,), budget_s=TELL_BUDGET_S)


def _reasons(body: bytes) -> dict[int, str]:
    """Why which tags cannot be read, where the driver names tags: [{"tag": id, "key": "address", "text": why}]."""
    reasons: dict[int, str] = {}
    for row in _listed(body):
        tag = row.get("tag") if isinstance(row, dict) else None
        if isinstance(tag, int):
            text = f"{row.get('key', 'address')}: {row.get('text') or words_of(Status.INVALID)}"
            reasons[tag] = text[:REASON_CHARACTERS_MAX]
    return reasons


def _listed(body: bytes) -> list[Any]:
    """The rows of a list that may have been cut off, since a native driver has err_cap bytes for it."""
    for text in (body, body[: body.rfind(b"}") + 1] + b"]"):
        with suppress(ValueError, RecursionError):
            rows = json.loads(text)
            if isinstance(rows, list):
                return rows
    return []
