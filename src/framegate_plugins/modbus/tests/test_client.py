"""Conversations on one line, in virtual time: turns, silence, stale and foreign answers. No socket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from framegate.contract.errors import FrameBroken, NotConnected
from framegate.testing.loop import run_virtual
from framegate_plugins.modbus.client import HOLD_S_MIN, STRAY_FRAMES_MAX, ModbusSession
from framegate_plugins.modbus.codec import ExceptionReply, Function, Request
from framegate_plugins.modbus.exchange import NOT_ASKED, Ask, Exchange, Silence
from framegate_plugins.modbus.framing import FRAMINGS
from framegate_plugins.modbus.pace import QUIET_S, UNREST_S_MAX


class FakeLine:
    """Keeps what was written, with the time."""

    is_datagram = False

    def __init__(self, url: str) -> None:
        self.url = url
        self.sent: list[tuple[float, bytes]] = []
        self.is_closed = False

    def write(self, data: bytes) -> None:
        if self.is_closed:
            raise NotConnected("the line is closed")
        self.sent.append((asyncio.get_running_loop().time(), data))

    def gather(self, size: int) -> None:
        pass

    def write_pending(self) -> int:
        return 0

    def close(self) -> None:
        self.is_closed = True


class Stage:
    """A session, its line, and the other side's voice."""

    def __init__(self, framing: str) -> None:
        self.line = FakeLine("serial:///dev/x" if framing == "rtu" else "tcp://x:502")
        self.session = ModbusSession(framing)
        self.session.line_made(self.line)
        self.framing = framing
        self.began = asyncio.get_running_loop().time()

    @property
    def now(self) -> float:
        """Seconds since the stage was set."""
        return asyncio.get_running_loop().time() - self.began

    async def pause(self) -> None:
        """Long enough for a line without ids to take the next request."""
        await asyncio.sleep(0.01)

    def read(self, unit: int, *addresses: int, count: int = 1, **options: Any) -> Exchange:
        asks = [Ask(unit, Request(Function.READ_HOLDING_REGISTERS, address, count)) for address in addresses]
        exchange = Exchange(unit, asks, timeout_s=options.pop("timeout_s", 1.0), **options)
        self.session.start(exchange)
        return exchange

    def write(self, unit: int, address: int, value: int) -> Exchange:
        ask = Ask(unit, Request(Function.WRITE_SINGLE_REGISTER, address, 1, value.to_bytes(2, "big")))
        exchange = Exchange(unit, [ask], timeout_s=1.0)
        exchange.is_write = True
        self.session.start(exchange)
        return exchange

    @property
    def sent(self) -> list[tuple[float, bytes]]:
        """Time and frame of every request that left; frames of one write are told apart."""
        if self.framing != "tcp":
            return list(self.line.sent)
        frames = []
        for at, data in self.line.sent:
            rest = data
            while rest:
                size = 6 + int.from_bytes(rest[4:6], "big")
                frames.append((at, rest[:size]))
                rest = rest[size:]
        return frames

    @property
    def asked(self) -> list[tuple[int, int]]:
        """(unit, address) of every request that left."""
        start = 6 if self.framing == "tcp" else 0
        return [(data[start], int.from_bytes(data[start + 2 : start + 4], "big")) for _, data in self.sent]

    @property
    def asked_at(self) -> list[float]:
        return [round(at - self.began, 2) for at, _ in self.sent]

    def answer(self, index: int, value: int, **changes: int) -> None:
        """Answer the request sent as number `index` with one register."""
        data = self.sent[index][1]
        start = 6 if self.framing == "tcp" else 0
        transaction = changes.get("transaction", int.from_bytes(data[:2], "big"))
        pdu = bytes((changes.get("function", data[start + 1]), 2)) + value.to_bytes(2, "big")
        self.say(pdu, transaction=transaction, unit=changes.get("unit", data[start]))

    def say(self, pdu: bytes, *, transaction: int = 0, unit: int = 1) -> None:
        self.session.data_received(FRAMINGS[self.framing].wrap(transaction, unit, pdu))


