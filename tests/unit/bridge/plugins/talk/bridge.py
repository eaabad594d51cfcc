"""A bridge of text lines: `get TAG`, `set TAG VALUE`, `who`, and ways to go wrong: `die`, `hang`, `eat`, `shout`."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from framegate.contract.bridge import BridgeContext, BridgeHealth, BridgeTag
from framegate.contract.command import Command
from framegate.contract.errors import GatewayError, Misconfigured, TagProblem
from framegate.contract.frame import Batch
from framegate.endpoint.url import parse_url


class TalkBridge:
    def __init__(self, options: Mapping[str, Any]) -> None:
        if options.get("greeting") == "wrong":
            raise Misconfigured("greeting is wrong")
        self.options = options
        self.values: dict[int, list[Any]] = {}
        self.columns: set[int] = set()
        self.rows = self.writes = self.number = 0

    def check(self, tags: Sequence[BridgeTag]) -> None:
        bad = [tag for tag in tags if tag.options.get("alias") == "bad"]
        if bad:
            problems = [TagProblem(tag.name, "alias", "E1110", "is bad") for tag in bad]
            raise Misconfigured("an alias is bad", tag_problems=problems)

    async def open(self, context: BridgeContext) -> None:
        self.check(context.tags)
        self.context = context
        self.tags = {tag.name: tag for tag in context.tags}
        url = parse_url(context.url)
        try:
            self.server = await asyncio.start_server(self.serve, url.host, url.port)
        except OSError as error:
            raise Misconfigured(f"cannot listen: {error.strerror}", code="E2035") from error
        context.log.info("talking", tags=len(context.tags))

    def update(self, batches: Sequence[Batch]) -> None:
        for batch in batches:
            self.columns.add(id(batch.tag))
            count = len(batch.tag)
            quality = batch.quality.tolist() * (count if len(batch.quality) == 1 else 1)
            times = batch.source_time.tolist() * (count if len(batch.source_time) == 1 else 1)
            rows = zip(batch.tag.tolist(), batch.value.tolist(), quality, times, strict=True)
            self.values.update({tag: [value, status, at] for tag, value, status, at in rows})
            self.rows += count

    def health(self) -> BridgeHealth:
        return BridgeHealth(clients=1, requests_total=self.number, writes_total=self.writes)

    async def close(self) -> None:
        self.server.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            self.number += 1
            try:
                answer = await self.answer(line.decode().split())
            except GatewayError as error:
                answer = {"code": error.stable_code, "text": error.text}
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()

    async def answer(self, words: list[str]) -> Any:
        match words:
            case ["get", name]:
                return self.values.get(self.tags[name].id)
            case ["show", name]:
                tag = self.tags[name]
                return [tag.type.value, *tag[3:9], dict(tag.options)]
            case ["rows"]:
                return {"rows": self.rows, "columns": len(self.columns), "known": len(self.values)}
            case ["set", name, value]:
                return await self.set(name, json.loads(value))
            case ["die"]:
                os._exit(3)
            case ["hang"]:
                time.sleep(60)  # noqa: ASYNC251 - that is what hanging is
            case ["eat"]:
                self.values[0] = [bytearray(os.urandom(1)) * (2 << 30)]
            case ["shout"]:
                for number in range(1_000):
                    logging.getLogger("noisy").warning("line %d", number)
        return None

    async def set(self, name: str, value: Any) -> Any:
        door = self.context.commands
        if door is None:
            return "closed"
        self.writes += 1
        records = await door.submit([Command(f"talk-{os.getpid()}-{self.number}", name, value)], "anna")
        record = records[0]
        if record.outcome is None:
            record = await door.wait(record.command.id, 5.0) or record
        outcome = record.outcome.name if record.outcome else None
        return {"outcome": outcome, "code": record.code, "origin": record.origin}
