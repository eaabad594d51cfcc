"""Forgetful broker: it is killed and loses what it had acknowledged; the gateway's cursor stays honest.

mosquitto with persistence keeps what it acknowledges in memory and saves it now and then; a kill loses the rest. Those
rows are a loss of the remote: no acknowledgement of it is worth more than its disk (O8). They are counted, and an
operator's rewind delivers them again from what the log still holds. One round is one kill.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from framegate.bus import inspect
from framegate.cli.verify.experiment import Experiment, Result, Scratch
from framegate.cli.verify.packets import AckWitness
from framegate.cli.verify.site import TENANT, Site, variables
from framegate.gateway.home import Home
from framegate.testing.fault_proxy import FaultProxy
from framegate.testing.mosquitto import Mosquitto
from framegate.testing.plant import write_config
from framegate.testing.tally import Tally

TAGS = 50
SCAN = "50ms"
WINDOW_ROWS, WINDOWS = 256, 2
ROWS_PER_ROUND = 1_000  # acknowledged while nobody takes them from the broker
UNANSWERED_S = 0.5
WAIT_S_MAX = 60.0


@dataclass(slots=True)
class Line:
    """One connector: what was acknowledged on its way, and what a subscriber of the broker got in the end."""

    name: str
    qos: int
    proxy: FaultProxy
    acknowledged: AckWitness
    tally: Tally
    remote_loss: int = 0
    rewound: int = 0

    @property
    def topic(self) -> str:
        return f"{TENANT}/{self.name}"


async def run(scratch: Scratch) -> Result:
    """Let rows be acknowledged, kill the broker, count what it lost, rewind, count again."""
    result = Result(rounds=scratch.rounds)
    async with Site(scratch.folder) as site:
        mosquitto = await site.mosquitto(is_persistent=True)
        if mosquitto is None:
            result.skipped = "mosquitto is not installed; the embedded broker forgets nothing that it acknowledged"
            return result
        lines = [await _line(site, qos, mosquitto.port) for qos in (1, 2)]
        plc = await site.device(size=TAGS)
        _write_tables(site, lines, plc.url)
        # The subscription itself must outlive a kill: an orderly stop saves it.
        await (await _subscribe(site, mosquitto, lines)).close()
        await site.restart(mosquitto)
        site.gateway.start()
        for number in range(scratch.rounds):
            await _round(site, mosquitto, lines, result)
            lost = sum(line.remote_loss for line in lines)
            scratch.say(f"kill {number + 1} of {scratch.rounds}: the broker has lost {lost:,} acknowledged rows so far")
        durable = (await site.gateway.health()).wal.durable
        await _subscribe(site, mosquitto, lines)
        await site.until(lambda: all(line.tally.newest >= durable for line in lines), "the last rows", WAIT_S_MAX)
        await site.gateway.stop()
        _judge(lines, durable, result)
    return result


async def _round(site: Site, mosquitto: Mosquitto, lines: list[Line], result: Result) -> None:
    wanted = {line.name: line.acknowledged.prefix() + ROWS_PER_ROUND for line in lines}
    await site.until(
        lambda: all(line.acknowledged.prefix() >= wanted[line.name] for line in lines), "acknowledged rows", WAIT_S_MAX
    )
    # Rows are under way, and unanswered for longer than a group commit takes, when the kill comes.
    for line in lines:
        line.proxy.is_black_hole = True
    await asyncio.sleep(UNANSWERED_S)
    mosquitto.kill()
    promised = await _promises(site, lines, result)
    for line in lines:
        line.proxy.is_black_hole = False
    await site.restart(mosquitto)
    subscription = await _subscribe(site, mosquitto, lines)
    # What the broker still had comes before anything newer.
    await site.until(lambda: all(line.tally.newest > promised[line.name] for line in lines), "newer rows", WAIT_S_MAX)
    for line in lines:
        lost = line.tally.missing(promised[line.name])
        line.remote_loss += len(lost)
        if lost:
            line.rewound += (await site.gateway.rewind(line.name, lost[0])).rows
    await site.until(
        lambda: not any(line.tally.missing(promised[line.name]) for line in lines), "rows again", WAIT_S_MAX
    )
    await subscription.close()


async def _promises(site: Site, lines: list[Line], result: Result) -> Mapping[str, int]:
    """How far the broker had acknowledged; no cursor of the log may be ahead of that."""
    facts = await asyncio.to_thread(inspect.stat, Home(site.home).data)
    # Read afterwards: acknowledgements that the kill overtook were still on their way before.
    promised = {line.name: line.acknowledged.prefix() for line in lines}
    for cursor in facts.cursors:
        reached = promised[cursor.connector]
        if cursor.position > reached:
            text = f"{cursor.connector}: its cursor is at {cursor.position:,}, acknowledged were rows up to {reached:,}"
            result.broken.append(text)
    return promised


def _judge(lines: list[Line], durable: int, result: Result) -> None:
    """Rows delivered again come late, and some of them twice: that is what was asked for, and is not judged."""
    for line in lines:
        verdict = line.tally.verdict(durable)
        missing = verdict.lost + verdict.announced
        result.acknowledged += durable - missing
        result.lost += missing
        if missing:
            result.broken.append(f"{line.name}: {missing:,} rows of {durable:,} are missing after the rewinds")
        result.figures |= {f"{line.name}_remote_loss": line.remote_loss, f"{line.name}_rewound": line.rewound}
    if not any(line.remote_loss for line in lines):
        result.broken.append("the broker lost nothing over its kills, so nothing was shown")


async def _line(site: Site, qos: int, port: int) -> Line:
    line = Line(f"q{qos}", qos, await site.proxy(port), AckWitness(), Tally())
    line.proxy.make_judge = line.acknowledged.judge
    return line


async def _subscribe(site: Site, mosquitto: Mosquitto, lines: list[Line]) -> Any:
    """Take from the broker what it has kept, and what comes."""
    tallies = {line.topic: line.tally for line in lines}
    return await site.witness(mosquitto.port, lambda topic, payload: tallies[topic].take(payload), keeps_session=True)


def _write_tables(site: Site, lines: list[Line], plc_url: str) -> None:
    write_config(
        site.home,
        endpoints={"plc": f"url: '{plc_url}'"}
        | {line.name: f"url: 'tcp://127.0.0.1:{line.proxy.port}'" for line in lines},
        drivers={"plc": f"plugin: modbus, endpoint: plc, options: {{unit: 1}}, scan: {{default: {SCAN}}}"},
        connectors={
            line.name: f"plugin: mqtt, endpoint: {line.name}, encoding: json-batch, topic: '{line.topic}', "
            f"window_rows: {WINDOW_ROWS}, windows_in_flight: {WINDOWS}, options: {{qos: {line.qos}}}"
            for line in lines
        },
        variables=variables(["plc"], TAGS),
        metrics=site.gateway.metrics_port,
    )


EXPERIMENT = Experiment(
    name="forgetful_broker",
    promise="A broker that loses what it acknowledged leaves every cursor honest; a rewind delivers all of it again.",
    run=run,
    rounds=2,
    rounds_full=20,
)
