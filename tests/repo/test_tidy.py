"""House rules that a machine can check. The rules themselves are in CONTRIBUTING.md."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from framegate.contract.plugin import Manifest
from framegate.package.manifest import read_manifest

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = ROOT / "src" / "framegate_plugins"
MODULE_LINES_MAX = 400
CASES_LINES_MAX = 650
"""Of a test module: it is a list of cases, read one at a time."""
FUNCTION_LINES_MAX = 50
VAGUE_NAMES = frozenset(("utils", "util", "common", "helpers", "helper", "core", "manager", "misc"))
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b|raise NotImplementedError")
MACHINE_PATHS = re.compile(rf"{re.escape(str(ROOT))}/|/home/[a-z]|/root/")
TEXT_SUFFIXES = frozenset((".py", ".md", ".toml", ".proto", ".json", ".yml", ".yaml", ".sh", ".lock", ""))
THIS_FILE = Path(__file__).resolve()

BROAD_EXCEPT_PLACES = {
    "src/framegate/access/audit.py": "edge of the audit log's thread",
    "src/framegate/api/app.py": "edge of a request",
    "src/framegate/bus/commit.py": "edge of the log's thread",
    "src/framegate/bus/probe.py": "edge of a child process",
    "src/framegate/bus/rocks.py": "rocksdict raises bare Exception",
    "src/framegate/carrier/child/python.py": "edge of a driver's process",
    "src/framegate/endpoint/thread.py": "edge of a thread; the waiter raises it",
    "src/framegate/runtime/runtime.py": "supervisor of a slot",
    "src/framegate/runtime/slot.py": "supervisor of a driver",
    "src/framegate/runtime/shift.py": "supervisor of a driver",
    "src/framegate/runtime/begun.py": "supervisor of a driver",
    "src/framegate/northbound/outbox.py": "supervisor of a connector",
    "src/framegate/mapper/rules/engine.py": "supervisor of a rule",
    "src/framegate/mapper/rules/rehearsal.py": "supervisor of a rule",
    "src/framegate/command/dispatch.py": "supervisor of the commands of a device",
    "src/framegate/carrier/wasm/component.py": "edge of C; raised again behind the call",
    "src/framegate/carrier/wasm/raw.py": "edge of C; raised again behind the call",
    "src/framegate/carrier/wasm/worker.py": "edge of a thread; the waiter raises it",
    "src/framegate/cli/main.py": "edge of the process",
    "src/framegate_plugins/opcua/server/connection.py": "edge of a client's bytes",
}
"""Files that may swallow any exception, and why. A handler that ends in `raise` only tidies up; it may be anywhere."""


def tracked() -> list[Path]:
    """Files of the repository, new ones included, ignored ones not."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode == 0:
        paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    else:  # a source archive
        paths = [path for path in ROOT.rglob("*") if not {".venv", "__pycache__", ".git"} & set(path.parts)]
    return sorted(path for path in paths if path.is_file() and "_generated" not in path.parts)


FILES = tracked()
MODULES = [path for path in FILES if path.suffix == ".py"]
PRODUCT = [path for path in MODULES if path.is_relative_to(ROOT / "src") and "tests" not in path.parts]
MANIFESTS = sorted(path.parent for path in PLUGINS.glob("*/plugin.toml"))


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Every function of a module with its length in lines, decorators and docstring not counted."""
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            last = node.end_lineno or node.lineno
            body = node.body
            has_docstring = ast.get_docstring(node) is not None
            docstring = (body[0].end_lineno or 0) - body[0].lineno + 1 if has_docstring else 0
            yield node.name, last - node.lineno + 1 - docstring


def test_modules_are_short() -> None:
    long = {
        name(path): lines
        for path in MODULES
        if (lines := len(path.read_text(encoding="utf-8").splitlines()))
        > (CASES_LINES_MAX if path.name.startswith("test_") else MODULE_LINES_MAX)
    }
    assert long == {}


def test_functions_fit_on_a_screen() -> None:
    tools = [path for path in MODULES if path.is_relative_to(ROOT / "tools")]
    long = {
        f"{name(path)}:{function}": lines
        for path in (*PRODUCT, *tools)
        for function, lines in functions(path)
        if lines > FUNCTION_LINES_MAX
    }
    assert long == {}


def test_modules_begin_with_a_docstring() -> None:
    silent = [name(path) for path in PRODUCT if path.stat().st_size and not _docstring(path)]
    assert silent == []


def test_names_say_what_is_inside() -> None:
    vague = [name(path) for path in MODULES if {path.stem, path.parent.name} & VAGUE_NAMES]
    assert vague == []


def test_nothing_is_left_unfinished() -> None:
    left = {name(path): found for path in MODULES if path != THIS_FILE and (found := _lines_with(UNFINISHED, path))}
    assert left == {}


def test_texts_name_no_machine_path() -> None:
    texts = [path for path in FILES if path.suffix in TEXT_SUFFIXES and path != THIS_FILE]
    left = {name(path): found for path in texts if (found := _lines_with(MACHINE_PATHS, path))}
    assert left == {}


def test_broad_except_stands_only_where_it_may() -> None:
    broad = {name(path) for path in PRODUCT if any(map(_swallows_everything, ast.walk(_tree(path))))}
    assert broad - set(BROAD_EXCEPT_PLACES) == set()


@pytest.mark.parametrize("folder", MANIFESTS, ids=lambda folder: folder.name)
def test_plugin_folder_is_complete(folder: Path) -> None:
    manifest = read_manifest(folder / "plugin.toml")
    missing = [entry for entry in ("README.md", "example.yaml", "tests") if not (folder / entry).exists()]
    missing += [f"{role}.schema.json" for role in manifest.roles if role in ("driver", "connector")
                and not (folder / f"{role}.schema.json").exists()]  # fmt: skip
    assert missing == []
    assert list((folder / "tests").glob("test_*.py"))
    assert manifest.protocols, "no [[protocol]] tells what it speaks and how far that was proven"
    assert _knows_its_name(manifest)


def test_generated_tables_are_fresh() -> None:
    command = [sys.executable, str(ROOT / "tools" / "render_readme.py"), "--check"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (0, "")


def test_readme_lists_every_protocol() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for folder in MANIFESTS:
        if not folder.name.startswith("_"):
            for protocol in read_manifest(folder / "plugin.toml").protocols:
                assert f"| {protocol.name} |" in text


@pytest.mark.parametrize(
    "folder", [folder for folder in MANIFESTS if not folder.name.startswith("_")], ids=lambda f: f.name
)
def test_plugin_readme_has_its_generated_tables(folder: Path) -> None:
    text = (folder / "README.md").read_text(encoding="utf-8")
    for role in read_manifest(folder / "plugin.toml").roles:
        if role in ("driver", "connector"):
            assert f"<!-- table: options {role}.schema.json -->" in text


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _swallows_everything(node: ast.AST) -> bool:
    if not isinstance(node, ast.ExceptHandler) or isinstance(node.body[-1], ast.Raise):
        return False
    return node.type is None or (isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException"))


def _docstring(path: Path) -> str | None:
    return ast.get_docstring(_tree(path))


def _lines_with(pattern: re.Pattern[str], path: Path) -> list[int]:
    text = path.read_text(encoding="utf-8", errors="replace")
    return [number for number, line in enumerate(text.splitlines(), 1) if pattern.search(line)]


def _knows_its_name(manifest: Manifest) -> bool:
    """The template's name has no underscore, so that a copy must choose one."""
    return manifest.name == manifest.folder.name.removeprefix("_")
