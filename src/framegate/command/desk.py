"""The desk: the one door for writes (contract/command.py).

    door -> gate -> journal (ACCEPTED, durable) -> dispatch (DISPATCHED, durable) -> device -> outcome + row, durable

The desk knows what it was asked and answers for it once, over duplicates, reloads and crashes. What passes is in
gate.py, what is durable in journal.py and ledger.py, what is sent in dispatch.py. Promises C1 to C8 are those of
docs/reference/commands.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import islice

from framegate.command.dispatch import PER_DEVICE_MAX, Dispatcher
from framegate.command.entry import Entry, ended, flaw_of, is_same, received, staged
from framegate.command.gate import Gate, Refusal
from framegate.command.journal import Journal
from framegate.command.ledger import Ledger, Verdict
from framegate.command.meters import Meters
from framegate.command.route import Devices, MayAgain, Routes
from framegate.contract.command import BATCH_MAX, Asker, Command, CommandRecord, Outcome, Stage
from framegate.contract.errors import Busy, GatewayError, StoreFailed
from framegate.contract.ports import Clock, CommandLog, Disk, Log
from framegate.observe.metrics import Metrics

OPEN_MAX = 10_000
"""Commands without outcome, over all devices."""
ACCEPT_WAIT_S = 5.0
"""The log takes a submission within so long, or nothing of it is sent."""
WAIT_S_MAX = 600.0
RECENT_MAX = 1_000
BUSY_WAIT_S = 1.0
_NS = 1_000_000_000
_UNKEPT = frozenset(("E4200", "E4203", "E4205", "E4209"))
"""Refusals that are no business of the journal: whoever may not write cannot fill it, and the id stays free."""


def everybody(origin: str, tag: str) -> bool:
    """Where nobody's rights are kept, whoever might write before may write still."""
    return True


