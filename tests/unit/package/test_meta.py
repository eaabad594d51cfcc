"""Name and version stand in the manifest alone: a build writes them into the source of every language."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from framegate.contract.errors import Misconfigured
from framegate.package.build import build, project_manifest
from framegate.package.meta import refresh_meta, require_fresh_meta
from framegate.package.template import Language, render, write_project
from framegate.package.toolchain import host_arch

FILES: list[tuple[Language, bool, str]] = [
    ("c", False, "meta.h"), ("rust", False, "meta.rs"), ("go", False, "meta.go"), ("js", False, "meta.js"),
    ("python", True, "meta.py"),
]  # fmt: skip


def project(folder: Path, language: Language, *, is_wasm: bool = False) -> Path:
    write_project(folder / "blower", render("blower", language, host_arch(), is_wasm=is_wasm))
    return folder / "blower"


def raise_version(folder: Path, version: str) -> None:
    manifest = folder / "driver.toml"
    manifest.write_text(manifest.read_text("utf-8").replace('version = "0.1.0"', f"version = '{version}'"), "utf-8")


@pytest.mark.parametrize(("language", "is_wasm", "name"), FILES, ids=[name for _, _, name in FILES])
def test_source_says_what_the_manifest_says(tmp_path: Path, language: Language, is_wasm: bool, name: str) -> None:
    folder = project(tmp_path, language, is_wasm=is_wasm)
    fresh = (folder / name).read_text("utf-8")
    refresh_meta(folder, project_manifest(folder))
    require_fresh_meta(folder, project_manifest(folder))
    assert (folder / name).read_text("utf-8") == fresh
    others = [path for path in folder.rglob("*") if path.is_file() and path.name not in {name, "driver.toml"}]
    assert [path.name for path in others if '"0.1.0"' in path.read_text("utf-8")] == []
    raise_version(folder, "0.2.0")
    with pytest.raises(Misconfigured, match=f"E4688 .*driver.toml says blower 0.2.0, and {name} of the last build"):
        require_fresh_meta(folder, project_manifest(folder))
    refresh_meta(folder, project_manifest(folder))
    assert (folder / name).read_text("utf-8") == fresh.replace("0.1.0", "0.2.0")


@pytest.mark.skipif(shutil.which("cc") is None, reason="cc is not installed")
def test_library_that_is_built_says_what_the_manifest_says(tmp_path: Path) -> None:
    folder = project(tmp_path, "c")
    raise_version(folder, '1.0 "beta\\" ?')
    artifact = build(folder, lambda _: None).artifact
    assert artifact is not None
    meta = json.dumps({"name": "blower", "version": '1.0 "beta\\" ?'})
    assert meta.encode() + b"\0" in artifact.read_bytes()


def test_file_that_no_build_has_written_is_left_alone(tmp_path: Path) -> None:
    folder = project(tmp_path, "c")
    (folder / "meta.h").write_text("/* mine */\n")
    refresh_meta(folder, project_manifest(folder))
    assert (folder / "meta.h").read_text() == "/* mine */\n"
    (folder / "meta.h").unlink()
    refresh_meta(folder, project_manifest(folder))
    assert not (folder / "meta.h").exists()


def test_file_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = project(tmp_path, "c")
    raise_version(folder, "0.2.0")

    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(Misconfigured, match=r"E4687 .*meta.h: cannot take over .*Permission denied"):
        refresh_meta(folder, project_manifest(folder))
