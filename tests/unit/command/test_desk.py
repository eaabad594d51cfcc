"""The desk's bounds and answers, one at a time; its promises over arbitrary histories are in test_promises.py."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from framegate.command import desk as desk_module
from framegate.command import dispatch as dispatch_module
from framegate.command import journal as journal_module
from framegate.command.dispatch import BATCH_WRITES_MAX, RETRIES_MAX, Dispatcher
from framegate.command.gate import BUCKETS_MAX, Buckets, Selections
from framegate.command.route import Routes
from framegate.contract.command import BATCH_MAX, Asker, Command, CommandRecord, Outcome, Stage
from framegate.contract.errors import Busy, StoreFailed

from .world import ANSWER_S, COMMIT_S, World

ANNA = Asker("rest:anna", bool)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


def write(world: World, *commands: Command, seconds: float = 10.0) -> list[CommandRecord]:
    """Submit and wait for the outcomes."""
    found: list[CommandRecord] = []

    async def ask() -> None:
        records = await world.desk.submit(commands, ANNA)
        for record in records:
            ended = record if record.outcome else await world.desk.wait(record.command.id, seconds)
            assert ended is not None
            found.append(ended)

    world.run(ask())
    return found


def test_submit_many_for_one_device_go_in_batches(world: World) -> None:
    commands = [Command(f"n{i}", "ab"[i % 2], i) for i in range(100)]
    assert {record.outcome for record in write(world, *commands)} == {Outcome.CONFIRMED}
    assert max(world.plant.batches) == 2  # each tag once
    assert BATCH_WRITES_MAX > 2
    assert [seen.value for seen in world.plant.seen] == [float(i) for i in range(100)]


def test_submit_more_than_one_submission_may_hold_is_busy(world: World) -> None:
    with pytest.raises(Busy, match="E4204"):
        write(world, *[Command(f"n{i}", "a", i) for i in range(BATCH_MAX + 1)])


def test_submit_more_than_may_wait_is_busy(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk_module, "OPEN_MAX", 3)
    with pytest.raises(Busy, match="E4204"):
        write(world, *[Command(f"n{i}", "a", i) for i in range(4)])
    assert world.records() == []


def test_log_that_does_not_take_commands_in_time_sends_none_of_them(world: World) -> None:
    world.log.is_stuck = True
    with pytest.raises(StoreFailed, match="E4218"):
        write(world, Command("n1", "a", 1))
    world.log.is_stuck = False
    world.pass_time(5.0)
    (record,) = world.records()
    assert (record.outcome, record.code) == (Outcome.NOT_SENT, "E4218")
    assert world.plant.seen == []


def test_log_that_refuses_is_told_before_anything_is_taken(world: World) -> None:
    world.log.refusal = "the disk is full"
    with pytest.raises(StoreFailed, match="the disk is full"):
        write(world, Command("n1", "a", 1))
    assert world.desk.find("n1") is None


def test_retry_repeats_only_what_may_be_repeated_and_so_often(world: World) -> None:
    world.plant.mood = "silent_applied"
    asked, unasked, forbidden = write(
        world, Command("n1", "b", 1, retry=True), Command("n2", "c", 2), Command("n3", "a", 3, retry=True)
    )
    assert {asked.outcome, unasked.outcome, forbidden.outcome} == {Outcome.UNKNOWN}
    values = [seen.value for seen in world.plant.seen]
    assert [values.count(float(i)) for i in (1, 2, 3)] == [1 + RETRIES_MAX, 1, 1]


def test_verify_confirms_only_what_the_device_holds(world: World) -> None:
    assert write(world, Command("n1", "a", 1, verify=True))[0].outcome is Outcome.CONFIRMED
    world.plant.mood = "lies"
    (record,) = write(world, Command("n2", "a", 2, verify=True))
    assert (record.outcome, record.code) == (Outcome.UNKNOWN, "E4214")
    assert "reads -1.0, and 2.0 was written" in record.reason


def test_asker_whose_right_cannot_be_told_stops_no_other_command(world: World) -> None:
    answers = iter([True])

    def may(tag: str) -> bool:
        if not next(answers, False):
            raise ValueError(f"a bug with {tag}")
        return True

    async def ask() -> Any:
        await world.desk.submit([Command("n1", "a", 1)], Asker("rest:eve", may))
        return await world.desk.wait("n1", 5.0)

    found: list[Any] = []

    async def keep() -> None:
        found.append(await ask())

    world.run(keep())
    assert found[0].outcome is Outcome.UNKNOWN
    assert write(world, Command("n2", "a", 2))[0].outcome is Outcome.CONFIRMED


def test_wait_ends_after_so_long_with_what_is_known(world: World) -> None:
    world.plant.mood = "silent"

    async def ask() -> None:
        await world.desk.submit([Command("n1", "a", 1)], ANNA)
        before = asyncio.get_running_loop().time()
        record = await world.desk.wait("n1", 0.03)
        assert record is not None
        assert record.outcome is None
        assert asyncio.get_running_loop().time() - before < 0.04
        assert await world.desk.wait("nobody", 1.0) is None

    world.run(ask())


def test_old_ids_are_forgotten_by_age_and_number_and_new_ones_are_refused_when_too_many_are_young(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "KEPT_MIN", 3)
    monkeypatch.setattr(journal_module, "KEPT_MAX", 8)
    monkeypatch.setattr(journal_module, "CACHED_MAX", 2)
    write(world, *[Command(f"n{i}", "a", i) for i in range(8)])
    with pytest.raises(Busy, match="E4204"):
        write(world, Command("n8", "a", 8))
    world.pass_time(journal_module.KEPT_NS / 1e9)
    monkeypatch.setattr(journal_module, "KEPT_MAX", 100)
    write(world, *[Command(f"n{i}", "a", i) for i in range(8, 12)])
    assert [record.command.id for record in world.records()] == ["n8", "n9", "n10", "n11"]
    assert world.desk.find("n0") is None
    assert [record.command.id for record in world.desk.recent(2, before="n10")] == ["n9", "n8"]
    keys = {key[:1] for family, key in world.medium.store if family == "commands"}
    assert keys == {b"s", b"i", b"n"}
    assert len([key for _, key in world.medium.store if key[:1] == b"i"]) == len(world.records())


def test_damaged_record_is_never_sent_again(world: World) -> None:
    write(world, Command("n1", "a", 1))
    key = ("commands", b"s" + (1).to_bytes(8, "big"))
    data = world.medium.store[key]  # type: ignore[index]
    world.medium.store[key] = data[:-1] + bytes((data[-1] ^ 1,))  # type: ignore[index]
    world.crash(survives=True)
    with pytest.raises(StoreFailed, match="E3003"):
        write(world, Command("n1", "a", 1))
    assert len(world.plant.seen) == 1


def test_buckets_let_so_many_pass_and_are_bounded() -> None:
    buckets = Buckets()
    assert [buckets.take("anna", 2.0, 3.0, 0.0) for _ in range(4)] == [True, True, True, False]
    assert [buckets.take("anna", 2.0, 3.0, 0.5) for _ in range(2)] == [True, False]
    for number in range(BUCKETS_MAX):
        buckets.take(str(number), 1.0, 1.0, 1.0)
    assert buckets.take("anna", 0.0, 3.0, 1.0)  # forgotten meanwhile: it begins anew


def test_selection_ends_by_itself() -> None:
    selections = Selections()
    assert selections.take("pump", "rest:anna", 0.0)
    assert selections.holder("pump", 29.9) == "rest:anna"
    assert not selections.holder("pump", 30.0)


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Devices have something to do: what is accepted is not yet about to be sent."""
    monkeypatch.setattr(Dispatcher, "claim", lambda *_: None)


