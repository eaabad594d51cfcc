"""Packages that wait to be accepted are read back after a restart: whole and still allowed, or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from framegate.package import waiting
from framegate.package.store import PluginStore
from framegate.package.waiting import Dropped, Staged
from framegate.testing.fakes import FakeClock
from tests.unit.package.conftest import DAY_NS, NOW_NS, PowerCut, Steps, Vendor


def read_back(store: PluginStore, clock: FakeClock) -> tuple[list[Staged], list[Dropped]]:
    """As the next start of the gateway finds it."""
    dropped: list[Dropped] = []
    return PluginStore(store.folder, clock).waiting(dropped), dropped


def in_store(store: PluginStore) -> set[str]:
    """Versions that lie in the store, active or not."""
    return {path.name.partition("-")[0] for path in (store.folder / ".store").glob("*/*")}


def test_package_that_waits_is_read_back_with_who_brought_it_and_when(
    store: PluginStore, vendor: Vendor, clock: FakeClock
) -> None:
    package = vendor.package(more="[permissions]\nhome = true\n")
    store.stage(package, "rest:anna")
    clock.step_ns = 5 * 1_000_000_000
    store.stage(package, "drop")  # the same once more
    (found,), dropped = read_back(store, clock)
    assert (found.by, found.since_ns, found.manifest.version, dropped) == ("rest:anna", NOW_NS, "1.0.0", [])
    assert [line.partition(":")[0] for line in found.asks] == ["driver", "driver", "files"]
    assert PluginStore(store.folder, clock).activate(found).version == "1.0.0"
    assert read_back(store, clock) == ([], [])


def test_newer_package_takes_the_place_of_the_one_that_waited(
    store: PluginStore, vendor: Vendor, clock: FakeClock
) -> None:
    first = store.stage(vendor.package(version="1.0.0"), "rest:anna")
    store.stage(vendor.package(version="1.1.0"), "rest:ben")
    store.discard(first)
    (found,), dropped = read_back(store, clock)
    assert (found.manifest.version, found.by, dropped) == ("1.1.0", "rest:ben", [])
    assert in_store(store) == {"1.1.0"}


def test_one_that_waits_stays_when_another_version_is_rolled_back_to(
    store: PluginStore, vendor: Vendor, clock: FakeClock
) -> None:
    for version in ("1.0.0", "1.1.0"):
        store.activate(store.stage(vendor.package(version=version)))
    store.stage(vendor.package(version="1.2.0"), "rest:anna")
    store.rollback("acme-meter")
    (found,), _ = read_back(store, clock)
    assert (found.manifest.version, found.replaces and found.replaces.version) == ("1.2.0", "1.0.0")


@pytest.mark.parametrize("end", ["activate", "discard", "trash", "overtaken"])
def test_one_that_waits_no_more_is_not_read_back(
    store: PluginStore, vendor: Vendor, clock: FakeClock, end: str
) -> None:
    staged = store.stage(vendor.package(), "rest:anna")
    ends: dict[str, Callable[[], object]] = {
        "activate": lambda: store.activate(staged),
        "discard": lambda: store.discard(staged),
        "trash": lambda: store.trash("acme-meter", "1.0.0", "does not work"),
        "overtaken": lambda: store.stage(vendor.package(version="1.1.0")),  # by somebody who is there to answer
    }
    ends[end]()
    assert read_back(store, clock) == ([], [])
    assert list((store.folder / ".waiting").iterdir()) == []


def changed(path: Path) -> None:
    """Another content of the same size."""
    path.write_bytes(bytes(len(path.read_bytes())))


@pytest.mark.parametrize(
    ("harm", "code"),
    [("changed", "E4613"), ("one more", "E4614"), ("gone", "E1200"), ("distrusted", "E4607"), ("newer", "")],
)
def test_one_that_holds_no_more_is_dropped_with_its_reason(
    store: PluginStore, vendor: Vendor, clock: FakeClock, harm: str, code: str
) -> None:
    folder = store.stage(vendor.package(), "rest:anna").manifest.folder
    harms: dict[str, Callable[[], object]] = {
        "changed": lambda: changed(folder / "plugin.so"),
        "one more": lambda: (folder / "more").write_text("x"),
        "gone": lambda: shutil.rmtree(folder),
        "distrusted": lambda: store.trust.remove(vendor.key_id),
        "newer": lambda: store.activate(store.stage(vendor.package(version="1.1.0"))),
    }
    harms[harm]()
    found, dropped = read_back(store, clock)
    assert (found, [one.reason.stable_code for one in dropped]) == ([], [code] if code else [])
    assert read_back(store, clock) == ([], []), "it is told once"


def test_one_that_nobody_wants_goes_after_a_month(store: PluginStore, vendor: Vendor, clock: FakeClock) -> None:
    store.stage(vendor.package(), "rest:anna")
    clock.step_ns = 30 * DAY_NS
    assert len(read_back(store, clock)[0]) == 1
    clock.step_ns += DAY_NS
    found, dropped = read_back(store, clock)
    assert (found, [one.reason.stable_code for one in dropped], in_store(store)) == ([], ["E4642"], set())


@pytest.mark.parametrize(("bound", "most"), [("PACKAGES_MAX", 2), ("BYTES_MAX", 90)])
def test_more_than_are_kept_the_longest_waiting_stay(
    store: PluginStore, vendor: Vendor, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, bound: str, most: int
) -> None:
    for number in range(3):
        clock.step_ns = number
        store.stage(vendor.package(f"acme-{number}", code=bytes(20)), "rest:anna")  # with its schema, 38 bytes
    monkeypatch.setattr(waiting, bound, most)
    found, dropped = read_back(store, clock)
    assert [staged.manifest.name for staged in found] == ["acme-0", "acme-1"]
    assert [(one.name, one.reason.stable_code) for one in dropped] == [("acme-2", "E4641")]


def test_what_makes_no_sense_among_the_notes_is_deleted(
    store: PluginStore, vendor: Vendor, clock: FakeClock, tmp_path: Path
) -> None:
    store.stage(vendor.package(), "rest:anna")
    notes = store.folder / ".waiting"
    sound = (notes / "acme-meter.json").read_bytes()
    (tmp_path / "secret").write_text("kept")
    for name, data in {
        "acme-a.json": b"", "acme-b.json": b"[]", "acme-c.json": b'{"id": "../..", "by": "x", "since_ns": 1}',
        "acme-d.json": sound.replace(b"rest:anna", b"a\\u0000b"), "acme-e.json": sound + bytes(5_000),
        ".acme-meter.json.new": sound, "UPPER.json": sound, "acme-f": sound,
    }.items():  # fmt: skip
        (notes / name).write_bytes(data)
    (notes / "acme-g.json").mkdir()
    (notes / "acme-h.json").symlink_to(tmp_path / "secret")
    os.mkfifo(notes / "acme-i.json")
    (notes / "acme-j.json").write_bytes(sound)  # whose package is another plugin's, and so is not there
    found, dropped = read_back(store, clock)
    assert ([staged.by for staged in found], [one.name for one in dropped]) == (["rest:anna"], ["acme-j"])
    assert [path.name for path in notes.iterdir()] == ["acme-meter.json"]
    assert (tmp_path / "secret").read_text() == "kept"


@pytest.mark.parametrize("work", ["stage", "activate", "discard"])
def test_power_cut_at_any_step_leaves_it_waiting_or_not_and_nothing_else(
    tmp_path: Path, vendor: Vendor, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, work: str
) -> None:
    package = vendor.package()
    template = PluginStore(tmp_path / "template", clock)
    template.trust.add(vendor.trusted())
    if work != "stage":
        template.stage(package, "rest:anna")
    done: dict[str, Callable[[PluginStore], object]] = {
        "stage": lambda store: store.stage(package, "rest:anna"),
        "activate": lambda store: store.activate(store.waiting([])[0]),
        "discard": lambda store: store.discard(store.waiting([])[0]),
    }
    steps = Steps(monkeypatch)
    ways: set[tuple[bool, bool]] = set()
    cut_at, is_through = 0, False
    while not is_through:
        cut_at += 1
        store = PluginStore(tmp_path / f"cut{cut_at}", clock)
        shutil.copytree(template.folder, store.folder, symlinks=True)
        steps.count, steps.cut_at = 0, cut_at
        try:
            with contextlib.suppress(PowerCut):
                done[work](store)
                is_through = True
        finally:
            steps.cut_at = -1
        for folder in (store.folder / ".store").glob("*/*"):
            os.utime(folder, (0, 0))  # a day later
        found, dropped = read_back(store, clock)
        active = store.active()
        assert (dropped, len(found) + len(active) <= 1) == ([], True), cut_at
        assert len(in_store(store)) == len(found) + len(active), "nothing lies there that nobody knows"
        assert {path.name for path in (store.folder / ".waiting").glob("*")} == {"acme-meter.json"} & {
            f"{staged.manifest.name}.json" for staged in found
        }
        ways.add((bool(found), bool(active)))
    assert ways == {"stage": {(False, False), (True, False)}, "activate": {(True, False), (False, True)}}.get(
        work, {(True, False), (False, False)}
    )