class CommandDesk:
    """Satisfies contract.command.Desk.

    is_tag     whether there is a tag of a name, that may be written or not
    may_again  whether an origin may still write a tag; asked for commands that an earlier run accepted
    """

    def __init__(
        self,
        disk: Disk,
        rows: CommandLog,
        devices: Devices,
        clock: Clock,
        log: Log,
        metrics: Metrics,
        *,
        is_tag: Callable[[str], bool],
        may_again: MayAgain = everybody,
    ) -> None:
        self._rows, self._clock, self._log, self._may_again = rows, clock, log, may_again
        self._is_tag = is_tag
        self._meters = Meters(metrics)
        self._journal = Journal(disk, rows)
        self._meters.watch(lambda: self._journal.open)
        self._gate = Gate()
        self._ledger = Ledger(self._journal, clock, log, self._meters)
        self._dispatcher = Dispatcher(devices, self._ledger, self._may, clock, log)
        self._is_open = False

    # -- for the wiring -----------------------------------------------------------------------------------------

    @property
    def routes(self) -> Routes:
        """Of the tables in force."""
        return self._dispatcher.routes

    def use(self, routes: Routes) -> None:
        """Other tables are in force."""
        self._dispatcher.routes = routes
        self._ledger.ack_tag = routes.ack_tag

    def start(self) -> None:
        """Read the journal, end or send what an earlier run left open (C7), and take commands. Raises StoreFailed."""
        now_ns, now = self._clock.now_ns(), self._clock.monotonic()
        entries = self._journal.load()
        is_clock_doubtful = now_ns < self._journal.newest_time()
        ends: list[Verdict] = []
        again: list[Entry] = []
        for entry in entries:
            verdict = _left_open(entry, now_ns, is_clock_doubtful=is_clock_doubtful)
            route = self.routes.by_name.get(entry.command.tag)
            if verdict is None and route is None:
                text = f"tag {entry.command.tag}: it may not be written any more; nothing was sent"
                verdict = Verdict(entry, Outcome.NOT_SENT, "E4217", text)
            if verdict is not None:
                ends.append(verdict)
            elif route is not None:
                entry.deadline = now + (expires_ns(entry.record) - now_ns) / _NS
                entry.device = route.device
                again.append(entry)
        self._ledger.end(ends)
        self._is_open = True
        for entry in again:
            self._dispatcher.put(entry)
        if entries or self._journal.damaged:
            self._log.info("commands_resumed", ended=len(ends), sent_again=len(again), damaged=self._journal.damaged)

    async def stop(self) -> None:
        """Take and send nothing more; the caller flushes the log."""
        self._is_open = False
        await self._dispatcher.stop()

    # -- Desk ---------------------------------------------------------------------------------------------------

    async def submit(self, commands: Sequence[Command], asker: Asker) -> Sequence[CommandRecord]:
        """See contract.command.Desk."""
        self._be_ready(len(commands))
        fresh: dict[str, Entry] = {}
        now_ns, now = self._clock.now_ns(), self._clock.monotonic()
        taken = [self._take(command, asker, fresh, now_ns, now) for command in commands]
        entries = list(fresh.values())
        if entries:
            self._dispatcher.claim(entries)
            try:
                self._ledger.take(entries, lambda: self._send(entries))
            except GatewayError:
                self._dispatcher.release(entries)
                raise
        await self._durable([one for one in taken if isinstance(one, Entry)])
        return [one.record if isinstance(one, Entry) else one for one in taken]

    async def wait(self, id: str, seconds: float) -> CommandRecord | None:  # noqa: A002 - the contract's word
        """See contract.command.Desk."""
        found = self._journal.find(id)
        if not isinstance(found, Entry):
            return found
        if found.record.outcome is not None and found.is_kept:
            return found.record
        try:
            async with asyncio.timeout(min(max(seconds, 0.0), WAIT_S_MAX)):
                while found.record.outcome is None or not found.is_kept:
                    await self._next_state(found)
        except TimeoutError:
            pass
        return found.record if found.is_kept else None

    def find(self, id: str) -> CommandRecord | None:  # noqa: A002 - the contract's word
        """See contract.command.Desk."""
        found = self._journal.find(id)
        if isinstance(found, Entry):
            return found.record if found.is_kept else None
        return found

    def recent(self, limit: int, before: str = "") -> Sequence[CommandRecord]:
        """See contract.command.Desk."""
        return list(islice(self._journal.newest(before), min(limit, RECENT_MAX)))

    # -- taking -------------------------------------------------------------------------------------------------

    def _be_ready(self, count: int) -> None:
        if not self._is_open:
            raise StoreFailed("commands: the gateway starts or stops; nothing was accepted", code="E4218")
        if self._rows.refusal:
            text = f"commands: the log takes nothing now: {self._rows.refusal}; nothing was accepted"
            raise StoreFailed(text, code="E4218")
        if count > BATCH_MAX:
            text = f"commands: {count:,} in one submission, and {BATCH_MAX:,} are the most; send them in parts"
            raise Busy(text, code="E4204", wait_s=0.0)
        if self._journal.open + count > OPEN_MAX:
            text = f"commands: {self._journal.open:,} wait for their devices; nothing was accepted, ask again later"
            raise Busy(text, code="E4204", wait_s=BUSY_WAIT_S)

    def _take(
        self, command: Command, asker: Asker, fresh: dict[str, Entry], now_ns: int, now: float
    ) -> Entry | CommandRecord:
        """The entry of a command, new ones also in `fresh`; or a record that is not kept."""
        record = received(command, asker.origin, now_ns)
        flaw = flaw_of(command)
        refusal = Refusal("E4200", f"command: {flaw}; nothing was written") if flaw else self._may_enter(record, asker)
        if refusal is not None:
            return self._turned_away(record, refusal)
        known = fresh.get(command.id) or self._journal.find(command.id)
        if known is not None:
            before = known.command
            if is_same(before, command):
                return known
            text = f"command {command.id}: its id was used for another, of tag {before.tag}; give each its own"
            return self._turned_away(record, Refusal("E4203", text))
        judged = self._judge(record, now)
        if judged.code in _UNKEPT:
            return self._turned_away(record, Refusal(judged.code, judged.reason))
        deadline = now + (expires_ns(record) - now_ns) / _NS
        entry = fresh[command.id] = Entry(0, judged, deadline, asker)
        route = self.routes.by_name.get(command.tag)
        entry.device = route.device if route is not None else ""
        return entry

    def _may_enter(self, record: CommandRecord, asker: Asker) -> Refusal | None:
        tag = record.command.tag
        if not asker.may(tag):
            return Refusal("E4205", f"tag {tag}: {record.origin} may not write it; nothing was written")
        return None

    def _judge(self, record: CommandRecord, now: float) -> CommandRecord:
        """The record as ACCEPTED, or with the outcome that it has at once."""
        command, origin, at = record.command, record.origin, record.received
        tag = command.tag
        refusal = self._gate.may_ask(origin, now)
        route = self.routes.by_name.get(tag)
        if refusal is None and route is None:
            if self._is_tag(tag):
                text = f"tag {tag}: not writable under this name; its row needs access: RW or W, and `rename` counts"
                refusal = Refusal("E4202", text)
            else:
                refusal = Refusal("E4201", f"tag {tag}: no such tag; `edge tags ls` lists them")
        if refusal is None and expires_ns(record) <= at:
            text = f"tag {tag}: its time had run out when it came; nothing was sent"
            return ended(record, Outcome.NOT_SENT, "E2600", text, at)
        if refusal is None and route is not None:
            refusal = self._gate.accept(command, route, origin, now)
        if refusal is not None:
            return ended(record, Outcome.REJECTED, *refusal, at)
        if command.select:
            return ended(record, Outcome.CONFIRMED, "", "", at)
        return staged(record, Stage.ACCEPTED)

    def _turned_away(self, record: CommandRecord, refusal: Refusal) -> CommandRecord:
        self._meters.refused(record.origin)
        return ended(record, Outcome.REJECTED, *refusal, record.received)

    # -- becoming durable ---------------------------------------------------------------------------------------

    async def _durable(self, entries: Sequence[Entry]) -> None:
        """Until all of these are durable. Raises StoreFailed E4218 - not in time; none of the new ones is sent then."""
        try:
            async with asyncio.timeout(ACCEPT_WAIT_S):
                for entry in entries:
                    while not entry.is_kept:
                        await self._next_state(entry)
        except TimeoutError:
            text = f"commands: the log did not take them within {ACCEPT_WAIT_S:g} s; nothing was sent"
            late = [entry for entry in entries if not entry.is_kept]
            self._dispatcher.release(late)
            self._ledger.end([Verdict(entry, Outcome.NOT_SENT, "E4218", text) for entry in late])
            raise StoreFailed(text, code="E4218") from None

    async def _next_state(self, entry: Entry) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry.waiters.append(waiter)
        try:
            await waiter
        finally:
            if waiter in entry.waiters:
                entry.waiters.remove(waiter)

    def _send(self, entries: Sequence[Entry]) -> None:
        """They are durable: those that were accepted go to their devices."""
        over: list[Verdict] = []
        self._dispatcher.release(entries)
        for entry in entries:
            if entry.is_decided or not self._is_open:
                continue
            if self._dispatcher.has_room(entry.device, 1):
                self._dispatcher.put(entry)
            else:
                text = f"device {entry.device}: {PER_DEVICE_MAX:,} commands wait for it already; nothing was sent"
                over.append(Verdict(entry, Outcome.NOT_SENT, "E4204", text))
        self._ledger.end(over)

    def _may(self, entry: Entry, tag: str) -> bool:
        if entry.asker is None:
            return self._may_again(entry.record.origin, tag)
        return entry.asker.may(tag)


def expires_ns(record: CommandRecord) -> int:
    """Wall time after which a command is not sent: ttl after it was issued, and never later than ttl after it came."""
    command = record.command
    began = min(command.issued or record.received, record.received)
    return began + round(command.ttl_s * _NS)


def _left_open(entry: Entry, now_ns: int, *, is_clock_doubtful: bool) -> Verdict | None:
    """What became of a command that an earlier run left without outcome; None: it may still be sent (C7)."""
    tag = entry.command.tag
    if entry.record.stage is Stage.DISPATCHED:
        text = f"tag {tag}: the gateway ended before the device's answer; read the device before writing again"
        return Verdict(entry, Outcome.UNKNOWN, "E4215", text)
    if is_clock_doubtful:
        text = f"tag {tag}: the gateway ended before it was sent, and its clock was set back since; nothing was sent"
        return Verdict(entry, Outcome.NOT_SENT, "E4216", text)
    if expires_ns(entry.record) <= now_ns:
        text = f"tag {tag}: its time ran out while the gateway was down; nothing was sent"
        return Verdict(entry, Outcome.NOT_SENT, "E2600", text)
    return None
