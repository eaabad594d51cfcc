"""Outbox: one connector's way from the durable log to its remote, behind one cursor.

Read, encode, send, await the answer, commit the answered prefix. Live rows and backlog are one stream in the order of
positions: after an outage a receiver that keeps the last value it saw is never taken back in time, which sending live
rows first would do. Promises kept here: O1 to O7 (at least once, in order per tag, bounded repeats, poison set aside).

Protocols, storage and waiting for devices live elsewhere; clock, dice and log are handed in, so that a simulation
can own them. Source: docs/decisions/0004-one-ordered-stream.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

from framegate.contract.connector import Connector, ConnectorContext, Window
from framegate.contract.errors import Busy, GatewayError, Misconfigured, NotConnected, PayloadRefused
from framegate.contract.frame import Gap
from framegate.contract.letter import DeadLetter
from framegate.contract.ports import Clock, Cursors, DeadLetters, Dice, FrameSource, Log
from framegate.northbound.encoder import Encoder
from framegate.northbound.flight import Flight, Flights, FlightState, message_alone
from framegate.northbound.health import OutboxHealth, OutboxState
from framegate.northbound.letters import Letters, send_again
from framegate.northbound.meters import OutboxMeters
from framegate.northbound.options import OutboxOptions, Start
from framegate.northbound.reader import Reader, before_oldest
from framegate.northbound.waiting import Patience, Signal
from framegate.observe.metrics import Metrics

STOP_S = 1.0  # for answers to sends under way when the gateway stops
SETTLE_S = 1.0  # for the other sends to fail by themselves after a loss
CLOSE_S = 3.0  # a connector promises to close within 2 s
BUSY_S_MAX = 300.0  # longest patience that a remote may ask for
BACKOFF_FLOOR_S = 0.05  # a jitter near zero must not become a busy loop
DOUBLINGS_MAX = 16
TEXT_MAX = 300  # characters of a bug's own words in logs and health


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
        dead_letters: DeadLetters | None = None,
    ) -> None:
        """Nothing is opened or read before run().

        context       makes the connector's context around the `lost` function given to it
        dead_letters  keeps each message that is set aside; without it they are only counted and logged
        """
        self.name = name
        self.health = OutboxHealth(name)
        self._connector, self._encoder, self._source, self._cursors = connector, encoder, source, cursors
        self._context = context(self._on_lost)
        self._clock, self._dice, self._log = clock, dice, log
        self._options = options or OutboxOptions()
        self._meters = OutboxMeters(metrics, name, self._lag_rows)
        self._letters = Letters(name, dead_letters, clock, log, self._meters)
        self._flights = Flights()
        self._reader: Reader | None = None
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
            self._reader = self._begin()
            while not self._patience.is_over and await self._patience.hold(self._connect()):
                await self._deliver_supervised(self._reader)
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
            raise self._bug(error) from error

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
                await self._back_off(self._bug(error))
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
        if isinstance(error, _BugError):
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
            self._log.error("outbox_broken", connector=self.name, reason=str(self._bug(error)), wait_s=0.0)

    # -- delivery -------------------------------------------------------------------------------------------------

    async def _deliver_supervised(self, reader: Reader) -> None:
        """One connection's life; whatever ends it is booked and answered with a wait."""
        try:
            error = await self._deliver(reader)
        except Exception as bug:  # noqa: BLE001 - supervisor: a bug in one connector stops only its own delivery
            self._must_close = True
            error = self._bug(bug)
        if error is not None and not self._patience.is_over:
            await self._patience.hold(self._back_off(error))

    async def _deliver(self, reader: Reader) -> GatewayError | None:
        """Send until the connection is lost (why is returned) or stop() was called (None)."""
        async with asyncio.TaskGroup() as group:
            self._offer_again(group)
            while True:
                # While a window waits to be offered again nothing newer may overtake it (O4).
                if self._lost is None and not self._patience.is_over and not self._flights.waiting():
                    await self._refill(group, reader)
                    await self._signal.wait()
                if self._patience.is_over:
                    await self._settle(STOP_S)
                    return None
                if self._lost is not None:
                    await self._settle(SETTLE_S)
                    return self._lost
                if self._flights.waiting():
                    await self._settle(self._options.send_timeout_s + SETTLE_S)
                    await self._answer_refusals()
                    self._offer_again(group)

    async def _refill(self, group: asyncio.TaskGroup, reader: Reader) -> None:
        """Start sends until the window of flights is full or the log is read to its durable end."""
        options = self._options
        if options.linger_s and 0 < reader.backlog_rows < options.window_rows:
            await self._clock.sleep(options.linger_s)
        try:
            while len(self._flights) < options.windows_in_flight:
                flight = reader.next()
                if flight is None:
                    break
                self._flights.add(flight)
                if flight.state is FlightState.DONE:
                    self._land()
                else:
                    self._start(group, flight)
        except GatewayError as error:  # the log cannot be read: rows stay where they are
            self._lost, self._must_close = error, True
            self._signal.wake()

    def _offer_again(self, group: asyncio.TaskGroup) -> None:
        for flight in self._flights.waiting():
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
        self._land()

    def _land(self) -> None:
        position = self._flights.land()
        if position is not None:
            self.health.position = position
            self._cursors.commit(self.name, position)

    # -- refusals -------------------------------------------------------------------------------------------------

    def _book_refusal(self, flight: Flight, window: Window, error: PayloadRefused) -> None:
        flight.refusals += 1
        self._meters.refusals.value += 1
        self._pause_s = max(self._pause_s, self._options.refusal_wait_s)
        if flight.refusals == 1:
            tries = self._options.refusals_max
            self._log.warning("outbox_refused", connector=self.name, pos=window.first, tries=tries, reason=str(error))

    async def _answer_refusals(self) -> None:
        """Take apart what was refused too often; wait before the rest is tried again."""
        for flight in self._flights.waiting():
            if self._lost is None and flight.refusals >= self._options.refusals_max:
                await self._isolate(flight)
        pause_s, self._pause_s = self._pause_s, 0.0
        if self._lost is None and self._flights.waiting():
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
        if self.health.state is OutboxState.CONNECTED and len(self._flights) < self._options.windows_in_flight:
            self._signal.wake()

    def _on_lost(self, error: GatewayError) -> None:
        self._lost = self._lost or error
        self._signal.wake()

    # -- start, words ---------------------------------------------------------------------------------------------

    def _begin(self) -> Reader:
        """Where to read on: the cursor, or the start that the options ask for, which is kept as a cursor at once.

        From then on the connector is owed every row: what goes before it was delivered is announced to it.
        """
        position, durable = self._cursors.load(self.name), self._source.durable
        if position is None:
            position = durable if self._options.start is Start.NEWEST else before_oldest(self._source)
            self._cursors.commit(self.name, position)
        elif position > durable:
            self._log.error("outbox_cursor_ahead", connector=self.name, position=position, durable=durable)
            position = durable
        self.health.position = position
        return Reader(
            self._source, self._encoder, self._options, position, connector=self.name, on_missing=self._on_missing
        )

    def _on_missing(self, gap: Gap) -> None:
        self._meters.missing_rows.value += gap.last - gap.first + 1
        self._log.error(
            "outbox_missing",
            connector=self.name,
            first_pos=gap.first,
            last_pos=gap.last,
            reason=gap.reason,
            detail=gap.detail,
        )

    def _lag_rows(self) -> float:
        return max(0, self._source.durable - self.health.position)

    def _enter(self, state: OutboxState) -> None:
        self.health.enter(state, self._clock.now_ns())

    def _bug(self, error: Exception) -> GatewayError:
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        if isinstance(error, GatewayError):
            return error
        words = f"{type(error).__name__}: {error}"[:TEXT_MAX]
        return _BugError(f"connector {self.name}: {words}; delivery is tried again, please report this", code="E2404")


class _BugError(GatewayError):
    """Something that is no GatewayError came out of a connector or encoder."""
