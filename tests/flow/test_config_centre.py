"""The config centre on a real etcd: published, followed, cut off, restarted, locked, damaged; judged with etcdctl.

The gateway's side here is a follower with an applier that validates as the gateway does and keeps the tables in a
folder; what it took is in its list, and so is what it refused.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import random
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import pytest
import zstandard

from framegate.config import load_tables, write_samples
from framegate.config.etcd import Centre, CentreOptions, Client, Follower, following, read_options
from framegate.config.etcd import centre as centre_module
from framegate.config.etcd import follower as follower_module
from framegate.config.etcd import report as report_module
from framegate.config.schema import TABLES, Table
from framegate.contract.errors import Busy, GatewayError, Misconfigured, NotConnected, StoreFailed
from framegate.endpoint.clock import SystemClock
from framegate.endpoint.endpoint import CredentialsReference
from framegate.observe.metrics import Metrics
from framegate.runtime.discover import Plugins, discover
from framegate.testing.etcd import IS_INSTALLED, Etcd, make_cluster
from framegate.testing.fakes import CollectingLog
from framegate.testing.fault_proxy import FaultProxy

pytestmark = pytest.mark.skipif(not IS_INSTALLED, reason="etcd and etcdctl are not installed")

CONVERGE_S_MAX = 5.0
"""From the moment that etcd can be reached again to the newest generation."""
WAIT_S_MAX = 20.0
OUTAGES = int(os.environ.get("EDGE_CENTRE_OUTAGES", "6"))
"""Outages of the campaign; about 4 s each."""
ROOT = "edge/plant1/line4/"


@dataclass
class FolderApplier:
    """Takes tables as a gateway does: validated beside their folder, then written to it, all or nothing."""

    folder: Path
    plugins: Plugins
    taken: list[bytes] = field(default_factory=list)
    refused: int = 0
    failures: list[GatewayError] = field(default_factory=list)

    async def submit(self, texts: Mapping[Table, bytes], author: str, reason: str, source: Literal["etcd"]) -> None:
        if self.failures:
            raise self.failures.pop()
        stage = self.folder.with_name("stage")
        stage.mkdir(exist_ok=True)
        for table, text in texts.items():
            (stage / f"{table}.yml").write_bytes(text)
        try:
            load_tables(stage, self.plugins)
        except Misconfigured:
            self.refused += 1
            raise
        for table in TABLES:
            (stage / f"{table}.yml").replace(self.folder / f"{table}.yml")
        self.taken.append(texts["endpoints"])

    def running(self) -> dict[Table, bytes]:
        return {table: (self.folder / f"{table}.yml").read_bytes() for table in TABLES}


class Stage:
    """One etcd, one publisher, and what a gateway has on disk."""

    def __init__(self, folder: Path, etcd: Etcd, plugins: Plugins) -> None:
        self.folder, self.etcd = folder, etcd
        config = folder / "config"
        write_samples(config, plugins)
        self.applier = FolderApplier(config, plugins)
        self.sample = self.applier.running()
        self.log = CollectingLog()
        self.metrics = Metrics()
        self.options = self.options_at(etcd.url)

    def options_at(self, url: str) -> CentreOptions:
        file = self.folder / "config-centre.yml"
        file.write_text(f"endpoints: ['{url}']\nsite: plant1\ngateway: line4\ninstance: box\n")
        return read_options(file)

    def tables(self, mark: int) -> dict[Table, bytes]:
        """Good tables that differ by their mark."""
        return self.sample | {"endpoints": self.sample["endpoints"] + f"# {mark}\n".encode()}

    @contextlib.asynccontextmanager
    async def centre(self, options: CentreOptions | None = None) -> AsyncIterator[Centre]:
        client = Client(options or self.options)
        try:
            yield Centre(client, ROOT)
        finally:
            await client.close()

    async def publish(self, mark: int, tables: Mapping[Table, bytes] | None = None) -> int:
        async with self.centre() as centre:
            made = await centre.publish(
                tables or self.tables(mark), author="ann", reason=f"mark {mark}", time_ns=time.time_ns(),
                seen=await centre.head(),
            )  # fmt: skip
        return made.generation

    @contextlib.asynccontextmanager
    async def followed(self, options: CentreOptions | None = None) -> AsyncIterator[Follower]:
        async with following(
            options or self.options, self.applier, self.applier.running(), clock=SystemClock(),
            dice=random.Random(1), log=self.log, metrics=self.metrics,
        ) as follower:  # fmt: skip
            yield follower

    def has_lost(self, times: int) -> bool:
        return len(self.log.events("centre_lost")) == times

    def control(self, *words: str) -> str:
        return self.etcd.control(*words).stdout

    def value(self, key: str) -> str:
        return self.control("get", ROOT + key, "--print-value-only").rstrip("\n")

    def report(self) -> dict[str, object]:
        text = self.value("applied/box")
        found: dict[str, object] = json.loads(text) if text else {}
        return found


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    return discover()


@pytest.fixture
def stage(tmp_path: Path, etcd: Etcd, plugins: Plugins) -> Stage:
    return Stage(tmp_path, etcd, plugins)


async def until(is_so: Callable[[], object], seconds: float = WAIT_S_MAX) -> None:
    """Wait for a condition, for so long at most."""
    begun = time.monotonic()
    while not is_so():
        assert time.monotonic() - begun < seconds, f"not so within {seconds} s"
        await asyncio.sleep(0.02)


def runs(follower: Follower, generation: int) -> bool:
    return follower.running == generation


# -- layout, publishing -----------------------------------------------------------------------------------------------


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


# -- following --------------------------------------------------------------------------------------------------------


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


# -- losses -----------------------------------------------------------------------------------------------------------


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


# -- login ------------------------------------------------------------------------------------------------------------


def lock(etcd: Etcd) -> None:
    """Users: root; publisher, who may write all; box, who may read, and write reports only."""
    for words in (
        ("user", "add", "root:root-pw"), ("user", "grant-role", "root", "root"), ("role", "add", "publisher"),
        ("role", "grant-permission", "publisher", "--prefix=true", "readwrite", ROOT), ("role", "add", "gateway"),
        ("role", "grant-permission", "gateway", "--prefix=true", "read", ROOT),
        ("role", "grant-permission", "gateway", "--prefix=true", "readwrite", f"{ROOT}applied/"),
        ("user", "add", "ann:ann-pw"), ("user", "grant-role", "ann", "publisher"),
        ("user", "add", "box:box-pw"), ("user", "grant-role", "box", "gateway"), ("auth", "enable"),
    ):  # fmt: skip
        etcd.control(*words)
    etcd.control_options = ("--user=root:root-pw",)


def login(options: CentreOptions, name: str, password: str) -> CentreOptions:
    return replace(options, credentials=CredentialsReference(name, password))


async def test_users_may_do_what_their_roles_say(stage: Stage) -> None:
    lock(stage.etcd)
    ann, box = login(stage.options, "ann", "ann-pw"), login(stage.options, "box", "box-pw")
    async with stage.centre() as nobody:
        with pytest.raises(Misconfigured, match="asks for a login"):
            await nobody.head()
    async with stage.centre(login(stage.options, "ann", "wrong-pw")) as wrong:
        with pytest.raises(Misconfigured, match="does not accept") as caught:
            await wrong.head()
    assert caught.value.stable_code == "E1172"
    assert "wrong-pw" not in str(caught.value)
    async with stage.centre(ann) as centre:
        head = await centre.head()
        await centre.publish(stage.tables(1), author="ann", reason="", time_ns=1, seen=head)
    async with stage.centre(box) as reader:
        with pytest.raises(Misconfigured) as caught:
            await reader.publish(stage.tables(2), author="box", reason="", time_ns=1, seen=await reader.head())
    assert caught.value.stable_code == "E1173"
    async with stage.followed(box) as follower:
        await until(lambda: follower.running == 1)
        await until(stage.report)
        async with stage.centre(ann) as centre:
            assert [report.instance for report in await centre.reports()] == ["box"]
            # etcd keeps its tokens in memory: after a restart every one of them is unknown.
            stage.etcd.kill()
            with pytest.raises(NotConnected):
                await centre.head()
            stage.etcd.start()
            head = await centre.head()
            await centre.publish(stage.tables(2), author="ann", reason="", time_ns=1, seen=head)
        await until(lambda: follower.running == 2, CONVERGE_S_MAX)


async def test_gateway_that_is_let_in_late_needs_no_restart(stage: Stage) -> None:
    await stage.publish(1)
    lock(stage.etcd)
    late = login(stage.options, "late", "late-pw")
    async with stage.followed(late) as follower:
        await until(lambda: stage.log.events("centre_lost"))
        assert stage.log.events("centre_lost")[0]["reason"].startswith("E1172")
        assert "late-pw" not in str(stage.log.lines)
        stage.control("user", "add", "late:late-pw")
        stage.control("user", "grant-role", "late", "gateway")
        await until(lambda: follower.running == 1)
