"""Node-RED with node-red-contrib-modbus (npm) on the same work: a generated flow, and its start.

A peer for ratios in one run. Each device is one modbus client; each block of registers is one modbus-read node, then a
function node that decodes and builds the same JSON frames, then one MQTT node at QoS 1.

    python benches/peers/nodered.py FOLDER --program .../node_modules/node-red/red.js --modbus-port N --mqtt-port N
"""

# ruff: noqa: E501 - node tables are one line each
from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

REGISTERS_PER_READ = 124
DECODE = """
const words = msg.payload.data || msg.payload;
const raw = Buffer.alloc(words.length * 2);
words.forEach((word, i) => raw.writeUInt16BE(word, 2 * i));
const frames = [], ts = Date.now();
for (let i = 0, n = 0; i < raw.length; i += %(bytes)d, n++)
  frames.push({tag: '%(prefix)s' + (n + %(first)d), value: raw.%(read)s(i), ts: ts, qos: 0});
const out = [];
for (let i = 0; i < frames.length; i += 32)
  out.push({topic: '%(topic)s', payload: JSON.stringify(frames.slice(i, i + 32))});
return [out];
"""


def blocks(ints: int, floats: int) -> list[tuple[int, int, int, str]]:
    """(register, registers, first tag, "int" | "float") of every read of one device."""
    found = [(at, min(REGISTERS_PER_READ, ints - at), at, "int") for at in range(0, ints, REGISTERS_PER_READ)]
    return found + [
        (ints + at, min(REGISTERS_PER_READ, 2 * floats - at), ints + at // 2, "float")
        for at in range(0, 2 * floats, REGISTERS_PER_READ)
    ]


def flow(modbus_port: int, mqtt_port: int, devices: int, ints: int, floats: int, scan: float) -> list[dict[str, Any]]:
    nodes: list[dict[str, Any]] = [
        {"id": "tab", "type": "tab", "label": "bench"},
        {"id": "broker", "type": "mqtt-broker", "broker": "127.0.0.1", "port": str(mqtt_port), "clientid": "nodered",
         "autoConnect": True, "usetls": False, "protocolVersion": "5", "keepalive": "60", "cleansession": True},
        {"id": "out", "type": "mqtt out", "z": "tab", "x": 100, "y": 100, "topic": "", "qos": "1", "retain": "false", "broker": "broker"},
    ]  # fmt: skip
    for device in range(devices):
        nodes.append(
            {"id": f"client{device}", "type": "modbus-client", "name": f"d{device}", "clienttype": "tcp",
             "bufferCommands": True, "stateLogEnabled": False, "queueLogEnabled": False, "tcpHost": "127.0.0.1",
             "tcpPort": str(modbus_port), "tcpType": "DEFAULT", "unit_id": "1", "commandDelay": "1",
             "clientTimeout": "2000", "reconnectOnTimeout": True, "reconnectTimeout": "2000", "parallelUnitIdsAllowed": True}
        )  # fmt: skip
        for at, count, first, kind in blocks(ints, floats):
            name = f"d{device}r{at}"
            code = DECODE % {
                "bytes": 2 if kind == "int" else 4, "read": "readInt16BE" if kind == "int" else "readFloatBE",
                "prefix": f"d{device}.t", "first": first, "topic": f"bench/d{device}",
            }  # fmt: skip
            nodes += [
                {"id": name, "type": "modbus-read", "z": "tab", "x": 100, "y": 100, "name": name, "topic": "", "showStatusActivities": False,
                 "logIOActivities": False, "showErrors": False, "unitid": "1", "dataType": "HoldingRegister",
                 "adr": str(at), "quantity": str(count), "rate": str(int(scan * 1000)), "rateUnit": "ms",
                 "delayOnStart": False, "server": f"client{device}", "useIOFile": False, "wires": [[], [f"f{name}"]]},
                {"id": f"f{name}", "type": "function", "z": "tab", "x": 100, "y": 100, "func": code.replace("msg.payload.data || msg.payload",
                 "(msg.payload.data || msg.payload)"), "outputs": 1, "wires": [["out"]]},
            ]  # fmt: skip
    return nodes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--program", required=True)
    parser.add_argument("--modules", required=True, help="folder whose node_modules holds node-red-contrib-modbus")
    parser.add_argument("--modbus-port", type=int, required=True)
    parser.add_argument("--mqtt-port", type=int, required=True)
    parser.add_argument("--devices", type=int, default=10)
    parser.add_argument("--ints", type=int, default=50)
    parser.add_argument("--floats", type=int, default=50)
    parser.add_argument("--scan", type=float, default=1.0)
    a = parser.parse_args()
    a.folder.mkdir(parents=True, exist_ok=True)
    (a.folder / "flows.json").write_text(
        json.dumps(flow(a.modbus_port, a.mqtt_port, a.devices, a.ints, a.floats, a.scan))
    )
    settings = {
        "flowFile": "flows.json", "uiPort": 0, "uiHost": "127.0.0.1", "httpAdminRoot": False, "httpNodeRoot": False,
        "nodesDir": [str(Path(a.modules) / "node_modules" / "node-red-contrib-modbus")],
        "logging": {"console": {"level": "warn", "metrics": False, "audit": False}},
    }  # fmt: skip
    (a.folder / "settings.js").write_text("module.exports = " + json.dumps(settings))
    os.execvp("node", ["node", a.program, "-u", str(a.folder), "-s", str(a.folder / "settings.js")])


if __name__ == "__main__":
    main()
