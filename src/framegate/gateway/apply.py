"""The one door through which a configuration comes into force: files, command line, API and etcd alike.

    generation = await applier.submit(texts, author="uid 1000", reason="pump 7", source="api")

One change at a time, whole or not at all: made ready in a thread, carried out on the loop (change.py), then durable as
a generation (config/history.py). What is refused leaves everything as it is, and is told once per content.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeVar

from framegate.config import garbage_waits, render_problems
from framegate.config.history import Generation, History, Source, Texts, digests, read_texts
from framegate.config.plan import Changes, Plan, steps_of
from framegate.config.schema import TABLES
from framegate.config.watch import scripts_in
from framegate.contract.access import AuditEntry
from framegate.contract.errors import Busy, GatewayError, Misconfigured
from framegate.endpoint.thread import Overrun, Worker
from framegate.gateway.change import Change, carry_out, prepare
from framegate.gateway.wiring import Gateway
from framegate.observe.face import ChangeRecord, ConfigHealth, GenerationRecord

API_AUTHOR = "rest:"
LINES_LOGGED_MAX = 20
"""Problems that a log line repeats; `edge check` shows all of them."""
READY_S_MAX = 300.0
"""To make a change ready: 100,000 tags take some seconds. Code of plugins runs in it, which may never end."""
LEFT_BEHIND_MAX = 4
"""Threads that are still at work on changes that were given up; with more of them nothing is changed any more."""
RETRY_S = 60.0
SWITCH_S = 0.000_5
"""How long the loop waits for its turn while tables are checked; Python's own 5 ms add up over a scan's wake-ups."""
T = TypeVar("T")
R = TypeVar("R")


class Applier:
    """Changes the configuration of one running gateway. Used on the loop; satisfies observe.face.ConfigFace."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._history = History(gateway.home.history)
        self._current: Generation | None = None
        self._worker = Worker("edge-config")
        self._turn = asyncio.Lock()
        self._problem = ""
        self._refused: object = None  # tables and scripts that were refused last
        self._is_pending = False
        self._is_fallback = False  # started on a generation, because the files were wrong
        self._generation = gateway.metrics.gauge("edge_config_generation")
        self._duration_ms = gateway.metrics.histogram("edge_config_apply_duration_ms")

    async def begin(self, texts: Texts, instead_of: Misconfigured | None = None) -> None:
        """Book the configuration that the gateway has started with: a new generation, unless it is the current one.

        instead_of  what is wrong with the files, where it runs on the last good generation; they are taken once right
        """
        await self._in_thread(self._history.drop_unfinished)
        self._current = await self._in_thread(self._history.current)
        if instead_of is not None:
            self._is_fallback = True
            await self._refuse(await self._ready(self._files), instead_of)
            return
        if self._current is None or self._current.sha256 != digests(texts):
            author = owner_of(self._gateway.home.config)
            fresh = await self._in_thread(lambda: self._write(texts, author, "found at the start", "file"))
            await self._in_thread(lambda: self._history.make_current(fresh.number, is_published=True))
            self._current = fresh
        self._booked(self._current)

    async def submit(self, texts: Texts, author: str, reason: str, source: Source) -> Generation:
        """Bring tables into force; on return they are, and will be after a power cut.

        raises  Misconfigured E1000 - with every problem; E4031, E4643; StoreFailed E4034; Busy E4036, E4644; then
                nothing has changed
        """
        async with self._turn:
            generation, _, _ = await self._submit(texts, author, reason, source)
        return generation

    async def apply(self, author: str, reason: str, *, is_trial: bool = False) -> ChangeRecord:
        """The tables in HOME/config; see observe.face.ConfigFace."""
        async with self._turn:
            texts = await self._ready(self._files)
            if is_trial:
                change = await self._prepare(texts)
                return ChangeRecord(0, steps_of(change.plan), 0.0)
            return await self._record(texts, author, reason or "applied", "file")

    async def rollback(self, number: int, author: str, reason: str) -> ChangeRecord:
        """An old generation, as a new one; see observe.face.ConfigFace."""
        async with self._turn:
            texts = await self._ready(lambda: self._history.texts(number))
            return await self._record(texts, author, reason or f"back to generation {number}", "rollback")

    async def put(
        self, tables: Mapping[str, bytes], generation: int | None, author: str, reason: str, *, is_trial: bool = False
    ) -> ChangeRecord:
        """Tables as texts; see observe.api_face.TablesFace."""
        async with self._turn:
            if generation not in {None, self.generation}:
                text = f"generation {self.generation} is in force by now, not {generation}; make the change there"
                raise Misconfigured(text, code="E4237")
            kept = await self._ready(self.running)
            texts: Texts = {table: tables.get(table, kept.get(table, b"")) for table in TABLES}
            if is_trial:
                return ChangeRecord(0, steps_of((await self._prepare(texts)).plan), 0.0)
            return await self._record(texts, author, reason or "put by the API", "api")

    @property
    def generation(self) -> int:
        """Number of the configuration in force; 0 before there is one."""
        return 0 if self._current is None else self._current.number

    async def in_force(self) -> tuple[int, Mapping[str, bytes]]:
        """See observe.api_face.TablesFace."""
        texts = await self._ready(self.running)
        return self.generation, {str(table): text for table, text in texts.items()}

    async def take_files(self) -> None:
        """The tables in HOME/config may have changed: take them, or say why not."""
        try:
            await self._take_files()
        except GatewayError as error:
            self._unread(error)

    async def _take_files(self) -> None:
        if self._gateway.tables.gateway.reload == "manual" and not self._is_fallback:
            await self._see_whether_pending()
            return
        async with self._turn:
            texts = await self._ready(self._files)
            if await self._content(texts) == self._refused:
                return
            try:
                await self._submit(texts, owner_of(self._gateway.home.config), "files changed", "file")
            except GatewayError as error:
                await self._refuse(texts, error)

    async def otherwise(
        self, what: str, prepare: Callable[[Texts, int], T], carry_out: Callable[[T], Awaitable[R]],
        discard: Callable[[T], object] | None = None,
    ) -> R:  # fmt: skip
        """Carry out the tables in force otherwise, e.g. by another version of a plugin; no other change is under way.

        what       is changed, for errors
        prepare    in a thread, with those tables and the id that the catalogue gives next
        carry_out  on the loop, while nobody else stops and starts connectors or devices
        discard    takes what was made ready too late
        raises     Misconfigured E4643 - `prepare` does not end; Busy E4644; whatever they raise
        """
        async with self._turn:
            next_id = len(self._gateway.store.catalogue) + 1
            ready = await self._ready(lambda: prepare(self.running(), next_id), what, discard)
            async with self._gateway.turn:
                done = await carry_out(ready)
            self._refused = None  # what was wrong before may be right now
            return done

    def running(self) -> Texts:
        """The tables that are in force, as they were written; raises Misconfigured E4032."""
        return {} if self._current is None else self._history.texts(self._current.number)

    def history(self, limit: int) -> Sequence[GenerationRecord]:
        current = 0 if self._current is None else self._current.number
        return [_record_of(each, current) for each in islice(self._history.all(), limit)]

    @property
    def health(self) -> ConfigHealth:
        if self._current is None:
            return ConfigHealth(problem=self._problem)
        return ConfigHealth(self._current.number, self._current.time_ns, self._problem, self._is_pending)

    async def close(self, limit_s: float) -> None:
        """Take no more changes; one that is under way has so long to end."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._turn.acquire(), limit_s)  # never given back
        self._worker.close()

    # -- one change -----------------------------------------------------------------------------------------------

    async def _record(self, texts: Texts, author: str, reason: str, source: Source) -> ChangeRecord:
        try:
            generation, plan, duration_ms = await self._submit(texts, author, reason, source)
        except GatewayError as error:
            if source == "file":
                await self._refuse(texts, error)
            raise
        return ChangeRecord(generation.number, steps_of(plan) if plan is not None else (), duration_ms)

    async def _submit(
        self, texts: Texts, author: str, reason: str, source: Source
    ) -> tuple[Generation, Plan | None, float]:
        gateway, began = self._gateway, self._gateway.clock.monotonic()
        if self._current is not None and self._current.sha256 == digests(texts) and not await self._has_new_scripts():
            if source != "file":
                await self._in_thread(lambda: self._publish(self._current))
            self._booked(self._current)
            return self._current, None, 0.0
        change = await self._prepare(texts)
        generation = await self._in_thread(lambda: self._write(texts, author, reason, source))

        async def keep() -> None:
            await self._in_thread(lambda: self._history.make_current(generation.number, is_published=source == "file"))

        try:
            await self._noted(generation)
            async with gateway.turn:
                await carry_out(gateway, change, keep)
        except BaseException:
            await self._in_thread(lambda: self._history.drop(generation.number))
            raise
        if source != "file":
            await self._in_thread(lambda: self._publish(generation))
        duration_ms = 1000.0 * (gateway.clock.monotonic() - began)
        self._booked(generation)
        self._tell_applied(generation, change.plan, duration_ms)
        return generation, change.plan, duration_ms

    async def _noted(self, generation: Generation) -> None:
        """Have the audit log tell first; the API notes its own changes. Raises StoreFailed E4306."""
        audit = self._gateway.audit
        if audit is None or generation.author.startswith(API_AUTHOR):
            return
        details = {"source": generation.source, "reason": generation.reason}
        target = f"generation {generation.number}"
        await audit.note(AuditEntry(generation.author, "config.apply", target, "begun", details=details))

    async def _prepare(self, texts: Texts) -> Change:
        next_id = len(self._gateway.store.catalogue) + 1
        return await self._ready(lambda: prepare(self._gateway, texts, next_id), "changed tables")

    async def _content(self, texts: Texts) -> object:
        """What tells one state of tables and scripts from another."""
        return digests(texts), await self._ready(lambda: scripts_in(self._gateway.home.rules))

    async def _has_new_scripts(self) -> bool:
        outline = self._gateway.outline
        if not any(row.kind in {"lua", "wasm"} for row in outline.rules.values()):
            return False
        return await self._ready(lambda: scripts_in(self._gateway.home.rules)) != outline.scripts

    def _write(self, texts: Texts, author: str, reason: str, source: Source) -> Generation:
        return self._history.write(texts, author, reason, source, self._gateway.clock.now_ns())

    def _publish(self, generation: Generation | None) -> None:
        assert generation is not None
        kept = self._history.publish(generation.number, self._gateway.home.config)
        if kept:
            self._gateway.log.warning("config_kept_aside", files=[str(path) for path in kept])

    def _files(self) -> Texts:
        return read_texts(self._gateway.home.config)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Work that may have effects, and is waited for."""
        return await self._worker.do(work)

    async def _ready(
        self, work: Callable[[], T], what: str = "a change", discard: Callable[[T], object] | None = None
    ) -> T:
        """Work without effects, given up after READY_S_MAX; what holds for the whole process meanwhile is given back.

        raises  Misconfigured E4643 - it was given up; Busy E4644 - LEFT_BEHIND_MAX of them have not ended since
        """
        left = self._worker.left_behind
        if left >= LEFT_BEHIND_MAX:
            text = f"{what}: {left} changes that were given up are still at work; restart the gateway, then change it"
            raise Busy(text, wait_s=RETRY_S, code="E4644")
        try:
            with giving_way(), garbage_waits():
                return await self._worker.do(work, READY_S_MAX, discard)
        except Overrun as overrun:
            raise self._given_up(what, overrun.where or "a queue behind another one") from overrun

    # -- what is told ---------------------------------------------------------------------------------------------

    def _given_up(self, what: str, where: str) -> Misconfigured:
        left = self._worker.left_behind
        self._gateway.log.error("config_thread_left", what=what, where=where, limit_s=READY_S_MAX, left=left)
        text = f"{what}: not ready within {READY_S_MAX:g} s, so given up; it stands in {where}. Nothing has changed"
        return Misconfigured(f"{text}; correct that, then ask for it again", code="E4643")

    def _unread(self, error: GatewayError) -> None:
        """What is in the files is not known; say it once."""
        if self._problem != str(error):
            self._problem = str(error)
            self._gateway.log.error("config_unread", reason=self._problem)

    def _booked(self, generation: Generation) -> None:
        self._current = generation
        self._problem, self._refused = "", None
        self._is_pending = self._is_fallback = False
        self._generation.value = float(generation.number)

    def _tell_applied(self, generation: Generation, plan: Plan, duration_ms: float) -> None:
        self._duration_ms.observe(duration_ms)
        self._gateway.metrics.counter("edge_config_changes_total", outcome="applied").value += 1
        tags = plan.tags
        self._gateway.log.info(
            "config_applied",
            generation=generation.number,
            source=generation.source,
            author=generation.author,
            reason=generation.reason,
            devices=_count(plan.devices),
            replanned=len(plan.replanned),
            connectors=_count(plan.connectors),
            tags=len(tags.added) + len(tags.moved) + len(tags.reworked) + len(tags.removed),
            duration_ms=round(duration_ms, 1),
        )

    async def _refuse(self, texts: Texts, error: GatewayError) -> None:
        """Remember why the files are not in force, and say it once."""
        problems = error.problems if isinstance(error, Misconfigured) else ()
        folder = self._gateway.home.config
        lines = await self._in_thread(lambda: render_problems(problems[:LINES_LOGGED_MAX], folder))
        more = f"; and {len(problems) - 1:,} more, see `edge check`" if len(problems) > 1 else ""
        self._problem = f"the tables in {folder} are not in force: {lines[0] if lines else error}{more}"
        content = await self._content(texts)
        if content == self._refused:
            return
        self._refused = content
        self._gateway.metrics.counter("edge_config_changes_total", outcome="refused").value += 1
        self._gateway.log.error(
            "config_fallback" if self._is_fallback else "config_refused",
            generation=0 if self._current is None else self._current.number,
            problems=len(problems),
            reason=str(error),
            lines=lines,
        )

    async def _see_whether_pending(self) -> None:
        texts = await self._ready(self._files)
        was_pending = self._is_pending
        self._is_pending = self._current is not None and digests(texts) != self._current.sha256
        if self._is_pending and not was_pending and self._current is not None:
            self._gateway.log.info("config_pending", generation=self._current.number)


