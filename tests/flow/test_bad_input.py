"""Bad input ends in one clear error: code, what, where, what to do; nothing is started and nothing is lost."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

from framegate.testing import plant

MISCONFIGURED, NOT_PERMITTED = 78, 77


@pytest.fixture
def home(tmp_path: Path) -> Path:
    plant.write_tables(tmp_path, plc="tcp://127.0.0.1:1", broker="tcp://127.0.0.1:2")
    return tmp_path


def replace(home: Path, table: str, old: str, new: str) -> None:
    path = home / "config" / f"{table}.yml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("table", "old", "new", "expected"),
    [
        ("endpoints", "tcp://127.0.0.1:1'", "tpc://127.0.0.1:1'", r"E\d+ endpoints\.yml:2:\d+ .*tpc.*tcp"),
        ("drivers", "unit: 1", "uint: 1", r"E\d+ drivers\.yml:3:\d+ .*uint.*unit"),
        ("variables", "tag: t1,", "tag: t0,", r"E\d+ variables\.yml:3:\d+ .*t0.*variables\.yml:2"),
        ("variables", "hr:3", "4x70000", r"E\d+ variables\.yml:5:\d+ .*70000"),
        ("variables", "type: int16", "type: int61", r"E\d+ variables\.yml:2:\d+ .*int61.*int16"),
        ("drivers", "plugin: modbus", "plugin: modbuz", r"E\d+ drivers\.yml:3:\d+ .*modbuz.*modbus"),
    ],
)
def test_check_wrong_table_names_file_line_and_remedy(
    home: Path, table: str, old: str, new: str, expected: str
) -> None:
    replace(home, table, old, new)
    for verb in ("check", "run"):
        done = plant.edge(verb, "--home", str(home))
        text = done.stdout + done.stderr
        assert done.returncode == MISCONFIGURED, text
        assert re.search(expected, text), text
        assert "Traceback" not in text


def test_check_unreadable_certificate_names_file(home: Path) -> None:
    replace(home, "endpoints", "'tcp://127.0.0.1:2'", "'tls+tcp://127.0.0.1:2', tls: {ca: missing.pem}")
    done = plant.edge("check", "--home", str(home))
    assert done.returncode == MISCONFIGURED
    assert re.search(r"E\d+ endpoints\.yml:3:\d+ .*missing\.pem", done.stdout), done.stdout


def test_run_metrics_port_in_use_names_port_and_setting(home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        plant.write_tables(home, plc="tcp://127.0.0.1:1", broker="tcp://127.0.0.1:2", metrics=port)
        done = plant.edge("run", "--home", str(home))
    assert done.returncode == MISCONFIGURED, done.stderr
    assert re.search(rf"E4017 .*{port}.*metrics", done.stderr.replace("\n", " ")), done.stderr


def test_run_unwritable_home_says_so(home: Path) -> None:
    (home / "data").write_text("a file where the log's folder should be")
    done = plant.edge("run", "--home", str(home))
    assert done.returncode == NOT_PERMITTED, done.stderr
    assert re.search(r"E4002 .*data", done.stderr), done.stderr


def test_run_missing_tables_says_how_to_begin(tmp_path: Path) -> None:
    done = plant.edge("run", "--home", str(tmp_path / "nowhere"))
    assert done.returncode == MISCONFIGURED
    assert "edge init" in done.stderr


def test_check_sample_tables_pass(tmp_path: Path) -> None:
    assert plant.edge("init", str(tmp_path)).returncode == 0
    done = plant.edge("check", "--home", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
