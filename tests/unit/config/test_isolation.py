"""The key `isolation`: which shapes take it, and what an operator has to allow first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from framegate.config import Tables, load_tables
from framegate.config.isolation import isolation_of
from framegate.config.rows import DriverRow
from framegate.contract.errors import Misconfigured
from framegate.contract.plugin import Manifest, Permissions, RoleEntry, Shape


def manifest(name: str, shape: Shape, **asked: Any) -> Manifest:
    entry = RoleEntry("" if shape != "python" else "a:B", {}, (), shape, "" if shape == "python" else "plugin.so")
    return Manifest(name, (1, 1), "1.0", "", Path(), {"driver": entry}, (), permissions=Permissions(**asked))


PLUGINS = {
    "plain": manifest("plain", "python"),
    "fast": manifest("fast", "native", in_process=True),
    "shy": manifest("shy", "native"),
    "boxed": manifest("boxed", "wasm"),
}


def load(folder: Path, plugin: str, isolation: str, trusted: str = "") -> Tables:
    key = f", isolation: {isolation}" if isolation else ""
    gateway = f"gateway: {{plugins: {{in_process: [{trusted}]}}}}\n" if trusted else ""
    (folder / "endpoints.yml").write_text("endpoints: {}\n")
    (folder / "drivers.yml").write_text(f"{gateway}drivers:\n  d: {{plugin: {plugin}{key}}}\n")
    (folder / "variables.yml").write_text("variables: []\n")
    return load_tables(folder, PLUGINS)


@pytest.mark.parametrize(
    ("plugin", "isolation", "trusted", "runs"),
    [
        ("plain", "", "", "none"),
        ("plain", "none", "", "none"),
        ("plain", "process", "", "process"),
        ("fast", "", "", "process"),
        ("fast", "process", "", "process"),
        ("fast", "none", "fast", "none"),
        ("boxed", "", "", ""),
    ],
)
def test_isolation_fits_the_shape_and_what_is_allowed(
    tmp_path: Path, plugin: str, isolation: str, trusted: str, runs: str
) -> None:
    row = load(tmp_path, plugin, isolation, trusted).drivers["d"]
    assert isolation_of(row, PLUGINS[plugin].roles["driver"].shape) == runs


@pytest.mark.parametrize(
    ("plugin", "isolation", "trusted", "words"),
    [
        ("fast", "none", "", "add it to gateway.plugins.in_process if a crash of it may end the gateway"),
        ("fast", "none", "shy", "add it to gateway.plugins.in_process"),
        ("shy", "none", "shy", "does not ask to run inside the gateway"),
        ("boxed", "none", "boxed", "is a WASM driver, which is confined either way; remove this key"),
        ("boxed", "process", "", "is a WASM driver"),
        ("plain", "child", "", "process"),
    ],
)
def test_isolation_that_cannot_be_is_told_at_its_place(
    tmp_path: Path, plugin: str, isolation: str, trusted: str, words: str
) -> None:
    with pytest.raises(Misconfigured) as caught:
        load(tmp_path, plugin, isolation, trusted)
    (problem,) = caught.value.problems
    assert problem.path == ("drivers", "d", "isolation")
    assert words in problem.text
    assert problem.code == ("E4654" if isolation != "child" else problem.code)


def test_isolation_of_a_plugin_that_is_not_there_is_not_told_twice(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured) as caught:
        load(tmp_path, "absent", "none")
    assert [problem.code for problem in caught.value.problems] == ["E1111"]


def test_row_without_the_key_says_nothing_of_it() -> None:
    assert DriverRow("d", "plain", "", {}, {}, enabled=True).isolation == ""
