"""The casebook: each folder under cases/ holds what broke and, line by line, what the operator is told.

A table that a case does not have is taken from cases/base.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from framegate.config import ConnectorRow, DriverRow, check_plugins, load_tables, render_problems
from framegate.contract.connector import Connector
from framegate.contract.driver import Driver
from framegate.contract.errors import Misconfigured
from framegate.contract.plugin import Manifest

CASES = Path(__file__).with_name("cases")


def told(
    folder: Path,
    plugins: Mapping[str, Manifest],
    make_driver: Callable[[DriverRow], Driver],
    make_connector: Callable[[ConnectorRow], Connector],
) -> str:
    """What `edge check` would print."""
    try:
        tables = load_tables(folder, plugins)
        lines = render_problems(tables.warnings, folder)
        check_plugins(tables, make_driver, make_connector)
    except Misconfigured as error:
        lines = render_problems(error.problems, folder)
    return "".join(f"{line}\n" for line in lines).replace(str(folder), "FOLDER")


@pytest.mark.parametrize("name", sorted(path.name for path in CASES.iterdir()))
def test_case_rendered_matches_expected(
    name: str,
    tmp_path: Path,
    plugins: Mapping[str, Manifest],
    make_driver: Callable[[DriverRow], Driver],
    make_connector: Callable[[ConnectorRow], Connector],
) -> None:
    for table in ("endpoints.yml", "drivers.yml", "variables.yml"):
        own = CASES / name / table
        shutil.copy(own if own.exists() else CASES / "base" / table, tmp_path / table)
    expected = (CASES / name / "expected.txt").read_text(encoding="utf-8")
    assert told(tmp_path, plugins, make_driver, make_connector) == expected
