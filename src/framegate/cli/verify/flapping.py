"""Flapping: the connection to a broker breaks again and again, in the places where it hurts.

Mid-PUBLISH, after PUBREC, before PUBACK and PUBCOMP, in a black hole, and amid one-byte segments. Two brokers that keep
sessions - the embedded one, which sees every message as it accepts it, and mosquitto where it is installed - each take
QoS 1 and QoS 2 from one gateway through a fault proxy of their own. One round is one flap of each connection.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field

from framegate.cli.verify.experiment import Experiment, Result, Scratch
from framegate.cli.verify.packets import PUBACK, PUBCOMP, PUBLISH, PUBREC, Packets
from framegate.cli.verify.site import TENANT, Site, book, judge, percentile, reached, variables
from framegate.testing.fault_proxy import Direction, FaultProxy, Judge
from framegate.testing.plant import write_config
from framegate.testing.tally import Tally

TAGS = 50
SCAN = "50ms"
WINDOW_ROWS, WINDOWS = 256, 2
FLOW_ROWS = 2 * TAGS  # that arrive between two flaps
FLOW_S_MAX = 30.0  # for them to arrive
FIRE_S_MAX = 10.0  # for an armed fault to meet its packet
SLICED_S = 0.2  # of one-byte segments before the reset
DRAIN_S_MAX = 180.0
FAULTS = {1: ("publish", "puback", "slicer", "black_hole"), 2: ("publish", "pubrec", "pubcomp", "slicer", "black_hole")}
SHARES = {"publish": 5, "puback": 5, "pubrec": 5, "pubcomp": 5, "slicer": 2, "black_hole": 1}


@dataclass(slots=True)
class Line:
    """One connector of the gateway, its proxy and what reached its broker."""

    name: str
    qos: int
    proxy: FaultProxy
    tally: Tally
    flaps: dict[str, int] = field(default_factory=dict)
    recoveries_s: list[float] = field(default_factory=list)

    @property
    def topic(self) -> str:
        return f"{TENANT}/{self.name}"


class Trap:
    """Waits for a packet of one type and has the connection reset there; disarmed until told otherwise."""

    def __init__(self) -> None:
        self.armed = ""

    def judge(self) -> Judge:
        """For one connection."""
        streams = {direction: Packets() for direction in Direction}

        def look(direction: Direction, data: bytes) -> int | None:
            for kind, begin, end in streams[direction].feed(data):
                cut = self._cut(kind, begin, end)
                if cut is not None:
                    self.armed = ""
                    return max(0, min(cut, len(data)))
            return None

        return look

    def _cut(self, kind: int, begin: int, end: int) -> int | None:
        match self.armed, kind:
            case "publish", _ if kind == PUBLISH:
                return (begin + end) // 2
            case "pubrec", _ if kind == PUBREC:
                return end
            case ("puback", _) if kind == PUBACK:
                return begin
            case ("pubcomp", _) if kind == PUBCOMP:
                return begin
        return None


async def run(scratch: Scratch) -> Result:
    """Flap every line, let it drain, count."""
    result = Result(rounds=scratch.rounds)
    async with Site(scratch.folder) as site:
        lines = await _set_up(site, result)
        site.gateway.start()
        flappers = [
            _flap(line, random.Random(scratch.seed + number), scratch, result)  # noqa: S311 - faults, not secrets
            for number, line in enumerate(lines)
        ]
        await asyncio.gather(*flappers)
        durable = (await site.gateway.health()).wal.durable
        for line in lines:
            if not await reached(lambda line=line: line.tally.newest >= durable, DRAIN_S_MAX):  # type: ignore[misc]
                result.broken.append(f"{line.name}: did not drain within {DRAIN_S_MAX:.0f} s after the last flap")
        for line in lines:
            _judge(line, durable, result)
    return result


async def _set_up(site: Site, result: Result) -> list[Line]:
    plc = await site.device(size=TAGS)
    embedded = await site.broker()
    ports = {"embedded": embedded.port}
    mosquitto = await site.mosquitto(is_persistent=True)
    if mosquitto is not None:
        ports["mosquitto"] = mosquitto.port
    lines = [
        Line(f"{broker}{qos}", qos, await site.proxy(port), Tally()) for broker, port in ports.items() for qos in (1, 2)
    ]
    result.figures["brokers"] = ", ".join(ports)
    tallies = {line.topic: line.tally for line in lines}
    book(embedded, tallies)
    if mosquitto is not None:
        await site.witness(mosquitto.port, lambda topic, payload: tallies[topic].take(payload))
    write_config(
        site.home,
        endpoints={"plc": f"url: '{plc.url}'"}
        | {line.name: f"url: 'tcp://127.0.0.1:{line.proxy.port}'" for line in lines},
        drivers={"plc": f"plugin: modbus, endpoint: plc, options: {{unit: 1}}, scan: {{default: {SCAN}}}"},
        connectors={
            line.name: f"plugin: mqtt, endpoint: {line.name}, encoding: json-batch, batch: 8, topic: '{line.topic}', "
            f"window_rows: {WINDOW_ROWS}, windows_in_flight: {WINDOWS}, options: {{qos: {line.qos}, keep_alive: 1s}}"
            for line in lines
        },
        variables=variables(["plc"], TAGS),
        metrics=site.gateway.metrics_port,
    )
    return lines


async def _flap(line: Line, dice: random.Random, scratch: Scratch, result: Result) -> None:
    """So many flaps of one line, each after it has delivered again."""
    trap = Trap()
    line.proxy.make_judge = trap.judge
    names = FAULTS[line.qos]
    for flap in range(scratch.rounds):
        wanted = line.tally.newest + FLOW_ROWS
        if not await reached(lambda: line.tally.newest >= wanted, FLOW_S_MAX):  # noqa: B023 - awaited at once
            result.broken.append(f"{line.name}: no delivery for {FLOW_S_MAX:.0f} s after flap {flap}")
            return
        fault = dice.choices(names, [SHARES[name] for name in names])[0]
        if not await _break(line.proxy, trap, fault):
            result.broken.append(f"{line.name}: {fault} met nothing within {FIRE_S_MAX:.0f} s; the fault is void")
            return
        line.flaps[fault] = line.flaps.get(fault, 0) + 1
        before, began = line.tally.newest, time.monotonic()
        if await reached(lambda: line.tally.newest > before, FLOW_S_MAX):  # noqa: B023 - awaited at once
            line.recoveries_s.append(time.monotonic() - began)
        scratch.say(f"{line.name}: {flap + 1} of {scratch.rounds} flaps, {line.tally.newest:,} rows")


async def _break(proxy: FaultProxy, trap: Trap, fault: str) -> bool:
    """Commit one fault; whether it hit a connection."""
    resets, connects = proxy.resets, proxy.connects
    if fault == "black_hole":
        # It ends when the gateway has noticed by itself and calls again.
        proxy.is_black_hole = True
        is_hit = await reached(lambda: proxy.connects > connects, FIRE_S_MAX)
        proxy.is_black_hole = False
        proxy.reset()
        return is_hit
    if fault == "slicer":
        proxy.slice_bytes = 1
        await asyncio.sleep(SLICED_S)
        proxy.reset()
        proxy.slice_bytes = 0
        return proxy.resets > resets
    trap.armed = fault
    return await reached(lambda: proxy.resets > resets, FIRE_S_MAX)


def _judge(line: Line, durable: int, result: Result) -> None:
    """What must hold of one line; its figures."""
    flaps = sum(line.flaps.values())
    verdict = judge(result, line.name, line.tally, durable, 0 if line.qos == 2 else flaps * WINDOW_ROWS * WINDOWS)
    result.slowest_recovery_s = max([result.slowest_recovery_s, *line.recoveries_s])
    result.figures[f"{line.name}_flaps"] = ", ".join(f"{name} {count}" for name, count in sorted(line.flaps.items()))
    result.figures[f"{line.name}_rows"] = durable
    result.figures[f"{line.name}_duplicated"] = verdict.duplicated
    result.figures[f"{line.name}_recovery_p99_s"] = round(percentile(line.recoveries_s, 0.99), 2)


EXPERIMENT = Experiment(
    name="flapping",
    promise="A connection that breaks anywhere loses nothing and keeps the order; repeats stay within a window a "
    "flap with QoS 1, and there are none with QoS 2.",
    run=run,
    rounds=8,
    rounds_full=1_000,
)
