"""The client's side of one line: requests out, answers matched, silence noticed. Shared by every unit of the line.

One unit at a time holds the line; units take turns, writes go before reads. On framings with transaction ids a
unit that stays silent holds it only for a short while: its late answer still counts, but its neighbours go on. Without
ids (RTU, ASCII) one request is under way; after a time-out the line rests, and the silent unit is not asked
again before an answer that is still on its way must have come: it could be taken for the next one.

What an answer means for tags is `driver.py`'s. Reconnecting is the runtime's.
Source: MODBUS Messaging on TCP/IP V1.0b, 4.4.1; MODBUS over Serial Line V1.02, 2.4 and 2.5.
"""

from __future__ import annotations

import asyncio
from collections import deque

from framegate.contract.errors import Busy, FrameBroken, NotConnected
from framegate.contract.ports import Line
from framegate_plugins.modbus.codec import EXCEPTION_BIT, ExceptionReply, decode_answer
from framegate_plugins.modbus.exchange import GATEWAY_CODES, NOT_ASKED, UNANSWERED, Exchange
from framegate_plugins.modbus.framing import FRAMINGS, Frame, Framing
from framegate_plugins.modbus.lane import Alarm, Flight, Lane, LineCounts
from framegate_plugins.modbus.pace import LATE_TIMEOUTS, UNREST_S_MAX, Pace

EXCHANGES_PER_UNIT_MAX = 64
HOLD_S_MIN = 0.05
HOLD_REPLY_TIMES = 4.0  # a silent unit holds the line for so many recent reply times, at least HOLD_S_MIN
REPLY_TIME_WEIGHT = 0.125
BUSY_PAUSE_S = 0.05
"""Rest of a unit that answered "busy" before it is asked again."""
STRAY_FRAMES_MAX = 100
"""Frames nobody asked for, since the last good answer; beyond that the line is closed."""
TIMER_SLACK_S = 0.001  # the event loop's timers are millisecond-grained
TRANSACTIONS = 1 << 16


