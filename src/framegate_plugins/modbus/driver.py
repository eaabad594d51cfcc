"""The Modbus driver: one device (unit) of an endpoint; the contract's four verbs on top of plan, session and writer.

Nothing about bytes is decided here: `planner.py` merges, `client.py` talks, `columns.py` decodes, `writer.py` judges
writes. Back-off, quarantine and the rhythm of scans are the runtime's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Any

from framegate.contract.command import Outcome, Write, WriteResult
from framegate.contract.driver import BoundTag, DriverContext, Plan, Survey
from framegate.contract.errors import Busy, Misconfigured, NoReply, NotConnected, Problem
from framegate.contract.frame import Batch, TagId
from framegate.contract.ports import Lease
from framegate_plugins.modbus.client import ModbusSession
from framegate_plugins.modbus.codec import ExceptionReply
from framegate_plugins.modbus.exchange import GATEWAY_CODES, Answer, Ask, Exchange
from framegate_plugins.modbus.options import parse_options
from framegate_plugins.modbus.plan import ReadPlan
from framegate_plugins.modbus.survey import survey_of
from framegate_plugins.modbus.tags import Point, points_from
from framegate_plugins.modbus.writer import jobs_from, results_from

SPLIT_ROUNDS_MAX = 12
"""Times that one scan may cut refused reads in two: 2 ** 12 is more tags than one request can hold."""
SERIAL_UNIT_MAX = 247  # MODBUS over Serial Line V1.02, 2.2; 0 is broadcast there, and nobody answers
WRITE_WAIT_TIMEOUTS = 2.0
"""A write without a deadline that could not begin within this many time-outs is not sent."""
WRITE_WAIT_S_MAX = 20.0
"""The same for one with a later deadline: less than the runtime's patience with one call."""


