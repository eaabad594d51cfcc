"""The files of the audit chain: turned over, removed, copied, on disks that fail."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from framegate.access import audit_file
from framegate.access.audit_check import check_chain, recent
from framegate.access.chain import note_of
from framegate.contract.errors import Misconfigured, StoreFailed
from framegate.testing.fakes import FakeClock

from .audit_folder import entry, texts, write


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of four records, of which three elder ones are kept."""
    monkeypatch.setattr(audit_file, "FILE_BYTES_MAX", 1_100)
    monkeypatch.setattr(audit_file, "FILES_MAX", 3)


@pytest.mark.usefixtures("small")
def test_chain_goes_on_from_file_to_file_and_the_eldest_make_room(folder: Path, clock: FakeClock) -> None:
    write(folder, clock, 9)
    assert [path.name for path in sorted(folder.glob("audit.0*"))] == [
        "audit.000000000001.jsonl",
        "audit.000000000005.jsonl",
    ]
    verdict = check_chain(folder)
    assert (verdict.files, verdict.first, verdict.records, verdict.findings) == (3, 1, 9, [])
    write(folder, clock, 40)
    verdict = check_chain(folder)
    assert (verdict.files, verdict.findings) == (4, [])
    assert verdict.first > 1
    assert verdict.last.seq - verdict.first + 1 == verdict.records
    assert sum(path.stat().st_size for path in folder.iterdir()) < 4 * 2_000


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("gone", [0, 1, 2, 3])
def test_file_that_is_removed_is_missed(gone: int, folder: Path, clock: FakeClock) -> None:
    write(folder, clock, 45)
    path = [*sorted(folder.glob("audit.0*")), folder / "audit.jsonl"][gone]
    path.unlink()
    assert any("are missing" in text or "no record says" in text for text in texts(folder))
    write(folder, clock, 1)
    assert texts(folder)


@pytest.mark.usefixtures("small")
def test_crash_between_renaming_and_the_next_record_loses_nothing(folder: Path, clock: FakeClock) -> None:
    write(folder, clock, 4)
    (folder / "audit.jsonl").rename(folder / "audit.000000000001.jsonl")
    write(folder, clock, 1)
    assert (check_chain(folder).records, texts(folder)) == (5, [])


@pytest.mark.usefixtures("small")
def test_crash_before_old_files_are_removed_loses_nothing(
    folder: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        write(folder, clock, 20)
    assert texts(folder) == []
    write(folder, clock, 20)
    assert (texts(folder), len(list(folder.glob("audit.0*")))) == ([], 3)


def test_copy_of_the_folder_is_checked_and_none_is_told(folder: Path, clock: FakeClock, tmp_path: Path) -> None:
    write(folder, clock, 3)
    shutil.copytree(folder, tmp_path / "evidence", ignore=shutil.ignore_patterns(".*"))
    assert check_chain(tmp_path / "evidence").records == 3
    for nothing in (tmp_path / "config", tmp_path / "nowhere"):
        nothing.mkdir() if nothing.name == "config" else None
        with pytest.raises(Misconfigured) as error:
            check_chain(nothing)
        assert error.value.stable_code == "E4308"


def test_recent_gives_the_newest_within_bounds(folder: Path, clock: FakeClock) -> None:
    write(folder, clock, 9)
    assert [note["seq"] for note in recent(folder, 3)] == [9, 8, 7]
    assert [note["seq"] for note in recent(folder, 3, before=7)] == [6, 5, 4]
    assert [note["seq"] for note in recent(folder, 3, is_wanted=lambda note: note["seq"] % 4 == 0)] == [8, 4]
    assert recent(folder / "nowhere", 3) == []


def failing(monkeypatch: pytest.MonkeyPatch, call: str, times: int = 1) -> None:
    """The disk has no room for the next calls."""
    sound, left = getattr(os, call), [times]

    def fail(*arguments: Any) -> Any:
        if left[0] > 0:
            left[0] -= 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return sound(*arguments)

    monkeypatch.setattr(os, call, fail)


@pytest.mark.parametrize("call", ["pwrite", "fsync"])
def test_full_disk_refuses_the_note_and_the_chain_goes_on_afterwards(
    call: str, folder: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(folder, clock, 2)
    failing(monkeypatch, call)
    with pytest.raises(StoreFailed) as error:
        file.append([note_of(entry(), clock.now_ns())])
    assert error.value.stable_code == "E4306"
    assert "no space left" in str(error.value)
    assert check_chain(folder).records == 2
    file.append([note_of(entry(), clock.now_ns())])
    assert (check_chain(folder).records, texts(folder)) == (3, [])


def test_short_writes_are_written_on(folder: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda handle, data, place: sound(handle, bytes(data)[:90], place))
    write(folder, clock, 3)
    assert (check_chain(folder).records, texts(folder)) == (3, [])
