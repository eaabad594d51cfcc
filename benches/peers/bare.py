"""The least that a Python program can do for the same work: read, decode, publish; no log, no reconnect, no checks.

A peer for ratios in one run: what the gateway costs above this is the price of its log, its supervision and its
promises. One connection per device on uvloop, reads of at most 125 registers one after the other, one timer for all
devices, numpy columns, JSON by splicing constant text around numbers, MQTT 5 at QoS 1 by hand with one write per
device. It believes every answer. It prints {"rows": N} once a second.

    python benches/peers/bare.py --modbus-port 5020 --mqtt-port 1883 --devices 40 --ints 62 --floats 63 --scan 0.1
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from typing import cast

import numpy as np
import orjson
import uvloop

REGISTERS_PER_READ = 125
ANSWER_HEAD = 9
CONNECT = b"\x10\x11\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x04bare"
REPORT_S = 1.0


class Broker(asyncio.Protocol):
    """Publishes at QoS 1; acknowledgements are read and forgotten."""

    def __init__(self) -> None:
        self.packet_id = 0
        self.rows = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(CONNECT)

    def publish(self, topic: bytes, payloads: list[bytes]) -> None:
        parts: list[bytes] = []
        for payload in payloads:
            self.packet_id = self.packet_id % 65_535 + 1
            body = 2 + len(topic) + 2 + 1 + len(payload)
            head = bytes((0x32, body & 127 | 128, body >> 7)) if body > 127 else bytes((0x32, body))
            parts += (head, len(topic).to_bytes(2, "big"), topic, self.packet_id.to_bytes(2, "big"), b"\0", payload)
        self.transport.write(b"".join(parts))


class Device(asyncio.Protocol):
    """One PLC: its reads, its columns, its text."""

    def __init__(self, number: int, ints: int, floats: int, batch: int, broker: Broker) -> None:
        self.topic, self.broker, self.ints, self.batch = b"bench/d%d" % number, broker, ints, batch
        registers = ints + 2 * floats
        starts = range(0, registers, REGISTERS_PER_READ)
        sizes = [min(REGISTERS_PER_READ, registers - start) for start in starts]
        self.requests = [
            b"\0\0\0\0\0\x06\x01\x03" + start.to_bytes(2, "big") + size.to_bytes(2, "big")
            for start, size in zip(starts, sizes, strict=True)
        ]
        self.lengths = [ANSWER_HEAD + 2 * size for size in sizes]
        self.answers: list[bytes] = []
        self.rest = b""
        self.opening = [b',{"tag":"d%d.t%d","value":' % (number, i) for i in range(ints + floats)]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def scan(self) -> None:
        self.answers.clear()
        self.transport.write(self.requests[0])

    def data_received(self, data: bytes) -> None:
        data = self.rest + data
        if len(data) < self.lengths[len(self.answers)]:
            self.rest = data
            return
        self.rest = b""
        self.answers.append(data[ANSWER_HEAD:])
        if len(self.answers) < len(self.requests):
            self.transport.write(self.requests[len(self.answers)])
        else:
            self.publish(b"".join(self.answers))

    def publish(self, raw: bytes) -> None:
        ints = np.frombuffer(raw, ">i2", self.ints).astype(np.int64)
        floats = np.frombuffer(raw, ">f4", -1, 2 * self.ints).astype(np.float32)
        texts = [text for column in (ints, floats) for text in _texts(column)]
        closing = b',"ts":%d,"qos":0}' % (time.time_ns() // 1_000_000)
        parts = [closing] * (3 * len(texts))
        parts[0::3], parts[1::3] = self.opening, texts
        step = 3 * self.batch
        messages = [b"[" + b"".join(parts[at : at + step])[1:] + b"]" for at in range(0, len(parts), step)]
        self.broker.publish(self.topic, messages)
        self.broker.rows += len(texts)


def _texts(column: np.ndarray[tuple[int], np.dtype[np.generic]]) -> list[bytes]:
    return orjson.dumps(column, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",") if len(column) else []


async def run(a: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    broker = Broker()
    await loop.create_connection(lambda: broker, "127.0.0.1", a.mqtt_port)
    devices = [Device(number, a.ints, a.floats, a.batch, broker) for number in range(a.devices)]
    for device in devices:
        await loop.create_connection(lambda device=device: device, "127.0.0.1", a.modbus_port)  # type: ignore[misc]
    due = reported = loop.time()
    while True:
        for device in devices:
            device.scan()
        if loop.time() - reported >= REPORT_S:
            reported = loop.time()
            print(json.dumps({"rows": broker.rows}), flush=True)
        due += a.scan
        await asyncio.sleep(max(0.0, due - loop.time()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--modbus-port", type=int, required=True)
    parser.add_argument("--mqtt-port", type=int, required=True)
    parser.add_argument("--devices", type=int, default=40)
    parser.add_argument("--ints", type=int, default=62)
    parser.add_argument("--floats", type=int, default=63)
    parser.add_argument("--scan", type=float, default=0.1)
    parser.add_argument("--batch", type=int, default=32)
    uvloop.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
