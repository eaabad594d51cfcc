"""Linter, formatter, type checker and layer check, each as a test that shows the tool's own words."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(*command: str) -> None:
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False, timeout=580
    )
    if done.returncode != 0:
        pytest.fail(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}", pytrace=False)


def test_ruff_check_finds_nothing() -> None:
    run("-m", "ruff", "check", ".")


def test_ruff_format_changes_nothing() -> None:
    run("-m", "ruff", "format", "--check", ".")


@pytest.mark.timeout(600)
def test_mypy_strict_finds_nothing() -> None:
    run("-m", "mypy")


@pytest.mark.timeout(600)
def test_mypy_strict_finds_nothing_in_tests_tools_and_benches() -> None:
    run("-m", "mypy", "tests", "tools", "benches")


def test_layers_hold() -> None:
    run("-c", "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))")


def test_api_document_and_table_are_fresh() -> None:
    run(str(ROOT / "tools" / "render_api.py"), "--check")


def test_bench_table_is_fresh() -> None:
    run("-m", "benches.report", "--check")


def test_delivery_tables_are_fresh() -> None:
    run(str(ROOT / "tools" / "render_delivery.py"), "--check")
