"""Judges of the bridge that share no code with it: node-opcua and open62541 browse, read, subscribe and write."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from framegate_plugins.opcua.tests.bridge_stage import Place, stage
from framegate_plugins.opcua.tests.bridge_trial import TYPES, Wanted, batches_of, make_wanted
from framegate_plugins.opcua.tests.judging import ask, differences

NODE, NPM = shutil.which("node"), shutil.which("npm")
HERE = Path(__file__).parent
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
    found = await ask(command, folder, place.url, wanted, more)
    return differences(found, wanted, {command.tag: command.value for command in place.desk.sent})
