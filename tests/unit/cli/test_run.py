"""`edge run` and `edge wal` in processes of their own: start, stop, and the starts that are refused."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest

from framegate.cli import exits
from framegate.cli.main import main

START_S_MAX = 30.0


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A gateway without devices: it starts, keeps its log, and stops."""
    write_tables(tmp_path, metrics="")
    return tmp_path


def write_tables(home: Path, *, metrics: str) -> None:
    config = home / "config"
    config.mkdir(exist_ok=True)
    (config / "endpoints.yml").write_text("endpoints: {}\n")
    (config / "drivers.yml").write_text(
        f"gateway: {{name: lab, metrics: '{metrics}'}}\ndrivers: {{}}\nconnectors: {{}}\n"
    )
    (config / "variables.yml").write_text("variables: []\n")


def start(home: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "framegate", "run", "--home", str(home)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ})


@contextmanager
def running(home: Path) -> Iterator[subprocess.Popen[str]]:
    process = start(home)
    try:
        deadline = time.monotonic() + START_S_MAX
        while not (home / "run" / "edge.sock").exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_run_stops_in_order_at_a_signal(home: Path, number: int) -> None:
    with running(home) as gateway:
        began = time.monotonic()
        gateway.send_signal(number)
        out, err = gateway.communicate(timeout=20)
    assert gateway.returncode == exits.OK, err
    assert time.monotonic() - began < 5
    assert out == "", "logs are talk, not data"
    events = [orjson.loads(line)["event"] for line in err.splitlines()]
    assert [event for event in events if event.startswith("gateway_")] == [
        "gateway_started", "gateway_stopping", "gateway_stopped",
    ]  # fmt: skip
    assert not (home / "run" / "edge.sock").exists()


def test_run_in_a_home_that_is_taken_ends_with_75(home: Path) -> None:
    with running(home) as gateway:
        second = start(home)
        _, err = second.communicate(timeout=30)
        assert second.returncode == exits.TRY_AGAIN
        assert err.startswith(f"E4003 home {home}: another gateway (pid {gateway.pid}) runs here")


def test_run_after_a_kill_starts_again(home: Path) -> None:
    with running(home) as gateway:
        gateway.kill()
        gateway.wait()
    assert (home / "run" / "edge.sock").exists(), "left behind by the kill"
    with running(home) as gateway:
        deadline = time.monotonic() + START_S_MAX
        while main(["top", "--once", "-o", "json", "--home", str(home)]) != exits.OK and time.monotonic() < deadline:
            time.sleep(0.05)
        gateway.send_signal(signal.SIGTERM)
        _, err = gateway.communicate(timeout=20)
    assert gateway.returncode == exits.OK, err


def test_run_with_mistakes_shows_them_and_connects_nothing(home: Path) -> None:
    (home / "config" / "endpoints.yml").write_text('endpoints: {plc1: {url: "tpc://127.0.0.1:5020"}}\n')
    process = start(home)
    _, err = process.communicate(timeout=30)
    assert process.returncode == exits.MISCONFIGURED
    assert err.startswith("E2002 endpoints.yml:1:")
    assert not (home / "data").exists()


def test_run_with_a_taken_metrics_port_names_port_and_setting(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        write_tables(home, metrics=f"127.0.0.1:{port}")
        process = start(home)
        _, err = process.communicate(timeout=30)
    assert process.returncode == exits.MISCONFIGURED
    assert f"E4017 metrics address 127.0.0.1:{port}: the port is taken by " in err
    assert "drivers.yml" in err


def test_wal_verbs_read_the_log_beside_a_gateway_and_without_one(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with running(home) as gateway:
        assert main(["wal", "stat", "--home", str(home)]) == exits.OK
        assert orjson.loads(capsys.readouterr().out)["rows"] == 0
        gateway.send_signal(signal.SIGTERM)
        gateway.communicate(timeout=20)
    assert main(["wal", "ls", "--home", str(home)]) == exits.OK
    assert main(["wal", "verify", "--home", str(home)]) == exits.OK
    captured = capsys.readouterr()
    assert orjson.loads(captured.out.splitlines()[-1]) == {
        "first": 1, "last": 0, "records": 0, "rows": 0, "gaps": 0, "holes": [],
    }  # fmt: skip
    assert "every record is whole" in captured.err
    assert main(["wal", "stat", "-o", "table", "--home", str(home)]) == exits.OK
    assert "durable" in capsys.readouterr().out


def test_wal_stat_without_a_log_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["wal", "stat", "--home", str(tmp_path)]) == exits.FAILED
    assert "no durable log is here; check --home" in capsys.readouterr().err