class _Givers:
    """Threads that give way now; the first sets the interval, the last puts it back."""

    def __init__(self) -> None:
        self._lock, self._count, self._before = threading.Lock(), 0, 0.0

    def __enter__(self) -> None:
        with self._lock:
            if self._count == 0:
                self._before = sys.getswitchinterval()
                sys.setswitchinterval(SWITCH_S)
            self._count += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._count -= 1
            if self._count == 0:
                sys.setswitchinterval(self._before)


_givers = _Givers()


def giving_way() -> contextlib.AbstractContextManager[None]:
    """Inside, threads that compute give way to the loop after SWITCH_S."""
    return _givers


def owner_of(folder: Path) -> str:
    """Who most likely changed the tables last: the owner of the newest; the kernel does not tell more."""
    found = []
    for table in TABLES:
        with contextlib.suppress(OSError):
            status = (folder / f"{table}.yml").stat()
            found.append((status.st_mtime_ns, status.st_uid))
    return f"uid {max(found)[1]}" if found else "unknown"


def _count(changes: Changes) -> int:
    return len(changes.started) + len(changes.stopped) + len(changes.restarted)


def _record_of(generation: Generation, current: int) -> GenerationRecord:
    return GenerationRecord(
        number=generation.number,
        author=generation.author,
        reason=generation.reason,
        source=generation.source,
        time_ns=generation.time_ns,
        is_current=generation.number == current,
    )
