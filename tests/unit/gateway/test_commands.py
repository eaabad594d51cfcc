"""Commands through a whole gateway in this process, to a Modbus device on a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from framegate.config import load_tables
from framegate.config.history import read_texts
from framegate.contract.command import Asker, Command, CommandRecord, Outcome
from framegate.endpoint.clock import SystemClock
from framegate.gateway.apply import Applier
from framegate.gateway.home import Home
from framegate.gateway.wiring import Gateway
from framegate.package.discover import discover
from framegate.testing import plant
from framegate.testing.fakes import CollectingLog
from framegate_plugins.modbus.simulator import Simulator as Plc
from framegate_plugins.modbus.simulator import start as start_plc

VARIABLES = [
    "tag: speed, source: plc, address: 'hr:0', type: int16, access: RW, scale: 0.1, limits: [0, 100]",
    "tag: level, source: plc, address: 'hr:1', type: int16",
    "tag: start, source: plc, address: 'coil:0', type: bool, access: W",
    "tag: mode, source: plc, address: 'hr:2', type: uint16, access: RW, enum: {0: off, 1: auto}",
    "tag: ratio, source: plc, address: 'hr:4', type: float32, access: RW, rename: site/ratio",
    "tag: valve, source: plc, address: 'hr:6', type: int16, access: RW, interlock: 'tag[\"level\"] < 50'",
    "tag: pump, source: plc, address: 'hr:7', type: int16, access: RW, select: required",
    "tag: slow, source: plc, address: 'hr:8', type: int16, access: RW, writes_per_s: 0.01",
]


def anyone(tag: str) -> bool:
    return bool(tag)


ANNA = Asker("rest:anna", anyone)


class Site:
    """A gateway with one device, which may be stopped and started again on the same log."""

    def __init__(self, path: Path, plc: Plc) -> None:
        self.home, self.plc, self.plugins = Home(path), plc, discover([])
        self.log = CollectingLog()
        self._count = 0

    async def start(self) -> None:
        tables = load_tables(self.home.config, self.plugins)
        self.gateway = Gateway(self.home, tables, self.plugins, self.log, SystemClock())
        await self.gateway.start()
        await plant.until(
            lambda: all(slot.state.value == "active" for slot in self.gateway.runtime.health()), "active devices"
        )

    async def write(self, tag: str, value: Any, asker: Asker = ANNA, **options: Any) -> CommandRecord:
        self._count += 1
        command = Command(f"c{self._count}", tag, value, **options)
        (record,) = await self.gateway.desk.submit([command], asker)
        if record.outcome is None:
            found = await self.gateway.desk.wait(command.id, 10.0)
            assert found is not None
            record = found
        return record

    @property
    def hold(self) -> Any:
        return self.plc.units[1].hold

    def acknowledgements(self) -> list[dict[str, Any]]:
        tag = self.gateway.store.catalogue.find("command.ack")
        assert tag is not None
        found: list[dict[str, Any]] = []
        after = 0
        while items := self.gateway.bus.read(after, 1000):  # type: ignore[arg-type]
            for item in items:
                after = item.last
                batch = getattr(item, "batch", None)
                if batch is not None and int(batch.tag[0]) == tag.id:
                    found += [orjson.loads(text) for text in batch.value]
        return found


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    plc = await start_plc({})
    plant.write_config(
        tmp_path,
        endpoints={"line": f"url: '{plc.url}'"},
        drivers={"plc": "plugin: modbus, endpoint: line, scan: {default: 50ms}, options: {timeout: 0.2}"},
        connectors={},
        variables=VARIABLES,
    )
    made = Site(tmp_path, plc)
    made.home.prepare()
    await made.start()
    yield made
    await made.gateway.stop()
    await plc.close()


async def test_write_is_confirmed_and_acknowledged_in_the_log(site: Site) -> None:
    record = await site.write("speed", 42.5)
    assert (record.outcome, record.code, record.origin) == (Outcome.CONFIRMED, "", "rest:anna")
    assert site.hold[0] == 425
    (ack,) = site.acknowledgements()
    assert ack == {
        "id": "c1", "tag": "speed", "outcome": "confirmed", "code": "", "reason": "", "ts": record.ended,
        "origin": "rest:anna",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("tag", "value", "code"),
    [
        ("speed", 101, "E1195"),
        ("speed", "fast", "E1195"),
        ("mode", "manual", "E1195"),
        ("level", 1, "E4202"),
        ("nothing", 1, "E4201"),
        ("ratio", 1.0, "E4202"),  # known outside by its new name only
        ("speed", float("nan"), "E4200"),
        ("speed", None, "E4200"),
    ],
)
async def test_write_that_may_not_be_is_rejected_and_nothing_is_sent(
    site: Site, tag: str, value: Any, code: str
) -> None:
    before = site.hold[:10].tolist()
    record = await site.write(tag, value)
    assert (record.outcome, record.code) == (Outcome.REJECTED, code)
    assert site.hold[:10].tolist() == before


async def test_write_only_enum_and_renamed_tags_are_written(site: Site) -> None:
    assert (await site.write("start", True)).outcome is Outcome.CONFIRMED
    assert (await site.write("mode", "auto")).outcome is Outcome.CONFIRMED
    assert (await site.write("site/ratio", 0.1, verify=True)).outcome is Outcome.CONFIRMED
    assert site.plc.units[1].coils[0]
    assert site.hold[2] == 1


async def test_same_id_is_one_command_and_another_content_is_refused(site: Site) -> None:
    desk = site.gateway.desk
    first, again, other = await desk.submit(
        [Command("same", "speed", 1), Command("same", "speed", 1.0), Command("same", "speed", 2)], ANNA
    )
    assert first == again
    assert (other.outcome, other.code) == (Outcome.REJECTED, "E4203")
    ended = await desk.wait("same", 5.0)
    assert ended is not None
    assert ended.outcome is Outcome.CONFIRMED
    site.hold[0] = 7
    assert await desk.submit([Command("same", "speed", 1)], ANNA) == [ended]
    assert site.hold[0] == 7


async def test_restart_remembers_what_became_of_a_command(site: Site) -> None:
    record = await site.write("speed", 3)
    await site.gateway.stop()
    site.hold[0] = 9
    await site.start()
    assert site.gateway.desk.find(record.command.id) == record
    assert await site.gateway.desk.submit([record.command], ANNA) == [record]
    assert list(site.gateway.desk.recent(10)) == [record]
    assert site.hold[0] == 9


async def test_interlock_forbids_while_it_does_not_hold(site: Site) -> None:
    assert (await site.write("valve", 1)).outcome is Outcome.CONFIRMED
    site.hold[1] = 60
    tag = site.gateway.store.catalogue.find("level")
    assert tag is not None
    await plant.until(lambda: (site.gateway.bus.latest.value(tag.id) or [0])[0] == 60, "the level")
    record = await site.write("valve", 2)
    assert (record.outcome, record.code) == (Outcome.REJECTED, "E4206")
    assert 'tag["level"] < 50' in record.reason
    assert site.hold[6] == 1


async def test_tag_that_wants_it_is_selected_before_it_is_operated(site: Site) -> None:
    bob = Asker("rest:bob", anyone)
    assert (await site.write("pump", 1)).code == "E4207"
    assert (await site.write("pump", 1, select=True)).outcome is Outcome.CONFIRMED
    assert site.hold[7] == 0
    assert (await site.write("pump", 1, bob)).code == "E4208"
    assert (await site.write("pump", 1)).outcome is Outcome.CONFIRMED
    assert (await site.write("pump", 2)).code == "E4207"
    assert site.hold[7] == 1


async def test_more_writes_than_a_tag_takes_are_turned_away(site: Site) -> None:
    assert (await site.write("slow", 1)).outcome is Outcome.CONFIRMED
    record = await site.write("slow", 2)
    assert (record.outcome, record.code) == (Outcome.REJECTED, "E4209")
    assert site.gateway.desk.find(record.command.id) is None


async def test_silent_device_is_unknown_and_refusing_one_is_rejected(site: Site) -> None:
    unit = site.plc.units[1]
    unit.misbehave(silent=True)
    record = await site.write("speed", 5)
    assert (record.outcome, record.code) == (Outcome.UNKNOWN, "E4212")
    unit.misbehave()
    await plant.until(
        lambda: all(slot.state.value == "active" for slot in site.gateway.runtime.health()), "active devices"
    )
    unit.misbehave(exception=2)
    record = await site.write("speed", 6)
    assert (record.outcome, record.code) == (Outcome.REJECTED, "E4211")


async def test_device_that_is_away_gets_nothing(site: Site) -> None:
    await site.plc.stop()
    await plant.until(
        lambda: all(slot.state.value == "backoff" for slot in site.gateway.runtime.health()), "a device in back-off"
    )
    record = await site.write("speed", 5)
    assert (record.outcome, record.code) == (Outcome.NOT_SENT, "E4105")


async def test_right_is_asked_again_before_it_is_sent(site: Site) -> None:
    answers = iter([True, False])
    record = await site.write("speed", 5, Asker("rest:eve", lambda _: next(answers)))
    assert (record.outcome, record.code) == (Outcome.REJECTED, "E4205")
    assert site.hold[0] == 0


async def test_reload_swaps_routes_and_keeps_the_desk(site: Site) -> None:
    applier = Applier(site.gateway)
    texts = read_texts(site.home.config)
    await applier.begin(texts)
    desk = site.gateway.desk
    assert (await site.write("level", 5)).code == "E4202"
    changed = texts["variables"].replace(b"type: int16}", b"type: int16, access: RW}", 1)
    changed = changed.replace(b"limits: [0, 100]", b"limits: [0, 10]")
    await applier.submit({**texts, "variables": changed}, "anna", "", "api")
    assert site.gateway.desk is desk
    assert (await site.write("level", 5, verify=True)).outcome is Outcome.CONFIRMED
    assert (await site.write("speed", 50)).code == "E1195"
    await applier.close(1.0)
