"""Devices, connectors, alarms, the log and the gateway itself over the API; probes and the page for Prometheus."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from framegate.api.operation import Answer, Call, NoParameters
from framegate.api.problem import CONTENT_TYPE, meaning_of, problem
from framegate.contract.access import Permission
from framegate.contract.errors import DeviceRefused
from framegate.contract.quality import Quality
from framegate.observe.face import (
    BridgeRecord,
    BusHealth,
    ConfigHealth,
    ConnectorHealth,
    DeviceHealth,
    WalHealth,
)
from framegate.observe.rule_face import AlarmRow, RuleFace

ALARMS_MAX: Final = 500
ALARM_PAGES_SEEN_MAX: Final = 20
NOTE_CHARACTERS_MAX: Final = 500
SHELVE_S_MAX: Final = 1 << 31
"""Of a request; how long an alarm may be shelved is its rule's business."""
PROMETHEUS: Final = "text/plain; version=0.0.4; charset=utf-8"
TEXT: Final = "text/plain; charset=utf-8"


class Devices(msgspec.Struct, frozen=True):
    """Every enabled device."""

    devices: tuple[DeviceHealth, ...]


class Connectors(msgspec.Struct, frozen=True):
    """Every enabled connector."""

    connectors: tuple[ConnectorHealth, ...]


class Bridges(msgspec.Struct, frozen=True):
    """Every enabled bridge."""

    bridges: tuple[BridgeRecord, ...]


class Wal(msgspec.Struct, frozen=True):
    """The durable log, and the bus in front of it."""

    wal: WalHealth
    bus: BusHealth


class Gateway(msgspec.Struct, frozen=True):
    """The gateway itself; problem: why it cannot take and keep rows now, "" when it can. Times in ns UTC."""

    name: str
    tenant: str
    version: str
    started_ns: int
    now_ns: int
    cpu_s: float
    rss_bytes: int
    problem: str
    alarms_active: int
    alarms_unacknowledged: int
    config: ConfigHealth


class AlarmsQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """From which alarm on."""

    cursor: Annotated[str, Meta(max_length=256, description='`next` of the page before; "": from the start.')] = ""
    limit: Annotated[int, Meta(ge=1, le=ALARMS_MAX, description="Alarms at most.")] = 100


class AlarmPage(msgspec.Struct, frozen=True):
    """Alarms in order of their ids; `next` is the cursor of the next page, null after the last."""

    alarms: list[AlarmRow]
    next: str | None


class AlarmAction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be done with an alarm; seconds: how long it is shelved."""

    action: Literal["ack", "reset", "shelve", "unshelve", "suppress", "unsuppress", "out-of-service", "return"]
    note: Annotated[str, Meta(max_length=NOTE_CHARACTERS_MAX)] = ""
    seconds: Annotated[float, Meta(ge=0, le=SHELVE_S_MAX)] = 0.0


class ErrorMeaning(msgspec.Struct, frozen=True):
    """What a code means and what to do."""

    code: str
    name: str
    help: str


async def read_gateway(call: Call[NoParameters, None]) -> Answer:
    health = call.site.face.health()
    return Answer(Gateway(**{name: getattr(health, name) for name in Gateway.__struct_fields__}))


async def list_devices(call: Call[NoParameters, None]) -> Answer:
    return Answer(Devices(call.site.face.health().devices))


async def list_connectors(call: Call[NoParameters, None]) -> Answer:
    return Answer(Connectors(call.site.face.health().connectors))


async def list_bridges(call: Call[NoParameters, None]) -> Answer:
    return Answer(Bridges(call.site.face.health().bridges))


async def read_wal(call: Call[NoParameters, None]) -> Answer:
    health = call.site.face.health()
    return Answer(Wal(health.wal, health.bus))


async def list_alarms(call: Call[AlarmsQuery, None]) -> Answer:
    rules, query = call.site.face.rules, call.query
    found: list[AlarmRow] = []
    after = query.cursor
    for _ in range(ALARM_PAGES_SEEN_MAX):
        wanted = query.limit - len(found)
        page = rules.alarms(after, wanted)
        found += [row for row in page if call.principal.may(Permission.ALARMS_READ, row.tag)]
        if len(page) < wanted:
            return Answer(AlarmPage(found, None))
        after = page[-1].id
        if len(found) == query.limit:
            break
    return Answer(AlarmPage(found, after))


async def operate_alarm(call: Call[NoParameters, AlarmAction]) -> Answer:
    id_, wish = call.path["alarm"], call.body
    row = _alarm(call.site.face.rules, id_)
    if row is None or not call.principal.may(Permission.ALARMS_ACK, row.tag):
        text = f"alarm {id_}: no such alarm; GET /api/v1/alarms lists them"
        raise DeviceRefused(text, code="E5034", quality=Quality.BAD_NODE_ID_UNKNOWN)
    return Answer(await call.site.face.rules.operate(id_, wish.action, call.author, wish.note, wish.seconds))


def _alarm(rules: RuleFace, id_: str) -> AlarmRow | None:
    """The alarm of an id: pages are in order of ids, and begin just before it."""
    after = id_[:-1]
    for _ in range(ALARM_PAGES_SEEN_MAX):
        page = rules.alarms(after, ALARMS_MAX)
        found = next((row for row in page if row.id == id_), None)
        if found is not None or len(page) < ALARMS_MAX or page[-1].id > id_:
            return found
        after = page[-1].id
    return None


async def read_error(call: Call[NoParameters, None]) -> Answer:
    code = call.path["code"]
    meaning = meaning_of(code)
    if meaning is None:
        text = f"error {code[:16]}: no such code"
        raise DeviceRefused(text, code="E4230", quality=Quality.BAD_NODE_ID_UNKNOWN)
    return Answer(ErrorMeaning(code, *meaning))


async def livez(call: Call[NoParameters, None]) -> Answer:
    return Answer(b"alive\n", content_type=TEXT)


async def readyz(call: Call[NoParameters, None]) -> Answer:
    """The log takes rows, rows are mapped and tables are in force; a silent device does not make a gateway unready."""
    reason = call.site.ready()
    if reason:
        return Answer(problem("E4251", f"not ready: {reason}", 503), 503, content_type=CONTENT_TYPE)
    return Answer(b"ready\n", content_type=TEXT)


async def metrics(call: Call[NoParameters, None]) -> Answer:
    return Answer(await call.site.scrape(), content_type=PROMETHEUS)
