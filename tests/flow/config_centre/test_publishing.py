"""What is published lies in etcd as etcdctl and zstd read it, whole, by one of many publishers; old ones go."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import random
import time

import pytest
import zstandard

from framegate.config.etcd import centre as centre_module
from framegate.config.schema import TABLES
from framegate.contract.errors import Busy, Misconfigured
from framegate.testing.etcd import IS_INSTALLED
from framegate.testing.fault_proxy import FaultProxy

from .stage import ROOT, Stage, until

pytestmark = pytest.mark.skipif(not IS_INSTALLED, reason="etcd and etcdctl are not installed")


async def test_publish_lays_out_keys_that_etcdctl_and_zstd_can_read(stage: Stage) -> None:
    assert await stage.publish(1) == 1
    keys = stage.control("get", ROOT, "--prefix", "--keys-only").split()
    tables = [f"{ROOT}gen/1/{table}/0" for table in TABLES]
    assert sorted(keys) == sorted([*tables, f"{ROOT}gen/1/manifest", f"{ROOT}head"])
    assert stage.value("head") == "1"
    manifest = json.loads(stage.value("gen/1/manifest"))
    assert (manifest["author"], manifest["reason"]) == ("ann", "mark 1")
    key = f"{ROOT}gen/1/endpoints/0"
    raw = stage.etcd.control("get", key, "--write-out=json").stdout
    chunk = base64.b64decode(json.loads(raw)["kvs"][0]["value"])
    text = zstandard.ZstdDecompressor().decompressobj().decompress(chunk)
    assert text == stage.tables(1)["endpoints"]
    assert hashlib.sha256(text).hexdigest() == manifest["tables"]["endpoints"]["sha256"]


async def test_large_table_comes_in_chunks_and_arrives_whole(stage: Stage) -> None:
    noise = random.Random(2)
    comments = b"".join(b"# %s\n" % noise.randbytes(50).hex().encode() for _ in range(40_000))
    tables = stage.tables(1) | {"variables": stage.sample["variables"] + comments}
    assert len(tables["variables"]) > 4_000_000
    async with stage.followed() as follower:
        await stage.publish(1, tables)
        await until(lambda: follower.running == 1)
    chunks = [key for key in stage.control("get", ROOT, "--prefix", "--keys-only").split() if "/variables/" in key]
    assert len(chunks) >= 2
    assert stage.applier.running() == tables


async def test_thin_line_is_slow_and_not_broken(stage: Stage) -> None:
    noise = random.Random(3).randbytes(700_000).hex().encode()
    proxy = FaultProxy(stage.etcd.port)
    await proxy.listen()
    proxy.bytes_per_s = 300_000  # a megabyte in base64 takes longer than any silence that is borne
    try:
        async with stage.centre(stage.options_at(f"http://127.0.0.1:{proxy.port}")) as centre:
            tables = stage.tables(1) | {"variables": b"# " + noise}
            seen = await centre.head()
            await centre.publish(tables, author="ann", reason="", time_ns=1, seen=seen)
            assert await centre.tables(await centre.manifest(1)) == tables
    finally:
        await proxy.close()


async def test_two_publishers_at_once_one_wins_and_nothing_is_mixed(stage: Stage) -> None:
    await stage.publish(1)
    async with stage.centre() as centre:
        for _ in range(10):
            seen = await centre.head()
            attempts = [
                centre.publish(stage.tables(mark), author=f"{mark}", reason="", time_ns=time.time_ns(), seen=seen)
                for mark in (2, 3)
            ]
            done = await asyncio.gather(*attempts, return_exceptions=True)
            lost = [error for error in done if isinstance(error, BaseException)]
            assert len(lost) == 1
            assert isinstance(lost[0], Busy)
            assert lost[0].stable_code == "E1176"
            head = await centre.head()
            assert head.generation is not None
            manifest = await centre.manifest(head.generation)
            assert await centre.tables(manifest) == stage.tables(int(manifest.author))


async def test_publisher_with_an_old_head_is_told_and_leaves_nothing(stage: Stage) -> None:
    async with stage.centre() as centre:
        seen = await centre.head()
        await stage.publish(1)
        with pytest.raises(Busy, match="the head moved from nothing to 1 meanwhile"):
            await centre.publish(stage.tables(2), author="bob", reason="", time_ns=time.time_ns(), seen=seen)
        with pytest.raises(Busy):
            await centre.switch(1, seen)
    assert stage.value("head") == "1"
    assert f"{ROOT}gen/2/" not in stage.control("get", ROOT, "--prefix", "--keys-only")


async def test_old_generations_go_and_the_head_stays(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(centre_module, "GENERATIONS_KEPT", 3)
    for mark in range(1, 5):
        await stage.publish(mark)
    async with stage.centre() as centre:
        assert await centre.generations() == [4, 3, 2]
        await centre.switch(2, await centre.head())
        assert await stage.publish(5) == 5
        assert await stage.publish(6) == 6
        assert await centre.generations() == [6, 5, 4]
        with pytest.raises(Misconfigured) as caught:
            await centre.switch(2, await centre.head())
    assert caught.value.stable_code == "E1177"


async def test_generation_that_becomes_the_head_while_old_ones_go_stays(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for mark in (1, 2, 3):
        await stage.publish(mark)
    monkeypatch.setattr(centre_module, "GENERATIONS_KEPT", 1)
    async with stage.centre() as centre:
        await centre.switch(1, await centre.head())
        await centre._remove_old({1, 2, 3}, 3)
        assert await centre.generations() == [3, 1]
