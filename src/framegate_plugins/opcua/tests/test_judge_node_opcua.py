"""Judge: npm node-opcua, as a server with limits of its own, signed and encrypted by certificates of its own making."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from framegate.contract.command import Outcome, Write
from framegate.contract.errors import NotConnected
from framegate.contract.frame import TagId, Value
from framegate.contract.quality import Quality
from framegate_plugins.opcua.command import run
from framegate_plugins.opcua.tests.peers import JUDGES, Peer
from framegate_plugins.opcua.tests.stage import OPEN, Stage, rows_in, tags, values_in

NODE, NPM = shutil.which("node"), shutil.which("npm")
INSTALL_S = 110.0
TAGS, MOST_PER_CALL = 1_000, 100


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    if NODE is None or NPM is None:
        pytest.skip("node and npm are not installed")
    folder = tmp_path_factory.mktemp("judges")
    for name in ("package.json", "package-lock.json", "node_opcua.js"):
        shutil.copy(JUDGES / name, folder)
    command = [NPM, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"node-opcua was not installed within {INSTALL_S:g} s")
    if done.returncode:
        pytest.skip(f"node-opcua cannot be installed: {done.stderr[-200:]}")
    with Peer((NODE, "node_opcua.js", "{port}", str(TAGS), str(MOST_PER_CALL)), folder) as peer:
        yield peer


@pytest.mark.timeout(240)
async def test_limit_of_a_hundred_items_per_call_and_one_bad_node_of_a_thousand(stage: Stage, peer: Peer) -> None:
    driver = await stage.open(peer.url, {**OPEN, "timeout": "10s"})
    rows = tags(*(f"ns=1;s=t{number} float64" for number in range(TAGS)))
    rows[7] = rows[7]._replace(address="ns=1;s=gone")
    plan = await stage.follow(driver, rows, period_s=0.2)
    assert driver._session is not None
    assert driver._session.limits.monitor == MOST_PER_CALL
    statuses = {tag: status for tag, _, status in rows_in(await driver.read(plan))}
    assert len(statuses) == TAGS
    assert {tag: status for tag, status in statuses.items() if status} == {7: Quality.BAD_NODE_ID_UNKNOWN}
    writes = [Write(TagId(number), 0.5 + number) for number in range(TAGS) if number != 7]
    assert {result.outcome for result in await driver.write(writes)} == {Outcome.CONFIRMED}
    wanted: dict[int, Value] = {int(write.tag): write.value for write in writes}
    assert await stage.until(driver, plan, lambda found: found.keys() >= wanted.keys()) == wanted


async def test_matrix_is_read_whole_and_by_range(stage: Stage, peer: Peer) -> None:
    driver = await stage.open(peer.url)
    rows = tags("ns=1;s=matrix json", "ns=1;s=matrix json")
    rows[1] = rows[1]._replace(options={"index_range": "1,0:1"})
    found = values_in(await driver.read(driver.plan(rows)))
    assert found[0] == [[1, 2, 3], [4, 5, 6]]
    assert found[1] == [[4, 5]]


async def test_method_answers_are_outcomes(stage: Stage, peer: Peer) -> None:
    driver = await stage.open(peer.url)
    (row,) = tags("ns=1;s=double float64 W")
    found = {found.path[-1]: found async for found in driver.browse("", 1)}
    driver.plan([row._replace(options={"method": found["tags"].address})])
    results = await driver.write([Write(TagId(0), 2.0), Write(TagId(0), -1.0), Write(TagId(0), "x")])
    assert [result.outcome for result in results] == [Outcome.CONFIRMED, Outcome.REJECTED, Outcome.REJECTED]
    assert "BadOutOfRange" in results[1].reason


@pytest.mark.parametrize("policy", ["Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss"])
async def test_secured_session_with_a_user(stage: Stage, peer: Peer, tmp_path: Path, policy: str) -> None:
    (tmp_path / "password").write_text("secret")
    (tmp_path / "password").chmod(0o600)
    secret = f"${{file:{tmp_path / 'password'}}}"
    row: dict[str, Any] = {"credentials": {"username": "operator", "password": secret}}
    options = {"policy": policy, "timeout": "10s"}
    with pytest.raises(NotConnected, match="E2702"):
        await stage.open(peer.url, options, **row)
    assert stage.home is not None
    (seen,) = [each for each in run(["trust", "ls"], stage.home) if each["state"] == "rejected"]
    run(["trust", "add", str(seen["thumbprint"])], stage.home)
    driver = await stage.open(peer.url, options, **row)
    plan = await stage.follow(driver, tags("ns=1;s=t1 float64"))
    (before,) = values_in(await driver.read(plan)).values()
    assert isinstance(before, float)
    (result,) = await driver.write([Write(TagId(0), before + 1)])
    assert result.outcome is Outcome.CONFIRMED
    assert await stage.until(driver, plan, lambda found: 0 in found) == {0: before + 1}
