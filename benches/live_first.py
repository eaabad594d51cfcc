"""How old live values are while a long backlog drains over a thin uplink, with `backlog` as asked.

Method. Frames flow through a relay on loopback that passes so many bytes per second towards the broker and can be shut.
It is shut for a while, then opened. A subscriber at the broker's side notes for each message its age on arrival: now
minus the source time of its first value, by one clock. Counted are fresh values, read after the opening, that are not
marked as back-fill and arrived before the end of the drain (nothing owed, less than two scans left to send).

    python -m benches.live_first                          55 s, 30,000 frames/s, 6 MB/s
    python -m benches.live_first --backlog in_order --outage 10
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import threading
import time

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from benches.rig import ACKED, LAG, Case, Gateway, plant, say, total
from framegate.testing.ports import free_port

OWED = "edge_outbox_owed_rows"
SENT_BYTES = "edge_outbox_sent_bytes_total"
DRAIN_DEADLINE_S = 180.0
CHUNK_BYTES = 16 * 1024


class Relay:
    """A thin line between gateway and broker, in a thread of its own."""

    def __init__(self, broker_port: int, bytes_per_s: float) -> None:
        self.port = free_port()
        self._broker_port, self._bytes_per_s = broker_port, bytes_per_s
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def mend(self) -> None:
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(5)

    def shut(self) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(5)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._join, "127.0.0.1", self.port, limit=CHUNK_BYTES)

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in self._open:
            writer.transport.abort()
        self._open.clear()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_connection("127.0.0.1", self._broker_port)
        self._open |= {writer, forth}
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(self._pass(reader, forth, self._bytes_per_s), self._pass(back, writer, 1e9))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, bytes_per_s: float) -> None:
        free_at = self._loop.time()
        while data := await reader.read(CHUNK_BYTES):
            free_at = max(free_at, self._loop.time()) + len(data) / bytes_per_s
            await asyncio.sleep(free_at - self._loop.time())
            writer.write(data)
            await writer.drain()
        writer.close()


class Ages:
    """Ages of fresh live messages in ms, and how many messages of back-fill, while `is_noting`."""

    def __init__(self, port: int) -> None:
        self.live: list[float] = []
        self.backfill_messages = 0
        self.is_noting = False
        self.opened_ms = 0.0
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = self._take
        self._client.on_connect = lambda client, *_: client.subscribe("#")
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def _take(self, _: paho.Client, __: object, message: paho.MQTTMessage) -> None:
        if not self.is_noting:
            return
        payload = json.loads(message.payload)
        if payload.get("backfill"):
            self.backfill_messages += 1
        elif "frames" in payload and payload["frames"][0]["ts"] >= self.opened_ms:
            self.live.append(time.time_ns() / 1e6 - payload["frames"][0]["ts"])

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def drained(gateway: Gateway, rows: int) -> float:
    began = time.monotonic()
    while time.monotonic() - began < DRAIN_DEADLINE_S:
        found = gateway.scrape()
        if total(found, OWED) == 0 and total(found, LAG) < rows:
            return time.monotonic() - began
        time.sleep(0.2)
    sys.exit("the backlog did not drain within its deadline")


def run(case: Case, backlog: str, outage: float, megabytes_per_s: float) -> None:
    with plant(case, is_counted=False) as surroundings:
        relay = Relay(surroundings.broker.port, megabytes_per_s * 1e6)
        relay.mend()
        config = surroundings.home / "config"
        for file, old, new in (
            ("endpoints.yml", f":{surroundings.broker.port}'", f":{relay.port}'"),
            ("drivers.yml", "endpoint: broker, ", f"endpoint: broker, backlog: {backlog}, "),
        ):
            text = (config / file).read_text()
            assert old in text
            (config / file).write_text(text.replace(old, new))
        ages = Ages(surroundings.broker.port)
        with surroundings.gateway() as gateway:
            gateway.wait_for(ACKED, 1)
            time.sleep(3.0)
            relay.shut()
            time.sleep(outage)
            held = gateway.scrape()
            ages.opened_ms, ages.is_noting = time.time_ns() / 1e6, True
            relay.mend()
            drain_s = drained(gateway, 2 * case.tags)
            ages.is_noting = False
            after = gateway.scrape()
            gateway.stop()
        ages.close()
        relay.shut()
    live = sorted(ages.live) or [0.0]
    say(
        "live_first",
        case,
        backlog=backlog,
        outage_s=outage,
        uplink_mb_per_s=megabytes_per_s,
        backlog_rows=round(total(held, LAG)),
        sent_mb=round((total(after, SENT_BYTES) - total(held, SENT_BYTES)) / 1e6, 1),
        drain_s=round(drain_s, 1),
        live_messages=len(ages.live),
        backfill_messages=ages.backfill_messages,
        live_ms={name: round(live[int(share * (len(live) - 1))]) for name, share in SHARES.items()},
    )


SHARES = {"p50": 0.5, "p99": 0.99, "max": 1.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backlog", choices=("live_first", "in_order"), default="live_first")
    parser.add_argument("--outage", type=float, default=55.0)
    parser.add_argument("--uplink", type=float, default=6.0, metavar="MB_PER_S")
    parser.add_argument("--tags", type=int, default=30_000)
    options = parser.parse_args()
    run(Case(tags=options.tags, scan="1s", devices=20), options.backlog, options.outage, options.uplink)


if __name__ == "__main__":
    main()
