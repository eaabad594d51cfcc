"""The verb `edge demo`: play, watch, break something, count what was lost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.console import Console
from rich.live import Live

from framegate.cli.demo.bridging import BridgingVerdict, play_bridging
from framegate.cli.demo.screen import draw
from framegate.cli.demo.stage import Stage
from framegate.cli.demo.verdict import Verdict
from framegate.config import parse_duration
from framegate.contract.errors import GatewayError, NotConnected
from framegate.observe.face import GatewayHealth
from framegate.ops.client import ControlClient
from framegate.package.discover import discover

REFRESH_S = 0.25
START_S_MAX = 20.0
RECOVER_S_MAX = 60.0
PLAY_S_MAX = 24 * 3600.0
OUTAGE_BEGINS, OUTAGE_ENDS = 0.3, 0.6
"""Parts of the play at which a fault begins and ends."""
Fault = Literal["plc", "uplink"]


def demo(
    *,
    headless: Annotated[bool, Parameter(negative="")] = False,
    record: str | None = None,
    fault: Fault | None = None,
    bridging: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """A simulated plant, this gateway and a broker on loopback; live values in this terminal.

    Parameters
    ----------
    headless
        No live screen; a line now and then.
    record
        Play for this long (e.g. 10s), check that every frame arrived in order, print one JSON summary.
    fault
        Break something on the way and show the recovery: plc (a device dies) or uplink (the network is cut).
    bridging
        Another plant: a SCADA system writes a Modbus PLC over OPC UA, and reads an OPC UA server over Modbus.
    """
    seconds = parse_duration(record) if record else (30.0 if fault and headless else PLAY_S_MAX)
    folder = Path(tempfile.mkdtemp(prefix="edge-demo-"))
    verdict: Verdict | BridgingVerdict
    try:
        if bridging:
            say = Console(stderr=True).print
            verdict = asyncio.run(
                play_bridging(folder, discover(), seconds, lambda text: say(text, highlight=False, soft_wrap=True))
            )
        else:
            verdict = asyncio.run(_play(folder, seconds, fault, is_live=not headless and sys.stdout.isatty()))
    except KeyboardInterrupt:
        return 130
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(verdict.as_record()))  # noqa: T201 - the summary is this verb's output
    return 0 if verdict.is_good else 1


def _say(text: str) -> None:
    Console(stderr=True).print(text, highlight=False, soft_wrap=True)


async def _play(folder: Path, seconds: float, fault: Fault | None, *, is_live: bool) -> Verdict:
    console = Console(stderr=not is_live)
    async with Stage(folder, discover()) as stage:
        player = _Player(stage, seconds, fault, console)
        with contextlib.ExitStack() as screen:
            if is_live:
                live = screen.enter_context(Live(console=console, screen=True, auto_refresh=False))
                player.show = lambda: live.update(draw(stage.witness, player.health, player.story), refresh=True)
            return await player.play()


class _Player:
    """Walks through one play: start, watch, break, mend, recover, account."""

    def __init__(self, stage: Stage, seconds: float, fault: Fault | None, console: Console) -> None:
        self.stage = stage
        self.health: GatewayHealth | None = None
        self.story = "starting two PLCs, a broker and the gateway"
        self.show: Callable[[], None] = self._say
        self._seconds, self._fault, self._console = seconds, fault, console
        self._said = ""

    async def play(self) -> Verdict:
        verdict = Verdict(broker=self.stage.broker_name, fault=self._fault or "none", asked_s=self._seconds)
        began = time.monotonic()
        await self._until(lambda: self.stage.witness.frames > 0, START_S_MAX, "no value arrived at the broker")
        verdict.first_value_s = time.monotonic() - began
        self.story = f"two PLCs -> gateway -> durable log -> {self.stage.broker_name}; Ctrl-C ends"
        began = time.monotonic()
        if self._fault:
            await self._watch(began + OUTAGE_BEGINS * self._seconds)
            await self._break(began, verdict)
        await self._watch(began + self._seconds)
        await self._finish(verdict)
        verdict.played_s = time.monotonic() - began
        return verdict

    async def _break(self, began: float, verdict: Verdict) -> None:
        fault = self._fault
        assert fault is not None
        outage = {"plc": "the tank's PLC lost power", "uplink": "the network to the broker is cut"}[fault]
        self.story = f"{outage}; nothing is lost, watch the lag grow and drain"
        cut_at = time.monotonic()
        await self.stage.cut(fault)
        await self._watch(began + min(OUTAGE_ENDS * self._seconds, OUTAGE_BEGINS * self._seconds + 60.0))
        await self.stage.mend(fault)
        verdict.outage_s = time.monotonic() - cut_at
        self.story = f"mended after {verdict.outage_s:.1f} s; recovering"
        mended_at = time.monotonic()
        await self._until(self._is_recovered, RECOVER_S_MAX, "no full recovery from the fault")
        verdict.recovered_s = time.monotonic() - mended_at
        self.story = f"recovered {verdict.recovered_s:.1f} s after the fault was mended"

    def _is_recovered(self) -> bool:
        health = self.health
        if health is None or any(device.error for device in health.devices):
            return False
        return all(way.lag_rows < health.bus.ring_rows_max // 100 and not way.error for way in health.connectors)

    async def _finish(self, verdict: Verdict) -> None:
        """Ask how far the gateway is, wait until all of that has arrived, and count."""
        await self._ask()
        head = self.health.wal.durable if self.health else 0
        witness = self.stage.witness
        with contextlib.suppress(NotConnected):
            await self._until(lambda: witness.account()["lost"] == 0 and witness.newest >= head, 10.0, "late frames")
        verdict.take(witness, head, self.health)
        verdict.stop_s = await asyncio.to_thread(self.stage.stop_gateway)

    async def _watch(self, until: float) -> None:
        while (left := until - time.monotonic()) > 0:
            await self._tick(min(REFRESH_S, left))

    async def _until(self, condition: Callable[[], bool], seconds: float, complaint: str) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise NotConnected(f"demo: {complaint} within {seconds:.0f} s", code="E4021")
            await self._tick(REFRESH_S)

    async def _tick(self, seconds: float) -> None:
        code = self.stage.gateway_died()
        if code is not None:
            text = self.stage.log_file.read_text(errors="replace")[-2000:]
            raise NotConnected(f"demo: the gateway ended by itself with code {code}:\n{text}", code="E4022")
        await asyncio.sleep(seconds)
        await self._ask()
        self.show()

    async def _ask(self) -> None:
        with contextlib.suppress(GatewayError):
            self.health = await asyncio.to_thread(self._health)

    def _health(self) -> GatewayHealth:
        with ControlClient(self.stage.socket) as gateway:
            return gateway.health()

    def _say(self) -> None:
        """Without a screen: say the story when it changes."""
        if self.story != self._said:
            self._said = self.story
            self._console.print(self.story, highlight=False)
