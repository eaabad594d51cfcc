"""The simulated outside behaves as the real one may, and no better: loop, medium, disk, mark, thread and network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from random import Random

import pytest

from framegate.bus.fault import CLOSED, DAMAGED, FULL, IO, STALLED
from framegate.bus.mark import NO_MARK, HighWater
from framegate.bus.record import key_of
from framegate.contract.errors import StoreFailed
from framegate.contract.frame import Position
from framegate.contract.ports import Change, Disk
from framegate.testing.loop import run_virtual
from framegate.testing.simulation.disk import DiskWeather, Medium, SimBallast, SimDisk, SimMark
from framegate.testing.simulation.loop import Process, SimLoop, run_simulated
from framegate.testing.simulation.network import Connection, NetWeather
from framegate.testing.simulation.worker import SimWorker

ROUNDS = 40


def entry(number: int, value: bytes = b"v") -> Change:
    return ("meta", key_of(number), value)


def keys(disk: Disk) -> list[int]:
    return [int.from_bytes(key, "big") for key, _ in disk.scan("meta", b"")]


class Bench:
    """A medium, and a process with a disk on it."""

    def __init__(self, seed: int = 0) -> None:
        self.medium, self.weather, self.dice = Medium(), DiskWeather(), Random(seed)
        self.points: list[str] = []
        self.open()

    def open(self) -> None:
        self.process = Process("p")
        self.disk = SimDisk(self.medium, self.process, self.weather, self.dice, self.points.append)

    def code(self, call: Callable[[], object]) -> str:
        with pytest.raises(StoreFailed) as caught:
            call()
        return caught.value.stable_code


# -- loop -----------------------------------------------------------------------------------------------------------


def order_of_ties(seed: int) -> list[int]:
    async def main(loop: SimLoop) -> list[int]:
        seen: list[int] = []
        for number in range(6):
            loop.call_later(1.0, seen.append, number)
        loop.call_later(0.5, seen.append, 99)
        await asyncio.sleep(2)
        return seen

    return run_simulated(seed, main)


def test_loop_draws_the_order_of_ties_and_of_nothing_else() -> None:
    orders = [order_of_ties(seed) for seed in range(ROUNDS)]
    assert orders == [order_of_ties(seed) for seed in range(ROUNDS)]
    assert len({tuple(order) for order in orders}) > ROUNDS // 2
    assert all(order[0] == 99 and sorted(order[1:]) == list(range(6)) for order in orders)


def test_loop_keeps_the_order_of_call_soon() -> None:
    async def main(loop: SimLoop) -> list[int]:
        seen: list[int] = []
        for number in range(20):
            loop.call_soon(seen.append, number)
        await asyncio.sleep(1)
        return seen

    assert run_simulated(3, main) == list(range(20))


def test_killed_process_does_nothing_more_and_its_timers_never_fire() -> None:
    async def main(loop: SimLoop) -> list[str]:
        seen: list[str] = []
        process = Process("p")

        async def work() -> None:
            asyncio.get_running_loop().call_later(5, seen.append, "timer")
            child = asyncio.create_task(asyncio.sleep(5))
            child.add_done_callback(lambda task: seen.append(f"child cancelled {task.cancelled()}"))
            await asyncio.sleep(5)
            seen.append("end")

        loop.spawn(process, work(), "work")
        await asyncio.sleep(1)
        process.kill()
        await asyncio.sleep(10)
        return seen

    assert run_simulated(0, main) == ["child cancelled True"]


def test_loop_that_spins_without_time_passing_ends_instead_of_hanging() -> None:
    async def spin() -> None:
        while True:  # noqa: ASYNC110 - the bug that is to be found
            await asyncio.sleep(0)

    with pytest.raises(AssertionError, match="no time has passed"):
        run_virtual(spin())


# -- medium and disk --------------------------------------------------------------------------------------------------


def test_power_cut_keeps_what_was_synced_and_a_prefix_of_the_rest() -> None:
    left: set[int] = set()
    for seed in range(ROUNDS):
        bench = Bench(seed)
        bench.disk.write([entry(1)])
        bench.disk.sync()
        for number in range(2, 6):
            bench.disk.write([entry(number), entry(100 + number)])
        bench.process.kill()
        bench.medium.cut_power(bench.dice)
        bench.open()
        found = keys(bench.disk)
        small = [key for key in found if key < 100]
        assert small == list(range(1, len(small) + 1))
        assert [key + 100 for key in small[1:]] == found[len(small) :]  # a write is whole, or was never there
        left.add(len(small))
    assert left == {1, 2, 3, 4, 5}


def test_process_crash_keeps_every_write() -> None:
    bench = Bench()
    bench.disk.write([entry(1)])
    bench.process.kill()
    assert bench.code(lambda: bench.disk.write([entry(2)])) == CLOSED
    bench.open()
    assert keys(bench.disk) == [1]


def test_failed_sync_poisons_the_disk_and_dooms_what_it_was_to_cover() -> None:
    found = set()
    for seed in range(ROUNDS):
        bench = Bench(seed)
        bench.disk.write([entry(1)])
        bench.weather.sync_error = 1.0
        assert bench.code(bench.disk.sync) == IO
        bench.weather.clear()
        assert bench.code(bench.disk.sync) == IO
        assert bench.code(partial(bench.disk.write, [entry(2)])) == IO
        bench.disk.reopen()
        found.add(tuple(keys(bench.disk)))
        bench.disk.write([entry(3)])
        bench.disk.sync()
    assert found == {(), (1,)}


def test_disk_fails_with_the_code_of_its_fault() -> None:
    bench = Bench()
    bench.weather.stall = 1.0
    assert bench.code(lambda: bench.disk.write([entry(1)])) == STALLED
    bench.weather.clear()
    bench.weather.intruder = bench.weather.capacity
    assert bench.code(lambda: bench.disk.write([entry(1)])) == FULL
    assert bench.code(bench.disk.reopen) == FULL
    bench.weather.clear()
    bench.disk.reopen()
    bench.disk.write([("frames", key_of(1), b"12345678"), ("frames", key_of(5), b"12345678")])
    bench.disk.sync()
    bench.medium.platter.spoil(key_of(1))
    assert bench.code(lambda: list(bench.disk.scan("frames", key_of(0)))) == DAMAGED
    assert [key for key, _ in bench.disk.scan("frames", key_of(2))] == [key_of(5)]
    bench.medium.platter.flip("frames", key_of(5), bench.dice)
    assert dict(bench.disk.scan("frames", key_of(2)))[key_of(5)] != b"12345678"
    bench.medium.platter.lose("frames", key_of(5))
    assert list(bench.disk.scan("frames", key_of(2))) == []


def test_deleted_range_is_gone_for_good_without_a_sync() -> None:
    bench = Bench()
    bench.disk.write([entry(number) for number in range(1, 6)])
    bench.disk.sync()
    bench.disk.drop_range("meta", key_of(0), key_of(4))
    bench.medium.cut_power(bench.dice)
    bench.open()
    assert keys(bench.disk) == [4, 5]


def test_ballast_takes_room_and_gives_it_up() -> None:
    bench = Bench()
    ballast, free = SimBallast(bench.medium, bench.process, 1_000), bench.disk.bytes_free()
    ballast.take(bench.disk.bytes_free(), 500)
    assert bench.disk.bytes_free() == free - 1_000
    ballast.give_up()
    assert bench.disk.bytes_free() == free


def test_mark_after_a_power_cut_is_never_older_than_what_was_synced() -> None:
    async def main(loop: SimLoop) -> set[int]:
        left = set()
        for seed in range(ROUNDS):
            medium, process = Medium(), Process("p")
            mark: HighWater = SimMark(medium, process, loop, lambda _name: None)
            mark.write(NO_MARK._replace(position=Position(1)))
            for number in (2, 3):
                mark.write(NO_MARK._replace(position=Position(number)))
            medium.cut_power(Random(seed))
            left.add(int(medium.mark.position))
        return left

    assert run_simulated(0, main) == {1, 3}


# -- thread and network -----------------------------------------------------------------------------------------------


def test_worker_answers_in_order_and_some_time_after_the_work() -> None:
    async def main(loop: SimLoop) -> list[str]:
        seen: list[str] = []
        worker = SimWorker(loop, DiskWeather(slow_s=1.0), Random(1))

        def fail() -> None:
            raise StoreFailed("no")

        worker.do(lambda: seen.append("one"), lambda error: seen.append(f"answer {error}"))
        worker.do(fail, lambda error: seen.append(f"answer {error}"))
        assert seen == []
        await asyncio.sleep(10)
        return seen

    assert run_simulated(0, main) == ["one", "answer None", "answer E3000 no"]


def arrivals(seed: int, delay_s: float, cut_after: float | None, hold_s: float = 0.0) -> tuple[list[int], list[str]]:
    """What arrives of twenty messages, and what the ends are told."""

    async def main(loop: SimLoop) -> tuple[list[int], list[str]]:
        got: list[int] = []
        told: list[str] = []
        connection = Connection(
            loop,
            Random(seed),
            NetWeather(delay_s=delay_s),
            to_server=lambda _connection, message: got.append(message),
            to_client=lambda _message: None,
            server_lost=lambda _connection: told.append("server"),
            client_lost=told.append,
        )
        for number in range(20):
            connection.up.put(number)
        if hold_s:
            connection.hold()
            await asyncio.sleep(hold_s)
            assert got == []
            connection.release()
        if cut_after is not None:
            await asyncio.sleep(cut_after)
            connection.cut("cut")
        await asyncio.sleep(5)
        return got, sorted(told)

    return run_simulated(seed, main)


def test_network_keeps_the_order_of_a_connection() -> None:
    for seed in range(ROUNDS):
        assert arrivals(seed, 0.5, None) == (list(range(20)), [])
        assert arrivals(seed, 0.5, None, hold_s=2.0) == (list(range(20)), [])


def test_cut_connection_delivers_a_prefix_and_tells_both_ends() -> None:
    found = set()
    for seed in range(ROUNDS):
        got, told = arrivals(seed, 2.0, 0.05)
        assert got == list(range(len(got)))
        assert told == ["cut", "server"]
        found.add(len(got))
    assert len(found) > 5
