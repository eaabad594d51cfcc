"""One driver, open, before the device of its vectors: what the questions of an exam do with it.

A call that takes too long, an exception that is no error of the gateway, a driver that was stopped: each is a Failed
that says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from framegate.contract.command import Outcome
from framegate.contract.driver import Driver, DriverContext, Plan
from framegate.contract.errors import GatewayError, NotConnected
from framegate.contract.frame import Batch, Value
from framegate.contract.quality import describe, is_bad
from framegate.testing.exam.device import ScriptedDevice
from framegate.testing.exam.vectors import ExpectedRow, ScanVector, Vectors, WriteVector
from framegate.testing.fakes import CollectingLog, rows_in

T = TypeVar("T")
CALL_S_MAX = 10.0
"""For one call of the driver; a hang is a finding."""
CLOSE_S_MAX = 1.0
REOPENS_MAX = 5
STOPPED_CODES = frozenset(("E4500", "E4510", "E4511", "E4512", "E4517", "E4543", "E4544"))
"""Of drivers that crashed, trapped or hung: never an answer to a hostile device."""


class Failed(Exception):
    """A question that was answered wrongly, in words."""


class Skipped(Exception):
    """A question that cannot be asked, and why."""


@dataclass
class Bench:
    """See above."""

    vectors: Vectors
    device: ScriptedDevice
    driver: Driver
    plan: Plan
    context: DriverContext
    log: CollectingLog

    async def open(self) -> None:
        await within(self.driver.open(self.context), "open")

    async def close(self) -> None:
        await within(self.driver.close(), "close", CLOSE_S_MAX)

    async def read(self) -> Sequence[Batch]:
        """One scan, whose rows are checked for being of the plan. Raises GatewayError."""
        batches = await within(self.driver.read(self.plan), "read")
        answered = sorted(tag for batch in batches for tag in batch.tag.tolist())
        if answered != sorted(self.plan.tag.tolist()):
            text = f"a scan that ends well has rows of {answered}, and its plan {sorted(self.plan.tag.tolist())}"
            raise Failed(text)
        return batches

    async def scan(self, wanted: ScanVector) -> None:
        """One scan whose rows must be those of the vector."""
        try:
            batches = await self.read()
        except GatewayError as error:
            raise Failed(f'scan "{wanted.name}": {error}{self.strange}') from error
        rows = {tag: (value, status) for batch in batches for tag, value, status in rows_in(batch)}
        wrong = [told for row in wanted.expected if (told := self._difference(row, rows))]
        if wrong:
            raise Failed(f'scan "{wanted.name}": {"; ".join(wrong)}{self.strange}')

    async def write(self, wanted: WriteVector) -> Outcome:
        command = self.vectors.command(wanted)
        results = await within(self.driver.write([command]), "write")
        if [result.tag for result in results] != [command.tag]:
            raise Failed(f'write "{wanted.name}": {len(results)} results for one command')
        return results[0].outcome

    async def recover(self) -> None:
        """Good scans again, as the runtime would get them: a lost line is opened anew, anything else is read again."""
        for _ in range(REOPENS_MAX):
            try:
                await self.read()
            except NotConnected as error:
                self.require_alive(error)
                await self.close()
                await self.open()
            except GatewayError:
                continue
            else:
                return
        raise Failed(f"no scan after a disturbance, in {REOPENS_MAX} tries{self.strange}")

    def require_alive(self, error: GatewayError, told: str = "") -> None:
        """Whether the driver only refused, or was stopped itself."""
        if error.stable_code in STOPPED_CODES:
            raise Failed(f"{error}{f' ({told})' if told else ''}")

    @property
    def strange(self) -> str:
        """For the end of a message: values of a kind that their tags do not take, and what the device was asked and no
        exchange has.
        """
        told = [
            f"; the driver handed over {said['emitted']} for {said['tags']}, and {said['type']} wants {said['wanted']}"
            for said in self.log.events("driver_kind_mismatch")
        ]
        known = self.device.strange
        return "".join(told) + (f"; the device was asked {known[0]}, which no exchange has" if known else "")

    def _difference(self, wanted: ExpectedRow, rows: dict[int, tuple[Value, int]]) -> str:
        tag = self.vectors.tag(wanted.tag)
        value, status = rows[tag.id]
        if status != wanted.status:
            return f"{wanted.tag} is {describe(status)}, expected {describe(wanted.status)}"
        if not is_bad(status) and not wanted.is_met_by(value, tag.type):
            return f"{wanted.tag} is {value!r}, expected {wanted.value!r}"
        return ""


async def within(call: Awaitable[T], name: str, limit_s: float = 0.0) -> T:
    """Await one call of the driver. Raises Failed for what no driver may do, GatewayError for what it may.

    limit_s  0: CALL_S_MAX
    """
    limit_s = limit_s or CALL_S_MAX
    try:
        async with asyncio.timeout(limit_s):
            return await call
    except TimeoutError:
        raise Failed(f"{name} has not ended after {limit_s:g} s") from None
    except (GatewayError, Failed):
        raise
    except Exception as error:
        raise Failed(f"{name} raises {type(error).__name__}: {error}") from error