def accept(world: World, *commands: Command) -> None:
    """Have commands accepted, and cut the power before it is durable that they are sent."""
    world.submit(commands)
    world.pass_time(COMMIT_S + 0.001)
    assert {record.stage for record in world.records()} == {Stage.ACCEPTED}


@pytest.mark.usefixtures("busy")
def test_restart_sends_what_was_accepted_while_its_time_lasts(world: World) -> None:
    accept(world, Command("n1", "a", 1), Command("n2", "a", 2, 0, 1.0))
    world.crash(survives=False, down_s=2.0)
    world.pass_time(5.0)
    first, second = world.records()
    assert (first.outcome, second.outcome, second.code) == (Outcome.CONFIRMED, Outcome.NOT_SENT, "E2600")
    assert [seen.value for seen in world.plant.seen] == [1.0]


@pytest.mark.usefixtures("busy")
def test_restart_with_a_clock_that_was_set_back_sends_nothing(world: World) -> None:
    accept(world, Command("n1", "a", 1))
    world.clock.step_wall(-10.0)
    world.crash(survives=False)
    world.pass_time(5.0)
    (record,) = world.records()
    assert (record.outcome, record.code) == (Outcome.NOT_SENT, "E4216")
    assert world.plant.seen == []


@pytest.mark.usefixtures("busy")
def test_restart_asks_whether_the_origin_may_still_write(world: World) -> None:
    accept(world, Command("n1", "a", 1))
    world.revoked["rest:anna"] = 0.0
    world.crash(survives=False)
    world.pass_time(5.0)
    (record,) = world.records()
    assert (record.outcome, record.code) == (Outcome.REJECTED, "E4205")
    assert world.plant.seen == []


