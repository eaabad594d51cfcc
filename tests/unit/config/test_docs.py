"""Examples of the pages on templates and spreadsheets do what their pages say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from framegate.config import Tables, check_plugins, lint_tables, load_tables, write_samples
from framegate.config.sheet import plan_import
from framegate.gateway.binding import Factories
from framegate.package.discover import discover

DOCS = Path(__file__).resolve().parents[3] / "docs"
PLUGINS = discover()


def examples(page: str, language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )


def loaded(folder: Path, variables: str) -> Tables:
    write_samples(folder, PLUGINS)
    (folder / "variables.yml").write_text(variables, encoding="utf-8")
    tables = load_tables(folder, PLUGINS)
    factories = Factories(PLUGINS)
    check_plugins(tables, factories.driver, factories.connector)
    assert lint_tables(tables, factories.driver, folder) == ()
    return tables


@pytest.mark.parametrize(
    ("number", "count", "tags"),
    [(0, 300, {"M001.voltage", "M100.energy"}), (1, 6, {"PA.running", "PX.rps"})],
)
def test_templates_of_the_page_make_their_tags(tmp_path: Path, number: int, count: int, tags: set[str]) -> None:
    tables = loaded(tmp_path, examples("reference/templates.md", "yaml")[number])
    assert len(tables.variables) == count
    assert tags <= {row.tag for row in tables.variables}


def test_hundred_meters_take_ten_lines() -> None:
    assert len(examples("reference/templates.md", "yaml")[0].splitlines()) == 10


def test_sheet_of_the_page_is_imported(tmp_path: Path) -> None:
    write_samples(tmp_path, PLUGINS)
    (sheet,) = examples("how-to/tags-from-a-spreadsheet.md", "csv")
    plan = plan_import(tmp_path, PLUGINS, "sheet.csv", sheet.encode(), "merge")
    assert [(change.action, change.tag) for change in plan.report] == [
        ("added", "boiler.pressure"),
        ("added", "boiler.burner"),
    ]
    (tmp_path / "variables.yml").write_bytes(plan.data)
    assert len(load_tables(tmp_path, PLUGINS).variables) == 7