def play(framing: str, playbook: Callable[[Stage], Coroutine[None, None, None]]) -> None:
    async def run() -> None:
        await playbook(Stage(framing))

    run_virtual(run())


BOTH = pytest.mark.parametrize("framing", ["tcp", "rtu"])


@BOTH
def test_requests_go_out_one_after_the_other(framing: str) -> None:
    async def playbook(stage: Stage) -> None:
        exchange = stage.read(1, 10, 20, 30)
        for index in range(3):
            assert len(stage.line.sent) == index + 1
            stage.answer(index, 100 + index)
            await stage.pause()
        await exchange.done
        assert exchange.answers == [b"\0\x64", b"\0\x65", b"\0\x66"]
        assert stage.asked == [(1, 10), (1, 20), (1, 30)]

    play(framing, playbook)


def test_pipeline_keeps_as_many_under_way_as_allowed() -> None:
    async def playbook(stage: Stage) -> None:
        exchange = stage.read(1, 0, 1, 2, 3, 4, pipeline=3)
        assert stage.asked == [(1, 0), (1, 1), (1, 2)]
        stage.answer(1, 11)
        assert stage.asked[3:] == [(1, 3)]
        for index in (0, 2, 3, 4):
            stage.answer(index, 10 + index)
        await exchange.done
        assert exchange.answers == [bytes((0, 10 + i)) for i in range(5)]

    play("tcp", playbook)


@BOTH
def test_units_take_turns_and_writes_overtake(framing: str) -> None:
    async def playbook(stage: Stage) -> None:
        exchanges = [stage.read(1, 10, 11, 12), stage.read(2, 20, 21), stage.read(3, 30)]
        exchanges.append(stage.write(2, 99, 5))
        for index in range(7):
            if stage.asked[index] == (2, 99):
                stage.say(b"\x06\x00\x63\x00\x05", transaction=index + 1, unit=2)
            else:
                stage.answer(index, 1)
            await stage.pause()
        await asyncio.gather(*(exchange.done for exchange in exchanges))
        assert stage.asked == [(1, 10), (2, 99), (2, 20), (3, 30), (1, 11), (2, 21), (1, 12)]

    play(framing, playbook)


def test_silent_unit_gives_the_line_to_its_neighbours_and_may_answer_late() -> None:
    async def playbook(stage: Stage) -> None:
        dead, alive = stage.read(1, 10), stage.read(2, 20)
        await asyncio.sleep(HOLD_S_MIN + 0.01)
        assert stage.asked == [(1, 10), (2, 20)]
        stage.answer(1, 2)
        await alive.done
        await asyncio.sleep(0.5)
        stage.answer(0, 1)
        await dead.done
        assert (dead.answers, alive.answers) == ([b"\0\1"], [b"\0\2"])

    play("tcp", playbook)


@BOTH
def test_dead_unit_is_reported_after_its_retries(framing: str) -> None:
    async def playbook(stage: Stage) -> None:
        exchange = stage.read(1, 10, retries=1)
        await exchange.done
        assert exchange.is_silent
        assert exchange.answers == [Silence.TIMED_OUT]
        # Without ids the repeat waits until no answer to the first request can come any more.
        assert stage.asked_at == ([0.0, 1.0] if framing == "tcp" else [0.0, 2.0])
        second = stage.read(1, 10, retries=1)
        await second.done
        assert len(stage.line.sent) == 3, "a silent unit is asked once, not retried"

    play(framing, playbook)


def test_block_that_is_never_answered_does_not_silence_the_device() -> None:
    async def playbook(stage: Stage) -> None:
        exchange = stage.read(1, 10, 20, retries=1)
        await asyncio.sleep(1.1)
        stage.answer(1, 2)
        await exchange.done
        assert stage.asked == [(1, 10), (1, 20), (1, 10)]
        assert exchange.answers == [Silence.TIMED_OUT, b"\0\2"]
        assert not exchange.is_silent

    play("tcp", playbook)


