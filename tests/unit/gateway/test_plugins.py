"""Versions of a plugin come and go under running devices: the one that fails is taken back and thrown away."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from framegate.contract.errors import Busy, FrameBroken, GatewayError, Misconfigured, StoreFailed
from framegate.contract.plugin import Manifest
from framegate.gateway.plugins.modules import load_installed
from framegate.testing import plant
from tests.unit.gateway.conftest import DEVICES, House


async def test_activate_every_device_reads_by_the_new_version_and_no_scan_fails(house: House) -> None:
    old = load_installed(house.manifests[1], "driver").OPEN  # type: ignore[attr-defined]
    change = await house.install(2)
    assert (change.before, change.version, change.devices) == ("1.0", "2.0", ("d0", "d1", "d2"))
    await house.reads(2)
    assert {(slot.scans_failed, slot.reconnects) for slot in house.health} == {(0, 0)}
    assert old == []
    assert house.open(house.manifests[2]) == ["d0", "d1", "d2"]
    assert house.gateway.plugins["acme"].version == "2.0"
    assert house.desk.staged() == []
    assert [row.version for row in house.desk.plugins() if row.name == "acme"] == ["2.0"]


async def test_activate_device_that_restarts_later_is_made_of_the_new_version(house: House) -> None:
    await house.install(2)
    slot = house.gateway.runtime.slot("d1")
    assert slot is not None
    slot.restart()
    await asyncio.sleep(0.2)
    await house.reads(2)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"read": "raise NoReply('silent')"}, "silent"),
        ({"read": "now = now // 0"}, "ZeroDivisionError"),
        ({"open": "raise Misconfigured('no such firmware')"}, "no such firmware"),
        ({"open": "raise NotConnected('one connection only')"}, "one connection only"),
        ({"open": "if context.name == 'd2': raise Misconfigured('not this one')"}, "not this one"),
        ({"read": "self.n = getattr(self, 'n', 0) + 1\n        if self.n > 2: raise KeyError('later')"}, "later"),
    ],
)
async def test_activate_version_that_fails_is_taken_back_and_thrown_away(
    house: House, how: dict[str, str], words: str
) -> None:
    with pytest.raises(Misconfigured) as caught:
        await house.install(2, **how)
    assert caught.value.stable_code == "E4653"
    assert words in str(caught.value)
    await house.reads(1)
    assert house.open(house.manifests[1]) == ["d0", "d1", "d2"]
    assert words in house.trashed()["2.0"]
    assert house.gateway.plugins["acme"].version == "1.0"
    assert house.desk.staged() == []
    assert (await house.install(3)).version == "3.0"  # nothing of the failure is in the way
    await house.reads(3)


async def test_activate_disk_does_not_keep_it_the_old_version_serves(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(staged: Any) -> Manifest:
        raise StoreFailed("no room", code="E4624")

    with monkeypatch.context() as patch:
        patch.setattr(house.store, "activate", full)
        with pytest.raises(StoreFailed):
            await house.install(2)
    await house.reads(1)
    assert house.trashed() == {}
    assert [row.version for row in house.desk.staged()] == ["2.0"]  # it works; whoever makes room may try again
    await house.desk.activate("acme", house.desk.staged()[0].accept, "anna")
    await house.reads(2)


async def test_activate_tables_that_do_not_fit_it_nothing_is_touched(house: House) -> None:
    with pytest.raises(Misconfigured) as caught:
        await house.install(2, limit=10)  # the tables say 50
    assert caught.value.stable_code == "E4664"
    assert [problem.path[:2] for problem in caught.value.problems] == [("drivers", f"d{i}") for i in range(DEVICES)]
    assert house.trashed() == {}
    assert [row.version for row in house.desk.staged()] == ["2.0"]
    await house.reads(1)


@pytest.mark.parametrize("accept", ["", "0" * 32])
async def test_activate_without_the_digest_that_was_shown_is_refused(house: House, accept: str) -> None:
    staged = await house.stage(2, network="own")
    assert [line.partition(":")[0] for line in staged.asks] == ["network"]
    with pytest.raises(Misconfigured) as caught:
        await house.desk.activate("acme", accept, "anna")
    assert caught.value.stable_code == "E4657"


async def test_activate_after_another_version_came_into_force_what_was_shown_holds_no_more(house: House) -> None:
    package = house.package(3)
    shown = await house.desk.stage(package, "anna")
    await house.install(2)
    again = await house.desk.stage(package, "ben")
    assert (shown.replaces, again.replaces) == ("1.0", "2.0")
    with pytest.raises(Misconfigured) as caught:
        await house.desk.activate("acme", shown.accept, "anna")
    assert caught.value.stable_code == "E4657"
    await house.desk.activate("acme", again.accept, "ben")


async def test_roll_back_the_version_before_serves_and_again_the_newer_one(house: House) -> None:
    await house.install(2)
    await house.reads(2)
    change = await house.desk.roll_back("acme", "anna", reason="it drops values")
    assert (change.before, change.version) == ("2.0", "1.0")
    assert [one.reason for one in house.store.bin.thrown("acme")] == ["rolled back by anna: it drops values"]
    await house.reads(1)
    await house.desk.roll_back("acme", "anna")
    await house.reads(2)


async def test_remove_used_plugin_stays_unused_one_goes(house: House) -> None:
    with pytest.raises(Misconfigured, match="d0, d1, d2") as caught:
        await house.desk.remove("acme", "anna")
    assert caught.value.stable_code == "E4659"
    gateway = house.gateway
    gateway.tables = gateway.tables.__class__(gateway.tables.gateway, {}, {}, {}, ())
    assert (await house.desk.remove("acme", "anna")).version == ""
    assert "acme" not in gateway.plugins
    assert house.store.active() == []


async def test_remove_package_that_waits_goes_and_the_active_version_stays(house: House) -> None:
    await house.stage(2)
    change = await house.desk.remove("acme", "anna")
    assert (change.before, change.version) == ("1.0", "1.0")
    assert house.desk.staged() == []
    assert not house.manifests[2].folder.exists()
    await house.reads(1)
    assert [manifest.version for manifest in house.store.active()] == ["1.0"]


async def test_roll_back_to_a_version_further_back(house: House) -> None:
    await house.install(2)
    await house.install(3)
    assert (await house.desk.roll_back("acme", "anna", "1.0")).version == "1.0"
    await house.reads(1)


async def test_roll_back_that_does_not_work_leaves_what_runs(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    await house.install(2)

    def refuse(*_: Any) -> None:
        raise Misconfigured("they do not fit it", code="E4664")

    with monkeypatch.context() as patch:
        patch.setattr("framegate.gateway.plugins.desk.prepare", refuse)
        with pytest.raises(Misconfigured, match="do not fit"):
            await house.desk.roll_back("acme", "anna")
    await house.reads(2)
    assert [manifest.version for manifest in house.store.active()] == ["2.0"]


async def test_roll_back_the_present_version_is_whole_and_active_until_the_older_one_runs(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.install(2)
    seen: list[tuple[list[str], list[str]]] = []
    real = house.store.rollback

    def switch(*words: Any) -> Manifest:
        assert house.store.verify("acme").manifest.version == "2.0"  # every byte, where its devices open it again
        seen.append(([row.version for row in house.store.active()], house.open(house.manifests[1])))
        return real(*words)

    monkeypatch.setattr(house.store, "rollback", switch)
    await house.desk.roll_back("acme", "anna")
    assert seen == [(["2.0"], ["d0", "d1", "d2"])]  # last: what lasts
    assert [row.version for row in house.store.active()] == ["1.0"]


WORN = "import os\n        if os.environ.get('ACME_IS_WORN'): raise Misconfigured('worn out')"


async def test_roll_back_to_what_fails_by_now_leaves_what_runs_and_throws_it_away_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.install(2, open=WORN)
    await house.install(3)
    with monkeypatch.context() as patch:
        patch.setenv("ACME_IS_WORN", "1")
        with pytest.raises(Misconfigured, match="worn out") as caught:
            await house.desk.roll_back("acme", "anna")
    assert caught.value.stable_code == "E4653"
    await house.reads(3)
    assert [row.version for row in house.store.active()] == ["3.0"]
    assert "worn out" in house.trashed()["2.0"]
    assert [event["version"] for event in house.log.events("plugin_undone")] == ["2.0"]
    assert (await house.desk.roll_back("acme", "anna")).version == "2.0"
    await house.reads(2)


async def test_roll_back_to_the_very_version_that_waits_again_ends_its_waiting_unless_it_fails(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = house.package(2, open=WORN)
    staged = await house.desk.stage(package, "anna")
    await house.desk.activate("acme", staged.accept, "anna")
    await house.desk.roll_back("acme", "anna")
    await house.desk.stage(package, "ben")
    with monkeypatch.context() as patch:
        patch.setenv("ACME_IS_WORN", "1")
        with pytest.raises(Misconfigured, match="worn out"):
            await house.desk.roll_back("acme", "anna", "2.0")
    assert [row.version for row in house.desk.staged()] == ["2.0"]
    assert (await house.desk.roll_back("acme", "anna", "2.0")).version == "2.0"
    assert house.desk.staged() == []
    await house.reads(2)


async def test_roll_back_that_fails_on_a_full_disk_is_told_as_what_it_failed_with(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.install(2, open=WORN)
    await house.install(3)

    def full(*_: Any) -> None:
        raise StoreFailed("no room", code="E4624")

    with monkeypatch.context() as patch:
        patch.setattr(house.store, "trash", full)
        patch.setattr(house.store, "rollback", full)
        with pytest.raises(StoreFailed, match="no room"):
            await house.desk.roll_back("acme", "anna")
        await house.reads(3)
        patch.setenv("ACME_IS_WORN", "1")
        with pytest.raises(Misconfigured, match="worn out"):
            await house.desk.roll_back("acme", "anna")
    await house.reads(3)
    assert len(house.log.events("plugin_left_in_store")) == 2
    assert (await house.desk.roll_back("acme", "anna", "2.0")).version == "2.0"
    await house.reads(2)


async def test_roll_back_a_plugin_that_was_removed_brings_it_back(house: House) -> None:
    gateway = house.gateway
    tables, gateway.tables = gateway.tables, gateway.tables.__class__(gateway.tables.gateway, {}, {}, {}, ())
    await house.desk.remove("acme", "anna")
    gateway.tables = tables
    assert (await house.desk.roll_back("acme", "anna")).version == "1.0"
    assert gateway.plugins["acme"].version == "1.0"


@pytest.mark.parametrize(
    ("act", "code"),
    [
        (lambda desk: desk.activate("nix", "", "anna"), "E4656"),
        (lambda desk: desk.roll_back("nix", "anna"), "E4622"),
        (lambda desk: desk.roll_back("modbus", "anna"), "E4660"),
        (lambda desk: desk.remove("modbus", "anna"), "E4660"),
        (lambda desk: desk.remove("nix", "anna"), "E4656"),
    ],
)
async def test_change_of_what_is_not_installed_is_refused(house: House, act: Any, code: str) -> None:
    with pytest.raises(GatewayError) as caught:
        await act(house.desk)
    assert caught.value.stable_code == code


async def test_change_while_another_is_under_way_is_asked_to_wait(house: House) -> None:
    staged = await house.stage(2)
    first = asyncio.create_task(house.desk.activate("acme", staged.accept, "anna"))
    await asyncio.sleep(0)
    with pytest.raises(Busy) as caught:
        await house.desk.roll_back("acme", "ben")
    assert caught.value.stable_code == "E4661"
    await first


async def test_change_goes_on_when_whoever_asked_has_gone(house: House) -> None:
    staged = await house.stage(2)
    asked = asyncio.create_task(house.desk.activate("acme", staged.accept, "anna"))
    await asyncio.sleep(0.01)
    asked.cancel()
    await house.reads(2)
    await plant.until(lambda: house.gateway.plugins["acme"].version == "2.0", "the change to end")


async def pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


async def test_receive_in_pieces_is_staged_and_nothing_is_left(house: House) -> None:
    data = house.package(2).read_bytes()
    staged = await house.desk.receive(pieces(data, 999), "rest:anna")
    assert (staged.version, staged.by) == ("2.0", "rest:anna")
    with pytest.raises(Misconfigured) as caught:
        await house.desk.receive(pieces(b"PK no package", 5), "rest:anna")
    assert caught.value.stable_code == "E4600"
    assert list((house.gateway.home.plugins / ".staging").iterdir()) == []


async def test_receive_too_much_is_refused(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("framegate.gateway.plugins.uploads.UPLOAD_BYTES_MAX", 20)
    with pytest.raises(FrameBroken) as refused:
        await house.desk.receive(pieces(bytes(21), 7), "rest:anna")
    assert refused.value.stable_code == "E4658"


async def test_receive_while_another_comes_is_asked_to_wait(house: House) -> None:
    held = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"PK"
        await held.wait()

    first = asyncio.create_task(house.desk.receive(slow(), "rest:anna"))
    await asyncio.sleep(0.05)
    with pytest.raises(Busy):
        await house.desk.receive(pieces(b"PK", 1), "rest:ben")
    held.set()
    with pytest.raises(Misconfigured):
        await first


async def test_stage_newer_package_takes_the_place_of_the_one_that_waits(house: House) -> None:
    await house.stage(2)
    await house.stage(3)
    assert [record.version for record in house.desk.staged()] == ["3.0"]
    assert not house.manifests[2].folder.exists()
    assert house.manifests[3].folder.exists()


async def test_activate_hundred_times_keeps_no_code_of_old_versions(house: House) -> None:
    import sys  # noqa: PLC0415 - what is looked at here alone

    for version in (2, 3, 4):
        await house.install(version)
    await house.reads(4)
    roots = {name.partition(".")[0] for name in sys.modules if name.startswith("edge_acme")}
    assert len(roots) == 1


def sent(manifest: Manifest) -> list[tuple[int, int]]:
    """Windows that connectors of a version have delivered."""
    return load_installed(manifest, "connector").SENT  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize("connectors", [{"cloud": "plugin: acme"}])
async def test_activate_connector_goes_on_from_its_cursor_with_the_new_version(house: House) -> None:
    first = house.manifests[1]
    old = sent(first)
    await plant.until(lambda: len(old) > 3, "rows to be delivered by version 1")
    change = await house.install(2)
    assert change.connectors == ("cloud",)
    new = sent(house.manifests[2])
    await plant.until(lambda: len(new) > 3, "rows to be delivered by version 2")
    assert new[0][0] <= old[-1][1] + 1  # nothing between them is missing
    assert [window[0] for window in new[1:]] == [window[1] + 1 for window in new[:-1]]
    count = len(old)
    await asyncio.sleep(0.2)
    assert len(old) == count


@pytest.mark.parametrize("connectors", [{"cloud": "plugin: acme"}])
@pytest.mark.parametrize(("error", "limit_s"), [("NotConnected", 0.5), ("Misconfigured", plant.WAIT_S_MAX)])
async def test_activate_connector_that_cannot_connect_any_more_everything_goes_back(
    house: House, monkeypatch: pytest.MonkeyPatch, error: str, limit_s: float
) -> None:
    """One that says that it never will is not waited for."""
    monkeypatch.setattr("framegate.gateway.plugins.version.CONNECTOR_S", limit_s)
    await plant.until(lambda: house.gateway.outboxes["cloud"].health.state.value == "connected", "version 1 to connect")
    began = time.monotonic()
    with pytest.raises(Misconfigured, match=r"connector cloud: did not connect: .*TLS refused") as caught:
        await house.install(2, connect=f"raise {error}('TLS refused')")
    assert time.monotonic() - began < plant.WAIT_S_MAX / 2
    assert caught.value.stable_code == "E4653"
    await house.reads(1)
    await plant.until(lambda: house.gateway.outboxes["cloud"].health.state.value == "connected", "version 1 to be back")
    assert house.gateway.plugins["acme"].version == "1.0"
    assert "2.0" in house.trashed()


@pytest.mark.parametrize("bridges", ["bridges: {scada: {plugin: acme}}\n"])
async def test_activate_bridge_serves_in_a_process_of_the_new_version_or_goes_back(house: House) -> None:
    bridge = house.gateway.bridges
    await plant.until(lambda: bridge["scada"].health.clients == 1, "version 1 to serve", 20.0)
    assert (await house.install(2)).bridges == ("scada",)
    await plant.until(lambda: bridge["scada"].health.clients == 2, "version 2 to serve", 20.0)
    with pytest.raises(Misconfigured, match=r"bridge scada: .*port taken"):
        await house.install(3, serve="raise Misconfigured('port taken')")
    await plant.until(lambda: bridge["scada"].health.clients == 2, "version 2 to be back", 20.0)
    await house.reads(2)


async def test_stage_what_is_active_already_is_told_so(house: House, tmp_path: Path) -> None:
    package = house.package(2)
    staged = await house.desk.stage(package, "anna")
    await house.desk.activate("acme", staged.accept, "anna")
    with pytest.raises(Misconfigured) as caught:
        await house.desk.stage(package, "anna")
    assert caught.value.stable_code == "E4662"


async def test_stage_a_pipe_is_refused_at_once(house: House, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.edge")
    with pytest.raises(Misconfigured) as caught:
        await house.desk.stage(tmp_path / "pipe.edge", "anna")
    assert caught.value.stable_code == "E4656"
