"""C1 to C8 over arbitrary histories: duplicates, reordered submissions, moody devices, revoked askers, power cuts."""

from __future__ import annotations

from collections import Counter

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from framegate.command.desk import expires_ns
from framegate.contract.command import Command, Outcome
from framegate.testing.fakes import START_NS

from .world import TAGS, World

RESUME_S_MAX = 5.0
WRONG = 999_999
MOODS = st.sampled_from(["fine", "fine", "fine", "refuses", "silent_applied", "silent", "away", "lies"])


class Promises(RuleBasedStateMachine):
    """Commands are numbered; command n writes n."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.count = 0
        self.sent: list[Command] = []
        self.is_clock_stepped = False

    @rule(
        tags=st.lists(st.sampled_from(TAGS), min_size=1, max_size=5),
        ttl_s=st.sampled_from([0.02, 0.3, 30.0]),
        verify=st.booleans(),
        retry=st.booleans(),
        origin=st.sampled_from(["rest:anna", "north:cloud"]),
    )
    def ask(self, tags: list[str], ttl_s: float, origin: str, *, verify: bool, retry: bool) -> None:
        commands = []
        for tag in tags:
            self.count += 1
            commands.append(Command(f"c{self.count}", tag, self.count, 0, ttl_s, verify, retry))
        self.sent += commands
        self.world.submit(commands, origin)

    @rule(data=st.data(), times=st.integers(1, 3))
    def repeat(self, data: st.DataObject, times: int) -> None:
        if self.sent:
            self.world.submit([data.draw(st.sampled_from(self.sent)) for _ in range(times)])

    @rule(data=st.data())
    def misuse_an_id(self, data: st.DataObject) -> None:
        known = self.world.records()
        if known:
            old = data.draw(st.sampled_from([record.command.id for record in known]))
            self.world.submit([Command(old, "a", WRONG)])

    @rule(seconds=st.sampled_from([0.001, 0.011, 0.03, 0.06, 0.5, 3.0]))
    def pass_time(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @rule(mood=MOODS)
    def change_mood(self, mood: str) -> None:
        self.world.plant.mood = mood

    @rule(survives=st.booleans(), down_s=st.sampled_from([0.0, 0.2, 40.0]))
    def cut_power(self, down_s: float, *, survives: bool) -> None:
        self.world.crash(survives=survives, down_s=down_s)

    @rule(is_stuck=st.booleans())
    def stall_the_log(self, *, is_stuck: bool) -> None:
        self.world.log.is_stuck = is_stuck

    @rule(seconds=st.sampled_from([-3600.0, 3600.0]))
    def step_the_wall_clock(self, seconds: float) -> None:
        self.world.clock.step_wall(seconds)
        self.is_clock_stepped = True

    @rule()
    def revoke(self) -> None:
        self.world.revoked.setdefault("north:cloud", self.world.loop.time())

    @invariant()
    def no_command_reaches_a_device_twice(self) -> None:
        """C1; tag b may be repeated, and only for commands that ask for it."""
        values = Counter(seen.value for seen in self.world.plant.seen)
        for number, times in values.items():
            command = self.sent[int(number) - 1]  # type: ignore[arg-type]
            assert times == 1 or (command.tag == "b" and command.retry), command
        assert WRONG not in values

    @invariant()
    def nobody_is_told_two_things(self) -> None:
        """C2: an outcome is absorbing, and its row in the log says the same, once."""
        rows = self.world.medium.acknowledged()
        assert len({id_ for id_, _ in rows}) == len(rows)
        outcomes = dict(rows)
        for id_, records in self.world.told.items():
            found = {record.outcome for record in records if record.outcome is not None}
            assert len(found) <= 1, records
            if found:
                (outcome,) = found
                assert outcomes[id_] == outcome.name.lower()

    @invariant()
    def everybody_is_told_the_truth(self) -> None:
        """C3."""
        reached = {seen.value for seen in self.world.plant.seen}
        for id_, outcome in self.world.medium.acknowledged():
            value = float(id_[1:])
            if outcome == "confirmed":
                assert value in reached, id_
            elif outcome in {"rejected", "not_sent"}:
                assert value not in reached, id_

    @invariant()
    def nothing_is_sent_too_late_or_without_a_right(self) -> None:
        """C4, C8."""
        world = self.world
        revoked = world.revoked.get("north:cloud", float("inf"))
        records = {float(record.command.value): record for record in world.records()}  # type: ignore[arg-type]
        for seen in world.plant.seen:
            record = records[seen.value]  # type: ignore[index]
            assert self.is_clock_stepped or seen.at <= world.time_of(expires_ns(record)), record
            assert record.origin != "north:cloud" or seen.at <= revoked, record

    @invariant()
    def each_tag_is_written_in_the_order_of_acceptance(self) -> None:
        """C5; ids that were asked for first are accepted first."""
        order = {record.command.value: place for place, record in enumerate(self.world.records())}
        for tag in range(1, len(TAGS) + 1):
            places = [order[seen.value] for seen in self.world.plant.seen if seen.tag == tag]
            assert places == sorted(places)

    def teardown(self) -> None:
        """C7 and C2: left alone, every command that was accepted has its outcome soon."""
        try:
            self._check_the_end()
        finally:
            self.world.close()

    def _check_the_end(self) -> None:
        world = self.world
        world.log.is_stuck = False
        world.crash(survives=False, down_s=0.0)
        world.pass_time(RESUME_S_MAX)
        ended = {record.command.id: record.outcome for record in world.records()}
        assert {ended[id_] for id_ in world.cut_off} <= {Outcome.UNKNOWN}
        world.plant.mood = "fine"
        world.pass_time(40.0)
        records = world.records()
        assert [record for record in records if record.outcome is None] == []
        assert {record.command.id for record in records} == {id_ for id_, _ in world.medium.acknowledged()}
        self.no_command_reaches_a_device_twice()
        self.nobody_is_told_two_things()
        self.everybody_is_told_the_truth()
        self.nothing_is_sent_too_late_or_without_a_right()
        self.each_tag_is_written_in_the_order_of_acceptance()


TestPromises = Promises.TestCase
TestPromises.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)


def test_expiry_never_lies_beyond_the_ttl_from_arrival() -> None:
    world = World()
    try:
        world.submit([Command("c1", "a", 1, START_NS + 10**12, 30.0)])
        world.pass_time(1.0)
        (record,) = world.records()
        assert record.outcome is Outcome.CONFIRMED
        assert expires_ns(record) == record.received + 30 * 10**9
    finally:
        world.close()
