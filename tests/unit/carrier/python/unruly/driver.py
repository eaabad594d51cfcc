"""A driver for tests: counts polls, or misbehaves as what was written to it says."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from framegate.contract.command import Outcome, Write, WriteResult
from framegate.contract.driver import BoundTag, DriverContext, Plan
from framegate.contract.errors import Busy, DeviceRefused, Misconfigured, NoReply, NotConnected, TagProblem
from framegate.contract.frame import Batch, Int32Column, ValueType, uniform_quality, uniform_time

COLUMN = {"d": np.float64, "l": np.int64, "L": np.uint64, "?": np.bool_}


class UnrulyPlan:
    def __init__(self, tags: Sequence[BoundTag]) -> None:
        self.tags = tags
        self.tag: Int32Column = np.array([tag.id for tag in tags], np.int32)


class UnrulyDriver:
    def __init__(self, options: Mapping[str, Any]) -> None:
        if options.get("wrong"):
            raise Misconfigured("option wrong is wrong; remove it", code="E5020")
        self._polls = 0
        self._manner = self._seen = ""
        self._fault = str(options.get("fault", ""))
        self._context: DriverContext | None = None
        self._line: socket.socket | None = None

    def plan(self, tags: Sequence[BoundTag]) -> UnrulyPlan:
        problems = [TagProblem(tag.name, "address", "E5021", "there is no such place") for tag in tags
                    if tag.address == "nowhere"]  # fmt: skip
        if problems:
            raise Misconfigured("tags cannot be read", code="E5021", tag_problems=problems)
        return UnrulyPlan(tags)

    async def open(self, context: DriverContext) -> None:
        context.log.info("unruly_opened", device=context.name)
        self._context = context
        if context.endpoint:
            self._line = await context.lines.hand_over(context.endpoint)

    async def read(self, plan: Plan) -> Sequence[Batch]:
        assert isinstance(plan, UnrulyPlan)
        self._polls += 1
        if self._fault and self._polls > 3:
            self._manner = self._fault
            if self._context is not None:
                self._context.log.warning("fault now")
        await self._misbehave()
        batches = self._rows(plan)
        if self._manner == "silent at the end":
            raise NoReply(f"the device is silent at the end, {'and ' * 250}so on", code="E5012", partial=batches[:-1])
        return batches

    def _rows(self, plan: UnrulyPlan) -> list[Batch]:
        now, batches = time.time_ns(), []
        for tag in plan.tags:
            value = np.empty(1, object) if tag.type.kind.value == "O" else np.zeros(1, COLUMN[tag.type.kind.value])
            texts = {
                ValueType.STRING: self._seen or f"n{self._polls}",
                ValueType.BYTES: b"\xff",
                ValueType.JSON: {"polls": [1]},
            }
            value[0] = texts.get(tag.type, self._polls)
            ids = np.array([tag.id], np.int32)
            batches.append(Batch(ids, value, uniform_quality(0), uniform_time(now), now))
        return batches

    async def write(self, commands: Sequence[Write]) -> Sequence[WriteResult]:
        results = []
        for command in commands:
            refuses = command.value == "refuse"
            if isinstance(command.value, str) and not refuses:
                self._manner = command.value
            if self._manner == "die now":
                os.kill(os.getpid(), signal.SIGKILL)
            if self._manner == "lose the line":
                raise NotConnected("the line broke under the write", code="E5015")
            outcome = Outcome.REJECTED if refuses else Outcome.CONFIRMED
            results.append(WriteResult(command.tag, outcome, "as asked" if refuses else ""))
        return results

    async def close(self) -> None:
        if self._manner == "close never":
            await asyncio.sleep(60)

    async def _misbehave(self) -> None:  # noqa: C901, PLR0912 - one case each
        match self._manner:
            case "segfault":
                import ctypes  # noqa: PLC0415 - an unruly driver

                ctypes.string_at(0)
            case "abort":
                os.abort()
            case "exit":
                os._exit(0)
            case "deadlock":
                import threading  # noqa: PLC0415 - as above

                threading.Lock().acquire(), threading.Event().wait()
            case "busy loop":
                while True:
                    pass
            case "memory":
                hoard = [bytearray(1 << 20) for _ in range(10_000)]
                del hoard
            case "noise":
                for number in range(int(os.environ.get("NOISE", "1000000"))):
                    print("noise", number, file=sys.stderr)  # noqa: T201 - an unruly driver
            case "bug":
                raise ValueError("seven is no eight")
            case "silent":
                raise NoReply("the device is silent", code="E5012")
            case "busy":
                raise Busy("later", wait_s=7.5, code="E5013")
            case "refused":
                raise DeviceRefused("no", quality=0x803D0000, code="E5014")
            case "slow":
                await asyncio.sleep(60)
            case "escape":
                self._seen = ",".join(self._escapes())

    def _escapes(self) -> list[str]:
        line, other = self._line, ("127.0.0.1", 9)
        past_the_line: dict[str, Callable[[], object]] = {} if line is None else {
            "send": lambda: line.send(b"x"),
            "sendto": lambda: line.sendto(b"x", other),
            "sendmsg": lambda: line.sendmsg([b"x"], [], 0, other),
            "connect": lambda: line.connect(other),
        }  # fmt: skip
        worked = []
        attempts: dict[str, Callable[[], object]] = past_the_line | {
            "read": lambda: Path("/etc/passwd").read_text(encoding="utf-8"),
            "write": lambda: Path("/tmp/framegate-escape").write_text("x", encoding="utf-8"),
            "socket": lambda: socket.socket(socket.AF_INET),
            "fork": os.fork,
            "kill": lambda: os.kill(os.getppid(), 0),
            "secret": lambda: os.environ["EDGE_SECRET"],
        }
        for name, attempt in attempts.items():
            with contextlib.suppress(OSError, KeyError):
                attempt()
                worked.append(name)
        return worked or ["nothing"]
