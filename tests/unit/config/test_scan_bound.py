"""A driver that loses its line where it is not read often enough: its devices are refused, with line and column."""

from __future__ import annotations

from pathlib import Path

import pytest

from framegate.config import load_tables
from framegate.contract.errors import Misconfigured
from framegate.contract.plugin import Manifest, RoleEntry

PLUGINS = {
    name: Manifest(name, (1, 1), "1.0", "", Path(), {"driver": RoleEntry("a:B", {}, (), scan_s_max=bound)}, ())
    for name, bound in (("served", 10), ("any", 0))
}


def load(folder: Path, plugin: str, scan: str, *classes: str, enabled: str = "true") -> None:
    (folder / "endpoints.yml").write_text("endpoints: {}\n")
    row = f"{{plugin: {plugin}, enabled: {enabled}, scan: {{{scan}}}}}"
    (folder / "drivers.yml").write_text(f"drivers:\n  substation: {row}\n")
    tags = [
        f"  - {{tag: t{number}, source: substation, address: x, type: bool, scan: {name}}}\n"
        for number, name in enumerate(classes)
    ]
    (folder / "variables.yml").write_text("variables:\n" + "".join(tags) if tags else "variables: []\n")
    load_tables(folder, PLUGINS)


@pytest.mark.parametrize(
    ("plugin", "scan", "classes"),
    [
        ("served", "default: 10s", ["default"]),
        ("served", "default: 60s, fast: 1s", ["default", "fast"]),
        ("any", "default: 60s", ["default"]),
        ("served", "default: 60s", []),
    ],
)
def test_device_that_is_read_often_enough_is_fine(tmp_path: Path, plugin: str, scan: str, classes: list[str]) -> None:
    load(tmp_path, plugin, scan, *classes)


def test_device_that_is_off_may_have_any_period(tmp_path: Path) -> None:
    load(tmp_path, "served", "default: 60s", "default", enabled="false")


@pytest.mark.parametrize(
    ("scan", "classes", "said"),
    [
        ("default: 11s", ["default"], "every 11 s"),
        ("default: 60s, fast: 1s", ["default"], "every 60 s"),
        ("default: 60s, slow: 20s", ["default", "slow"], "every 20 s"),
    ],
)
def test_device_that_is_read_too_seldom_is_refused_at_its_place(
    tmp_path: Path, scan: str, classes: list[str], said: str
) -> None:
    with pytest.raises(Misconfigured) as told:
        load(tmp_path, "served", scan, *classes)
    (problem,) = told.value.problems
    assert (problem.code, problem.path) == ("E4636", ("drivers", "substation", "scan", classes[-1]))
    assert said in problem.text
    assert "every 10 s at least" in problem.text
    assert (problem.line, problem.column) > (1, 1)  # type: ignore[attr-defined]  # load_tables places them
