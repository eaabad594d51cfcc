"""Commented sample tables for `edge init DIR`: they pass `edge check` and run against the demo plant.

The Modbus simulator is expected on 127.0.0.1:5020, an MQTT broker on 127.0.0.1:1883. Schemas are written beside
the tables, so that an editor completes keys and marks mistakes. Nothing that exists is ever overwritten.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from framegate.config.schema import TABLES, merge_schemas, schema_text
from framegate.contract.errors import Misconfigured
from framegate.contract.plugin import Manifest

_ENDPOINTS = """\
# yaml-language-server: $schema=./schemas/endpoints.schema.json
# Addresses the gateway connects to. drivers.yml refers to them by name.
endpoints:
  plc1: {url: "tcp://127.0.0.1:5020"}

  broker:
    url: tcp://127.0.0.1:1883
    connect_timeout: 5s

  # A broker with TLS and a login; paths are relative to this folder:
  # cloud:
  #   url: tls+tcp://broker.example:8883
  #   tls: {ca: certs/ca.pem, cert: certs/gw.pem, key: certs/gw.key, min: "1.2"}
  #   credentials: {username: gw1, password: "${env:BROKER_PASSWORD}"}

  # A serial line:
  # bus1: {url: "serial:///dev/ttyUSB0?baud=9600&parity=N&stopbits=1"}
"""

_DRIVERS = """\
# yaml-language-server: $schema=./schemas/drivers.schema.json
# The gateway, the devices it reads (drivers) and the systems it sends to (connectors).
gateway:
  name: gw1                    # unique among all gateways that send to one system
  tenant: plant
  metrics: 127.0.0.1:9100      # Prometheus reads http://127.0.0.1:9100/metrics
  api: {listen: "127.0.0.1:8470"}   # REST and live values; other addresses than this machine's own need tls
  store: {durability: fsync, retention_bytes: 1GiB, retention_age: 7d}

drivers:
  # One row is one device. Scan classes say how often tags are read; a tag picks one, or is in `default`.
  mb1:
    plugin: modbus
    endpoint: plc1
    options: {unit: 1}
    scan: {default: 1s, fast: 100ms}

connectors:
  cloud:
    plugin: mqtt
    endpoint: broker
    encoding: json-batch       # json: one message per tag; protobuf: smallest
    batch: 32
    topic: "{tenant}/{device}"
    options: {qos: 1}          # every message is acknowledged by the broker
    # backlog: live_first      # after an outage: new values at once, stored ones beside them under .../backfill
"""

_VARIABLES = """\
# yaml-language-server: $schema=./schemas/variables.schema.json
# One row per tag. Quote addresses: then they are taken letter by letter.
# Engineering value = raw value * scale + offset.
variables:
  - {tag: pump1.speed, source: mb1, address: "4x00001", type: uint16, unit: rpm, scan: fast}
  - {tag: pump1.current, source: mb1, address: "4x00002", type: int16, unit: A, scale: 0.1, scan: fast}
  - {tag: pump1.flow, source: mb1, address: "4x00003", type: float32, unit: m3/h}
  - {tag: pump1.energy, source: mb1, address: "4x00005", type: uint32, unit: kWh}
  - {tag: pump1.running, source: mb1, address: "0x00001", type: bool, description: Feedback of the contactor}
  # - {tag: pump1.setpoint, source: mb1, address: "4x00010", type: uint16, unit: rpm, access: RW}
"""

SAMPLES: Mapping[str, str] = {"endpoints": _ENDPOINTS, "drivers": _DRIVERS, "variables": _VARIABLES}


def write_samples(folder: Path, plugins: Mapping[str, Manifest] | None = None) -> list[Path]:
    """Write the sample tables and their schemas into a folder, which is made if it does not exist.

    plugins  manifests whose options and tag keys become part of the schemas
    returns  the files written, tables first
    raises   Misconfigured E1119 - a table exists already, or the folder cannot be written; nothing was changed
    """
    files = {folder / f"{table}.yml": SAMPLES[table] for table in TABLES}
    merged = merge_schemas(plugins or {})
    for table in TABLES:
        files[folder / "schemas" / f"{table}.schema.json"] = schema_text(merged[table])
    existing = [path for path in files if path.exists()]
    if existing:
        names = ", ".join(str(path) for path in existing)
        raise Misconfigured(f"{names} exists already and stays as it is; choose another folder", code="E1119")
    try:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        text = f"{error.filename}: cannot be written ({reason}); choose another folder, or give yourself the right"
        raise Misconfigured(text, code="E1119") from error
    return list(files)
