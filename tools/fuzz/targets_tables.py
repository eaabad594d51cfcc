"""The three tables: the YAML reader alone, and everything that `edge check` does with them, plugins included."""

from __future__ import annotations

import functools
import json
from collections.abc import Hashable, Sequence
from pathlib import Path
from unittest.mock import patch

from framegate.config import check_plugins, load_tables, problems_as_json, render_problems, validate
from framegate.config.yaml import load_yaml
from framegate.contract.errors import Misconfigured
from framegate.gateway.binding import Factories
from framegate.package.discover import Plugins, discover
from tools.fuzz.target import Target

SEPARATOR = b"\n%%\n"
_FOLDER = Path("fuzz-tables")
_TABLES = ("endpoints", "drivers", "variables")
_KEYS = """
    endpoints drivers connectors variables gateway url tls credentials connect_timeout capture plugin endpoint options
    scan enabled encoding batch topic window_rows linger tag source address type access unit description scale offset
    rename bit byte_order word_order length name tenant metrics log_level store retention_bytes disk_full unit qos
    compress time start default framing timeout pipeline
"""
_VALUES = """
    modbus mqtt tcp://127.0.0.1:1502 tls+tcp://h:1 udp://h:1 serial:///dev/null?baud=9600 plc cloud broker 100ms 1s 0ms
    1GiB 9000000000d R W RW bool int16 uint64 float32 string bytes json json-batch protobuf zstd ${env:X} {tag} {x}
    hr:1 hr:65535 hr:65536 4x70000 40001 co:3.4 hr:0/4 .5 1e999 -0 0x10 1_000 0b1 1:20 NO null ~ true !!str !x &a *a <<
    "" '' [] {} - | > ? @ ` % # -1 1e3 1.5
"""
WORDS: Sequence[bytes] = (
    *(f"{key}: ".encode() for key in _KEYS.split()),
    *(value.encode() for value in _VALUES.split()),
    b"\n", b"\n  ", b"\n    ", b": ", b", ", b"{", b"}", b"[", b"]", b"\t", b"\xc3\xa9", b"\xff", b"\xe2\x80\xa8",
)  # fmt: skip

ENDPOINTS = """endpoints:
  plc: {url: "tcp://127.0.0.1:1502", connect_timeout: 2s}
  broker:
    url: tls+tcp://127.0.0.1:8883
"""
DRIVERS = """gateway: {name: gw, tenant: t, store: {retention_bytes: 1GiB, disk_full: block}}
drivers:
  pump: {plugin: modbus, endpoint: plc, options: {unit: 1, word_order: little}, scan: {default: 100ms, slow: 5s}}
connectors:
  cloud: {plugin: mqtt, endpoint: broker, encoding: json, topic: "{tenant}/{tag}", options: {qos: 1}}
"""
VARIABLES = """variables:
  - {tag: a, source: pump, address: "hr:0", type: int16, unit: bar, scale: 0.1}
  - {tag: b, source: pump, address: "co:7", type: bool, access: RW, scan: slow}
  - tag: c
    source: pump
    address: hr:10
    type: string
    length: 20
"""


def _yaml(case: bytes) -> Hashable:
    document = load_yaml(case)
    json.dumps(document.value, default=str)
    return document.is_whole, type(document.value).__name__, tuple(flaw.code for flaw in document.flaws[:4])


@functools.cache
def _plugins() -> Plugins:
    return discover()


@functools.cache
def _factories() -> Factories:
    return Factories(_plugins())


def _tables(case: bytes) -> Hashable:
    """Every problem can be shown, as text and as JSON."""
    texts = dict(zip(_TABLES, case.split(SEPARATOR, 2), strict=False))
    with patch.object(validate, "read_table", lambda _, table: texts.get(table, b"")):
        try:
            tables = load_tables(_FOLDER, _plugins())
            found = tables.warnings
            check_plugins(tables, _factories().driver, _factories().connector)
        except Misconfigured as error:
            found = error.problems
            assert found, "what is wrong is said place by place"
    lines = render_problems(found, _FOLDER)
    json.dumps(problems_as_json(found, _FOLDER))
    assert all("\n" not in line for line in lines)
    return tuple((problem.table, problem.code) for problem in found[:3])


def _tables_seeds() -> list[bytes]:
    texts = [text.encode() for text in (ENDPOINTS, DRIVERS, VARIABLES)]
    return [SEPARATOR.join(texts), SEPARATOR.join((texts[0], texts[1], b"variables: []\n"))]


TARGETS: Sequence[Target] = (
    Target("yaml", _yaml, (), lambda: [text.encode() for text in (ENDPOINTS, DRIVERS, VARIABLES)], size=600),
    # Compiled schemas and patterns are made once, whichever case needs them first.
    Target("tables", _tables, (), _tables_seeds, size=1_200, floor=4 << 20),
)
