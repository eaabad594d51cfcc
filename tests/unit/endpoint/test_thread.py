"""Work beside the loop: what it opened is never left open, whenever its caller gives up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from framegate.endpoint.thread import Overrun, Worker, in_thread
from framegate.testing import plant


class Loop:
    """The running loop, which cancels a task right after it was told of something from a thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.create_future = self._loop.create_future
        self.cancelled: asyncio.Task[Any] | None = None

    def call_soon_threadsafe(self, callback: Callable[..., object], *words: Any) -> None:
        def call() -> None:
            callback(*words)
            assert self.cancelled is not None
            self.cancelled.cancel()

        self._loop.call_soon_threadsafe(call)


@pytest.mark.parametrize("fails", [False, True])
async def test_result_that_comes_in_the_turn_of_the_cancellation_is_given_back(
    monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    given_back: list[int] = []
    loop = Loop()
    monkeypatch.setattr("framegate.endpoint.thread.asyncio.get_running_loop", lambda: loop)

    def work() -> int:
        if fails:
            raise OSError("nothing was opened")
        return 7

    loop.cancelled = asyncio.ensure_future(in_thread("opens", work, given_back.append))
    done, _ = await asyncio.wait((loop.cancelled,), timeout=5)
    assert [task.cancelled() for task in done] == [True]
    assert given_back == ([] if fails else [7])


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker("test")
    yield made
    made.close()


@pytest.fixture
def held() -> Iterator[threading.Event]:
    """What stuck work waits for."""
    event = threading.Event()
    yield event
    event.set()


async def test_worker_does_one_after_the_other_although_nobody_waits(worker: Worker, held: threading.Event) -> None:
    done: list[int] = []

    def first() -> None:
        done.append(0)
        held.wait(5)
        done.append(1)

    asked = asyncio.create_task(worker.do(first))
    await plant.until(lambda: done == [0], "the first to begin")
    asked.cancel()
    second = asyncio.create_task(worker.do(lambda: done.append(2)))
    await asyncio.wait((asked,))
    held.set()
    await second
    assert done == [0, 1, 2]
    with pytest.raises(TimeoutError, match="its own"):
        await worker.do(_raise, 5.0)


def _raise() -> None:
    raise TimeoutError("its own")


async def test_worker_work_that_never_ends_is_left_behind_and_what_waits_goes_on(
    worker: Worker, held: threading.Event
) -> None:
    late: list[int] = []

    def stuck() -> int:
        held.wait(5)
        return 7

    asked = asyncio.create_task(worker.do(stuck, 0.05, late.append))
    await asyncio.sleep(0)
    behind = asyncio.create_task(worker.do(lambda: 8))
    with pytest.raises(Overrun) as caught:
        await asked
    assert caught.value.where.rpartition(":")[0].endswith(("threading.py", "test_thread.py"))
    assert await behind == 8
    assert (worker.left_behind, late) == (1, [])
    held.set()
    await plant.until(lambda: worker.left_behind == 0, "the thread to end")
    assert late == [7]


async def test_worker_behind_stuck_work_of_somebody_who_left_is_free_after_its_own_deadline(
    worker: Worker, held: threading.Event
) -> None:
    began: list[bool] = []

    def stuck() -> None:
        began.append(True)
        held.wait(5)

    asked = asyncio.create_task(worker.do(stuck))
    await plant.until(lambda: began == [True], "it to begin")
    asked.cancel()
    with pytest.raises(Overrun):
        await worker.do(lambda: 8, 0.05)
    assert await worker.do(lambda: 9, 5.0) == 9
    assert worker.left_behind == 1
