"""Templates of drivers: each renders under any good name, is a plugin at once, and can be built."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from framegate.carrier.native import NativeDriver
from framegate.contract.command import Outcome, Write
from framegate.contract.driver import BoundTag, DriverContext
from framegate.contract.errors import Misconfigured
from framegate.contract.frame import TagId, ValueType
from framegate.endpoint.clock import SystemClock
from framegate.package import build as building
from framegate.package.build import build, project_manifest
from framegate.package.template import LANGUAGES, Language, render, write_project
from framegate.package.toolchain import host_arch
from framegate.testing.exam.shapes import file_artifact
from framegate.testing.exam.vectors import read_vectors
from framegate.testing.fakes import CollectingLog, FakeLines

FORMS: list[tuple[Language, bool]] = [
    ("python", False), ("python", True), ("c", False), ("c", True), ("go", False), ("rust", False), ("rust", True),
    ("js", False),
]  # fmt: skip
CI = ".github/workflows/driver.yml"
COMPILERS = {("c", False): "cc", ("go", False): "go", ("rust", False): "rustc"}
SHAPES = {"python": "python", "c": "native", "go": "wasm", "rust": "native", "js": "wasm"}
IDS = [language + "-wasm" * is_wasm for language, is_wasm in FORMS]


def project(folder: Path, language: Language, *, is_wasm: bool = False, name: str = "blower") -> Path:
    write_project(folder / name, render(name, language, host_arch(), is_wasm=is_wasm))
    return folder / name


def test_every_language_has_a_form() -> None:
    assert {language for language, _ in FORMS} == set(LANGUAGES)


@pytest.mark.parametrize(("language", "is_wasm"), FORMS, ids=IDS)
def test_project_of_each_form_is_a_plugin_under_its_name(tmp_path: Path, language: Language, is_wasm: bool) -> None:
    folder = project(tmp_path, language, is_wasm=is_wasm)
    manifest = project_manifest(folder)
    entry = manifest.roles["driver"]
    assert (manifest.name, manifest.version, manifest.serial) == ("blower", "0.1.0", 1)
    assert entry.shape == (
        "wasm" if is_wasm or language in {"go", "js"} else "python" if language == "python" else "native"
    )
    assert manifest.arch == (host_arch() if entry.shape == "native" else "")
    assert len(read_vectors(folder).scans) == 2
    for path in folder.rglob("*"):
        if path.is_file():
            text = path.read_text("utf-8")
            left = [token for token in ("mydriver", "@arch@", "@install@", "@language@") if token in text]
            assert left == [], path
    for name in ("README.md", "simulator.py", ".gitignore", ".github/workflows/driver.yml"):
        assert (folder / name).is_file()


def test_options_and_tag_keys_are_described_in_both_languages(tmp_path: Path) -> None:
    schema: dict[str, Any] = json.loads((project(tmp_path, "c") / "schema.json").read_text("utf-8"))
    rows = {**schema["properties"], **schema["$defs"]["tag"]["properties"]}
    assert set(rows) == {"timeout_ms", "address"}
    assert all(row["description"] and row["description_zh"] for row in rows.values())


@pytest.mark.parametrize("name", ["", "Blower", "7up", "a-b", "../up", "a" * 41, "a b", "bl\u00f6wer", "import"])
def test_name_that_some_language_cannot_use_is_refused(name: str) -> None:
    with pytest.raises(Misconfigured, match="E4680"):
        render(name, "c", "x86_64-linux")


def test_project_is_never_written_over_another(tmp_path: Path) -> None:
    folder = project(tmp_path, "c")
    (folder / "driver.c").write_text("mine")
    with pytest.raises(Misconfigured, match=r"E4681 .*file exists"):
        project(tmp_path, "c")
    assert (folder / "driver.c").read_text() == "mine"


@pytest.mark.parametrize(("form", "compiler"), COMPILERS.items(), ids=[form[0] for form in COMPILERS])
def test_project_is_built(tmp_path: Path, form: tuple[Language, bool], compiler: str) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    folder = project(tmp_path, form[0], is_wasm=form[1])
    told: list[str] = []
    built = build(folder, told.append)
    assert built.artifact is not None
    magic = built.artifact.read_bytes()[:8]
    assert magic[:4] == b"\x7fELF" or magic == b"\0asm\x01\0\0\0"
    assert len(told) == 1
    assert not list(folder.glob(".*.part"))


@pytest.mark.parametrize(
    ("form", "needs"),
    [(("c", False), "framegate"), (("c", True), "ziglang"), (("rust", True), "rustup target add wasm32-wasip1"),
     (("python", True), "componentize-py"), (("js", False), "framegate[wasm]")],
)  # fmt: skip
def test_ci_of_a_project_installs_what_its_build_calls(form: tuple[Language, bool], needs: str) -> None:
    (line,) = [line for line in render("blower", form[0], "", is_wasm=form[1])[CI].splitlines() if "pip" in line]
    assert line.endswith(needs)


async def test_c_driver_takes_as_many_groups_as_a_gateway_makes(tmp_path: Path) -> None:
    if shutil.which("cc") is None:
        pytest.skip("cc is not installed")
    built = build(project(tmp_path, "c"), lambda _: None)
    tags = [BoundTag(TagId(number), f"t{number}", str(number), ValueType.UINT16, "W", {}) for number in range(1, 80)]
    lines = FakeLines({"plc": lambda asked: asked[:2] + bytes(2)})  # done, and no data
    driver = NativeDriver(built.manifest, {}, partial(file_artifact, built.manifest))
    driver.plan(tags)
    await driver.open(DriverContext("dev1", "plc", lines, SystemClock(), CollectingLog()))
    try:
        results = [(await driver.write([Write(tag.id, 7)]))[0] for tag in tags]
    finally:
        await driver.close()
    assert [result.reason for result in results if result.outcome is not Outcome.CONFIRMED] == []


def test_python_has_nothing_to_build(tmp_path: Path) -> None:
    assert build(project(tmp_path, "python"), pytest.fail).artifact is None


@pytest.mark.parametrize(("language", "is_wasm"), [form for form in FORMS if form[0] != "python"])
def test_missing_compiler_is_named_with_the_way_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, language: Language, is_wasm: bool
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(Misconfigured, match=r"E4683 .* is not on this machine; get it with"):
        build(project(tmp_path, language, is_wasm=is_wasm), pytest.fail)


@pytest.mark.skipif(shutil.which("cc") is None, reason="cc is not installed")
def test_failed_build_shows_the_compilers_words_and_keeps_the_last_good_artifact(tmp_path: Path) -> None:
    folder = project(tmp_path, "c")
    (folder / "plugin.so").write_bytes(b"good")
    (folder / "driver.c").write_text("int x = nonsense;\n")
    with pytest.raises(Misconfigured, match=r"E4684 .*(?s:.*)nonsense"):
        build(folder, lambda _: None)
    assert (folder / "plugin.so").read_bytes() == b"good"


def test_compiler_that_never_ends_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = tmp_path / "slow"
    compiler.write_text("#!/bin/sh\nexec sleep 60\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    monkeypatch.setattr(building, "BUILD_S_MAX", 0.1)
    with pytest.raises(Misconfigured, match=r"E4684 .*has not ended"):
        build(project(tmp_path, "c"), lambda _: None)


def test_folder_without_manifest_or_source_is_told(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"E4682 .*holds no driver.toml"):
        build(tmp_path, pytest.fail)
    folder = project(tmp_path, "c")
    (folder / "driver.c").unlink()
    with pytest.raises(Misconfigured, match=r"E4682 .*nothing here that a native driver is built from"):
        build(folder, pytest.fail)


def test_native_driver_for_another_machine_needs_zig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setattr("shutil.which", lambda name: None if name == "zig" else f"/usr/bin/{name}")
    write_project(tmp_path / "far", render("far", "c", "riscv64-linux"))
    with pytest.raises(Misconfigured, match="E4683 a C compiler for riscv64-linux: zig"):
        build(tmp_path / "far", pytest.fail)
