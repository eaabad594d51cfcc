"""One seed's world: sizes, speeds, policies, and which faults happen how often. Every seed draws another one.

A drawn world leaves most kinds of fault out, so that the others happen often enough to meet each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from framegate.bus.options import Durability, FullPolicy, StoreOptions
from framegate.northbound.encoder import Encoding
from framegate.northbound.options import LANES, BacklogOrder, OutboxOptions, Start

KIB = 1 << 10
FAULTS = (
    "kill", "power", "restart", "point", "cut", "hole", "absence", "busy", "lossy", "slow net",
    "stall", "write error", "sync error", "slow disk", "full disk", "damage", "wall step", "device",
)  # fmt: skip
"""Kinds of fault; what each does is in faults.py."""


@dataclass(frozen=True, slots=True)
class DeviceDraw:
    """period_s of its scans; kinds of its tags; burst: rows of one tag that a scan may bring at once"""

    period_s: float
    tags: int
    burst: int
    text_bytes: int


@dataclass(frozen=True, slots=True)
class ConnectorDraw:
    """One connector, its options and what its remote is like."""

    options: OutboxOptions
    encoding: Encoding
    batch: int
    keeps_session: bool
    poison: frozenset[int]


@dataclass(frozen=True, slots=True)
class Swarm:
    """A world.

    faults        kinds that happen, with their weight
    fault_wait_s  mean time between two
    late_chance   the loop wakes late this often
    """

    safety_s: float
    store: StoreOptions
    devices: tuple[DeviceDraw, ...]
    connectors: tuple[ConnectorDraw, ...]
    faults: dict[str, float]
    fault_wait_s: float
    late_chance: float

    @property
    def batch_rows_max(self) -> int:
        """Rows of the longest batch that a device hands in."""
        return max(device.tags * device.burst for device in self.devices)


def draw(seed: int | str) -> Swarm:
    """The world of a seed."""
    dice = Random(f"{seed} swarm")  # noqa: S311 - a simulation must be repeatable
    durability: Durability = "os" if dice.random() < 0.1 else "fsync"
    kinds = dice.sample(FAULTS, dice.randint(2, 9))
    if durability == "os":  # it promises nothing about power, and a restart is its only way to sync
        kinds = [kind for kind in kinds if kind not in {"power", "point", "sync error", "write error"}]
    return Swarm(
        safety_s=dice.uniform(8, 25),
        store=_store(dice, durability),
        devices=tuple(_device(dice) for _ in range(dice.randint(1, 3))),
        connectors=tuple(_connector(dice) for _ in range(dice.randint(1, 3))),
        faults={kind: dice.uniform(0.2, 1.0) for kind in kinds},
        fault_wait_s=dice.choice((0.4, 1.0, 3.0)),
        late_chance=dice.choice((0.0, 0.0, 0.01)),
    )


def _store(dice: Random, durability: Durability) -> StoreOptions:
    policy: FullPolicy = dice.choice(("block", "drop_oldest", "drop_new"))
    keep = dice.choice((0, 128 * KIB, 256 << 20))
    return StoreOptions(
        durability=durability,
        commit_interval_s=dice.choice((0.0, 0.01, 0.05, 0.3)),
        ring_rows=dice.choice((64, 256, 2_000, 20_000)),
        retention_bytes=dice.choice((192 * KIB, 512 * KIB, 1 << 30)),
        retention_age_s=dice.choice((10.0, 604_800.0, 604_800.0)),
        keep_acked_bytes=keep,
        keep_acked_s=dice.choice((2.0, 3_600.0)),
        disk_full=policy,
        reserve_bytes=256 * KIB,
        ballast_bytes=128 * KIB,
    )


def _device(dice: Random) -> DeviceDraw:
    return DeviceDraw(
        period_s=dice.choice((0.1, 0.25, 0.5, 1.0)),
        tags=dice.randint(1, 8),
        burst=dice.choice((1, 1, 1, 3)),
        text_bytes=dice.choice((0, 0, 0, 6_000)),
    )


def _connector(dice: Random) -> ConnectorDraw:
    is_live_first = dice.random() < 0.4
    options = OutboxOptions(
        window_rows=dice.choice((1, 4, 16, 64, 256)),
        window_bytes=dice.choice((2 * KIB, 1024 * KIB)),
        windows_in_flight=dice.choice((LANES, 4, 8) if is_live_first else (1, 2, 4, 8)),
        backlog=BacklogOrder.LIVE_FIRST if is_live_first else BacklogOrder.IN_ORDER,
        linger_s=dice.choice((0.0, 0.0, 0.05)),
        start=dice.choice((Start.OLDEST, Start.OLDEST, Start.NEWEST)),
        refusals_max=dice.randint(1, 3),
        refusal_wait_s=dice.uniform(0.05, 0.3),
        open_timeout_s=dice.uniform(1, 5),
        send_timeout_s=dice.uniform(2, 10),
        backoff_first_s=dice.uniform(0.05, 0.5),
        backoff_max_s=dice.uniform(0.5, 10),
    )
    encoding: Encoding = dice.choice(("json-batch", "json-batch", "json", "protobuf"))
    poison = frozenset(dice.sample(range(1, 1_000), 2)) if dice.random() < 0.3 else frozenset[int]()
    return ConnectorDraw(options, encoding, dice.choice((1, 8, 32)), dice.random() < 0.5, poison)