class ModbusDriver:
    """Reads and writes one Modbus device."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = parse_options(options)
        self._points: dict[TagId, Point] = {}
        self._context: DriverContext | None = None
        self._lease: Lease[ModbusSession] | None = None
        self._opening = object()

    def plan(self, tags: Sequence[BoundTag]) -> ReadPlan:
        """Merged reads for these tags; those with access W are known for writing only.

        raises Misconfigured
        """
        points = points_from(tags, self._options)
        writable = {point.id: point for point, tag in zip(points, tags, strict=True) if "W" in tag.access}
        self._points.update(writable)
        readable = [point for point, tag in zip(points, tags, strict=True) if "R" in tag.access]
        return ReadPlan(self._options.unit, readable, writable, self._options.limits)

    def survey(self, tags: Sequence[BoundTag]) -> Survey:
        """What these tags cover and cost. Raises Misconfigured."""
        return survey_of(tags, self._options)

    async def open(self, context: DriverContext) -> None:
        """Lease the endpoint's line.

        raises NotConnected, Misconfigured
        """
        self._release()
        self._context = context
        self._lease = await context.lines.acquire(context.endpoint, lambda: ModbusSession(self._options.framing))
        self._opening = object()
        session = self._lease.session
        wanted = self._options.framing
        if wanted not in {"auto", session.framing}:
            text = f"driver {context.name} wants framing {wanted}, but its endpoint {context.endpoint} already speaks "
            raise self._misconfigured("framing", f"{text}{session.framing}; give all drivers of one line one framing")
        if session.framing != "tcp" and not 1 <= self._options.unit <= SERIAL_UNIT_MAX:
            text = f"driver {context.name}: unit {self._options.unit} does not exist with framing {session.framing}; "
            raise self._misconfigured("unit", f"{text}it is a number from 1 to {SERIAL_UNIT_MAX}")

    async def read(self, plan: Plan) -> Sequence[Batch]:
        """One scan.

        raises NoReply, NotConnected, Busy
        """
        assert isinstance(plan, ReadPlan)
        context, session = self._opened()
        if plan.opening is not self._opening:
            # A device that was restarted may have other registers, and this driver may not have made the plan.
            plan.forget_splits(self._opening)
            self._points.update(plan.writable)
        exchange = self._asked(plan.asks)
        if exchange.open:
            await self._run(session, exchange)
        return await self.result(context, session, plan, exchange)

    def begin(self, plan: Plan, landed: Callable[[], None]) -> ReadScan | None:
        """One scan without a task; None before the first `read` of a plan, and where the line is lost or busy."""
        assert isinstance(plan, ReadPlan)
        if self._context is None or self._lease is None or plan.opening is not self._opening:
            return None
        session, exchange = self._lease.session, self._asked(plan.asks)
        try:
            session.start(exchange)
        except (NotConnected, Busy):
            return None
        if exchange.is_over:
            return None  # the line broke under it; `read` says so
        exchange.ended = landed
        return ReadScan(self, self._context, session, plan, exchange)

    async def result(
        self, context: DriverContext, session: ModbusSession, plan: ReadPlan, exchange: Exchange
    ) -> Sequence[Batch]:
        """What a scan brought whose requests were all asked."""
        if exchange.error is not None:
            raise exchange.error
        if exchange.is_clean:
            return plan.batches(exchange.answers, context.clock.now_ns())  # type: ignore[arg-type]  # no faults: all bytes
        return self._verdict(context, session, plan, await self._isolate(session, plan, exchange))

    async def write(self, commands: Sequence[Write]) -> Sequence[WriteResult]:
        """One result per command, in order."""
        jobs, refused = jobs_from(commands, self._points, self._options.writes)
        asks = [Ask(self._options.unit, job.request) for job in jobs]
        exchange = Exchange(self._options.unit, asks, timeout_s=self._options.timeout_s)
        exchange.is_write = True
        exchange.expires_at = self._expiry(commands)
        if asks:
            try:
                _, session = self._opened()
                await self._run(session, exchange)
            except (NotConnected, Busy) as error:
                for index, command in enumerate(commands):
                    refused.setdefault(index, WriteResult(command.tag, Outcome.NOT_SENT, error.text))
                return [refused[index] for index in range(len(commands))]
        return results_from(commands, jobs, exchange.answers, refused)

    def _expiry(self, commands: Sequence[Write]) -> float:
        """Loop time after which no request of these begins any more."""
        expires = min((command.expires for command in commands), default=inf)
        wait_s = WRITE_WAIT_TIMEOUTS * self._options.timeout_s if expires == inf else WRITE_WAIT_S_MAX
        return min(expires, asyncio.get_running_loop().time() + wait_s)

    async def close(self) -> None:
        """Give the line back."""
        self._release()
        self._context = None

    def _release(self) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.release()

    def _opened(self) -> tuple[DriverContext, ModbusSession]:
        if self._context is None or self._lease is None:
            raise NotConnected("the driver is not open", code="E5010")
        return self._context, self._lease.session

    def _misconfigured(self, option: str, text: str) -> Misconfigured:
        return Misconfigured(text, code="E5020", problems=[Problem("drivers", ("options", option), "E5020", text)])

    def _asked(self, asks: Sequence[Ask], answers: list[Answer] | None = None) -> Exchange:
        """A scan's reads, or those whose answers are still NOT_ASKED."""
        options = self._options
        return Exchange(
            options.unit, asks, timeout_s=options.timeout_s, retries=options.retries, pipeline=options.pipeline,
            answers=answers,
        )  # fmt: skip

    async def _run(self, session: ModbusSession, exchange: Exchange) -> None:
        session.start(exchange)
        try:
            if exchange.is_write or self._context is None:
                await exchange.done
            else:
                await self._context.passage.end_of(exchange.done)  # the session sends writes before further reads
        except asyncio.CancelledError:
            session.withdraw(exchange)
            raise

    async def _isolate(self, session: ModbusSession, plan: ReadPlan, exchange: Exchange) -> Exchange:
        """Cut refused reads until only the addresses at fault are refused, within bounds. Raises NotConnected."""
        for _ in range(SPLIT_ROUNDS_MAX):
            refused = plan.splittable(exchange.answers)
            if exchange.is_silent or not refused:
                break
            answers = plan.split(refused, exchange.answers)
            exchange = self._asked(plan.asks, answers)
            if exchange.open:
                await self._run(session, exchange)
            if exchange.error is not None:
                raise exchange.error
        return exchange

    def _verdict(
        self, context: DriverContext, session: ModbusSession, plan: ReadPlan, exchange: Exchange
    ) -> Sequence[Batch]:
        """Batches of a scan with faults; NoReply when the device fell silent."""
        now, answers = context.clock.now_ns(), exchange.answers
        is_behind = all(isinstance(a, ExceptionReply) and a.exception in GATEWAY_CODES for a in answers)
        if not exchange.is_silent and not is_behind:
            return plan.batches_with(answers, now, partial=False)
        partial = plan.batches_with(answers, now, partial=True)
        why = f"no answer within {self._options.timeout_s:g} s, retries {self._options.retries}"
        if is_behind:
            why = "the gateway answers that it cannot reach the device"
        text = (
            f"device {context.name} (unit {self._options.unit} at {session.url}): {why}; check power, wiring, unit id"
        )
        raise NoReply(text, code="E5012", partial=partial)


class ReadScan:
    """One scan that was begun; satisfies contract.driver.Begun."""

    __slots__ = ("_context", "_driver", "_exchange", "_plan", "_session")

    def __init__(
        self, driver: ModbusDriver, context: DriverContext, session: ModbusSession, plan: ReadPlan, exchange: Exchange
    ) -> None:
        self._driver, self._context, self._session = driver, context, session
        self._plan, self._exchange = plan, exchange

    def batches(self) -> Sequence[Batch] | None:
        exchange = self._exchange
        if not exchange.is_clean:
            return None
        return self._plan.batches(exchange.answers, self._context.clock.now_ns())  # type: ignore[arg-type]  # as above

    async def end(self) -> Sequence[Batch]:
        return await self._driver.result(self._context, self._session, self._plan, self._exchange)

    def withdraw(self) -> None:
        self._exchange.ended = None
        self._session.withdraw(self._exchange)
