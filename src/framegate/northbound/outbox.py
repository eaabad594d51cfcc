"""Outbox: one connector's way from the durable log to its remote, behind one cursor.

Read, encode, send, await the answer, commit the answered prefix. Live rows and backlog are one stream in the order of
positions: after an outage a receiver that keeps the last value it saw is never taken back in time. Where the tables
ask for live first there are two such streams, and lanes.py says which goes next. Promises kept here, per stream:
O1 to O7 (at least once, in order per tag, bounded repeats, poison set aside). A connection is one: a loss, a refusal
or a pause holds both.

Protocols, storage and waiting for devices live elsewhere; clock, dice and log are handed in, so that a simulation
can own them. Source: docs/decisions/0004-one-ordered-stream.md, 0008-live-first.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

from framegate.contract.connector import Connector, ConnectorContext, Window
from framegate.contract.errors import Busy, GatewayError, Misconfigured, NotConnected, PayloadRefused
from framegate.contract.frame import Gap
from framegate.contract.letter import DeadLetter
from framegate.contract.owed import OwedRange
from framegate.contract.ports import Clock, Cursors, DeadLetters, Dice, FrameSource, Log
from framegate.northbound.backlog import Backlog
from framegate.northbound.begin import owed_at_start
from framegate.northbound.bug import BugError, as_gateway_error
from framegate.northbound.encoder import Encoder
from framegate.northbound.flight import Flight, FlightState, message_alone
from framegate.northbound.health import OutboxHealth, OutboxState
from framegate.northbound.lanes import Lanes
from framegate.northbound.letters import Letters, send_again
from framegate.northbound.meters import OutboxMeters
from framegate.northbound.options import OutboxOptions
from framegate.northbound.reader import Reader
from framegate.northbound.waiting import Patience, Signal
from framegate.observe.metrics import Metrics

STOP_S = 1.0  # for answers to sends under way when the gateway stops
SETTLE_S = 1.0  # for the other sends to fail by themselves after a loss
CLOSE_S = 3.0  # a connector promises to close within 2 s
BUSY_S_MAX = 300.0  # longest patience that a remote may ask for
BACKOFF_FLOOR_S = 0.05  # a jitter near zero must not become a busy loop
DOUBLINGS_MAX = 16


class Outbox:
    """Delivers for one connector. The gateway runs `run()` in a task of its own and calls `stop()` once."""

    def __init__(
        self,
        name: str,
        connector: Connector,
        encoder: Encoder,
        source: FrameSource,
        cursors: Cursors,
        *,
        context: Callable[[Callable[[GatewayError], None]], ConnectorContext],
        clock: Clock,
        dice: Dice,
        log: Log,
        metrics: Metrics,
        options: OutboxOptions | None = None,
        backfill_encoder: Encoder | None = None,
        dead_letters: DeadLetters | None = None,
    ) -> None:
        """Nothing is opened or read before run().

        context           makes the connector's context around the `lost` function given to it
        backfill_encoder  marks what it encodes as back-fill; without it stored rows look like live ones
        dead_letters      keeps each message that is set aside; without it they are only counted and logged
        """
        self.name = name
        self.health = OutboxHealth(name)
        self._connector, self._source, self._cursors = connector, source, cursors
        self._encoder, self._backfill_encoder = encoder, backfill_encoder or encoder
        self._context = context(self._on_lost)
        self._clock, self._dice, self._log = clock, dice, log
        self._options = options or OutboxOptions()
        self._meters = OutboxMeters(metrics, name, lambda: self.lag_rows, lambda: self.health.owed_rows)
        self._letters = Letters(name, dead_letters, clock, log, self._meters)
        self._lanes: Lanes | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._lost: GatewayError | None = None
        self._must_close = False  # the connector still believes in a connection that we gave up
        self._is_open = False
        self._was_connected = False
        self._pause_s = 0.0  # asked for by Busy, or before a refused window is tried again
        self._signal = Signal()
        self._patience = Patience()
        self._finished: asyncio.Event | None = None

    async def run(self) -> None:
        """Deliver until stop() or cancellation; every error of the remote is answered with another try."""
        self._finished = asyncio.Event()
        unsubscribe = self._source.subscribe(self._on_durable)
        try:
            lanes = self._lanes = self._begin()
            while not self._patience.is_over and await self._patience.hold(self._connect()):
                lanes.reconnected()
                await self._deliver_supervised(lanes)
        finally:
            unsubscribe()
            await self._close()
            self._enter(OutboxState.STOPPED)
            self._finished.set()
        self._log.info("outbox_stopped", connector=self.name, position=self.health.position)

    async def stop(self) -> None:
        """Finish what is under way, at most STOP_S for answers, and close. Returns when run() has ended."""
        self._patience.end()
        self._signal.wake()
        if self._finished is not None:
            await self._finished.wait()

    async def resend(self, letter: DeadLetter) -> None:
        """Send a dead letter once more, beside the live rows and without a hold on them or the cursor.

        raises  PayloadRefused - refused again; NotConnected, NoReply - not now
        """
        if self.health.state is not OutboxState.CONNECTED or self._lost is not None or self._patience.is_over:
            text = f"connector {self.name}: not connected to its remote now; letter {letter.id} stays, try again later"
            raise NotConnected(text, code="E2405")
        try:
            await send_again(self._connector, letter, self._clock)
        except GatewayError:
            raise
        except Exception as error:
            raise as_gateway_error(self.name, error) from error

    # -- connection -----------------------------------------------------------------------------------------------

    async def _connect(self) -> None:
        """Open, for ever, with growing waits."""
        while True:
            self._enter(OutboxState.OPENING)
            if self._must_close:
                await self._close()
            self._lost = None
            self._is_open = True  # close() is owed from the first attempt on
            try:
                await self._within(self._options.open_timeout_s, self._connector.open(self._context), "did not open")
            except Misconfigured as error:
                await self._wait_for_tables(error)
            except GatewayError as error:
                await self._back_off(error)
            except Exception as error:  # noqa: BLE001 - supervisor: a bug in one connector stops only its own delivery
                self._must_close = True
                await self._back_off(as_gateway_error(self.name, error))
            else:
                break
        self._meters.reconnects.value += self._was_connected
        self._was_connected = True
        self._enter(OutboxState.CONNECTED)
        self._log.info("outbox_connected", connector=self.name, position=self.health.position)

    async def _back_off(self, error: GatewayError) -> None:
        tries = min(self.health.failing_in_a_row, DOUBLINGS_MAX)
        bound_s = min(self._options.backoff_max_s, self._options.backoff_first_s * 2.0**tries)
        wait_s = max(BACKOFF_FLOOR_S, bound_s * (0.5 + 0.5 * self._dice.random()))
        self.health.failed(error.stable_code, error.text, self._clock.now_ns())
        self.health.wait_s = wait_s
        self._meters.failures.value += 1
        if isinstance(error, BugError):
            self._log.error("outbox_broken", connector=self.name, reason=str(error), wait_s=round(wait_s, 3))
        elif tries == 0:
            self._log.warning("outbox_backoff", connector=self.name, reason=str(error), wait_s=round(wait_s, 3))
        self._enter(OutboxState.BACKOFF)
        await self._clock.sleep(wait_s)

    async def _wait_for_tables(self, error: Misconfigured) -> None:
        """Stand still until stop(): the same options cannot succeed."""
        self.health.failed(error.stable_code, error.text, self._clock.now_ns())
        self._enter(OutboxState.MISCONFIGURED)
        self._log.error("outbox_misconfigured", connector=self.name, reason=str(error))
        await asyncio.get_running_loop().create_future()

    async def _close(self) -> None:
        self._must_close = False
        if not self._is_open:
            return
        self._is_open = False
        try:
            await self._within(CLOSE_S, self._connector.close(), "did not close")
        except Exception as error:  # noqa: BLE001 - supervisor: a connector promises not to raise here, and may break it
            self._log.error(
                "outbox_broken", connector=self.name, reason=str(as_gateway_error(self.name, error)), wait_s=0.0
            )

    # -- delivery -------------------------------------------------------------------------------------------------

    async def _deliver_supervised(self, lanes: Lanes) -> None:
        """One connection's life; whatever ends it is booked and answered with a wait."""
        try:
            error = await self._deliver(lanes)
        except Exception as bug:  # noqa: BLE001 - supervisor: a bug in one connector stops only its own delivery
            self._must_close = True
            error = as_gateway_error(self.name, bug)
        if error is not None and not self._patience.is_over:
            await self._patience.hold(self._back_off(error))

    async def _deliver(self, lanes: Lanes) -> GatewayError | None:
        """Send until the connection is lost (why is returned) or stop() was called (None)."""
        async with asyncio.TaskGroup() as group:
            self._offer_again(group, lanes)
            while True:
                # While a window waits to be offered again nothing newer may overtake it (O4).
                if self._lost is None and not self._patience.is_over and not lanes.waiting():
                    await self._refill(group, lanes)
                    await self._signal.wait()
                if self._patience.is_over:
                    await self._settle(STOP_S)
                    return None
                if self._lost is not None:
                    await self._settle(SETTLE_S)
                    return self._lost
                if lanes.waiting():
                    await self._settle(self._options.send_timeout_s + SETTLE_S)
                    await self._answer_refusals(lanes)
                    self._offer_again(group, lanes)

    async def _refill(self, group: asyncio.TaskGroup, lanes: Lanes) -> None:
        """Start sends until the window of flights is full or the log is read to its durable end."""
        options = self._options
        if options.linger_s and lanes.may_linger:
            await self._clock.sleep(options.linger_s)
        try:
            while (flight := lanes.next()) is not None:
                if flight.state is FlightState.DONE:
                    self._land(lanes, flight)
                else:
                    self._start(group, flight)
        except GatewayError as error:  # the log cannot be read: rows stay where they are
            self._lost, self._must_close = error, True
            self._signal.wake()

    def _offer_again(self, group: asyncio.TaskGroup, lanes: Lanes) -> None:
        for flight in lanes.waiting():
            if flight.isolated is not None:
                break  # its messages go one by one, before anything newer
            self._start(group, flight)

    def _start(self, group: asyncio.TaskGroup, flight: Flight) -> None:
        assert flight.window is not None
        flight.state = FlightState.SENDING
        self._meters.sent(flight.window, flight.rows)
        task = group.create_task(self._send(flight, flight.window))
        self._tasks.add(task)

    async def _send(self, flight: Flight, window: Window) -> None:
        """Send one window and book the answer."""
        try:
            await self._within(self._options.send_timeout_s, self._connector.send(window), "did not acknowledge")
        except PayloadRefused as error:
            self._book_refusal(flight, window, error)
        except Busy as error:
            self._pause_s = max(self._pause_s, BACKOFF_FLOOR_S, min(error.wait_s, BUSY_S_MAX))
        except GatewayError as error:
            self._lost = self._lost or error
        else:
            self._answered(flight)
        finally:
            if flight.state is FlightState.SENDING:
                flight.state = FlightState.WAITING
            task = asyncio.current_task()
            assert task is not None
            self._tasks.discard(task)
            self._signal.wake()

    def _answered(self, flight: Flight) -> None:
        now_ns = self._clock.now_ns()
        flight.state = FlightState.DONE
        self._meters.acked(flight.rows, now_ns - flight.oldest_ns)
        self.health.acked(flight.rows, now_ns)
        if self._lanes is not None:
            self._lanes.answered(flight)
            self._land(self._lanes, flight)

    def _land(self, lanes: Lanes, flight: Flight) -> None:
        if not lanes.land(flight):
            return
        backlog, had_owed = lanes.backlog, self.health.owed_rows
        self.health.position = backlog.cursor
        if backlog.is_owed or had_owed:
            self.health.owed_rows = backlog.rows
            self._cursors.commit_owed(self.name, backlog.owed)
        else:
            self._cursors.commit(self.name, backlog.cursor)
        if had_owed and not backlog.is_owed:
            self._log.info("outbox_backfilled", connector=self.name, position=backlog.cursor)

    # -- refusals -------------------------------------------------------------------------------------------------

    def _book_refusal(self, flight: Flight, window: Window, error: PayloadRefused) -> None:
        flight.refusals += 1
        self._meters.refusals.value += 1
        self._pause_s = max(self._pause_s, self._options.refusal_wait_s)
        if flight.refusals == 1:
            tries = self._options.refusals_max
            self._log.warning("outbox_refused", connector=self.name, pos=window.first, tries=tries, reason=str(error))

    async def _answer_refusals(self, lanes: Lanes) -> None:
        """Take apart what was refused too often; wait before the rest is tried again."""
        for flight in lanes.waiting():
            if self._lost is None and flight.refusals >= self._options.refusals_max:
                await self._isolate(flight)
        pause_s, self._pause_s = self._pause_s, 0.0
        if self._lost is None and lanes.waiting():
            await self._patience.hold(self._clock.sleep(pause_s))

    async def _isolate(self, flight: Flight) -> None:
        """Send a refused window message by message; what is refused again is set aside."""
        window = flight.window
        assert window is not None
        flight.isolated = flight.isolated or 0
        while flight.isolated < len(window.payload):
            alone = message_alone(window, flight.isolated)
            try:
                await self._within(self._options.send_timeout_s, self._connector.send(alone), "did not acknowledge")
            except PayloadRefused as error:
                self._letters.set_aside(alone, error, flight.refusals + 1)
                flight.rows -= alone.rows[0]  # not acknowledged, and not to be counted so
            except Busy as error:
                if not await self._patience.hold(self._clock.sleep(min(error.wait_s, BUSY_S_MAX))):
                    return
                continue
            except GatewayError as error:
                self._lost = self._lost or error
                return
            flight.isolated += 1
            if self._patience.is_over:
                return
        self._answered(flight)

    # -- waiting --------------------------------------------------------------------------------------------------

    async def _settle(self, seconds: float) -> None:
        """Wait for the sends under way, then cut them short."""
        try:
            async with asyncio.timeout(seconds):
                while self._tasks:
                    await self._signal.wait()
        except TimeoutError:
            self._must_close = True
            for task in self._tasks:
                task.cancel()

    async def _within(self, seconds: float, step: Coroutine[None, None, None], what: str) -> None:
        """Await a connector's step. Raises NotConnected at the deadline: the connection is given up."""
        try:
            async with asyncio.timeout(seconds):
                await step
        except TimeoutError:
            self._must_close = True
            text = f"connector {self.name}: the remote {what} within {seconds:g} s; check it and the network between"
            raise NotConnected(text, code="E2403") from None

    def _on_durable(self) -> None:
        # With every flight taken there is nothing to start; an answer wakes us then.
        if self.health.state is OutboxState.CONNECTED and self._lanes is not None and self._lanes.has_room:
            self._signal.wake()

    def _on_lost(self, error: GatewayError) -> None:
        self._lost = self._lost or error
        self._signal.wake()

    # -- start, words ---------------------------------------------------------------------------------------------

    def _begin(self) -> Lanes:
        owed = owed_at_start(self.name, self._cursors, self._source, self._options.start, self._log)
        self.health.position, self.health.owed_rows = owed.cursor, owed.rows
        options, source, on_missing = self._options, self._source, self._on_missing
        live = Reader(source, self._encoder, options, owed.live, connector=self.name, on_missing=on_missing)
        backfill = Reader(
            source, self._backfill_encoder, options, owed.cursor, connector=self.name, on_missing=on_missing
        )
        backlog = Backlog(owed)
        return Lanes(live, backfill, backlog, source, options, self._clock, on_overtaken=self._on_overtaken)

    def _on_overtaken(self, fresh: OwedRange) -> None:
        assert self._lanes is not None
        backlog = self._lanes.backlog
        self.health.owed_rows = backlog.rows
        self._cursors.commit_owed(self.name, backlog.owed)  # a restart must not take these rows for live ones
        first, last = fresh.after + 1, fresh.last
        self._log.info("outbox_overtaken", connector=self.name, first_pos=first, last_pos=last)

    def _on_missing(self, gap: Gap) -> None:
        self._meters.missing_rows.value += gap.last - gap.first + 1
        first, last = gap.first, gap.last
        why = {"reason": gap.reason, "detail": gap.detail}
        self._log.error("outbox_missing", connector=self.name, first_pos=first, last_pos=last, **why)

    @property
    def lag_rows(self) -> int:
        """Durable rows that were not acknowledged."""
        live = self._lanes.backlog.live if self._lanes is not None else self.health.position
        return max(0, self._source.durable - live) + self.health.owed_rows

    def _enter(self, state: OutboxState) -> None:
        self.health.enter(state, self._clock.now_ns())