def test_command_for_an_idle_device_is_sent_after_one_commit_and_is_unknown_after_a_crash(world: World) -> None:
    world.submit([Command("n1", "a", 1), Command("n2", "a", 2)])
    world.pass_time(COMMIT_S + 0.001)
    assert [record.stage for record in world.records()] == [Stage.DISPATCHED, Stage.ACCEPTED]
    world.crash(survives=False)
    world.pass_time(5.0)
    first, second = world.records()
    assert (first.outcome, first.code, second.outcome) == (Outcome.UNKNOWN, "E4215", Outcome.CONFIRMED)


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver call holds one command, and a submission is claimed for two of them."""
    monkeypatch.setattr(dispatch_module, "BATCH_WRITES_MAX", 1)
    monkeypatch.setattr(dispatch_module, "CLAIMED_MAX", 2)


@pytest.mark.usefixtures("narrow")
def test_commands_of_two_calls_for_an_idle_device_wait_for_one_commit(world: World) -> None:
    began = world.loop.time()
    write(world, Command("n1", "a", 1), Command("n2", "b", 2))
    assert world.plant.batches == [1, 1]
    assert [seen.at - began for seen in world.plant.seen] == pytest.approx([COMMIT_S, COMMIT_S + ANSWER_S])


@pytest.mark.usefixtures("narrow")
def test_stop_ends_what_was_written_as_dispatched_and_is_not_sent(world: World) -> None:
    world.submit([Command("n1", "a", 1), Command("n2", "b", 2)])
    world.pass_time(COMMIT_S + ANSWER_S / 2)
    world.run(world.desk.stop())
    world.pass_time(COMMIT_S)
    assert [seen.value for seen in world.plant.seen] == [1.0]
    first, second = world.records()
    assert first.outcome is Outcome.CONFIRMED
    assert (second.outcome, second.code) == (Outcome.NOT_SENT, "E4213")


def test_tables_that_drop_a_tag_end_what_waits_and_not_what_has_left(world: World) -> None:
    world.submit([Command("n1", "a", 1), Command("n2", "a", 2), Command("n3", "b", 3)])
    world.pass_time(2 * COMMIT_S + 0.005)
    assert [seen.value for seen in world.plant.seen] == [1.0]
    world.desk.use(Routes({"b": world.routes.by_name["b"]}, world.routes.ack_tag))
    world.pass_time(5.0)
    outcomes = {record.command.id: (record.outcome, record.code) for record in world.records()}
    assert outcomes == {
        "n1": (Outcome.CONFIRMED, ""), "n2": (Outcome.NOT_SENT, "E4217"), "n3": (Outcome.CONFIRMED, ""),
    }  # fmt: skip


@pytest.mark.parametrize("survives", [True, False])
@pytest.mark.parametrize("after_ms", range(1, 100, 3))
def test_power_cut_at_any_step_sends_once_and_tells_the_truth(world: World, after_ms: int, *, survives: bool) -> None:
    world.submit([Command("n1", "a", 1)])
    world.pass_time(after_ms / 1000)
    world.crash(survives=survives)
    world.pass_time(5.0)
    sent = len(world.plant.seen)
    assert sent <= 1
    outcome = next((record.outcome for record in world.records()), Outcome.NOT_SENT)
    assert outcome is not None
    assert (outcome, sent) in {
        (Outcome.CONFIRMED, 1), (Outcome.UNKNOWN, 0), (Outcome.UNKNOWN, 1), (Outcome.NOT_SENT, 0),
    }  # fmt: skip
    if world.records():
        assert write(world, Command("n1", "a", 1))[0].outcome is outcome
        assert len(world.plant.seen) == sent
