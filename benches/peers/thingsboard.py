"""ThingsBoard IoT Gateway (PyPI `thingsboard-gateway`) on the same work: tables for it, and its start.

A peer for ratios in one run. It polls the farm and publishes to the broker as it would to a ThingsBoard server.

    python benches/peers/thingsboard.py FOLDER --program .../bin/thingsboard-gateway --modbus-port N --mqtt-port N
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path


def write_tables(
    folder: Path, modbus_port: int, mqtt_port: int, devices: int, ints: int, floats: int, scan: float
) -> None:
    config = folder / "config"
    config.mkdir(parents=True, exist_ok=True)
    gateway = {
        "thingsboard": {
            "host": "127.0.0.1",
            "port": mqtt_port,
            "remoteShell": False,
            "remoteConfiguration": False,
            "statistics": {"enable": False, "statsSendPeriodInSeconds": 3600},
            "checkConnectorsConfigurationInSeconds": 3600,
            "reportStrategy": {"type": "ON_RECEIVED"},
            "security": {"type": "accessToken", "accessToken": "bench"},
            "rateLimits": "0:0,",
            "dpRateLimits": "0:0,",
            "messagesRateLimits": "0:0,",
            "deviceMessagesRateLimits": "0:0,",
            "deviceRateLimits": "0:0,",
            "deviceDpRateLimits": "0:0,",
            "qos": 1,
        },
        "storage": {"type": "memory", "read_records_count": 1000, "max_records_count": 1000000},
        "connectors": [{"type": "modbus", "name": "farm", "configuration": "modbus.json"}],
    }
    (config / "tb_gateway.json").write_text(json.dumps(gateway))
    slaves = []
    for device in range(devices):
        series = [
            {"tag": f"t{i}", "type": "16int", "functionCode": 3, "objectsCount": 1, "address": i} for i in range(ints)
        ] + [
            {"tag": f"t{ints + i}", "type": "32float", "functionCode": 3, "objectsCount": 2, "address": ints + 2 * i}
            for i in range(floats)
        ]
        slaves.append(
            {
                "host": "127.0.0.1", "port": modbus_port, "type": "tcp", "method": "socket", "unitId": device + 1,
                "deviceName": f"d{device}", "deviceType": "default", "timeout": 5, "byteOrder": "BIG",
                "wordOrder": "BIG", "retries": True, "pollPeriod": int(scan * 1000), "connectAttemptTimeMs": 1000,
                "connectAttemptCount": 5, "waitAfterFailedAttemptsMs": 5000, "attributes": [], "timeseries": series,
                "attributeUpdates": [], "rpc": [],
            }
        )  # fmt: skip
    connector = {"name": "farm", "logLevel": "ERROR", "master": {"slaves": slaves}}
    (config / "modbus.json").write_text(json.dumps(connector))
    quiet = {"version": 1, "disable_existing_loggers": False, "handlers": {}, "loggers": {}, "root": {"level": "ERROR"}}
    (config / "logs.json").write_text(json.dumps(quiet))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--program", required=True)
    parser.add_argument("--modbus-port", type=int, required=True)
    parser.add_argument("--mqtt-port", type=int, required=True)
    parser.add_argument("--devices", type=int, default=10)
    parser.add_argument("--ints", type=int, default=50)
    parser.add_argument("--floats", type=int, default=50)
    parser.add_argument("--scan", type=float, default=1.0)
    a = parser.parse_args()
    write_tables(a.folder, a.modbus_port, a.mqtt_port, a.devices, a.ints, a.floats, a.scan)
    os.chdir(a.folder)
    os.execve(a.program, [a.program], {**os.environ, "TB_GW_CONFIG_DIR": str(a.folder / "config") + "/"})


if __name__ == "__main__":
    main()
