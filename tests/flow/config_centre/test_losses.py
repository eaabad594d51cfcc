"""etcd that is killed, paused, cut off, compacted or short of members is lost and found again."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from framegate.config.etcd import report as report_module
from framegate.package.discover import Plugins
from framegate.testing.etcd import IS_INSTALLED, make_cluster
from framegate.testing.fault_proxy import FaultProxy

from .stage import CONVERGE_S_MAX, ROOT, WAIT_S_MAX, Stage, runs, until

pytestmark = pytest.mark.skipif(not IS_INSTALLED, reason="etcd and etcdctl are not installed")

OUTAGES = int(os.environ.get("EDGE_CENTRE_OUTAGES", "6"))
"""Outages of the campaign; about 4 s each."""


async def test_etcd_killed_and_started_again_is_found_again(stage: Stage) -> None:
    await stage.publish(1)
    async with stage.followed() as follower:
        await until(lambda: follower.running == 1)
        for mark in (2, 3):
            stage.etcd.kill()
            await until(partial(stage.has_lost, mark - 1))
            await asyncio.sleep(1.0)
            stage.etcd.start()
            assert await stage.publish(mark) == mark
            await until(partial(runs, follower, mark), CONVERGE_S_MAX)
    assert len(stage.log.events("centre_lost")) == 2


@pytest.mark.parametrize("cut", ["refuse", "black hole", "reset"])
async def test_change_behind_a_cut_network_arrives_within_seconds(stage: Stage, cut: str) -> None:
    await stage.publish(1)
    proxy = FaultProxy(stage.etcd.port)
    await proxy.listen()
    try:
        async with stage.followed(stage.options_at(f"http://127.0.0.1:{proxy.port}")) as follower:
            await until(lambda: follower.running == 1)
            if cut == "refuse":
                await proxy.close()
            elif cut == "black hole":
                proxy.is_black_hole = True
            else:
                proxy.reset()
            if cut != "reset":
                await until(lambda: stage.log.events("centre_lost"))
            for mark in (2, 3, 4):
                await stage.publish(mark)
            revision = json.loads(stage.control("get", f"{ROOT}head", "--write-out=json"))["header"]["revision"]
            stage.control("compact", str(revision))
            proxy.is_black_hole = False
            if cut == "refuse":
                await proxy.listen()
            await until(lambda: follower.running == 4, CONVERGE_S_MAX)
            await until(lambda: stage.report().get("generation") == 4)
    finally:
        await proxy.close()
    assert stage.applier.running() == stage.tables(4)


async def test_cluster_is_followed_while_most_of_its_members_run(tmp_path: Path, plugins: Plugins) -> None:
    members = make_cluster(tmp_path, 3)
    try:
        for member in members:
            member.launch()
        for member in members:
            member.wait()
        stage = Stage(tmp_path, members[2], plugins)
        stage.options = replace(stage.options, endpoints=tuple(member.url for member in members))
        await stage.publish(1)
        async with stage.followed() as follower:
            await until(lambda: follower.running == 1)
            members[0].kill()  # the one that is being asked
            await stage.publish(2)
            await until(lambda: follower.running == 2, CONVERGE_S_MAX)
            members[0].start()
            members[1].pause()
            await stage.publish(3)
            await until(lambda: follower.running == 3, CONVERGE_S_MAX)
            members[1].resume()
    finally:
        for member in members:
            member.kill()


async def test_paused_etcd_is_lost_and_found(stage: Stage) -> None:
    await stage.publish(1)
    async with stage.followed() as follower:
        await until(lambda: follower.running == 1)
        stage.etcd.pause()
        await until(lambda: stage.log.events("centre_lost"), 6.0)
        assert stage.metrics.gauge("edge_centre_connected").value == 0
        stage.etcd.resume()
        await stage.publish(2)
        await until(lambda: follower.running == 2, CONVERGE_S_MAX)


async def fault(stage: Stage, proxy: FaultProxy, dice: random.Random) -> None:
    """One outage of a random kind while the head moves; etcd can be reached when it returns."""
    kind = dice.choice(("kill", "pause", "black hole", "refuse", "reset"))
    if kind == "kill":
        stage.etcd.kill()
        await asyncio.sleep(dice.uniform(0.0, 3.0))
        stage.etcd.start()
    elif kind == "pause":
        stage.etcd.pause()
        await asyncio.sleep(dice.uniform(0.0, 4.0))
        stage.etcd.resume()
    elif kind == "reset":
        proxy.reset()
    proxy.is_black_hole = kind == "black hole"
    if kind == "refuse":
        await proxy.close()
    for _ in range(dice.randint(1, 3)):
        await stage.publish(dice.randint(1, 1_000_000))
        await asyncio.sleep(dice.uniform(0.0, 1.5))
        stage.control("put", f"{ROOT}head", "1")
    await stage.publish(dice.randint(1, 1_000_000))
    revision = json.loads(stage.control("get", f"{ROOT}head", "--write-out=json"))["header"]["revision"]
    if dice.random() < 0.5:
        stage.control("compact", str(revision))
    proxy.is_black_hole = False
    if kind == "refuse":
        await proxy.listen()


@pytest.mark.campaign
async def test_random_outages_end_on_the_newest_generation_within_seconds(stage: Stage) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    sys.stderr.write(f"seed {seed}\n")
    dice = random.Random(seed)
    await stage.publish(1)
    proxy = FaultProxy(stage.etcd.port)
    await proxy.listen()
    try:
        async with stage.followed(stage.options_at(f"http://127.0.0.1:{proxy.port}")) as follower:
            for _ in range(OUTAGES):
                await fault(stage, proxy, dice)
                await until(partial(runs, follower, int(stage.value("head"))), CONVERGE_S_MAX)
                newest = int(stage.value("head"))
                async with stage.centre() as centre:
                    assert await centre.tables(await centre.manifest(newest)) == stage.applier.running()
    finally:
        await proxy.close()


async def test_watch_from_a_compacted_revision_says_so(stage: Stage) -> None:
    await stage.publish(1)
    await stage.publish(2)
    revision = json.loads(stage.control("get", f"{ROOT}head", "--write-out=json"))["header"]["revision"]
    stage.control("compact", str(revision))
    async with stage.centre() as centre, asyncio.timeout(WAIT_S_MAX):
        seen = [moved async for moved in centre.client.watch(centre.head_key, 1)]
    assert seen[-1].compacted


async def test_report_goes_with_its_gateway_and_comes_back_after_a_lost_lease(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_module, "LEASE_S", 2)
    monkeypatch.setattr(report_module, "KEEP_ALIVE_S", 0.5)
    await stage.publish(1)
    async with stage.followed():
        await until(stage.report)
        await asyncio.sleep(4.0)  # two lifetimes: kept alive
        assert stage.report()
        found = json.loads(stage.control("get", f"{ROOT}applied/box", "--write-out=json"))
        stage.control("lease", "revoke", f"{int(found['kvs'][0]['lease']):x}")
        assert not stage.report()
        await until(stage.report)
    await until(lambda: not stage.report(), 10.0)
    async with stage.centre() as centre:
        assert await centre.reports() == []
