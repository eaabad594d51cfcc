"""The page on rules is true: its examples run, and its table of alarm states is the one that runs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from framegate.config.validate import load_rules
from framegate.gateway.home import Home
from framegate.gateway.recording import derive, recorded
from framegate.gateway.rules import make_rules
from framegate.mapper.rules.alarm_states import text_table
from framegate.mapper.rules.figures import FUNCTIONS
from framegate.observe.metrics import Metrics
from framegate.testing.fakes import FakeClock

from .conftest import SECOND, START_NS, QuietLog

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "rules.md").read_text("utf-8")


def derived_by(folder: Path, rules: str, values: dict[str, list[float]]) -> list[tuple[str, Any]]:
    (folder / "rules.yml").write_text(rules)
    with (folder / "plant.jsonl").open("w") as file:
        for second in range(len(next(iter(values.values())))):
            for tag, column in values.items():
                row = {"tag": tag, "time": START_NS + second * SECOND, "value": column[second], "quality": "Good"}
                file.write(json.dumps(row) + "\n")
    with recorded(folder / "plant.jsonl") as (catalogue, names, batches):
        rows = load_rules(folder / "rules.yml")
        entries = make_rules(rows, catalogue, names, Home(folder), {}, QuietLog(), Metrics())
        return [
            (catalogue.tag(tag).name, value)
            for batch in derive(entries, batches, catalogue, FakeClock(), QuietLog())
            for tag, value in zip(batch.tag.tolist(), batch.value.tolist(), strict=True)
        ]


def test_the_examples_of_the_page_run(tmp_path: Path) -> None:
    windows, alarms = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert len(yaml.safe_load(windows)["rules"]) == len(yaml.safe_load(alarms)["rules"]) == 1
    values = {"pump1.flow": [float(at) for at in range(63)], "tank1.level": [float(at % 5) for at in range(63)]}
    found = dict(derived_by(tmp_path, windows, values))
    assert found["pump1.flow.max_1m"] == 59.0
    assert found["tank1.level.avg_1m"] == 2.0
    told = derived_by(tmp_path, alarms, {"tank1.level": [80.0, 85.0, 85.1, 85.2, 85.2, 84.0, 82.0]})
    example = json.loads(re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)[0])
    rows = [json.loads(value) for name, value in told if name == "alarm.tank1.high"]
    assert [row["state"] for row in rows] == ["normal", "unack", "rtn_unack"]
    assert {**rows[1], "time": ""} == {**example, "time": ""}


def test_the_table_of_alarm_states_is_the_one_that_runs() -> None:
    assert f"<!-- table: alarm states -->\n{text_table()}<!-- /table -->" in PAGE


def test_the_page_names_every_function() -> None:
    assert [function for function in FUNCTIONS if f"`{function}`" not in PAGE] == []