def test_stale_answer_with_other_id_never_becomes_a_value() -> None:
    async def playbook(stage: Stage) -> None:
        first = stage.read(1, 10)
        await first.done
        second = stage.read(1, 10)
        stage.answer(0, 0xDEAD)
        assert stage.session.counts.strays == 1
        stage.answer(1, 7)
        stage.answer(1, 7)
        await second.done
        assert second.answers == [b"\0\7"]
        assert stage.session.counts.strays == 2

    play("tcp", playbook)


@pytest.mark.parametrize("change", [{"unit": 9}, {"function": 4}])
def test_answer_of_wrong_unit_or_function_is_broken_with_its_id(change: dict[str, int]) -> None:
    async def playbook(stage: Stage) -> None:
        exchange = stage.read(1, 10)
        stage.answer(0, 1, **change)
        await exchange.done
        assert isinstance(exchange.answers[0], FrameBroken)

    play("tcp", playbook)


@BOTH
def test_answer_of_wrong_size_is_broken(framing: str) -> None:
    async def playbook(stage: Stage) -> None:
        exchange = stage.read(1, 10, retries=0)
        stage.say(bytes.fromhex("03 04 00010002"), transaction=1)
        await exchange.done
        assert isinstance(exchange.answers[0], FrameBroken)

    play(framing, playbook)


@pytest.mark.parametrize("change", [{"unit": 9}, {"function": 4}])
def test_foreign_frame_without_ids_is_dropped_and_the_right_one_taken(change: dict[str, int]) -> None:
    async def playbook(stage: Stage) -> None:
        exchange = stage.read(1, 10)
        stage.answer(0, 0xDEAD, **change)
        stage.answer(0, 5)
        await exchange.done
        assert exchange.answers == [b"\0\5"]

    play("rtu", playbook)


def test_doubled_answer_without_ids_is_never_taken_for_the_next_one() -> None:
    async def playbook(stage: Stage) -> None:
        exchange = stage.read(1, 10, 20)
        stage.answer(0, 1)
        stage.answer(0, 1)
        await asyncio.sleep(QUIET_S - 0.01)
        stage.answer(0, 1)
        assert len(stage.line.sent) == 1, "the line is not yet at rest"
        await asyncio.sleep(QUIET_S + 0.01)
        stage.answer(1, 2)
        await exchange.done
        assert exchange.answers == [b"\0\1", b"\0\2"]

    play("rtu", playbook)


def test_line_that_never_comes_to_rest_is_closed() -> None:
    async def playbook(stage: Stage) -> None:
        exchange = stage.read(1, 10, 20)
        stage.answer(0, 1)
        while not exchange.done.done():
            stage.session.data_received(b"\xff")
            await asyncio.sleep(QUIET_S / 2)
        assert stage.line.is_closed
        assert stage.now == pytest.approx(UNREST_S_MAX, abs=0.1)

    play("rtu", playbook)


def test_late_answer_without_ids_is_never_taken_for_the_next_one() -> None:
    """The device answers after 1.2 s, the time-out is 1 s: every answer is late, none may be a value."""

    async def playbook(stage: Stage) -> None:
        exchange = stage.read(1, 10, 20, retries=2)
        answered = 0
        while not exchange.done.done():
            await asyncio.sleep(0.01)
            now = asyncio.get_running_loop().time()
            if answered < len(stage.line.sent) and now >= stage.line.sent[answered][0] + 1.2:
                stage.answer(answered, 0xDEAD)
                answered += 1
        assert not any(isinstance(answer, bytes) for answer in exchange.answers)

    play("rtu", playbook)


def test_neighbours_without_ids_go_on_while_a_silent_unit_rests() -> None:
    async def playbook(stage: Stage) -> None:
        dead, alive = stage.read(1, 10, retries=1), stage.read(2, 20)
        await asyncio.sleep(1.1)
        assert stage.asked == [(1, 10), (2, 20)]
        stage.answer(1, 3)
        await alive.done
        await dead.done
        assert stage.asked_at[2] == 2.0

    play("rtu", playbook)


def test_busy_device_is_asked_again_a_little_later() -> None:
    async def playbook(stage: Stage) -> None:
        exchange = stage.read(1, 10, retries=1)
        stage.say(b"\x83\x06", transaction=1)
        await asyncio.sleep(0.1)
        assert stage.asked_at == [0.0, 0.05]
        stage.answer(1, 4)
        await exchange.done
        assert exchange.answers == [b"\0\4"]

    play("tcp", playbook)


