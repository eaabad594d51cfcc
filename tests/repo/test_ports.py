"""Clock, chance, network and disk are handed in: the logic that a simulation must own reaches for none of them.

Only the adapters named here touch the real thing; each entry says what it adapts.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src" / "framegate"
PURE_LAYERS = ("contract", "mapper", "bus", "northbound", "command")
FORBIDDEN = frozenset(("time", "random", "secrets", "uuid", "os", "socket", "threading", "subprocess", "ssl", "shutil"))

ADAPTERS = {
    "bus/ballast.py": "space given up when the disk is full",
    "bus/commit.py": "the thread that syncs",
    "bus/highwater.py": "the high-water mark's file",
    "bus/opening.py": "finds the store's folders and sets damaged ones aside",
    "bus/probe.py": "the child that opens a store first",
    "bus/rocks.py": "Disk over RocksDB",
    "bus/salvage.py": "copies what can be read out of a damaged store",
    "contract/ports.py": "the type of a socket that is handed over",
    "mapper/rules/model_source.py": "the thread that looks for newer models, and their files",
    "mapper/rules/onnx_model.py": "measures a model, and ends its run at the deadline",
    "mapper/rules/registry.py": "asks a model registry, in that thread",
}


def imported(path: Path) -> set[str]:
    """Top names of every module a file imports, wherever the import stands."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.partition(".")[0])
    return names


def modules(layer: str) -> list[Path]:
    return [path for path in sorted((SOURCE / layer).rglob("*.py")) if "_generated" not in path.parts]


@pytest.mark.parametrize("layer", PURE_LAYERS)
def test_pure_layer_imports_no_clock_chance_network_or_disk(layer: str) -> None:
    found = {
        str(path.relative_to(SOURCE)): sorted(imported(path) & FORBIDDEN)
        for path in modules(layer)
        if str(path.relative_to(SOURCE)) not in ADAPTERS
    }
    assert {name: hits for name, hits in found.items() if hits} == {}


def test_adapters_that_are_named_exist_and_need_their_exception() -> None:
    idle = [name for name in ADAPTERS if not (SOURCE / name).exists() or not imported(SOURCE / name) & FORBIDDEN]
    assert idle == []


@pytest.mark.parametrize("statement", ["import time", "from os import path", "def f():\n    import random.x"])
def test_imported_sees_every_way_to_import(tmp_path: Path, statement: str) -> None:
    file = tmp_path / "m.py"
    file.write_text(statement)
    assert imported(file) & FORBIDDEN
