"""An MQTT 3.1.1 subscriber that counts frames and looks for holes in their positions.

Outside every figure. It parses just enough of each PUBLISH to be cheap at 50,000 messages/s. Prints one JSON line
when stdin closes: messages, frames, lost (positions never seen), out_of_order, duplicates.

    python benches/consumer.py --port 1883 --topic 'bench/#' --encoding json-batch
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
from collections.abc import Callable
from typing import cast

import uvloop

from framegate.contract._generated import frame_pb2

POS = re.compile(rb'"pos":(\d+)')
Spans = list[tuple[int, int]]


def spans_json(payload: bytes) -> Spans:
    """One frame per message."""
    found = POS.search(payload)
    assert found is not None
    return [(int(found[1]), 1)]


def spans_json_batch(payload: bytes) -> Spans:
    found = POS.search(payload)
    assert found is not None
    return [(int(found[1]), payload.count(b'{"tag":'))]


def spans_protobuf(payload: bytes) -> Spans:
    batch = frame_pb2.FrameBatch.FromString(payload)
    return [(run.pos, run.rows) for run in batch.run]


DECODERS: dict[str, Callable[[bytes], Spans]] = {
    "json": spans_json,
    "json-batch": spans_json_batch,
    "protobuf": spans_protobuf,
}


class Tally:
    """Positions seen, as spans; gapless positions make loss countable."""

    def __init__(self) -> None:
        self.messages = self.frames = self.out_of_order = 0
        self.spans: Spans = []
        self.next = 0

    def add(self, spans: Spans) -> None:
        self.messages += 1
        for first, rows in spans:
            self.frames += rows
            if first < self.next:
                self.out_of_order += 1
            self.next = first + rows
            if self.spans and self.spans[-1][0] + self.spans[-1][1] == first:
                self.spans[-1] = (self.spans[-1][0], self.spans[-1][1] + rows)
            else:
                self.spans.append((first, rows))

    def verdict(self) -> dict[str, int]:
        seen = lost = duplicates = 0
        for first, rows in sorted(self.spans):
            lost += max(0, first - seen - 1) if seen else 0
            duplicates += max(0, min(seen, first + rows - 1) - first + 1)
            seen = max(seen, first + rows - 1)
        return {
            "messages": self.messages,
            "frames": self.frames,
            "lost": lost,
            "duplicates": duplicates,
            "out_of_order": self.out_of_order,
            "first": min((first for first, _ in self.spans), default=0),
            "last": seen,
        }


class Subscriber(asyncio.Protocol):
    def __init__(self, topic: str, decode: Callable[[bytes], Spans], tally: Tally) -> None:
        self.topic, self.decode, self.tally, self.rest = topic.encode(), decode, tally, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        out = cast(asyncio.Transport, transport)
        out.write(b"\x10\x13\x00\x04MQTT\x04\x02\x00\x00\x00\x07counter")
        body = b"\x00\x01" + len(self.topic).to_bytes(2, "big") + self.topic + b"\x00"
        out.write(b"\x82" + bytes((len(body),)) + body)

    def data_received(self, data: bytes) -> None:
        data = self.rest + data if self.rest else data
        at, end = 0, len(data)
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
            if data[at] >> 4 == 3:
                start = body + 2 + ((data[body] << 8) | data[body + 1])
                self.tally.add(self.decode(data[start : body + size]))
            at = body + size
        self.rest = data[at:]


async def count(port: int, topic: str, encoding: str) -> None:
    loop = asyncio.get_running_loop()
    tally = Tally()
    await loop.create_connection(lambda: Subscriber(topic, DECODERS[encoding], tally), "127.0.0.1", port)
    print(json.dumps({"ready": True}), flush=True)
    closed = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), lambda: closed.set() if not sys.stdin.buffer.read1(1) else None)
    await closed.wait()
    print(json.dumps(tally.verdict()), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--topic", default="#")
    parser.add_argument("--encoding", choices=sorted(DECODERS), default="json-batch")
    arguments = parser.parse_args()
    uvloop.run(count(arguments.port, arguments.topic, arguments.encoding))