class ModbusSession:
    """Client of every unit on one line; made by the first driver that leases it."""

    def __init__(self, framing: str = "auto") -> None:
        self.framing = framing
        self.counts = LineCounts()
        self.url = ""
        self._line: Line | None = None
        self._lanes: dict[int, Lane] = {}
        self._flights: dict[int, Flight] = {}
        self._urgent: deque[Lane] = deque()
        self._waiting: deque[Lane] = deque()
        self._resting: set[Lane] = set()
        self._turn: Lane | None = None
        self._holding = 0
        self._transaction = 0
        self._strays = 0
        self._reply_s = 0.0
        self._alarm = Alarm(self._tick)

    # -- from the line ----------------------------------------------------------------------------------------

    def line_made(self, line: Line) -> None:
        self._line = line
        self.url = line.url
        self._loop = asyncio.get_running_loop()
        if self.framing == "auto":
            self.framing = "rtu" if line.url.startswith("serial") else "tcp"
        self._wire: Framing = FRAMINGS[self.framing]
        self._has_ids = self._wire.has_ids
        self._decoder = self._wire.answers()
        # A serial line says how long 3.5 characters take; other lines keep frames apart by themselves.
        self._pace = Pace(float(getattr(line, "silence_s", 0.0)))

    def data_received(self, data: bytes) -> None:
        if self._has_ids and not self._decoder.rest:
            # Whole, right answers, which is what healthy devices send, are cut out here without a decoder.
            flights, at, end = self._flights, 0, len(data)
            while end - at > 9:
                flight = flights.get((data[at] << 8) | data[at + 1])
                if flight is None:
                    break
                ask = flight.exchange.asks[flight.index]
                stop = at + ask.answer_size
                if stop > end or data[at + 2 : at + 9] != ask.answer_head:
                    break
                self._answered(flight, data[at + 9 : stop])
                at = stop
            if at == end:
                return
            data = data[at:]
        self._decode(data)

    def line_lost(self, error: NotConnected) -> None:
        if self._line is None:
            return
        self._line = None
        self._alarm.off()
        lanes, self._lanes = self._lanes, {}
        self._flights.clear()
        self._urgent.clear()
        self._waiting.clear()
        self._resting.clear()
        self._holding = 0
        for lane in lanes.values():
            for exchange in (*lane.writes, *lane.reads):
                exchange.error = error
                exchange.forget()
                exchange.finish()
            lane.writes.clear()
            lane.reads.clear()

    # -- from drivers -----------------------------------------------------------------------------------------

    def start(self, exchange: Exchange) -> None:
        """Send an exchange's requests as soon as it is its turn; `exchange.done` tells when it is over.

        raises NotConnected - the line is lost; Busy - too much is waiting for this unit
        """
        if self._line is None:
            raise NotConnected(f"the line {self.url} is lost; it is opened again with the next attempt", code="E5010")
        lane = self._lanes.get(exchange.unit) or self._lanes.setdefault(exchange.unit, Lane(exchange.unit))
        mine = lane.writes if exchange.is_write else lane.reads
        if len(mine) >= EXCHANGES_PER_UNIT_MAX:
            raise Busy(f"{len(mine)} exchanges wait for unit {exchange.unit} at {self.url}", wait_s=exchange.timeout_s)
        mine.append(exchange)
        lane.pipeline = exchange.pipeline if self._has_ids else 1
        if lane.is_silent:
            # One question is enough to find out whether a silent device is back; its neighbours want the line.
            exchange.retries = 0
        if exchange.expires_at:
            self._alarm.by(exchange.expires_at)
        if self._has_ids and not (self._holding or lane.flying or lane.not_before or self._waiting or self._urgent):
            self._turn = lane  # nobody else wants the line: the usual case of one device on a connection
            self._fill(lane)
            return
        self._enqueue(lane)
        self._pump()

    def withdraw(self, exchange: Exchange) -> None:
        """Send no more of it: its driver was cancelled. What has left is waited for, and thrown away."""
        exchange.forget()
        lane = self._lanes.get(exchange.unit)
        if lane is not None:
            lane.remove(exchange)

    # -- turns ------------------------------------------------------------------------------------------------

    def _enqueue(self, lane: Lane) -> None:
        """Let a unit wait for the line, if it has something to send and may send it."""
        exchange = lane.next() if lane.flying < lane.pipeline else None
        if exchange is None:
            return
        if lane.not_before:
            if lane.not_before > self._loop.time():
                self._resting.add(lane)
                self._alarm.by(lane.not_before)
                return
            lane.not_before = 0.0
        if exchange.is_write:
            if lane not in self._urgent:
                self._urgent.append(lane)
        elif lane not in self._waiting:
            self._waiting.append(lane)

    def _pump(self) -> None:
        """Give the line to whoever may have it."""
        if self._holding:
            self._cut_hold()
        while not self._holding and (self._urgent or self._waiting):
            if self._pace.quiet_until > self._loop.time():
                self._alarm.by(self._pace.quiet_until)
                return
            lane = (self._urgent or self._waiting).popleft()
            self._turn = lane
            self._fill(lane)
        if self._holding and self._turn is not None and self._is_uncontended:
            self._fill(self._turn)

    @property
    def _is_uncontended(self) -> bool:
        return not self._waiting and not self._urgent

    def _fill(self, lane: Lane) -> None:
        """Send until the unit has as many requests under way as it takes; what goes together leaves together."""
        if not (lane.reads or lane.writes):
            return
        frames: list[bytes] = []
        while lane.flying < lane.pipeline and not lane.not_before:
            exchange = lane.next()
            if exchange is None:
                break
            if 0.0 < exchange.expires_at < self._loop.time():
                self._end(lane, exchange)
            else:
                frames.append(self._begin(lane, exchange))
        if frames:
            self._write(frames)

    def _begin(self, lane: Lane, exchange: Exchange) -> bytes:
        """Put the next request of an exchange under way; returns its frame."""
        index = exchange.take()
        transaction = 0
        if self._has_ids:
            transaction = self._transaction = (self._transaction + 1) % TRANSACTIONS
            while transaction in self._flights:
                transaction = self._transaction = (self._transaction + 1) % TRANSACTIONS
        flight = self._flights[transaction] = Flight(lane, exchange, index, transaction, self._loop.time())
        lane.flying += 1
        self._holding += 1
        exchange.answers[index] = UNANSWERED
        self.counts.requests += 1
        if flight.deadline < self._alarm.at:
            self._alarm.by(flight.deadline)
        ask = exchange.asks[index]
        if self._has_ids:
            return transaction.to_bytes(2, "big") + ask.tail
        self._pace.sent()
        return self._wire.wrap(0, ask.unit, ask.pdu)

    def _write(self, frames: list[bytes]) -> None:
        """Send the frames of the requests that were begun last."""
        line = self._line
        assert line is not None
        try:
            for data in frames if line.is_datagram or len(frames) == 1 else (b"".join(frames),):
                line.write(data)
        except NotConnected as error:
            for flight in list(self._flights.values())[-len(frames) :]:
                flight.exchange.answers[flight.index] = NOT_ASKED
            self.line_lost(error)

    # -- answers ----------------------------------------------------------------------------------------------

    def _answered(self, flight: Flight, data: bytes) -> None:
        """A positive answer; the hot path."""
        lane, exchange = flight.lane, flight.exchange
        del self._flights[flight.transaction]
        lane.flying -= 1
        if flight.holds:
            self._holding -= 1
        self.counts.answers += 1
        self._strays = 0
        self._reply_s += (self._loop.time() - flight.sent - self._reply_s) * REPLY_TIME_WEIGHT
        lane.is_silent = False
        exchange.settle(flight.index, data)
        self._go_on(lane, exchange)

    def _go_on(self, lane: Lane, exchange: Exchange) -> None:
        is_over = not exchange.open
        if is_over:
            lane.take_out(exchange)
        if self._has_ids and not (self._waiting or self._urgent) and (not self._holding or self._turn is lane):
            self._turn = lane
            if lane.not_before:
                self._enqueue(lane)
            self._fill(lane)
        else:
            if not self._has_ids:
                self._pace.answered(self._loop.time())
            self._enqueue(lane)
            self._pump()
        if is_over:  # whoever is told takes his time over the rows; the line's other units do not wait for that
            exchange.finish()

    def _end(self, lane: Lane, exchange: Exchange) -> None:
        lane.take_out(exchange)
        exchange.finish()

    def _decode(self, data: bytes) -> None:
        was_idle, strays = not self._flights, self.counts.strays
        try:
            frames = self._decoder.feed(data)
        except FrameBroken as error:
            self._give_up(error.text)
            return
        for frame in frames:
            self._judge(frame)
        line = self._line
        if line is None:
            return
        if line.is_datagram:
            self._decoder.reset()
        was_disturbed = was_idle or self._decoder.rest or self.counts.strays > strays
        if self._has_ids or self._flights or not was_disturbed:
            return
        if not self._pace.disturbed(self._loop.time()):
            self._give_up(f"it did not come to rest for {UNREST_S_MAX:g} s")

    def _judge(self, frame: Frame) -> None:
        """Decide whether a frame is the answer that was waited for."""
        flight = self._flights.get(frame.transaction)
        if flight is None:
            self._stray()
            return
        ask = flight.exchange.asks[flight.index]
        is_kin = frame.unit == ask.unit and frame.pdu[0] & ~EXCEPTION_BIT == ask.request.function
        if not is_kin and not self._has_ids:
            self._stray()
            return
        try:
            data = decode_answer(ask.request, frame.pdu) if is_kin else None
        except ExceptionReply as refusal:
            self._refused(flight, refusal)
            return
        except FrameBroken as error:
            if not self._has_ids:
                # It may be a stale answer, with the right one behind it: keep listening until the time-out.
                self.counts.broken += 1
                flight.misfit = error
                return
            misfit = error
        else:
            if data is not None:
                self._answered(flight, data)
                return
            text = f"an answer of unit {frame.unit}, function {frame.pdu[0]} to unit {ask.unit}"
            misfit = FrameBroken(f"{text}, function {ask.request.function}", code="E5002")
        self.counts.broken += 1
        self._refused(flight, misfit)

    def _refused(self, flight: Flight, answer: ExceptionReply | FrameBroken) -> None:
        lane, exchange = flight.lane, flight.exchange
        self._land(flight)
        self._strays = 0
        exchange.refuse(flight.index, answer)
        if not (isinstance(answer, ExceptionReply) and answer.exception in GATEWAY_CODES):
            lane.is_silent = False
        if exchange.answers[flight.index] is NOT_ASKED:
            lane.not_before = self._loop.time() + BUSY_PAUSE_S
        self._go_on(lane, exchange)

    def _land(self, flight: Flight) -> None:
        del self._flights[flight.transaction]
        flight.lane.flying -= 1
        if flight.holds:
            flight.holds = False
            self._holding -= 1

    def _stray(self) -> None:
        self.counts.strays += 1
        self._strays += 1
        if self._strays > STRAY_FRAMES_MAX:
            self._give_up(f"{self._strays} frames arrived that answer no request")

    def _give_up(self, text: str) -> None:
        line = self._line
        if line is None:
            return
        self.counts.broken += 1
        line.close()
        self.line_lost(NotConnected(f"line {self.url} closed: {text}; check framing and device", code="E5011"))

    # -- time -------------------------------------------------------------------------------------------------

    def _cut_hold(self) -> None:
        """Take the line from a silent unit when others wait for it."""
        if self._is_uncontended or not self._has_ids:
            return
        now = self._loop.time()
        hold = max(HOLD_S_MIN, HOLD_REPLY_TIMES * self._reply_s)
        for flight in self._flights.values():
            if flight.holds and now >= flight.sent + hold - TIMER_SLACK_S:
                flight.holds = False
                self._holding -= 1
            elif flight.holds:
                self._alarm.by(flight.sent + hold)

    def _tick(self) -> None:
        """Time-outs, rests that are over, writes that came too late."""
        now = self._loop.time() + TIMER_SLACK_S
        for flight in [flight for flight in self._flights.values() if flight.deadline <= now]:
            self._missed(flight, now)
        for lane in [lane for lane in self._resting if lane.not_before <= now]:
            self._resting.discard(lane)
            lane.not_before = 0.0
            self._enqueue(lane)
        for lane in self._lanes.values():
            for exchange in [e for e in lane.writes if 0.0 < e.expires_at <= now and e.is_unsent]:
                self._end(lane, exchange)
        if self._line is None:
            return
        self._pump()
        for flight in self._flights.values():
            self._alarm.by(flight.deadline)
        for lane in self._resting:
            self._alarm.by(lane.not_before)

    def _missed(self, flight: Flight, now: float) -> None:
        lane, exchange = flight.lane, flight.exchange
        self._land(flight)
        if not self._has_ids:
            self._pace.timed_out(now, has_rest=bool(self._decoder.rest))
            self._decoder.reset()
            lane.not_before = flight.sent + LATE_TIMEOUTS * exchange.timeout_s
        if flight.misfit is not None and not exchange.is_write:
            exchange.refuse(flight.index, flight.misfit)
        else:
            self.counts.timeouts += 1
            exchange.miss(flight.index)
        if not exchange.open:
            self._end(lane, exchange)
        self._enqueue(lane)
