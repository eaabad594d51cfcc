"""WASM drivers: a sandboxed guest, in a thread and a store of its own, as a driver like any other.

    driver = WasmDriver(manifest, options, lambda: store.artifact(manifest, "driver"), cache=HOME/plugins/.cache)

A guest that traps, overruns its time or breaks its contract is dropped, its device is not connected until the runtime
opens it again, and one that does so again and again is parked (crashes.py). Its device's socket comes from the lines of
the gateway; it reaches nothing else. What a verb may take is in session.Budgets.

Source: contract/driver.wit; docs/decisions/0027-wasm-by-hand.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from framegate.carrier.crashes import CrashLoop
from framegate.carrier.remote.utterances import Utterances
from framegate.carrier.wasm import host, load
from framegate.carrier.wasm.columns import column_of, rows_of
from framegate.carrier.wasm.host import GRACE_S
from framegate.carrier.wasm.session import Budgets, Session, WasmPlan, examine, is_on_loop, json_of
from framegate.carrier.wasm.worker import Hung, Worker
from framegate.carrier.wasm.world import Errc, Overran, Trapped
from framegate.contract.command import Outcome, Write, WriteResult
from framegate.contract.driver import BoundTag, DriverContext, Plan
from framegate.contract.errors import (
    Busy,
    DeviceRefused,
    FrameBroken,
    GatewayError,
    Misconfigured,
    NoReply,
    NotConnected,
    TagProblem,
)
from framegate.contract.frame import Batch, ValueType
from framegate.contract.plugin import Artifact, Manifest
from framegate.contract.quality import Quality

T = TypeVar("T")
COMPILE_S_MAX = 660.0
"""For planning where nobody is kept waiting, such as by `edge check`."""
BUSY_S = 1.0
"""Before a device is asked again that said so."""
START_S = 3.0
"""For taking machine code from the cache and starting the instance."""


@dataclass(frozen=True, slots=True)
class _Origin:
    """What a driver is made of."""

    name: str
    memory_max: int
    artifact: Callable[[], Artifact]
    cache: Path
    options_json: bytes


class WasmDriver:
    """Satisfies contract.driver.Driver.

    artifact  hands over the verified file of the plugin, which is closed here
    cache     where machine code is kept: private to the gateway
    """

    def __init__(
        self,
        manifest: Manifest,
        options: Mapping[str, Any],
        artifact: Callable[[], Artifact],
        *,
        cache: Path,
        budgets: Budgets | None = None,
    ) -> None:
        options_json = json_of(options)
        self._origin = _Origin(manifest.name, manifest.permissions.memory, artifact, cache, options_json)
        self._budgets = budgets or Budgets()
        self._tags: dict[int, BoundTag] = {}  # all it was ever asked to plan, and took
        self._code: Any | None = None  # once it was loaded: a device that is away is opened again and again
        self._session: Session | None = None
        self._context: DriverContext | None = None
        self._crashes: CrashLoop | None = None
        self._utterances: Utterances | None = None

    def plan(self, tags: Sequence[BoundTag]) -> WasmPlan:
        """Ask the guest whether it can read these tags, in an instance of its own. Pure.

        The guest is asked for each tag once. On the loop thread it is asked only where its machine code is at hand;
        else it says so when its device is opened.

        raises Misconfigured E4540-E4542 - the plugin; E4543 - it was stopped; E4545 - options; E4546 - tags
        """
        problems = [
            TagProblem(tag.name, "type", "E4546", "a tag of a WASM driver cannot be json; take string")
            for tag in tags
            if tag.type is ValueType.JSON
        ]
        if problems:
            raise Misconfigured(f"{len(problems)} tags cannot be read", code="E4546", tag_problems=problems)
        plan = WasmPlan(tags)
        if any(self._tags.get(tag.id) != tag for tag in tags):
            self._examine(plan)
            self._tags.update((tag.id, tag) for tag in tags)
        return plan

    def _examine(self, plan: WasmPlan) -> None:
        origin, may_compile = self._origin, not is_on_loop()

        def ask() -> None:
            if self._code is None:
                self._code = load.machine_code(origin.artifact, origin.cache, may_compile=may_compile)
            if self._code is not None:
                examine(self._code, origin.memory_max, origin.options_json, plan, self._budgets)

        worker = Worker(f"plan-{origin.name}")
        limit_s = self._budgets.create + self._budgets.plan + START_S
        try:
            worker.call_now(ask, limit_s + COMPILE_S_MAX if may_compile else limit_s)
        except (Trapped, Hung) as stopped:
            text = f"plugin {origin.name}: planning its tags was stopped ({str(stopped) or 'no answer'})"
            raise Misconfigured(f"{text}; ask who made the plugin", code="E4543") from stopped
        finally:
            worker.end()

    async def open(self, context: DriverContext) -> None:
        """Start an instance and connect it.

        raises  NotConnected - of the line; E4543, E4544 - it was stopped; E4547 - it did not connect; E4635
                Misconfigured E4540-E4542 - the plugin; E4545 - options; E4500 - it crashes again and again
        """
        self._context = context
        if self._crashes is None:
            self._crashes = CrashLoop(context.clock)
        self._crashes.check()
        self._utterances = Utterances(context.name, context.log)
        session = self._session = Session(context.name, context.clock.now_ns, self._budgets)
        origin = self._origin
        if self._code is None:
            self._code = await self._machine_code(session)
        if context.endpoint:
            session.line = await context.lines.hand_over(context.endpoint)
        budget_s = START_S + self._budgets.create + self._budgets.connect
        await self._call(session, lambda: session.start(self._code, origin.memory_max, origin.options_json), budget_s)

    async def _machine_code(self, session: Session) -> Any:
        """As a rule kept since the plugin came in. Raises NotConnected E4635 - it has to be made, and that lasts."""
        origin = self._origin
        try:
            return await session.call(lambda: load.machine_code(origin.artifact, origin.cache), self._budgets.compile)
        except Hung as late:
            text = f"device {self._name}: machine code of plugin {origin.name} is being made; it is opened after that"
            raise NotConnected(text, code="E4635") from late

    async def read(self, plan: Plan) -> Sequence[Batch]:
        """One scan.

        raises  NoReply E2100 - silence; NotConnected E4548 - the line broke; E4543, E4544 - the guest was stopped;
                DeviceRefused E2300, FrameBroken E2500, Busy E2200; each with the rows that came before
        """
        assert isinstance(plan, WasmPlan), "plans come from WasmDriver.plan"
        session = self._ready()
        error, batches = await self._call(session, lambda: session.poll(plan), self._budgets.poll)
        if plan.rows.mismatches.news and self._context is not None:
            plan.rows.mismatches.tell(self._context.log, self._name)
        if error is not None:
            raise self._failure(session, error, batches)
        return batches

    def _failure(self, session: Session, error: Errc, partial: Sequence[Batch]) -> GatewayError:
        """What an errc of poll means."""
        where = f"device {self._name}"
        if error in {Errc.TIMEOUT, Errc.CANCELLED}:
            text = f"{where}: no answer in time; check wiring, address and power"
            return NoReply(text, code="E2100", partial=partial)
        if error is Errc.BUSY:
            return Busy(f"{where}: asks for patience", wait_s=BUSY_S, partial=partial)
        if error is Errc.INVALID:
            text = f"{where}: its answer makes no sense to the driver"
            return FrameBroken(text, code="E2500", partial=partial)
        if error in {Errc.REFUSED, Errc.UNSUPPORTED}:
            quality = Quality.BAD_NOT_SUPPORTED if error is Errc.UNSUPPORTED else Quality.BAD_USER_ACCESS_DENIED
            return DeviceRefused(f"{where}: {error.name.lower()}", code="E2300", quality=quality, partial=partial)
        session.error = f"the driver says: {error.name.lower().replace('_', ' ')}"
        return NotConnected(f"{where}: {session.error}; it is opened again", code="E4548", partial=partial)

    async def write(self, commands: Sequence[Write]) -> Sequence[WriteResult]:
        """One result per command, in order."""
        if not commands:
            return []
        try:
            session = self._ready()
        except NotConnected as error:
            return [WriteResult(write.tag, Outcome.NOT_SENT, error.text) for write in commands]
        assert self._context is not None, "open has set it"
        left_s = min(write.expires for write in commands) - self._context.clock.monotonic()
        refused = {at: reason for at, write in enumerate(commands) if (reason := self._unwritable(write))}
        wanted = [write for at, write in enumerate(commands) if at not in refused]
        done: Sequence[WriteResult] = []
        if wanted:
            try:
                done = await self._call(
                    session, lambda: session.write(wanted, self._tags, left_s), self._budgets.write * len(wanted)
                )
            except NotConnected as error:
                done = [WriteResult(write.tag, Outcome.UNKNOWN, error.text) for write in wanted]
            else:
                if session.error:
                    session.code = "E4543"
                    self._count_crash(session.error)
        results = iter(done)
        return [
            WriteResult(write.tag, Outcome.REJECTED, refused[at]) if at in refused else next(results)
            for at, write in enumerate(commands)
        ]

    def _unwritable(self, write: Write) -> str:
        tag = self._tags.get(write.tag)
        if tag is None:
            return "the driver was never told of this tag"
        try:
            rows_of([write], column_of(tag.type))
        except (ValueError, TypeError, OverflowError) as error:
            return f"{write.value!r} is no {tag.type.value} ({error})"
        return ""

    async def close(self) -> None:
        """Disconnect, drop the instance, close the socket."""
        session, self._session = self._session, None
        if self._utterances is not None:
            self._utterances.close()
        if session is not None:
            await session.end()

    # -- calls ------------------------------------------------------------------------------------------------------

    @property
    def _name(self) -> str:
        return self._origin.name if self._context is None else self._context.name

    def _ready(self) -> Session:
        session = self._session
        if session is None:
            raise NotConnected(f"device {self._name}: the driver is closed", code="E4548")
        if session.error:
            raise NotConnected(f"device {self._name}: {session.error}; it is opened again", code=session.code)
        return session

    async def _call(self, session: Session, work: Callable[[], T], budget_s: float) -> T:
        """One call of the guest; its end in a trap is counted and told."""
        try:
            return await session.call(work, budget_s)
        except asyncio.CancelledError:
            session.error = "its call was interrupted"
            session.desk.cancel()
            raise
        except Overran as stopped:
            self._crashed(session, _late(budget_s), "E4544", stopped)
        except Trapped as stopped:
            self._crashed(session, f"trap: {stopped}", "E4543", stopped)
        except Hung as stopped:
            session.desk.cancel()
            self._crashed(session, f"did not answer within {budget_s + GRACE_S:g} s, and hangs", "E4544", stopped)
        finally:
            self._tell(session)

    def _tell(self, session: Session) -> None:
        """What the guest has logged."""
        desk = session.desk
        if self._context is None or self._utterances is None or not desk.lines:
            return
        lines, left_out = desk.lines, desk.lines_dropped
        desk.lines, desk.lines_dropped = [], 0
        for line in lines:
            self._utterances.say(line.level, line.text)
        if left_out:
            self._context.log.warning("driver_lines_left_out", driver_id=self._name, lines=left_out)

    def _crashed(self, session: Session, reason: str, code: str, cause: Exception) -> NoReturn:
        session.error = reason
        self._count_crash(reason)
        raise NotConnected(
            f"device {self._name}: its driver was stopped ({reason}); it is started again", code=code
        ) from cause

    def _count_crash(self, reason: str) -> None:
        assert self._crashes is not None, "open has set it"
        assert self._context is not None, "open has set it"
        if self._crashes.crashed(reason):
            self._context.log.error("driver_crash_loop", driver_id=self._name, reason=reason)


def _late(budget_s: float) -> str:
    """Why a guest's time was over."""
    late = f"did not answer within {budget_s:g} s"
    if budget_s <= host.COMPUTE_S_MAX:
        return late
    return f"computed for {host.COMPUTE_S_MAX:g} s without a pause, or {late}"
