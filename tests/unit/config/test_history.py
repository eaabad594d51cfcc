"""Generations on disk: whole or not there, whenever the power goes; and nothing that an operator typed gets lost."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from framegate.config import history as module
from framegate.config.history import GENERATIONS_MAX, Generation, History, Texts, read_texts
from framegate.config.schema import TABLES, Table
from framegate.contract.errors import Misconfigured, StoreFailed


class PowerCut(Exception):
    pass


def texts(mark: str) -> dict[Table, bytes]:
    return {table: f"{table}: {{}} # {mark}\n".encode() for table in TABLES}


def keep(history: History, made: Texts, *, is_published: bool = True) -> Generation:
    generation = history.write(made, "anna", "because", "file", 17)
    history.make_current(generation.number, is_published=is_published)
    return generation


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "data" / "config")


def test_history_generation_comes_back_as_it_was(history: History) -> None:
    assert history.current() is None
    first, second = keep(history, texts("one")), keep(history, texts("two"))
    assert history.current() == second
    assert [each.number for each in history.all()] == [2, 1]
    assert history.texts(1) == texts("one")
    assert (first.author, first.reason, first.source, first.time_ns) == ("anna", "because", "file", 17)


def test_history_unchanged_tables_share_their_file(history: History) -> None:
    keep(history, texts("one"))
    keep(history, {**texts("one"), "drivers": b"drivers: {}\n"})
    assert (history.folder / "1" / "variables.yml").samefile(history.folder / "2" / "variables.yml")
    assert not (history.folder / "1" / "drivers.yml").samefile(history.folder / "2" / "drivers.yml")


def test_history_power_cut_at_any_step_leaves_a_whole_generation(history: History, monkeypatch: Any) -> None:
    """Every write, sync and rename of a new generation is once the last thing that happens."""
    keep(history, texts("one"))
    before = shutil.copytree(history.folder, history.folder.with_name("before"))
    steps = cut_after(None, monkeypatch, lambda: keep(history, texts("two")))
    assert steps > 5
    for step in range(steps):
        shutil.rmtree(history.folder)
        shutil.copytree(before, history.folder)
        cut_after(step, monkeypatch, lambda: keep(history, texts("two")))
        current = history.current()
        assert current is not None
        assert history.texts(current.number) in (texts("one"), texts("two"))
        assert keep(history, texts("three")).number in (2, 3)
        assert history.texts(history.numbers()[-1]) == texts("three")


def test_history_power_cut_while_publishing_is_finished_at_the_next_start(
    history: History, tmp_path: Path, monkeypatch: Any
) -> None:
    config = tmp_path / "config"

    def publish() -> None:
        history.publish(2, config)

    def fresh() -> None:
        shutil.rmtree(config, ignore_errors=True)
        shutil.rmtree(history.folder, ignore_errors=True)
        config.mkdir()
        for table, data in texts("one").items():
            (config / f"{table}.yml").write_bytes(data)
        keep(history, texts("one"))
        keep(history, texts("two"), is_published=False)

    fresh()
    for step in range(cut_after(None, monkeypatch, publish)):
        fresh()
        cut_after(step, monkeypatch, publish)
        History(history.folder).finish_publishing(config)
        assert read_texts(config) == texts("two")
        assert history.is_published


def test_history_publish_keeps_aside_what_was_never_applied(history: History, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.mkdir()
    keep(history, texts("one"))
    (config / "drivers.yml").write_bytes(b"half an hour of work")
    (config / "variables.yml").write_bytes(texts("one")["variables"])
    keep(history, texts("two"))
    assert history.publish(2, config) == [config / "drivers.yml.kept"]
    assert (config / "drivers.yml.kept").read_bytes() == b"half an hour of work"
    assert read_texts(config) == texts("two")


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"generation": 99}', b'{"generation": "x"}'])
def test_history_lost_pointer_means_the_newest_whole_generation(history: History, damage: bytes) -> None:
    keep(history, texts("one"))
    keep(history, texts("two"))
    keep(history, texts("three"))
    (history.folder / "3" / "variables.yml").write_bytes(b"variables: []")
    (history.folder / "current").write_bytes(damage)
    current = history.current()
    assert current is not None
    assert current.number == 2
    with pytest.raises(Misconfigured, match="E4032"):
        history.texts(3)


def test_history_keeps_a_bounded_number_and_the_current_one(history: History) -> None:
    for number in range(GENERATIONS_MAX + 5):
        keep(history, texts(str(number)))
    assert len(history.numbers()) == GENERATIONS_MAX
    assert history.numbers()[-1] == GENERATIONS_MAX + 5


def test_history_beyond_its_bytes_keeps_two(history: History, monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "GENERATIONS_BYTES_MAX", 10)
    for number in range(4):
        keep(history, texts(str(number)))
    assert history.numbers() == [3, 4]


def test_history_full_disk_is_told_and_leaves_the_old_one(history: History, monkeypatch: Any) -> None:
    keep(history, texts("one"))
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StoreFailed, match=r"E4034.*No space left"):
        history.write(texts("two"), "anna", "", "file", 18)
    current = history.current()
    assert current is not None
    assert current.number == 1


def refuse(_: int) -> None:
    raise OSError(28, "No space left on device")


def cut_after(step: int | None, monkeypatch: Any, work: Any) -> int:
    """Do the work up to so many changes of the disk; without a step, all of it. Returns the changes made."""
    made = 0

    def counted(real: Any) -> Any:
        def call(*words: Any, **more: Any) -> Any:
            nonlocal made
            if step is not None and made >= step:
                raise PowerCut
            made += 1
            return real(*words, **more)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", counted(os.fsync))
        for name in ("replace", "rename", "mkdir", "hardlink_to"):
            patch.setattr(Path, name, counted(getattr(Path, name)))
        try:
            work()
        except PowerCut:
            assert step is not None
    return made
