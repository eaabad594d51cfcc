"""The templates of every language that is on this machine, built and examined as a gateway would carry them.

Guests that carry an interpreter take many seconds to build and compile: EDGE_KIT_ALL=1 examines them too.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from framegate.contract.errors import Misconfigured
from framegate.package.build import build, project_manifest
from framegate.package.template import Language, render, write_project
from framegate.package.toolchain import host_arch
from framegate.testing.exam import exam as exam_module
from framegate.testing.exam.exam import Exam, Verdict, examine
from framegate.testing.exam.shapes import artifact_check, driver_factory
from framegate.testing.exam.vectors import read_vectors

ROUNDS = 12
QUICK: list[tuple[Language, bool]] = [("c", False), ("rust", False), ("rust", True), ("c", True)]
SLOW: list[tuple[Language, bool]] = [("go", False), ("js", False), ("python", True)]


def form(language: Language, is_wasm: bool) -> str:
    return language + "-wasm" * is_wasm


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exam_module, "ROUNDS_MIN", ROUNDS)
    monkeypatch.setattr(exam_module, "SCANS_WARM", 20)
    monkeypatch.setattr(exam_module, "SCANS_MEASURED", 100)
    monkeypatch.setattr(exam_module, "SILENT_ROUNDS", 1)


def built(folder: Path, language: Language, *, is_wasm: bool) -> Path:
    name = f"shape_{language}{'_wasm' * is_wasm}"
    write_project(folder / name, render(name, language, host_arch(), is_wasm=is_wasm))
    try:
        build(folder / name, lambda _: None)
    except Misconfigured as error:
        if error.stable_code != "E4683":
            raise
        pytest.skip(error.text)
    return folder / name


async def failures(project: Path, cache: Path) -> dict[str, str]:
    manifest, vectors = project_manifest(project), read_vectors(project)
    await asyncio.to_thread(cache.mkdir, mode=0o700)
    factory = driver_factory(manifest, vectors.options, cache=cache)
    exam = Exam(vectors, factory, ROUNDS, artifact=artifact_check(manifest, cache))
    return {one.check: one.detail async for one in examine(exam) if one.verdict is Verdict.FAILED}


@pytest.mark.parametrize(("language", "is_wasm"), QUICK, ids=[form(*each) for each in QUICK])
async def test_template_keeps_the_contract(tmp_path: Path, language: Language, is_wasm: bool) -> None:
    assert await failures(built(tmp_path, language, is_wasm=is_wasm), tmp_path / "cache") == {}


@pytest.mark.campaign
@pytest.mark.timeout(600)
@pytest.mark.skipif(os.environ.get("EDGE_KIT_ALL") != "1", reason="takes minutes; EDGE_KIT_ALL=1 runs it")
@pytest.mark.parametrize(("language", "is_wasm"), SLOW, ids=[form(*each) for each in SLOW])
async def test_template_with_a_runtime_inside_keeps_the_contract(
    tmp_path: Path, language: Language, is_wasm: bool
) -> None:
    assert await failures(built(tmp_path, language, is_wasm=is_wasm), tmp_path / "cache") == {}


def broken(change: Callable[[str], str]) -> Callable[[Path], None]:
    def edit(project: Path) -> None:
        source = project / "driver.c"
        before = source.read_text("utf-8")
        source.write_text(change(before), encoding="utf-8")
        assert source.read_text("utf-8") != before

    return edit


CRASHES = broken(lambda text: text.replace("head[0] != READ && head[0] != WRITE", "*(volatile int*)8 == head[0]"))
OTHER_API = broken(lambda text: text.replace("driver_api = EDGE_DRIVER_API", "driver_api = 7"))


@pytest.mark.skipif(shutil.which("cc") is None, reason="cc is not installed")
@pytest.mark.parametrize(
    ("edit", "check", "words"),
    [
        (CRASHES, "known answers", "SIGSEGV"),
        (OTHER_API, "artifact", "E4504"),
    ],
    ids=["crashes", "other-api"],
)
async def test_native_driver_with_a_fault_is_told(
    tmp_path: Path, edit: Callable[[Path], None], check: str, words: str
) -> None:
    project = tmp_path / "faulty"
    write_project(project, render("faulty", "c", host_arch()))
    edit(project)
    build(project, lambda _: None)
    found = await failures(project, tmp_path / "cache")
    assert words in found[check]


@pytest.mark.skipif(shutil.which("cc") is None, reason="cc is not installed")
async def test_driver_that_was_built_as_another_version_is_told(tmp_path: Path) -> None:
    project = built(tmp_path, "c", is_wasm=False)
    manifest = project / "driver.toml"
    manifest.write_text(manifest.read_text("utf-8").replace("0.1.0", "0.2.0"), encoding="utf-8")
    found = await failures(project, tmp_path / "cache")
    assert "E4688" in found["artifact"]
    build(project, lambda _: None)
    look = artifact_check(project_manifest(project), tmp_path)
    assert look is not None
    assert look().startswith("plugin.so: driver_api 1")


async def test_driver_that_was_not_built_is_told_what_to_do(tmp_path: Path) -> None:
    write_project(tmp_path / "fresh", render("fresh", "c", host_arch()))
    with pytest.raises(Misconfigured, match=r"E4686 .*`edge plugin build` makes it"):
        driver_factory(project_manifest(tmp_path / "fresh"), {}, cache=tmp_path)
