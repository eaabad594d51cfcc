"""The script a user would write in an afternoon: pymodbus in, paho out, no log, no reconnect of its own.

A peer for ratios in one run, not a product. It reads each device in 125-register requests, decodes with pymodbus's own
converter, and publishes JSON at QoS 1, one message per 32 tags or one per tag. It prints {"rows": N} once a second.

    python benches/peers/naive.py --modbus-port 5020 --mqtt-port 1883 --devices 40 --ints 625 --floats 625 --scan 1
"""

from __future__ import annotations

import argparse
import json
import time

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from pymodbus.client import ModbusTcpClient

REGISTERS_PER_READ = 124


def read_device(client: ModbusTcpClient, ints: int, floats: int) -> list[float]:
    """Every value of one device."""
    values: list[float] = []
    for start in range(0, ints, REGISTERS_PER_READ):
        count = min(REGISTERS_PER_READ, ints - start)
        reply = client.read_holding_registers(start, count=count, device_id=1)
        values.extend(client.convert_from_registers(reply.registers, client.DATATYPE.INT16))  # type: ignore[arg-type]
    for start in range(ints, ints + 2 * floats, REGISTERS_PER_READ):
        count = min(REGISTERS_PER_READ, ints + 2 * floats - start)
        reply = client.read_holding_registers(start, count=count, device_id=1)
        values.extend(client.convert_from_registers(reply.registers, client.DATATYPE.FLOAT32))  # type: ignore[arg-type]
    return values


def publish(client: mqtt.Client, device: int, values: list[float], batch: int) -> None:
    now = int(time.time() * 1000)
    frames = [{"tag": f"d{device}.t{i}", "value": value, "ts": now, "qos": 0} for i, value in enumerate(values)]
    for start in range(0, len(frames), batch):
        client.publish(f"bench/d{device}", json.dumps(frames[start : start + batch]), qos=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--modbus-port", type=int, required=True)
    parser.add_argument("--mqtt-port", type=int, required=True)
    parser.add_argument("--devices", type=int, default=40)
    parser.add_argument("--ints", type=int, default=625)
    parser.add_argument("--floats", type=int, default=625)
    parser.add_argument("--scan", type=float, default=1.0)
    parser.add_argument("--batch", type=int, default=32)
    arguments = parser.parse_args()

    out = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
    out.max_inflight_messages_set(1000)
    out.connect("127.0.0.1", arguments.mqtt_port)
    out.loop_start()
    devices = [ModbusTcpClient("127.0.0.1", port=arguments.modbus_port) for _ in range(arguments.devices)]
    for device in devices:
        device.connect()  # type: ignore[no-untyped-call]
    rows = 0
    due = reported = time.monotonic()
    while True:
        for number, device in enumerate(devices):
            values = read_device(device, arguments.ints, arguments.floats)
            publish(out, number, values, arguments.batch)
            rows += len(values)
        if time.monotonic() - reported >= 1.0:
            reported = time.monotonic()
            print(json.dumps({"rows": rows}), flush=True)
        due += arguments.scan
        time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    main()
