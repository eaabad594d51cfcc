"""A driver that runs somewhere else, as the runtime sees any other: plans that wait for it, one host while it is open.

A connected socket of the device is handed over, and goes to the host with the first call. Tags that the driver refuses
are Bad rows, and told once: they do not keep the others from being read. What a status means is in statuses.py.
"""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

from framegate.carrier.child.abi import Status
from framegate.carrier.child.instance import GROUPS_MAX
from framegate.carrier.child.wire import ERROR, START, Grant, Message
from framegate.carrier.crashes import CrashLoop
from framegate.carrier.remote.calls import Reply
from framegate.carrier.remote.groups import Groups, Told
from framegate.carrier.remote.plan import RemotePlan, check_tags, json_of
from framegate.carrier.remote.statuses import error_in, poll_failure, refusal, text_of
from framegate.carrier.remote.writing import REASON_CHARACTERS_MAX, Written
from framegate.contract.command import Outcome, Write, WriteResult
from framegate.contract.driver import BoundTag, DriverContext, Plan
from framegate.contract.errors import FrameBroken, GatewayError, NotConnected
from framegate.contract.frame import Batch, TagId
from framegate.contract.plugin import Manifest

CONNECT_BUDGET_S = 10.0
_OK, _POLL = int(Status.OK), Message.POLL  # members of an enum are looked up slowly
WRITE_BUDGET_S = 20.0
"""Less than the runtime's patience with one write."""


class Host(Protocol):
    """Where the calls of a driver are made: a process, or a thread."""

    async def start(self) -> None: ...
    async def call(
        self,
        kind: Message,
        status: int = 0,
        rows: int = 0,
        parts: Sequence[bytes | memoryview] = (),
        *,
        budget_s: float,
        fds: Sequence[int] = (),
        answer_bytes: int = ...,
    ) -> Reply: ...
    def lies(self, what: str) -> NotConnected: ...
    def kill(self) -> None: ...
    async def end(self) -> None: ...


