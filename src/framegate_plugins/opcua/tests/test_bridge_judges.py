"""Judges of the bridge that share no code with it: node-opcua and open62541 browse, read, subscribe and write."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from framegate.contract.frame import Value, ValueType
from framegate_plugins.opcua.tests.bridge_stage import Place, stage
from framegate_plugins.opcua.tests.bridge_trial import TYPES, Wanted, batches_of, make_wanted

NODE, NPM = shutil.which("node"), shutil.which("npm")
HERE = Path(__file__).parent
DEADLINE_S = 40.0
INSTALL_S = 120.0
WANTED = 10 * len(TYPES)


@pytest.fixture(scope="module")
def judges(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The node-opcua client with its packages installed."""
    if NODE is None or NPM is None:
        pytest.skip("node and npm are not installed")
    folder = tmp_path_factory.mktemp("judges")
    for file in (HERE / "bridge_judges").iterdir():
        shutil.copy(file, folder)
    command = [NPM, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    if done.returncode:
        pytest.skip(f"node-opcua cannot be installed: {done.stderr[-200:]}")
    return folder


async def test_node_opcua_finds_no_difference(tmp_path: Path, judges: Path) -> None:
    assert NODE is not None
    wanted = make_wanted(WANTED)
    async with stage(tmp_path, [each.tag for each in wanted]) as place:
        found = await _judged(place, wanted, [NODE, "client.js"], judges)
    assert found == []


async def test_open62541_finds_no_difference(tmp_path: Path) -> None:
    if importlib.util.find_spec("o6") is None:
        pytest.skip("o6 is not installed")
    wanted = make_wanted(WANTED)
    async with stage(tmp_path, [each.tag for each in wanted]) as place:
        found = await _judged(place, wanted, [sys.executable, str(HERE / "o6_client.py")], tmp_path)
    assert found == []


@pytest.mark.parametrize("policy", ["Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss"])
async def test_node_opcua_logs_in_over_each_secure_policy(tmp_path: Path, judges: Path, policy: str) -> None:
    assert NODE is not None
    wanted = make_wanted(len(TYPES))
    users = [{"name": "scada", "password": "${file:secret}", "role": "operator"}]
    (tmp_path / "secret").write_text("korrekt pferd\n")
    async with stage(tmp_path, [each.tag for each in wanted], {"users": users, "trust": "any"}) as place:
        more = {"secure": policy, "user": "scada", "password": "korrekt pferd"}
        found = await _judged(place, wanted, [NODE, "client.js"], judges, more)
    assert found == []
    assert {record.origin for record in place.desk.records.values()} == {"bridge:scada/scada"}


async def _judged(
    place: Place, wanted: Sequence[Wanted], command: list[str], folder: Path, more: dict[str, Any] | None = None
) -> list[str]:
    """Differences between what a judge found and what the bridge was told."""
    place.bridge.update(batches_of(wanted))
    tags = [
        {"name": each.tag.name, "type": TYPES[each.tag.type], "write": _plain(each.tag.type, each.written)}
        for each in wanted
    ]
    asked = {"url": place.url, "tags": tags, **(more or {})}
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe, cwd=folder)
    try:
        async with asyncio.timeout(DEADLINE_S):
            out, err = await process.communicate((json.dumps(asked) + "\n").encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    line = next((line for line in out.decode().splitlines() if line.startswith("FOUND ")), "")
    assert line, (out.decode()[-1_000:], err.decode()[-1_000:], place.refusals())
    return _differences(json.loads(line.removeprefix("FOUND ")), wanted, place)


def _differences(found: dict[str, Any], wanted: Sequence[Wanted], place: Place) -> list[str]:
    names = {each.tag.name for each in wanted}
    differences = [f"{name}: not browsed" for name in names ^ set(found["names"])]
    sent = {command.tag: command.value for command in place.desk.sent}
    for each, value, result in zip(wanted, found["values"], found["results"], strict=True):
        name, expected = each.tag.name, _expected(each)
        for how, got in (("read", value), ("notified", found["notified"].get(name))):
            if got is None or not _is_like(got, expected):
                differences.append(f"{name}: {how}: {got} is not {expected}")
        if result.upper() != "GOOD" or sent.get(name) != each.written:
            differences.append(f"{name}: written: {result}, {sent.get(name)!r} is not {each.written!r}")
    return differences


def _is_like(got: dict[str, Any], expected: dict[str, Any]) -> bool:
    is_time = got["source"].startswith(expected["source"][:23])  # to the millisecond, which JavaScript has
    return is_time and all(got[key] == expected[key] for key in ("type", "value", "status"))


def _expected(wanted: Wanted) -> dict[str, Any]:
    is_bad = bool(wanted.status & 0x8000_0000)
    return {
        "type": "Null" if is_bad else TYPES[wanted.tag.type],
        "value": None if is_bad else _plain(wanted.tag.type, wanted.value),
        "status": wanted.status,
        "source": datetime.fromtimestamp(wanted.source_ns // 1_000_000 / 1_000, UTC).isoformat(timespec="milliseconds"),
    }


def _plain(type_: ValueType, value: Value) -> Any:
    """A value as judges write it in JSON."""
    if isinstance(value, bytes):
        return value.hex()
    return str(value) if type_ in {ValueType.INT64, ValueType.UINT64} else value