def test_gateway_that_cannot_reach_the_device_counts_as_its_silence() -> None:
    async def playbook(stage: Stage) -> None:
        exchange = stage.read(1, 10, 20, 30, retries=1)
        stage.say(b"\x83\x0b", transaction=1)
        stage.say(b"\x83\x0b", transaction=2)
        await exchange.done
        assert exchange.is_silent
        assert [isinstance(answer, ExceptionReply) for answer in exchange.answers] == [True, True, False]

    play("tcp", playbook)


@BOTH
def test_write_is_never_repeated(framing: str) -> None:
    async def playbook(stage: Stage) -> None:
        exchange = stage.write(1, 5, 1)
        await exchange.done
        assert exchange.answers == [Silence.UNANSWERED]
        await asyncio.sleep(5)
        assert len(stage.line.sent) == 1

    play(framing, playbook)


def test_write_that_waits_too_long_is_not_sent() -> None:
    async def playbook(stage: Stage) -> None:
        stage.read(1, 10, timeout_s=5.0)
        ask = Ask(1, Request(Function.WRITE_SINGLE_REGISTER, 5, 1, b"\0\1"))
        exchange = Exchange(1, [ask], timeout_s=1.0)
        exchange.is_write = True
        exchange.expires_at = stage.began + 2.0
        stage.session.start(exchange)
        await exchange.done
        assert stage.now == pytest.approx(2.0, abs=0.01)
        assert exchange.answers == [NOT_ASKED]

    play("rtu", playbook)


@BOTH
def test_line_lost_tells_what_left_from_what_did_not(framing: str) -> None:
    async def playbook(stage: Stage) -> None:
        sent, waiting = stage.write(1, 5, 1), stage.write(2, 6, 1)
        stage.session.line_lost(NotConnected("cable pulled"))
        await asyncio.gather(sent.done, waiting.done)
        assert (sent.answers, waiting.answers) == ([Silence.UNANSWERED], [NOT_ASKED])
        assert sent.error is not None
        with pytest.raises(NotConnected):
            stage.read(1, 1)

    play(framing, playbook)


def test_line_that_breaks_while_writing_sends_nothing() -> None:
    async def playbook(stage: Stage) -> None:
        stage.line.is_closed = True
        exchange = stage.write(1, 5, 1)
        await exchange.done
        assert exchange.answers == [NOT_ASKED]

    play("tcp", playbook)


def test_flood_of_frames_closes_the_line() -> None:
    async def playbook(stage: Stage) -> None:
        exchange = stage.read(1, 10)
        for _ in range(STRAY_FRAMES_MAX + 1):
            stage.say(b"\x03\x02\0\1", transaction=999)
        await exchange.done
        assert stage.line.is_closed
        assert exchange.error is not None

    play("tcp", playbook)


@BOTH
def test_withdrawn_exchange_sends_no_more_and_leaves_no_timer(framing: str) -> None:
    async def playbook(stage: Stage) -> None:
        exchange = stage.read(1, 10, 20)
        stage.session.withdraw(exchange)
        stage.answer(0, 1)
        other = stage.read(2, 30)
        await asyncio.sleep(0.1)
        stage.answer(1, 2)
        await other.done
        assert stage.asked == [(1, 10), (2, 30)]
        await asyncio.sleep(3.0)
        assert stage.asked == [(1, 10), (2, 30)]
        assert stage.session._alarm.at > 1e9, "a timer that has nothing to wait for rings once more and is gone"

    play(framing, playbook)


def test_transaction_ids_wrap_around_without_repeating_one_under_way() -> None:
    async def playbook(stage: Stage) -> None:
        stage.session._transaction = 0xFFFF - 1
        exchange = stage.read(1, 0, 1, 2, pipeline=3)
        assert [int.from_bytes(data[:2], "big") for _, data in stage.sent] == [0xFFFF, 0, 1]
        for index in range(3):
            stage.answer(index, index)
        await exchange.done

    play("tcp", playbook)
