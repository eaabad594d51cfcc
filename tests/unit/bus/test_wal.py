"""The log over a model of a disk: what it promises when syncs fail and writes stall."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import pytest

from framegate.bus.fault import FULL, IO, STALLED
from framegate.bus.record import key_of
from framegate.bus.wal import WalState
from framegate.contract.errors import StoreFailed
from framegate.contract.frame import Batch, Position, uniform_quality, uniform_time

from .model_disk import OPTIONS, TAGS, Rig

T = TypeVar("T")


@pytest.fixture
async def rig() -> Rig:
    rig = Rig()
    await rig.settle()
    return rig


async def test_row_is_durable_only_after_its_sync(rig: Rig) -> None:
    rig.publish(10, 1.0)
    await rig.turn()
    assert (rig.wal.durable, rig.bus.read(Position(0), 100)) == (0, [])
    rig.worker.run()
    assert rig.wal.durable == 10
    assert rig.mark.mark.position == 10


async def test_rows_during_a_sync_gather_for_the_next_commit(rig: Rig) -> None:
    rig.publish(10, 1.0)
    await rig.turn()
    for number in range(5):
        rig.publish(10, number)
        await rig.turn()
    assert (len(rig.worker.work), len(rig.disk.groups)) == (1, 1)
    rig.worker.run()
    await rig.turn()
    assert rig.wal.durable == 10
    rig.worker.run()
    assert rig.wal.durable == 60


async def test_wake_comes_once_per_durable_move(rig: Rig) -> None:
    seen: list[int] = []
    stop = rig.bus.subscribe(lambda: seen.append(rig.bus.durable))
    for number in range(3):
        rig.publish(10, number)
        rig.publish(10, number)
        await rig.settle()
    stop()
    rig.publish(10, 9.0)
    await rig.settle()
    assert seen == [20, 40, 60]


async def test_failed_sync_acknowledges_nothing_until_repaired_and_written_again(rig: Rig) -> None:
    rig.publish(10, 1.0)
    await rig.settle()
    rig.disk.sync_fault = StoreFailed("fsync: EIO", code=IO)
    rig.publish(10, 2.0)
    await rig.turn()
    rig.publish(10, 3.0)
    rig.worker.run()
    assert (rig.wal.state, rig.wal.durable) == (WalState.FAILED, 10)
    assert "EIO" in rig.wal.error
    rig.disk.crash(0)  # the failed sync had lost what it was to keep
    await rig.settle()
    assert (rig.wal.state, rig.wal.durable, rig.wal.error, rig.repairs) == (WalState.RUNNING, 30, "", 1)
    values = [item.batch.value[0] for item in rig.wal.replay.read(0, 100, 30)]
    assert values == [1.0, 2.0, 3.0]


async def test_failed_repair_is_tried_again_and_never_believed(rig: Rig) -> None:
    rig.publish(10, 1.0)
    rig.disk.sync_fault = StoreFailed("fsync: EIO", code=IO)
    await rig.turn()
    rig.worker.run()
    await rig.turn()
    _, then = rig.worker.work.pop()
    then(StoreFailed("cannot reopen", code=IO))
    await rig.turn()
    assert (rig.wal.state, rig.wal.durable, rig.worker.work) == (WalState.FAILED, 0, [])
    await rig.handed_in()
    await rig.settle()
    assert rig.wal.durable == 10


async def test_stalled_write_is_kept_and_tried_again(rig: Rig) -> None:
    rig.disk.write_fault = StoreFailed("Write stall", code=STALLED)
    rig.publish(10, 1.0)
    await rig.turn()
    assert rig.worker.work == []
    await rig.handed_in()
    rig.worker.run()
    assert (rig.wal.state, rig.wal.durable, rig.repairs) == (WalState.RUNNING, 10, 0)


async def test_full_disk_keeps_cursors_and_lets_rows_wait(rig: Rig) -> None:
    rig.publish(10, 1.0)
    await rig.settle()
    rig.wal.watch(OPTIONS.reserve_bytes - 1)
    rig.publish(10, 2.0)
    rig.books.cursors.commit("c", Position(10))
    await rig.settle()
    assert (rig.wal.state, rig.wal.durable, rig.bus.is_paused) == (WalState.FULL, 10, True)
    assert ("cursors", b"c") in rig.disk.synced
    rig.wal.watch(2 * OPTIONS.reserve_bytes)
    await rig.settle()
    assert (rig.wal.state, rig.wal.durable, rig.bus.is_paused) == (WalState.RUNNING, 20, False)


async def test_full_disk_that_refuses_a_write_is_repaired_and_waits_for_room(rig: Rig) -> None:
    rig.disk.write_fault = StoreFailed("No space left", code=FULL)
    rig.publish(10, 1.0)
    await rig.settle()
    assert (rig.wal.state, rig.wal.durable, rig.repairs) == (WalState.FULL, 0, 1)
    rig.wal.watch(2 * OPTIONS.reserve_bytes)
    await rig.settle()
    assert (rig.wal.state, rig.wal.durable) == (WalState.RUNNING, 10)


async def test_room_that_is_seen_during_a_sync_lets_waiting_rows_go_on(rig: Rig) -> None:
    """Devices are paused by then: no new row would ask for the commit."""
    rig.wal.watch(OPTIONS.reserve_bytes - 1)
    rig.publish(10, 1.0)
    rig.books.cursors.commit("c", Position(0))
    await rig.handed_in()
    rig.wal.watch(2 * OPTIONS.reserve_bytes)
    await rig.settle()
    assert (rig.wal.state, rig.wal.durable) == (WalState.RUNNING, 10)


async def test_mark_is_not_written_before_its_record(rig: Rig) -> None:
    rig.wal.watch(OPTIONS.reserve_bytes - 1)
    rig.publish(10, 1.0)
    rig.books.cursors.commit("c", Position(0))
    await rig.settle()
    assert ("cursors", b"c") in rig.disk.synced
    assert rig.stored_marks() == [], "the record is in no group yet"
    rig.wal.watch(2 * OPTIONS.reserve_bytes)
    await rig.settle()
    assert (rig.wal.durable, rig.stored_marks()) == (10, [1])


async def test_mark_beyond_the_head_is_forgotten_when_the_store_is_opened(rig: Rig) -> None:
    rig.publish(10, 1.0)
    await rig.settle()
    rig.disk.write([("meta", b"s" + key_of(15), bytes(16))])  # of a record that was lost before it was durable
    rig.open()
    rig.publish(10, 2.0)
    await rig.settle()
    assert [mark.first for mark in rig.books.marks.all()] == [1, 11]
    assert rig.stored_marks() == [1, 11]


async def test_foreign_object_in_a_column_takes_no_position(rig: Rig) -> None:
    column = np.empty(1, dtype=np.object_)
    column[0] = {1, 2}
    with pytest.raises(TypeError):
        rig.bus.publish([Batch(TAGS[:1], column, uniform_quality(0), uniform_time(0), 0)])
    assert rig.wal.head == 0


async def test_flush_on_a_hanging_disk_ends_at_its_deadline(rig: Rig) -> None:
    rig.publish(10, 1.0)
    with pytest.raises(StoreFailed, match="not durable within"):
        await rig.wal.flush(deadline_s=0.05)
