"""The OPC UA driver: one server of an endpoint; the contract's verbs on top of session, watches and writer.

Plans that are followed are watched by the server (or read, where the row says so), every other plan is read once.
Nothing here reconnects: a channel that has failed raises its reason from the next read, and the runtime opens anew.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from framegate.contract.command import Outcome, Write, WriteResult
from framegate.contract.driver import BoundTag, DriverContext, Found, Plan
from framegate.contract.errors import DeviceRefused, FrameBroken, GatewayError, NotConnected
from framegate.contract.frame import Batch, Int32Column, TagId
from framegate_plugins.opcua.browser import Browser
from framegate_plugins.opcua.columns import Columns
from framegate_plugins.opcua.options import parse_options
from framegate_plugins.opcua.points import Point, points_from
from framegate_plugins.opcua.publisher import Publisher
from framegate_plugins.opcua.session import Session
from framegate_plugins.opcua.types import Types
from framegate_plugins.opcua.watch import Watch
from framegate_plugins.opcua.writer import Writer

MISFITS_LOGGED_MAX = 10
"""Tags named in one line of the log, when the server's values do not fit their types."""


@dataclass(frozen=True, slots=True, eq=False)
class UaPlan:
    """Tags of one scan class, and how their values become columns; what a session makes of them is the driver's."""

    tag: Int32Column
    columns: Columns
    writable: Mapping[TagId, Point]


class OpcuaDriver:
    """Reads, watches and writes one OPC UA server."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = parse_options(options)
        self._points: dict[TagId, Point] = {}  # that may be written
        self._periods: dict[UaPlan, float] = {}  # of the plans that are followed
        self._watches: dict[UaPlan, Watch] = {}
        self._context: DriverContext | None = None
        self._session: Session | None = None
        self._publisher: Publisher | None = None
        self._writer: Writer | None = None
        self._types: Types | None = None

    def plan(self, tags: Sequence[BoundTag]) -> UaPlan:
        """Raises Misconfigured."""
        points = points_from(tags)
        writable = {point.id: point for point, tag in zip(points, tags, strict=True) if "W" in tag.access}
        self._points.update(writable)
        readable = [point for point, tag in zip(points, tags, strict=True) if "R" in tag.access]
        ids = np.array([point.id for point in readable], np.int32)
        ids.flags.writeable = False
        return UaPlan(ids, Columns(readable, self._options.source_time), writable)

    def follow(self, scans: Sequence[tuple[Plan, float]]) -> None:
        """Watch these from the next read on."""
        self._periods = {plan: period_s for plan, period_s in scans if isinstance(plan, UaPlan)}
        for plan in self._periods:
            self._points.update(plan.writable)

    async def open(self, context: DriverContext) -> None:
        """Open a session.

        raises NotConnected, NoReply, Misconfigured
        """
        await self.close()
        self._context = context
        session = self._session = Session(context, self._options)
        try:
            await session.open()
        except (DeviceRefused, FrameBroken) as error:  # whatever it is of a session, there is none
            raise NotConnected(error.text, code=error.stable_code) from error
        publisher = self._publisher = Publisher(session, context.clock, context.ready)
        types = self._types = Types(session)
        self._writer = Writer(session, types, context.clock, write_timestamp=self._options.write_timestamp)
        session.channel.when_lost(lambda _: publisher.lost())

    async def read(self, plan: Plan) -> Sequence[Batch]:
        """What has come for a plan that is followed, or all of one that is not.

        raises NotConnected, NoReply
        """
        assert isinstance(plan, UaPlan)
        context, session, publisher = self._opened()
        session.channel.raise_if_failed()
        try:
            for gone in [each for each in self._watches if each not in self._periods]:
                watch = self._watches.pop(gone)
                publisher.drop(watch)
                await watch.stop()
            return await self._read(plan, context, session, publisher)
        except NotConnected:
            raise
        except GatewayError as error:
            # A session that was not answered, or not as agreed, is of no more use; a fresh one has every value.
            session.channel.fail(NotConnected(error.text, code=error.stable_code))
            raise NotConnected(error.text, code=error.stable_code) from error

    async def _read(
        self, plan: UaPlan, context: DriverContext, session: Session, publisher: Publisher
    ) -> Sequence[Batch]:
        now_ns = context.clock.now_ns()
        period_s = self._periods.get(plan)
        watch = self._watches.get(plan)
        if watch is None:
            watch = Watch(session, plan, plan.columns, period_s or 1.0)
            await self._learn(watch)
        if period_s is None or self._options.mode == "poll":
            batches = await watch.read(watch.all, now_ns)
        elif plan in self._watches:
            batches = await watch.take(context.clock.monotonic(), now_ns)
            publisher.serve(watch)
        else:
            await watch.start(context.clock.monotonic())
            publisher.serve(watch)
            batches = await watch.first(now_ns)
        if period_s is not None:
            self._watches[plan] = watch
        self._tell_misfits(watch.columns, context)
        return batches

    async def _learn(self, watch: Watch) -> None:
        """The structures that its nodes may hold."""
        assert self._types is not None
        await self._types.learn_structures(watch.structured)
        watch.columns.structures = self._types.structures.by_encoding

    async def write(self, commands: Sequence[Write]) -> Sequence[WriteResult]:
        """One result per command, in order."""
        writer = self._writer
        if writer is None:
            return [WriteResult(command.tag, Outcome.NOT_SENT, "the driver is not open") for command in commands]
        return await writer.write(commands, self._points)

    async def browse(self, start: str, depth: int) -> AsyncIterator[Found]:
        """What is below a node; "" begins at Objects.

        raises NotConnected, NoReply, Misconfigured
        """
        _, session, _ = self._opened()
        async for found in Browser(session).below(start, depth):
            yield found

    async def close(self) -> None:
        """End the session."""
        publisher, self._publisher = self._publisher, None
        session, self._session = self._session, None
        self._watches.clear()
        self._writer = self._context = None
        if publisher is not None:
            publisher.close()
        if session is not None:
            await session.close()

    def _opened(self) -> tuple[DriverContext, Session, Publisher]:
        if self._context is None or self._session is None or self._publisher is None:
            raise NotConnected("the driver is not open", code="E2721")
        return self._context, self._session, self._publisher

    def _tell_misfits(self, columns: Columns, context: DriverContext) -> None:
        """Say once per session and tag whose value could not be held."""
        new = {name: why for name, why in columns.misfits.items() if name not in columns.misfits_told}
        if not new:
            return
        columns.misfits_told.update(new)
        first = dict(list(new.items())[:MISFITS_LOGGED_MAX])
        context.log.warning("opcua_misfit", driver_id=context.name, tags=len(new), reasons=first)