class RemoteDriver(ABC):
    """Reads and writes one device. What is started, and how, is the subclass's."""

    start_budget_s = 5.0

    def __init__(self, manifest: Manifest, options: Mapping[str, Any], *, takes_json: bool) -> None:
        self._manifest = manifest
        self._options = json_of(options)
        self._takes_json = takes_json
        self._tags: dict[TagId, BoundTag] = {}
        self._crashes: CrashLoop | None = None
        self._context: DriverContext | None = None
        self._host: Host | None = None
        self._line: socket.socket | None = None
        self._groups = Groups(GROUPS_MAX)
        self._has_changed = False  # a tag is another one than the driver may have been told
        self._has_told_missing = False

    @abstractmethod
    async def _launch(self, context: DriverContext) -> None:
        """Call `_start` with what there is to start; raises NotConnected, Misconfigured, Busy."""

    def plan(self, tags: Sequence[BoundTag]) -> RemotePlan:
        """The tags of one scan class, to be told to the driver; nobody is asked.

        raises Misconfigured E4515
        """
        check_tags(tags, takes_json=self._takes_json)
        self._has_changed |= any(self._tags.get(tag.id, tag) != tag for tag in tags)
        self._tags.update((tag.id, tag) for tag in tags)
        return RemotePlan(tags)

    async def open(self, context: DriverContext) -> None:
        """Start the driver, and have it connect.

        raises NotConnected, Misconfigured, Busy
        """
        await self.close()
        self._context = context
        if self._crashes is None:
            self._crashes = CrashLoop(context.clock)
        self._crashes.check()
        try:
            await self._launch(context)
        except Exception:
            await self.close()  # a driver is told to leave also after a connect that failed
            raise
        except BaseException:
            host, self._host = self._host, None
            if host is not None:
                host.kill()
            await self.close()
            raise

    async def read(self, plan: Plan) -> Sequence[Batch]:
        """One scan.

        raises NoReply, NotConnected, DeviceRefused, FrameBroken, Busy
        """
        assert isinstance(plan, RemotePlan)
        context, host = self._opened()
        told = self._groups.find(plan) or await self._tell(host, plan)
        if not told.plan.rows:
            return told.bad_rows(context.clock.now_ns())
        reply = await host.call(
            _POLL, told.number, told.budget_ms, budget_s=told.budget_ms / 1000, answer_bytes=told.answer_bytes
        )
        body = error_in(reply)[1] if reply.status == ERROR else reply.body
        try:
            batches = told.plan.batches(reply.rows, body, context.clock.now_ns())
        except FrameBroken as error:
            raise host.lies(error.text) from error
        if told.plan.mismatches.news:
            told.plan.mismatches.tell(context.log, context.name)
        if reply.status != _OK:
            raise poll_failure(self._where, reply, batches)
        if told.refused:
            batches += told.bad_rows(context.clock.now_ns())
        return batches

    async def write(self, commands: Sequence[Write]) -> Sequence[WriteResult]:
        """One result per command, in order."""
        written = Written(commands, self._tags)
        if not written.rows:
            return written.refused(Outcome.REJECTED, "")
        try:
            context, host = self._opened()
            if self._has_changed:
                await self._groups.drop_changed(host, self._tags, self._where)
                self._has_changed = False
            unknown = [tag for tag in written.tags if not self._groups.has(tag.id)]
            if unknown:
                await self._tell(host, RemotePlan.introduction(unknown))
        except GatewayError as error:
            return written.refused(Outcome.NOT_SENT, error.text)
        left_s = min(command.expires for command in commands) - context.clock.monotonic()
        if left_s <= 0:
            return written.refused(Outcome.NOT_SENT, "its time was over before it could be sent")
        budget_s = min(WRITE_BUDGET_S, left_s)
        try:
            reply = await host.call(
                Message.WRITE, round(budget_s * 1000), written.rows, written.parts(), budget_s=budget_s
            )
        except NotConnected as error:
            return written.refused(Outcome.UNKNOWN, error.text)
        if reply.status == ERROR:
            return written.refused(Outcome.UNKNOWN, str(poll_failure(self._where, reply))[:REASON_CHARACTERS_MAX])
        return written.results(reply)

    async def close(self) -> None:
        """End the host, and give the line back."""
        host, self._host = self._host, None
        line, self._line = self._line, None
        self._groups = Groups(GROUPS_MAX)
        if host is not None:
            await host.end()
        if line is not None:
            with suppress(OSError):  # the remote may have gone
                line.shutdown(socket.SHUT_RDWR)
            line.close()

    # -- for subclasses -----------------------------------------------------------------------------------

    async def _start(self, context: DriverContext, host: Host, terms: bytes, fds: Sequence[int] = ()) -> None:
        """Start a host with these terms and file descriptors, and with the line of the endpoint; connect."""
        if context.endpoint:
            self._line = await context.lines.hand_over(context.endpoint)
        handed = [] if self._line is None else [self._line.fileno()]
        self._host = host
        await host.start()
        parts = [*self._grants(context), terms]
        started = await host.call(Message.START, parts=parts, budget_s=self.start_budget_s, fds=[*fds, *handed])
        if started.status != Status.OK:
            raise refusal(self._where, started)
        missing = text_of(started)
        if missing and not self._has_told_missing:
            self._has_told_missing = True
            context.log.warning("driver_confined_in_part", driver_id=context.name, missing=missing)
        connected = await host.call(Message.CONNECT, len(handed), budget_s=CONNECT_BUDGET_S)
        if connected.status != Status.OK:
            raise refusal(self._where, connected)

    def _grants(self, context: DriverContext) -> list[bytes]:
        """The beginning of START: see carrier.child.wire."""
        asked = self._manifest.permissions
        home = str(context.home).encode() if asked.home and context.home is not None else b""
        flags = (Grant.NETWORK if asked.network == "own" else 0) | (Grant.HOME if home else 0)
        return [START.pack(asked.memory, flags, len(home)), home]

    def _crashed(self, how: str) -> None:
        assert self._crashes is not None
        assert self._context is not None
        if self._crashes.crashed(how):
            self._context.log.error("driver_crash_loop", driver_id=self._context.name, reason=how)

    async def _tell(self, host: Host, plan: RemotePlan) -> Told:
        """Have the driver know a plan; raises NotConnected, Misconfigured."""
        assert self._context is not None
        told = await self._groups.tell(host, plan, self._where)
        if told.refused:
            names = ", ".join(sorted(tag.name for tag in told.refused)[:10])
            self._context.log.error("driver_refused_tags", driver_id=self._context.name, tags=names, reason=told.reason)
        return told

    @property
    def _where(self) -> str:
        assert self._context is not None
        return f"driver {self._context.name} ({self._manifest.name})"

    def _opened(self) -> tuple[DriverContext, Host]:
        if self._context is None or self._host is None:
            raise NotConnected("the driver is not open", code="E4521")
        return self._context, self._host
