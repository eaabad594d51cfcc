"""Commands over REST and MQTT together, repeated and reordered, while the gateway is killed and its lines are cut.

The device's own log is the judge: each command reaches it at most once, has one outcome, and that outcome is true. The
devices are libmodbus and pymodbus. Every command writes a value that no other writes to that register, so the log says
which commands were carried out, and how often.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import httpx2
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from framegate.testing import plant
from framegate.testing.account import Account
from framegate.testing.fault_proxy import FaultProxy
from framegate.testing.mosquitto import Mosquitto
from framegate.testing.ports import free_port

from .device import Device, Server, why_not

Run = Callable[[Path], subprocess.Popen[bytes]]
Subscribe = Callable[..., Awaitable[Account]]
Drained = Callable[[Account], Awaitable[None]]
PER_S = 60
"""Commands begun per second, where the gateway keeps up."""
UNDER_WAY_MAX = 300
"""Commands whose copies have not all been answered."""
FAULT_S = 1.5
"""Mean time between two faults."""
SLACK_NS = 5_000_000_000
"""A command under way may end so long after a fault: time-outs and tries of the device."""
SETTLING = 50
REGISTERS = 50
COUNT = int(os.environ.get("EDGE_TEST_COMMANDS", "500"))
"""Commands; 10,000 take six minutes."""
TTL_S = 20.0
COPIES_MAX = 5
CONNECTIONS = 32
DELAY_S_MAX = 2.0
ANSWER_S_MAX = 240.0
QUEUED_S_MAX = 60.0
"""The broker may hold commands that the gateway has not taken yet when it is asked for them."""
Kind = Literal["plain", "expired", "retained", "too large"]


@dataclass(slots=True)
class Wish:
    """One command and what the asker knows of it.

    answers  outcomes that any door has told, not only the last one
    """

    id: str
    register: int
    value: int
    kind: Kind
    issued_ns: int = 0
    answers: set[str] = field(default_factory=set)
    final: dict[str, Any] = field(default_factory=dict)

    @property
    def tag(self) -> str:
        return f"w{self.register}"

    @property
    def outcome(self) -> str:
        """ "" where the command is not known."""
        return str(self.final.get("outcome", ""))


def wishes(count: int, dice: random.Random) -> list[Wish]:
    """So many commands; each value is written to its register by one of them alone."""
    kinds: tuple[Kind, ...] = ("plain", "expired", "retained", "too large")
    return [
        Wish(
            f"c{n}-{dice.randrange(1 << 40):x}",
            n % REGISTERS,
            1 + n // REGISTERS,
            dice.choices(kinds, (90, 4, 2, 4))[0],
        )
        for n in range(count)
    ]


class Asker:
    """Sends each command one to COPIES_MAX times, over both doors, in no order, and asks what became of it."""

    def __init__(self, api: int, broker: int, token: str, dice: random.Random) -> None:
        self._url, self._dice = f"http://127.0.0.1:{api}/api/v1", dice
        self._http = httpx2.AsyncClient(
            headers={"Authorization": f"Bearer {token}"},
            timeout=10.0,
            limits=httpx2.Limits(max_connections=CONNECTIONS),
            trust_env=False,
        )
        self._mqtt = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._mqtt.connect("127.0.0.1", broker)
        self._mqtt.loop_start()

    async def close(self) -> None:
        await self._http.aclose()
        self._mqtt.disconnect()
        self._mqtt.loop_stop()
        self._mqtt._reset_sockets()  # its wake-up pair, which it leaves to the collector

    async def ask(self, wish: Wish) -> None:
        """Every copy, each at its own time."""
        if wish.kind == "expired":
            wish.issued_ns = time.time_ns() - 3_600_000_000_000
        copies = self._dice.randint(1, COPIES_MAX)
        doors = [self._over_mqtt if self._dice.random() < 0.5 else self._over_rest for _ in range(copies)]
        if wish.kind in {"retained", "expired"}:  # what only MQTT can say
            doors = [self._over_mqtt] * copies
        delays = [self._dice.uniform(0, DELAY_S_MAX) for _ in doors]
        await asyncio.gather(*(self._later(delay, door, wish) for delay, door in zip(delays, doors, strict=True)))

    async def _later(self, delay: float, door: Any, wish: Wish) -> None:
        await asyncio.sleep(delay)
        await door(wish)

    async def _over_rest(self, wish: Wish) -> None:
        """A client that repeats a request until it has an answer: that is how it should be."""
        deadline = time.monotonic() + ANSWER_S_MAX
        body = {"value": self._value(wish), "ttl_s": TTL_S}
        wait = self._dice.choice([0, 0, 0.2])
        last = ""
        while time.monotonic() < deadline:
            try:
                answer = await self._http.put(
                    f"{self._url}/tags/{wish.tag}?wait={wait}", json=body, headers={"Idempotency-Key": wish.id}
                )
            except httpx2.HTTPError as error:
                last = repr(error)
            else:
                last = answer.text
                if answer.status_code not in {429, 503} or "command" in answer.json():
                    self._note(wish, answer)
                    return
            await asyncio.sleep(0.2)
        raise AssertionError(f"{wish.id}: no answer within {ANSWER_S_MAX:.0f} s; last: {last}")

    async def _over_mqtt(self, wish: Wish) -> None:
        body: dict[str, Any] = {"id": wish.id, "value": self._value(wish), "ttl_ms": int(1000 * TTL_S)}
        if wish.issued_ns:
            body["issued"] = wish.issued_ns
        sent = self._mqtt.publish(
            f"cmd/{wish.tag}", json.dumps(body), qos=self._dice.choice([1, 2]), retain=wish.kind == "retained"
        )
        await asyncio.to_thread(sent.wait_for_publish, ANSWER_S_MAX)

    @staticmethod
    def _value(wish: Wish) -> int:
        return wish.value + 100_000 if wish.kind == "too large" else wish.value

    @staticmethod
    def _note(wish: Wish, answer: httpx2.Response) -> None:
        state = answer.json()
        outcome = state.get("command", state).get("outcome") if isinstance(state, dict) else None
        if outcome:
            wish.answers.add(str(outcome))

    async def settle(self, wish: Wish) -> None:
        """Ask what became of it until it has an outcome; `final` stays empty where it is not known."""
        deadline = time.monotonic() + ANSWER_S_MAX
        known_by = time.monotonic() + (0.0 if wish.kind == "retained" else QUEUED_S_MAX)
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx2.HTTPError):
                answer = await self._http.get(f"{self._url}/commands/{wish.id}")
                if answer.status_code == 404 and time.monotonic() >= known_by:
                    return
                if answer.status_code == 200 and answer.json()["outcome"] is not None:
                    wish.final = answer.json()
                    return
            await asyncio.sleep(0.2)
        raise AssertionError(f"{wish.id}: no outcome within {ANSWER_S_MAX:.0f} s")


@dataclass
class Stage:
    """A gateway between two proxies, which stand before the device and the broker."""

    home: Path
    run: Run
    device: FaultProxy
    broker: FaultProxy
    gateway: subprocess.Popen[bytes] | None = None
    faults: list[int] = field(default_factory=list)  # wall time, ns

    def start(self) -> None:
        self.gateway = self.run(self.home)

    async def disturb(self, dice: random.Random) -> None:
        """One fault after the other until cancelled."""
        while True:
            await asyncio.sleep(dice.expovariate(1 / FAULT_S))
            self.faults.append(time.time_ns())
            match dice.randrange(5):
                case 0:
                    assert self.gateway is not None
                    self.gateway.kill()
                    self.gateway.wait()
                    self.start()
                case 1 | 2:
                    self.device.reset()
                case 3:
                    self.broker.reset()
                case _:
                    self.device.is_black_hole = True
                    try:
                        await asyncio.sleep(dice.uniform(0.2, 1.5))
                    finally:
                        self.device.is_black_hole = False
                        self.device.reset()  # what was swallowed is lost
                    self.faults.append(time.time_ns())


@contextlib.asynccontextmanager
async def staged(tmp_path: Path, run: Run, device: int, broker: int, api: int) -> AsyncIterator[Stage]:
    before_device, before_broker = FaultProxy(device), FaultProxy(broker)
    await before_device.listen()
    await before_broker.listen()
    plant.write_config(
        tmp_path,
        endpoints={
            "plc": f"url: 'tcp://127.0.0.1:{before_device.port}'",
            "broker": f"url: 'tcp://127.0.0.1:{before_broker.port}'",
        },
        drivers={"plc": "plugin: modbus, endpoint: plc, options: {unit: 1, timeout: 500ms}, scan: {default: 1s}"},
        connectors={
            "cloud": "plugin: mqtt, endpoint: broker, options: {commands: {topic: 'cmd/{tag}', tags: ['w*'], qos: 1}}"
        },
        variables=[f"tag: w{i}, source: plc, address: 'hr:{i}', type: uint16, access: RW" for i in range(REGISTERS)],
        gateway=f", api: {{listen: '127.0.0.1:{api}'}}",
    )
    try:
        yield Stage(tmp_path, run, before_device, before_broker)
    finally:
        await before_device.close()
        await before_broker.close()


@pytest.mark.parametrize("server", ["libmodbus", "pymodbus"])
@pytest.mark.timeout(900 + COUNT // 4)
async def test_each_command_reaches_the_device_once_at_most_and_its_outcome_is_true(
    server: Server, tmp_path: Path, run: Run, mosquitto: Mosquitto, subscribe: Subscribe, drained: Drained
) -> None:
    if reason := why_not(server):
        pytest.skip(reason)
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201 - pytest shows it
    dice = random.Random(seed)
    api = free_port()
    device = Device(server, tmp_path)
    account = await subscribe(mosquitto.port)
    token = plant.edge("token", "add", "asker", "--role", "operator", "--home", str(tmp_path)).stdout.strip()
    asker = Asker(api, mosquitto.port, token, dice)
    asked = wishes(COUNT, dice)
    try:
        async with staged(tmp_path, run, device.port, mosquitto.port, api) as stage:
            stage.start()
            await plant.until(lambda: "mqtt_subscribed" in (tmp_path / "log").read_text(), "a subscription")
            trouble = asyncio.create_task(stage.disturb(dice))
            await _ask_all(asker, asked)
            trouble.cancel()
            await asyncio.gather(trouble, return_exceptions=True)
            await _settle_all(asker, asked)
            assert stage.gateway is not None
            plant.stop_gateway(stage.gateway)
            await drained(account)
            audit = plant.edge("audit", "verify", "--home", str(tmp_path))
            assert audit.returncode == 0, audit.stderr
    finally:
        await asker.close()
        device.close()
    _judge(asked, device, account, stage.faults)


async def _ask_all(asker: Asker, asked: list[Wish]) -> None:
    room = asyncio.Semaphore(UNDER_WAY_MAX)
    async with asyncio.TaskGroup() as tasks:
        for wish in asked:
            await room.acquire()
            tasks.create_task(asker.ask(wish)).add_done_callback(lambda _: room.release())
            await asyncio.sleep(1 / PER_S)


async def _settle_all(asker: Asker, asked: list[Wish]) -> None:
    for at in range(0, len(asked), SETTLING):
        await asyncio.gather(*(asker.settle(wish) for wish in asked[at : at + SETTLING]))


def _judge(asked: list[Wish], device: Device, account: Account, faults: list[int]) -> None:
    told: dict[str, set[str]] = {}
    for frame in account.of("command.ack"):
        row = json.loads(frame.value)
        told.setdefault(row["id"], set()).add(row["outcome"].upper())
    outcomes = Counter(f"{wish.kind}: {wish.outcome or 'not kept'} {wish.final.get('code', '')}" for wish in asked)
    print(json.dumps({"faults": len(faults), "outcomes": outcomes}, indent=1))  # noqa: T201 - pytest shows it
    assert [line for wish in asked for line in _lies_about(wish, device.writes[wish.register, wish.value])] == []
    assert [
        (wish.id, wish.outcome, told.get(wish.id))
        for wish in asked
        if wish.outcome and told.get(wish.id) != {wish.outcome}
    ] == []
    assert [wish.final for wish in asked if wish.outcome == "UNKNOWN" and not _has_fault(wish, faults)] == []
    confirmed = sum(wish.outcome == "CONFIRMED" for wish in asked)
    assert confirmed > len(asked) / 5, "the trouble left nothing to be judged"


def _lies_about(wish: Wish, reached: int) -> list[str]:
    """What is not true of a command's outcome; `reached`: how often it reached the device."""
    lies = []
    if reached > 1:
        lies.append(f"reached the device {reached} times")
    if wish.outcome == "CONFIRMED" and not reached:
        lies.append("did not reach the device")
    if wish.outcome in {"REJECTED", "NOT_SENT", ""} and reached:
        lies.append("reached the device")
    if wish.answers - {wish.outcome}:
        lies.append(f"a door said {wish.answers}")
    if wish.kind == "plain" and not wish.outcome:
        lies.append("a door had taken it")
    if wish.kind != "plain" and wish.outcome not in {"REJECTED", "NOT_SENT", ""}:
        lies.append("it was not to be carried out")
    return [f"{wish.kind} {wish.id}, {wish.outcome or 'not known'}: {lie}; {wish.final}" for lie in lies]


def _has_fault(wish: Wish, faults: list[int]) -> bool:
    """Whether something was done to the gateway or its line while the command was under way."""
    began, ended = wish.final["received_ns"], wish.final["ended_ns"]
    return any(began - SLACK_NS <= fault <= ended for fault in faults)
