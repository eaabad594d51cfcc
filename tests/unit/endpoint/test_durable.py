"""A file is replaced whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from framegate.endpoint.durable import replace_durably


def test_file_is_replaced_whole_and_keeps_the_mode(tmp_path: Path) -> None:
    path = tmp_path / "drivers.yml"
    path.write_bytes(b"old")
    path.chmod(0o600)
    replace_durably(path, b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_file_stays_as_it_was_when_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "facts"
    path.write_bytes(b"old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        replace_durably(path, b"new")
    assert (path.read_bytes(), [file.name for file in tmp_path.iterdir()]) == (b"old", ["facts"])
