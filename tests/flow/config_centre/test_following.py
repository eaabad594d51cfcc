"""A gateway takes what is published, reports it, refuses what is bad or damaged, and keeps the last good tables."""

from __future__ import annotations

import asyncio
import json

import pytest

from framegate.config.etcd import follower as follower_module
from framegate.contract.errors import StoreFailed
from framegate.testing.etcd import IS_INSTALLED

from .stage import CONVERGE_S_MAX, ROOT, Stage, until

pytestmark = pytest.mark.skipif(not IS_INSTALLED, reason="etcd and etcdctl are not installed")


async def test_gateway_takes_what_is_published_and_reports_it_under_a_lease(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower_module, "PROBE_S", 600.0)  # the watch alone tells of it
    async with stage.followed() as follower:
        await until(lambda: stage.log.events("centre_empty"))
        await stage.publish(1)
        await until(lambda: stage.applier.running() == stage.tables(1), CONVERGE_S_MAX)
        await until(lambda: stage.report().get("generation") == 1)
        assert follower.running == 1
        assert follower.problem == ""
    report = stage.report()
    assert (report["verdict"], report["running"], report["problems"]) == ("applied", 1, [])
    found = json.loads(stage.etcd.control("get", f"{ROOT}applied/box", "--write-out=json").stdout)
    assert int(found["kvs"][0]["lease"]) != 0
    assert stage.metrics.gauge("edge_centre_applied_generation").value == 1


async def test_flips_between_two_generations_end_on_the_newest(stage: Stage) -> None:
    await stage.publish(1)
    await stage.publish(2)
    async with stage.followed() as follower:
        await until(lambda: follower.running == 2)
        for _ in range(15):
            for number in ("1", "2"):
                stage.control("put", f"{ROOT}head", number)
        stage.control("put", f"{ROOT}head", "1")
        await until(lambda: follower.running == 1 and stage.report().get("generation") == 1, CONVERGE_S_MAX)
        await asyncio.sleep(0.5)  # nothing that was on its way may turn it back
        assert follower.running == 1
    assert stage.applier.running() == stage.tables(1)
    assert set(stage.applier.taken) <= {stage.tables(mark)["endpoints"] for mark in (1, 2)}


async def test_tables_that_run_already_are_not_applied_again(stage: Stage) -> None:
    await stage.publish(1, stage.sample)
    async with stage.followed() as follower:
        await until(lambda: stage.report().get("verdict") == "applied")
        assert follower.running == 1
    assert stage.applier.taken == []


async def test_last_good_tables_stay_over_a_restart_without_etcd(stage: Stage) -> None:
    await stage.publish(1)
    async with stage.followed() as follower:
        await until(lambda: follower.running == 1)
    stage.etcd.kill()
    async with stage.followed() as follower:
        await until(lambda: stage.log.events("centre_lost"))
        assert follower.problem.startswith("etcd is away: E1171")
        assert stage.applier.running() == stage.tables(1)
        stage.etcd.start()
        await until(lambda: follower.running == 1, CONVERGE_S_MAX)
    assert stage.applier.taken == [stage.tables(1)["endpoints"]]


async def test_bad_tables_are_refused_and_reported_without_secrets(stage: Stage) -> None:
    await stage.publish(1)
    wrong = b"\n  leak: {url: 'tcp://x:1', credentials: {username: u, password: 4711}}\n  x: {url: 5}\n"
    bad = stage.tables(2) | {"endpoints": stage.sample["endpoints"] + wrong}
    async with stage.followed() as follower:
        await until(lambda: follower.running == 1)
        assert await stage.publish(2, bad) == 2
        await until(lambda: stage.report().get("generation") == 2)
        report = stage.report()
        assert (report["verdict"], report["running"]) == ("refused", 1)
        assert any("E1108 endpoints.yml:" in str(line) for line in report["problems"])  # type: ignore[attr-defined]
        assert "4711" not in json.dumps(report) + json.dumps(stage.log.events("centre_refused"))
        assert stage.applier.running() == stage.tables(1)
        assert "generation 2" in follower.problem
        await asyncio.sleep(2.5)  # past a probe: it is not tried again and again
        assert stage.applier.refused == 1
        stage.control("put", f"{ROOT}head", "1")
        await until(lambda: stage.report().get("generation") == 1)
        assert stage.report()["verdict"] == "applied"
        assert len(stage.applier.taken) == 1  # it never ceased to run
        await stage.publish(3)
        await until(lambda: follower.running == 3)
        assert follower.problem == ""


async def test_damaged_chunk_is_refused_and_a_new_generation_heals(stage: Stage) -> None:
    await stage.publish(1)
    async with stage.followed() as follower:
        await until(lambda: follower.running == 1)
        await stage.publish(2)
        await until(lambda: follower.running == 2)
        stage.control("put", f"{ROOT}gen/1/variables/0", "junk")
        stage.control("put", f"{ROOT}head", "1")
        await until(lambda: stage.report().get("generation") == 1)
        assert stage.report()["verdict"] == "refused"
        assert "E1178" in json.dumps(stage.report()["problems"])
        stage.control("put", f"{ROOT}head", "not a number")
        await until(lambda: stage.report().get("generation") == 0)
        stage.control("put", f"{ROOT}head", "99")
        await until(lambda: stage.report().get("generation") == 99)
        assert stage.applier.running() == stage.tables(2)
        await stage.publish(3)
        await until(lambda: follower.running == 3)


async def test_gateway_that_cannot_take_tables_now_is_asked_again(stage: Stage) -> None:
    stage.applier.failures = [StoreFailed("the disk is full"), StoreFailed("the disk is full")]
    await stage.publish(1)
    async with stage.followed() as follower:
        await until(lambda: stage.report().get("verdict") == "failed")
        await until(lambda: follower.running == 1)
        await until(lambda: stage.report().get("verdict") == "applied")
    assert len(stage.log.events("centre_refused")) == 1
