"""Options of a Modbus bridge's row, checked and turned into types. `bridge.schema.json` describes them for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, unique
from typing import Any, cast, get_args

from framegate.contract.bridge import CLIENTS_MAX
from framegate_plugins.modbus.codec import ADDRESS_MAX
from framegate_plugins.modbus.options import UNIT_MAX, FramingName, OptionReader, Order
from framegate_plugins.modbus.tags import LENGTH_MAX

CLIENTS_CEILING = 1024
CLIENTS_PER_PEER = 16
REQUESTS_PER_S_MAX = 1_000_000
WRITES_PER_CLIENT_MAX = 64
WRITE_TIMEOUT_S_MIN, WRITE_TIMEOUT_S_MAX = 0.1, 300.0
IDLE_S_MIN, IDLE_S_MAX = 1.0, 86_400.0


@unique
class QualityPolicy(Enum):
    """How a master learns that a tag is bad.

    EXCEPTION  a read that touches one is refused
    STALE      it does not: the last usable value stays
    REGISTER   by a register of its own for each tag
    """

    EXCEPTION = "exception"
    STALE = "stale"
    REGISTER = "register"


@unique
class Gaps(Enum):
    """What is read where no tag is, between the first and the last address of a table."""

    ZERO = "zero"
    EXCEPTION = "exception"


@dataclass(frozen=True, slots=True)
class Limits:
    """What clients may take.

    writes  of one connection, under way at once
    idle_s  silence after which a connection is closed
    """

    clients: int = CLIENTS_MAX
    clients_per_peer: int = CLIENTS_PER_PEER
    requests_per_s: int = 1_000
    writes: int = 8
    idle_s: float = 300.0


@dataclass(frozen=True, slots=True)
class BridgeOptions:
    """A bridge's row, parsed.

    automatic_from  offset in each table at which tags without an address begin
    quality_from    input register of the first tag's quality
    text_bytes      of a text whose row gives no length
    """

    unit: int = 1
    framing: FramingName = "auto"
    quality: QualityPolicy = QualityPolicy.EXCEPTION
    quality_from: int = 32_768
    gaps: Gaps = Gaps.ZERO
    automatic_from: int = 0
    text_bytes: int = 32
    byte_order: Order = "big"
    word_order: Order = "big"
    write_timeout_s: float = 5.0
    limits: Limits = Limits()


def parse_bridge_options(row: Mapping[str, Any]) -> BridgeOptions:
    """Options from the `options:` mapping of a bridge's row.

    raises Misconfigured - with one problem per wrong option
    """
    reader = OptionReader(row)
    limits = Limits(
        clients=reader.integer("clients", CLIENTS_MAX, 1, CLIENTS_CEILING),
        clients_per_peer=reader.integer("clients_per_peer", CLIENTS_PER_PEER, 1, CLIENTS_CEILING),
        requests_per_s=reader.integer("requests_per_s", 1_000, 1, REQUESTS_PER_S_MAX),
        writes=reader.integer("writes_in_flight", 8, 1, WRITES_PER_CLIENT_MAX),
        idle_s=reader.seconds("idle_timeout", 300.0, IDLE_S_MIN, IDLE_S_MAX),
    )
    options = BridgeOptions(
        unit=reader.integer("unit", 1, 0, UNIT_MAX),
        framing=cast(FramingName, reader.choice("framing", get_args(FramingName))),
        quality=QualityPolicy(reader.choice("quality", tuple(policy.value for policy in QualityPolicy))),
        quality_from=reader.integer("quality_from", 32_768, 0, ADDRESS_MAX),
        gaps=Gaps(reader.choice("gaps", tuple(gaps.value for gaps in Gaps))),
        automatic_from=reader.integer("automatic_from", 0, 0, ADDRESS_MAX),
        text_bytes=reader.integer("text_bytes", 32, 1, LENGTH_MAX),
        byte_order=cast(Order, reader.choice("byte_order", get_args(Order))),
        word_order=cast(Order, reader.choice("word_order", get_args(Order))),
        write_timeout_s=reader.seconds("write_timeout", 5.0, WRITE_TIMEOUT_S_MIN, WRITE_TIMEOUT_S_MAX),
        limits=limits,
    )
    reader.finish()
    return options
