"""An MQTT 3.1.1 subscriber that counts frames and looks for holes in their positions.

Outside every figure. It parses just enough of each PUBLISH to be cheap at 50,000 messages/s. Prints {"ready": true},
and, once stdin is closed and nothing more comes, one JSON line: messages, frames, lost (positions never seen between
first and last), duplicates (rows seen again), out_of_order (rows first seen after a later one), first, last,
gateway_times (the earliest few, protobuf only).

With --durable it keeps a session at the broker, takes QoS 1, and connects again whenever the broker returns.

    python benches/consumer.py --port 1883 --topic '#' --encoding json-batch
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
from collections.abc import Callable
from typing import NamedTuple, cast

import numpy as np
import uvloop

from framegate.contract._generated import frame_pb2

POS = re.compile(rb'"pos":(\d+)')
RETRY_S = 0.02
GATEWAY_TIMES = 16
QUIET_S = 0.5
QUIET_DEADLINE_S = 30.0
PUBLISH = 3  # packet type, MQTT 3.1.1 table 2.1


class Span(NamedTuple):
    """Rows of one message that follow each other; rows of one lane arrive in order."""

    first: int
    rows: int
    lane: int = 0
    gateway_time: int = 0


def spans_json(payload: bytes) -> list[Span]:
    """One frame per message."""
    found = POS.search(payload)
    assert found is not None
    return [Span(int(found[1]), 1)]


def spans_json_batch(payload: bytes) -> list[Span]:
    found = POS.search(payload)
    assert found is not None
    return [Span(int(found[1]), payload.count(b'{"tag":'))]


def spans_protobuf(payload: bytes) -> list[Span]:
    """A message holds one kind of value, and order is promised per tag: each kind is a lane."""
    batch = frame_pb2.FrameBatch.FromString(payload)
    lane = bool(batch.double_value) + 2 * bool(batch.int_value) + 4 * bool(batch.uint_value)
    return [Span(run.pos, run.rows, lane, batch.gateway_time) for run in batch.run]


DECODERS: dict[str, Callable[[bytes], list[Span]]] = {
    "json": spans_json,
    "json-batch": spans_json_batch,
    "protobuf": spans_protobuf,
}


class Tally:
    """Positions seen, as spans; gapless positions make loss countable."""

    def __init__(self) -> None:
        self.messages = self.frames = 0
        self.gateway_times: list[int] = []
        self.next: dict[int, int] = {}
        self.prompt: list[tuple[int, int]] = []
        self.late: list[tuple[int, int]] = []

    def add(self, spans: list[Span]) -> None:
        if len(self.gateway_times) < GATEWAY_TIMES:
            self.gateway_times.append(spans[0].gateway_time)
        self.messages += 1
        for first, rows, lane, _ in spans:
            self.frames += rows
            if first < self.next.get(lane, 0):
                self.late.append((first, rows))
                continue
            self.next[lane] = first + rows
            if self.prompt and sum(self.prompt[-1]) == first:
                self.prompt[-1] = (self.prompt[-1][0], self.prompt[-1][1] + rows)
            else:
                self.prompt.append((first, rows))

    def verdict(self) -> dict[str, object]:
        spans = self.prompt + self.late
        start = min((first for first, _ in spans), default=1)
        seen = np.zeros(max(map(sum, spans), default=start) - start, np.bool_)
        for first, rows in self.prompt:
            seen[first - start : first - start + rows] = True
        out_of_order = 0
        for first, rows in self.late:
            piece = seen[first - start : first - start + rows]
            out_of_order += rows - int(piece.sum())
            piece[:] = True
        different = int(seen.sum())
        return {
            "messages": self.messages,
            "frames": self.frames,
            "lost": len(seen) - different,
            "duplicates": self.frames - different,
            "out_of_order": out_of_order,
            "first": start if spans else 0,
            "last": start + len(seen) - 1 if spans else 0,
            "gateway_times": self.gateway_times,
        }


class Subscriber(asyncio.Protocol):
    """One connection."""

    def __init__(self, topic: str, decode: Callable[[bytes], list[Span]], tally: Tally, *, is_durable: bool) -> None:
        self.topic, self.decode, self.tally, self.is_durable = topic.encode(), decode, tally, is_durable
        self.rest = b""
        self.subscribed = asyncio.Event()
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        clean = b"\0" if self.is_durable else b"\x02"
        self.transport.write(b"\x10\x13\x00\x04MQTT\x04" + clean + b"\x00\x00\x00\x07counter")
        body = b"\x00\x01" + len(self.topic).to_bytes(2, "big") + self.topic + bytes((self.is_durable,))
        self.transport.write(b"\x82" + bytes((len(body),)) + body)

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.set()

    def data_received(self, data: bytes) -> None:
        data = self.rest + data if self.rest else data
        at, end, acks = 0, len(data), []
        while end - at >= 2:
            size, shift, body = 0, 0, at + 1
            while body < end:
                byte = data[body]
                size |= (byte & 0x7F) << shift
                shift += 7
                body += 1
                if byte < 0x80:
                    break
            else:
                break
            if body + size > end:
                break
            head = data[at]
            if head >> 4 == PUBLISH:
                start = body + 2 + ((data[body] << 8) | data[body + 1])
                if head & 0x06:
                    acks.append(b"\x40\x02" + data[start : start + 2])
                    start += 2
                self.tally.add(self.decode(data[start : body + size]))
            elif head >> 4 == 9:  # SUBACK
                self.subscribed.set()
            at = body + size
        self.rest = data[at:]
        if acks:
            self.transport.write(b"".join(acks))


async def settled(tally: Tally) -> None:
    """Until nothing has come for a while: a busy broker may still hold a second's messages."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + QUIET_DEADLINE_S
    seen = -1
    while tally.messages != seen and loop.time() < deadline:
        seen = tally.messages
        await asyncio.sleep(QUIET_S)


async def count(port: int, topic: str, encoding: str, *, is_durable: bool) -> None:
    loop = asyncio.get_running_loop()
    tally = Tally()

    def subscriber() -> Subscriber:
        return Subscriber(topic, DECODERS[encoding], tally, is_durable=is_durable)

    async def come_back(line: Subscriber) -> None:
        while True:
            await line.lost.wait()
            try:
                _, line = await loop.create_connection(subscriber, "127.0.0.1", port)
            except OSError:
                await asyncio.sleep(RETRY_S)

    _, line = await loop.create_connection(subscriber, "127.0.0.1", port)
    await asyncio.wait_for(line.subscribed.wait(), 10)
    print(json.dumps({"ready": True}), flush=True)
    closed = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), lambda: None if sys.stdin.read(1) else closed.set())
    returning = asyncio.create_task(come_back(line))
    await closed.wait()
    await settled(tally)
    returning.cancel()
    print(json.dumps(tally.verdict()), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--topic", default="#")
    parser.add_argument("--encoding", choices=sorted(DECODERS), default="json-batch")
    parser.add_argument("--durable", action="store_true")
    a = parser.parse_args()
    uvloop.run(count(a.port, a.topic, a.encoding, is_durable=a.durable))
