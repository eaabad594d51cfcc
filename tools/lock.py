"""Writes requirements.lock and requirements-dev.lock from pyproject.toml: exact versions with hashes, for every
platform and Python we support, and without the address of any index.

    python tools/lock.py             newest versions that pyproject.toml allows
    python tools/lock.py --keep      keep what is locked already, add what is missing

requirements.lock also pins the build backend, so that installing the project itself needs no second resolution.
`./edge` installs from these files; tests/repo/test_lock.py compares them with pyproject.toml.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RUNTIME = ROOT / "requirements.lock"
DEVELOPMENT = ROOT / "requirements-dev.lock"
EDITABLE_REQUIRES = ("editables>=0.5",)
"""hatchling asks for it while installing a folder in place (its get_requires_for_build_editable)."""
HEADER = "# Written by tools/lock.py. `./edge` installs from it.\n"
CLONE_EXTRAS = ("opcua", "wasm")
"""Extras that `./edge` installs as well: every protocol works from a clone. A wheel's user asks for them by name."""
_OPTIONS = (
    "--universal",
    "--python-version=3.11",
    "--generate-hashes",
    "--no-header",
    "--no-annotate",
    "--no-emit-index-url",
    "--no-emit-find-links",
    "--quiet",
)


def wanted_runtime() -> list[str]:
    """Requirements of a running gateway, with every protocol, and of installing it."""
    file = _project()
    project, extras = file["project"], file["project"]["optional-dependencies"]
    wanted = [*project["dependencies"], *(each for name in CLONE_EXTRAS for each in extras[name])]
    return [*wanted, *file["build-system"]["requires"], *EDITABLE_REQUIRES]


def wanted_development() -> list[str]:
    """What the tests need on top."""
    return list(_project()["dependency-groups"]["dev"])


def lock(*, keep: bool) -> None:
    """Write both files."""
    _compile(wanted_runtime(), RUNTIME, keep=keep)
    _compile([*wanted_runtime(), *wanted_development()], DEVELOPMENT, "--constraints", str(RUNTIME), keep=keep)


def _project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def _compile(requirements: list[str], target: Path, *options: str, keep: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder) / "wanted.in"
        wanted.write_text("\n".join(requirements), encoding="utf-8")
        output = Path(folder) / "out.lock"
        if keep and target.exists():
            output.write_text(target.read_text(encoding="utf-8"), encoding="utf-8")
        command = [sys.executable, "-m", "uv", "pip", "compile", *_OPTIONS, *options, str(wanted), "-o", str(output)]
        subprocess.run(command, check=True)
        text = output.read_text(encoding="utf-8")
    assert "://" not in text, f"{target.name} would hold an address"
    target.write_text(HEADER + text.removeprefix(HEADER), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", action="store_true")
    lock(keep=parser.parse_args().keep)
