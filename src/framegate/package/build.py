"""Building a driver's project: its manifest says what has to come out, its source says with which compiler.

Name and version are in the manifest alone: a build writes them into the project's `meta` file (meta.py). It works in a
folder of its own and replaces the artifact when it has succeeded, so that a failed one leaves the last good one.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from framegate.contract.errors import Misconfigured
from framegate.contract.plugin import Manifest, RoleEntry
from framegate.package.manifest import MANIFEST_NAME, PACKAGE_MANIFEST_NAME, read_manifest
from framegate.package.meta import refresh_meta
from framegate.package.toolchain import Recipe, host_arch, native_recipe, wasm_recipe

BUILD_S_MAX = 600.0
SIMULATOR = "simulator.py"
SOURCES = frozenset((".c", ".h", ".rs", ".go", ".js", ".ts", ".py", ".wit"))
OUTPUT_LINES_SHOWN = 40
"""Last lines of a compiler."""


class Built(NamedTuple):
    """What a build came to. artifact: None where there was nothing to build."""

    manifest: Manifest
    artifact: Path | None
    language: str
    seconds: float


def project_manifest(folder: Path) -> Manifest:
    """The manifest of a plugin's project.

    raises Misconfigured E4682 - there is none; E1200-E1204 - it is wrong
    """
    for name in (PACKAGE_MANIFEST_NAME, MANIFEST_NAME):
        if (folder / name).is_file():
            return replace(read_manifest(folder / name, is_project=True), files={})
    text = f"{folder}: holds no {PACKAGE_MANIFEST_NAME}; name a driver's folder, or make one with `edge plugin new`"
    raise Misconfigured(text, code="E4682")


def build(folder: Path, told: Callable[[str], None]) -> Built:
    """Build the driver in that folder.

    told    is called with each command before it runs, and with what it said, such as warnings
    raises  Misconfigured E4682 - nothing that can be built; E4683 - a compiler is missing; E4684 - it failed;
            E4687 - its `meta` file cannot be written
    """
    manifest = project_manifest(folder)
    entry = manifest.roles.get("driver")
    if entry is None or entry.shape == "python":
        return Built(manifest, None, "Python", 0.0)
    began = monotonic()
    refresh_meta(folder, manifest)
    with tempfile.TemporaryDirectory(prefix="edge-build-") as work:
        made = Path(work) / entry.artifact
        recipe = _recipe(folder, manifest, entry, made)
        for command in recipe.commands:
            told(" ".join(command))
            said = _run(folder, recipe, command)
            if said:
                told(said)  # warnings
        if not made.is_file():
            raise _failed(folder, recipe, "the compiler ended well and wrote nothing")
        artifact = folder / entry.artifact
        _replace(artifact, made.read_bytes())
    return Built(manifest, artifact, recipe.language, monotonic() - began)


def stale(manifest: Manifest) -> Sequence[str]:
    """What to say of an artifact that is older than a source beside it."""
    entry, folder = manifest.roles.get("driver"), manifest.folder
    if entry is None or not entry.artifact or not (folder / entry.artifact).is_file():
        return ()
    built_ns = (folder / entry.artifact).stat().st_mtime_ns
    sources = [path for path in sorted(folder.iterdir()) if path.suffix in SOURCES and path.name != SIMULATOR]
    newer = ", ".join(path.name for path in sources if path.stat().st_mtime_ns > built_ns)
    return (f"{entry.artifact} is older than {newer}; `edge plugin build` makes it anew",) if newer else ()


def _recipe(folder: Path, manifest: Manifest, entry: RoleEntry, made: Path) -> Recipe:
    find = native_recipe if entry.shape == "native" else wasm_recipe
    recipe = find(folder, made, manifest.arch or host_arch())
    if recipe is None:
        sources = "driver.c or lib.rs" if entry.shape == "native" else "driver.c, lib.rs, go.mod, driver.js or app.py"
        text = f"{folder}: nothing here that a {entry.shape} driver is built from ({sources}); build {entry.artifact} "
        raise Misconfigured(f"{text}yourself, or begin with `edge plugin new`", code="E4682")
    return recipe


def _run(folder: Path, recipe: Recipe, command: Sequence[str]) -> str:
    """What the compiler said: its last lines."""
    variables = {**os.environ, **recipe.variables}
    kept = {name: value for name, value in variables.items() if value or name not in recipe.variables}
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=kept,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=BUILD_S_MAX,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _failed(folder, recipe, f"{command[0]} has not ended after {BUILD_S_MAX:g} s") from error
    except OSError as error:
        raise _failed(folder, recipe, f"{command[0]} cannot be started ({error.strerror})") from error
    lines = "\n".join(done.stdout.splitlines()[-OUTPUT_LINES_SHOWN:])
    if done.returncode != 0:
        raise _failed(folder, recipe, f"{Path(command[0]).name} ended with status {done.returncode}:\n{lines}")
    return lines


def _replace(artifact: Path, content: bytes) -> None:
    """Under its name at once and never half written: a gateway may have the old one open."""
    part = artifact.with_name(f".{artifact.name}.part")
    part.write_bytes(content)
    part.chmod(0o755)
    part.replace(artifact)


def _failed(folder: Path, recipe: Recipe, why: str) -> Misconfigured:
    return Misconfigured(f"{folder}: building the {recipe.language} driver failed: {why}", code="E4684")
