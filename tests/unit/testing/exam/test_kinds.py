"""Every template reads and writes tags of each kind: a few lines more, and values of a device come as they are there.

The device holds a flag, a whole number of 64 bits, a text of eight bytes of UTF-8 and eight bytes that mean nothing.
What is written to them fits one register. EDGE_KIT_ALL=1 builds the templates that take many seconds.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest

from framegate.contract.errors import Misconfigured
from framegate.package.build import build, project_manifest
from framegate.package.template import Language, render, write_project
from framegate.package.toolchain import host_arch
from framegate.testing.exam.exam import Exam, Question, Verdict, examine
from framegate.testing.exam.shapes import artifact_check, driver_factory
from framegate.testing.exam.vectors import read_vectors

CHANGES = tomllib.loads(Path(__file__).with_name("kinds.toml").read_text("utf-8"))
"""Language of a template -> what is replaced in its files, and by what."""

QUICK: list[tuple[Language, bool]] = [("c", False), ("python", False)]
SLOW: list[tuple[Language, bool]] = [
    ("c", True), ("rust", False), ("rust", True), ("go", False), ("js", False), ("python", True),
]  # fmt: skip

READ = {"request": "01 ?? 0000 000e"}
NAMES = ("flag", "total", "label", "raw", "counter")
VECTORS = {
    "options": {"timeout_ms": 500},
    "tags": [
        {"name": "flag", "address": "0", "type": "bool", "access": "RW"},
        {"name": "total", "address": "1", "type": "uint64", "access": "RW"},
        {"name": "label", "address": "5", "type": "string", "access": "RW"},
        {"name": "raw", "address": "9", "type": "bytes", "access": "RW"},
        {"name": "counter", "address": "13", "type": "uint16"},
    ],
    "scans": [
        {
            "name": "of each kind",
            "exchanges": [
                {**READ, "response": "01 ?? 00 1c 0001 fffffffffffffffe c3bc70756d702d31 00ff100102030405 0007"}
            ],
            "expected": [
                {"tag": "flag", "value": True},
                {"tag": "total", "value": 2**64 - 2},
                {"tag": "label", "value": "\u00fcpump-1"},
                {"tag": "raw", "value": "00ff100102030405"},
                {"tag": "counter", "value": 7},
            ],
        },
        {
            "name": "of each kind, Bad",
            "exchanges": [{**READ, "response": "01 ?? 01 00"}],
            "expected": [{"tag": name, "quality": "BadNodeIdUnknown"} for name in NAMES],
        },
    ],
    "writes": [
        {
            "name": f"{tag} {value}",
            "tag": tag,
            "value": value,
            "exchanges": [{"request": f"02 ?? {register}", "response": "02 ?? 00 00"}],
            "expected": "CONFIRMED",
        }
        for tag, value, register in (
            ("flag", True, "0000 0001"),
            ("flag", False, "0000 0000"),
            ("total", 513, "0001 0201"),
            ("label", "ok", "0005 6f6b"),
            ("raw", "fffe", "0009 fffe"),
        )
    ],
}


class Read(Exam):
    """An exam of values alone."""

    @property
    def questions(self) -> Sequence[tuple[str, Question]]:
        asked = {"artifact", "plan", "known answers", "quality", "writes"}
        return [(name, question) for name, question in super().questions if name in asked]


def form(language: Language, is_wasm: bool) -> str:
    return language + "-wasm" * is_wasm


def project(folder: Path, language: Language, *, is_wasm: bool) -> Path:
    """A template's project, changed and built; skips where its compiler is missing."""
    written = folder / f"kinds_{language}{'_wasm' * is_wasm}"
    write_project(written, render(written.name, language, host_arch(), is_wasm=is_wasm))
    (written / "tests" / "vectors.json").write_text(json.dumps(VECTORS), encoding="utf-8")
    for change in CHANGES.get(form(language, is_wasm), CHANGES[language]):
        replace(written / change["file"], change["old"], change["new"])
    try:
        build(written, lambda _: None)
    except Misconfigured as error:
        if error.stable_code != "E4683":
            raise
        pytest.skip(error.text)
    return written


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text("utf-8")
    assert text.count(old) == 1, f"{path.name} has {text.count(old)} times: {old}"
    path.write_text(text.replace(old, new), encoding="utf-8")


async def failures(folder: Path, cache: Path) -> dict[str, str]:
    manifest, vectors = project_manifest(folder), read_vectors(folder)
    await asyncio.to_thread(cache.mkdir, mode=0o700)
    exam = Read(
        vectors, driver_factory(manifest, vectors.options, cache=cache), artifact=artifact_check(manifest, cache)
    )
    return {one.check: one.detail async for one in examine(exam) if one.verdict is Verdict.FAILED}


@pytest.mark.parametrize(("language", "is_wasm"), QUICK, ids=[form(*each) for each in QUICK])
async def test_template_reads_and_writes_every_kind(tmp_path: Path, language: Language, is_wasm: bool) -> None:
    built = await asyncio.to_thread(project, tmp_path, language, is_wasm=is_wasm)
    assert await failures(built, tmp_path / "cache") == {}


@pytest.mark.campaign
@pytest.mark.timeout(600)
@pytest.mark.skipif(os.environ.get("EDGE_KIT_ALL") != "1", reason="takes minutes; EDGE_KIT_ALL=1 runs it")
@pytest.mark.parametrize(("language", "is_wasm"), SLOW, ids=[form(*each) for each in SLOW])
async def test_template_that_takes_long_to_build_reads_and_writes_every_kind(
    tmp_path: Path, language: Language, is_wasm: bool
) -> None:
    built = await asyncio.to_thread(project, tmp_path, language, is_wasm=is_wasm)
    assert await failures(built, tmp_path / "cache") == {}


@pytest.mark.skipif(shutil.which("cc") is None, reason="cc is not installed")
async def test_value_of_another_kind_is_told_with_what_came_and_what_is_wanted(tmp_path: Path) -> None:
    folder = tmp_path / "unkind"
    write_project(folder, render("unkind", "c", host_arch()))
    replace(folder / "driver.c", "add_int(out, p->id, (int16_t)low)", "add_real(out, p->id, (int16_t)low)")
    build(folder, lambda _: None)
    found = await failures(folder, tmp_path / "cache")
    assert "temperature is BadTypeMismatch, expected Good" in found["known answers"]
    assert (
        found["known answers"].count(
            "the driver handed over EDGE_F64 for temperature, setpoint, and int16 wants EDGE_I64"
        )
        == 1
    )
