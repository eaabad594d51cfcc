"""An OPC UA server that is cut off, falls silent, pauses, dies or renews its certificate: the device always comes back.

Each round asks the same: every tag is Bad soon after the fault, Good again within 10 s of its end (later after a long
outage, for the back-off grows with it), and a value that is then written arrives. EDGE_TEST_OPCUA_ROUNDS (20) says how
many rounds there are in all.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import platform
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from framegate.contract.command import Outcome, Write
from framegate.contract.driver import DriverContext
from framegate.contract.frame import TagId
from framegate.contract.quality import is_good
from framegate.endpoint.clock import SystemClock
from framegate.endpoint.endpoint import endpoint_from_row
from framegate.endpoint.pool import EndpointPool
from framegate.observe.metrics import Metrics
from framegate.runtime.runtime import Runtime
from framegate.runtime.slot import ScanPlan, Slot
from framegate.testing.fakes import CollectingLog, CollectingSink
from framegate.testing.fault_proxy import FaultProxy
from framegate_plugins.opcua.certificates import self_signed
from framegate_plugins.opcua.command import run
from framegate_plugins.opcua.driver import OpcuaDriver
from framegate_plugins.opcua.tests.peers import Peer
from framegate_plugins.opcua.tests.stage import tags

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="the package o6 (open62541) is for x86_64")
ROUNDS = int(os.environ.get("EDGE_TEST_OPCUA_ROUNDS", "20"))
BACK_S = 10.0
"""From the end of a fault to Good."""
TIMEOUT_S = 1.0
TOLD_S = TIMEOUT_S + 2.0 + 3.0  # the driver's heartbeat, and a machine with much to do
TAGS = 50


class Plant:
    """One slot whose driver reaches a judge through a proxy."""

    def __init__(self, slot: Slot, sink: CollectingSink, proxy: FaultProxy, peer: Peer) -> None:
        self.slot, self.sink, self.proxy, self.peer = slot, sink, proxy, peer

    def is_good(self) -> bool:
        """Whether the last row of every tag is Good."""
        last = {tag: quality for tag, _, quality in self.sink.rows}
        return len(last) == TAGS and all(is_good(quality) for quality in last.values())

    def is_reconnected(self, before: int) -> bool:
        return self.slot.health.reconnects > before

    def is_bad(self) -> bool:
        last = {tag: quality for tag, _, quality in self.sink.rows}
        return not any(is_good(quality) for quality in last.values())

    async def until(self, wanted: Callable[[], bool], limit_s: float, what: str) -> float:
        """Seconds that it took."""
        started = time.monotonic()
        while not wanted():
            assert time.monotonic() - started < limit_s, f"not {what} within {limit_s} s: {self.slot.health.last_error}"
            await asyncio.sleep(0.02)
        return time.monotonic() - started

    async def check_back(self, number: int, limit_s: float = BACK_S) -> float:
        """Good again in time, and fresh."""
        took_s = await self.until(self.is_good, limit_s, "Good")
        value = 1000.0 + number
        (result,) = await self.slot.write([Write(TagId(number % TAGS), value)], time.monotonic() + 5.0)
        assert result.outcome is Outcome.CONFIRMED, result.reason
        wanted = (number % TAGS, value, 0)
        await self.until(lambda: wanted in self.sink.rows, 5.0, "told of a new value")
        self.sink.published = self.sink.published[-TAGS * 4 :] if self.is_good() else self.sink.published
        return took_s


@contextlib.asynccontextmanager
async def plant(peer: Peer, home: Path, security: str = "none") -> AsyncIterator[Plant]:
    log, clock, sink, metrics = CollectingLog(), SystemClock(), CollectingSink(), Metrics()
    proxy = FaultProxy(peer.port)
    await proxy.listen()
    row = {"url": f"tcp://127.0.0.1:{proxy.port}", "connect_timeout": "2s"}
    pool = EndpointPool({"line": endpoint_from_row("line", row, home)}, clock, log, metrics)
    runtime = Runtime(pool, sink, clock, random.Random(1), log, metrics)
    options = {"security": security, "timeout": TIMEOUT_S}
    rows = tags(*(f"ns=1;s=t{number} float64" for number in range(TAGS)))
    driver = OpcuaDriver(options)
    plans = [ScanPlan("default", 0.1, driver.plan(rows), rows)]
    context = DriverContext("plc", "line", pool, clock, log, home=home)
    slot = Slot("plc", driver, plans, context, sink, clock, random.Random(1), log, metrics)
    await runtime.start([slot])
    try:
        yield Plant(slot, sink, proxy, peer)
    finally:
        await runtime.stop()
        await pool.close()
        await proxy.close()


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    with Peer.open62541(TAGS) as peer:
        yield peer


def rounds(share: float) -> int:
    return max(1, math.ceil(ROUNDS * share))


@pytest.mark.timeout(60 + 20 * ROUNDS)
async def test_cut_connection_comes_back(peer: Peer, tmp_path: Path) -> None:
    async with plant(peer, tmp_path) as stage:
        await stage.until(stage.is_good, BACK_S, "Good")
        for number in range(rounds(0.6)):
            connects = stage.slot.health.reconnects
            stage.proxy.reset()
            await stage.until(partial(stage.is_reconnected, connects), BACK_S, "reconnected")
            await stage.check_back(number)


@pytest.mark.timeout(60 + 20 * ROUNDS)
async def test_line_that_swallows_everything_is_noticed_and_comes_back(peer: Peer, tmp_path: Path) -> None:
    async with plant(peer, tmp_path) as stage:
        await stage.until(stage.is_good, BACK_S, "Good")
        for number in range(rounds(0.15)):
            stage.proxy.is_black_hole = True
            await stage.until(stage.is_bad, TOLD_S, "Bad")
            stage.proxy.is_black_hole = False
            await stage.check_back(number)


@pytest.mark.timeout(60 + 20 * ROUNDS)
async def test_server_that_stands_still_is_noticed_and_comes_back(peer: Peer, tmp_path: Path) -> None:
    async with plant(peer, tmp_path) as stage:
        await stage.until(stage.is_good, BACK_S, "Good")
        for number in range(rounds(0.15)):
            peer.pause()
            try:
                await stage.until(stage.is_bad, TOLD_S, "Bad")
            finally:
                peer.resume()
            await stage.check_back(number)


@pytest.mark.timeout(60 + 40 * ROUNDS)
async def test_server_that_is_killed_comes_back(peer: Peer, tmp_path: Path) -> None:
    async with plant(peer, tmp_path) as stage:
        await stage.until(stage.is_good, BACK_S, "Good")
        for number in range(rounds(0.1)):
            peer.kill()
            await stage.until(stage.is_bad, TOLD_S, "Bad")
            await asyncio.to_thread(peer.start)
            await stage.check_back(number)


@pytest.mark.timeout(180)
async def test_server_with_a_new_certificate_comes_back_once_that_is_trusted(tmp_path: Path) -> None:
    home, place = tmp_path / "home", tmp_path / "server"
    place.mkdir()
    pair = (str(place / "cert.der"), str(place / "key.der"))
    make_certificate(*pair)
    with Peer.open62541(TAGS, *pair) as peer:
        async with plant(peer, home, "sign_and_encrypt") as stage:
            for number in range(2):
                await stage.until(lambda: rejected(home) != [], 30.0, "rejected")
                await stage.until(lambda: stage.slot.health.error_code == "E2702", 30.0, "told that it is not trusted")
                run(["trust", "add", str(rejected(home)[0]["thumbprint"])], home)
                await stage.until(stage.is_good, BACK_S, "Good")
                await stage.check_back(number)
                if number == 0:
                    make_certificate(*pair)
                    peer.kill()
                    await stage.until(stage.is_bad, TOLD_S, "Bad")
                    await asyncio.to_thread(peer.start)


def rejected(home: Path) -> list[dict[str, object]]:
    return [dict(row) for row in run(["trust", "ls"], home) if row["state"] == "rejected"]


def make_certificate(certificate: str, key: str) -> None:
    made = generate_private_key(65537, 2048)
    own = self_signed(made, "urn:judge:open62541", "judge", ["127.0.0.1"])
    Path(certificate).write_bytes(own.public_bytes(Encoding.DER))
    Path(key).write_bytes(made.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
