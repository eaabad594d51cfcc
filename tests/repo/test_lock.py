"""The lock files satisfy pyproject.toml, hold hashes, and name no index."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PIN = re.compile(r"^([a-z0-9._-]+)==([^ ;\\]+)", re.MULTILINE)


def lock_tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("lock", ROOT / "tools" / "lock.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pins(name: str) -> dict[str, list[Version]]:
    found: dict[str, list[Version]] = {}
    for package, version in PIN.findall((ROOT / name).read_text(encoding="utf-8")):
        found.setdefault(package, []).append(Version(version))
    return found


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("requirements.lock", ("wanted_runtime",)),
        ("requirements-dev.lock", ("wanted_runtime", "wanted_development")),
    ],
)
def test_lock_satisfies_pyproject(name: str, wanted: tuple[str, ...]) -> None:
    locked = pins(name)
    for function in wanted:
        for text in getattr(lock_tool(), function)():
            requirement = Requirement(text)
            versions = locked.get(requirement.name.lower())
            assert versions, f"{name} lacks {requirement}; run tools/lock.py --keep"
            for version in versions:
                assert version in requirement.specifier, (
                    f"{name} has {requirement.name} {version}, wanted {requirement}"
                )


def test_development_lock_agrees_with_runtime_lock() -> None:
    development = pins("requirements-dev.lock")
    assert {package: development.get(package) for package in pins("requirements.lock")} == pins("requirements.lock")


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_lock_has_hashes_and_no_address(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    blocks = re.split(r"\n(?=[a-z])", text)
    assert [block.split("\n")[0] for block in blocks if "==" in block and "--hash=sha256:" not in block] == []
    assert not re.search(r"://|--index-url|--extra-index-url|--find-links|--trusted-host", text)
