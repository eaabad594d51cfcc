"""Packages that nobody accepts: told in the log and as rows, kept over a restart, thrown away in the end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from framegate.contract.errors import Misconfigured
from framegate.gateway.plugins import waiting
from framegate.testing import plant
from tests.unit.gateway.conftest import House


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "TOLD_AFTER_S", 0.1)


@pytest.fixture
def alarms(house: House) -> Callable[[], list[Any]]:
    """Rows of alarm.plugins since the test began."""
    found: list[Any] = []

    def look(batches: Any) -> None:
        for batch in batches:
            if house.gateway.store.catalogue.tag(int(batch.tag[0])).name == "alarm.plugins":
                found.extend(map(json.loads, batch.value.tolist()))

    house.gateway.bus.view(look)
    return lambda: [(row["plugin"], row["version"], row["state"]) for row in found]


async def told(house: House, alarms: Callable[[], list[Any]], *rows: tuple[str, str, str]) -> None:
    await plant.until(lambda: alarms() == list(rows), f"rows {rows}")


async def test_package_that_waits_is_told_by_log_metric_and_rows_until_it_is_accepted(
    house: House, alarms: Callable[[], list[Any]]
) -> None:
    staged = await house.stage(2, by="rest:anna", network="own")
    assert house.gateway.metrics.gauge("edge_plugins_staged").sample() == 1.0
    await told(house, alarms, ("acme", "2.0", "active"))
    (line,) = house.log.events("plugin_waits")
    assert (line["plugin"], line["version"], line["by"], len(line["asks"])) == ("acme", "2.0", "rest:anna", 1)
    await house.desk.activate("acme", staged.accept, "ben")
    await told(house, alarms, ("acme", "2.0", "active"), ("acme", "2.0", "cleared"))
    assert house.gateway.metrics.gauge("edge_plugins_staged").sample() == 0.0


async def test_package_that_is_accepted_at_once_is_told_nowhere(house: House, alarms: Callable[[], list[Any]]) -> None:
    await house.install(2)
    await asyncio.sleep(0.3)
    assert (alarms(), house.log.events("plugin_waits")) == ([], [])


async def test_package_that_waits_survives_a_restart_with_who_brought_it_and_is_told_again(
    house: House, alarms: Callable[[], list[Any]]
) -> None:
    before = await house.stage(2, by="rest:anna", network="own")
    await house.restart_desk()
    await told(house, alarms, ("acme", "2.0", "active"))
    assert house.desk.staged() == [before]
    await house.desk.activate("acme", before.accept, "ben")
    await house.reads(2)
    await house.restart_desk()
    await asyncio.sleep(0.1)
    assert house.desk.staged() == []


async def test_package_that_was_altered_meanwhile_is_dropped_at_the_restart(house: House) -> None:
    await house.stage(2, by="rest:anna")
    file = house.manifests[2].folder / "acme" / "codec.py"
    file.write_text(file.read_text().replace("2", "3"))
    await house.restart_desk()
    await plant.until(lambda: bool(house.log.events("plugin_waiting_dropped")), "it to be dropped")
    assert "E4613" in house.log.events("plugin_waiting_dropped")[0]["reason"]
    assert house.desk.staged() == []


async def test_stage_while_packages_are_read_back_waits_for_that(house: House) -> None:
    await house.stage(2, by="rest:anna")
    await house.restart_desk()
    await house.desk.stage(house.package(3), "rest:ben")
    assert [(record.version, record.by) for record in house.desk.staged()] == [("3.0", "rest:ben")]


async def test_package_that_nobody_accepts_is_thrown_away_in_the_end(
    house: House, alarms: Callable[[], list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "WAIT_S_MAX", 0.2)
    await house.stage(2, by="rest:anna")
    await told(house, alarms, ("acme", "2.0", "active"), ("acme", "2.0", "cleared"))
    assert "E4642" in house.log.events("plugin_waiting_dropped")[0]["reason"]
    await plant.until(lambda: not house.manifests[2].folder.exists(), "its files to go")
    assert house.store.waiting([]) == []


async def test_roll_back_compares_the_one_that_waits_anew_and_it_can_be_accepted(house: House) -> None:
    await house.install(2, network="own")
    shown = await house.stage(3, by="rest:anna", network="own")
    assert shown.asks == ()
    await house.desk.roll_back("acme", "ben")
    (now,) = house.desk.staged()
    assert (now.replaces, [line.partition(":")[0] for line in now.asks], now.by) == ("1.0", ["network"], "rest:anna")
    with pytest.raises(Misconfigured, match="E4657"):
        await house.desk.activate("acme", shown.accept, "anna")
    await house.desk.activate("acme", now.accept, "anna")
    await house.reads(3)


@pytest.mark.parametrize(("bound", "most"), [("PACKAGES_MAX", 0), ("BYTES_MAX", 100)])
async def test_stage_more_than_is_kept_is_refused_and_leaves_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch, bound: str, most: int
) -> None:
    monkeypatch.setattr(waiting, bound, most)
    with pytest.raises(Misconfigured, match="E4641"):
        await house.desk.stage(house.package(2), "rest:anna")
    assert house.desk.staged() == []
    assert house.store.waiting([]) == []
    assert {path.name.partition("-")[0] for path in (house.store.folder / ".store" / "acme").iterdir()} == {"1.0"}
