from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from framegate.carrier.child.abi import TEXT_BYTES_MAX, Status
from framegate.carrier.child.wire import MESSAGE_BYTES_MAX, Message
from framegate.carrier.remote.calls import Reply
from framegate.carrier.remote.groups import TELLS_MAX, Groups
from framegate.carrier.remote.plan import RemotePlan
from framegate.contract.driver import BoundTag
from framegate.contract.errors import Misconfigured, NotConnected
from framegate.contract.frame import TagId, ValueType

WHERE = "driver meter1 (ramp)"


class Guest:
    """A driver that knows what it was told, and refuses tags at the address "nowhere".

    at_once  how many of them it names in one answer; room: bytes of an answer
    """

    def __init__(self, at_once: int = 1, room: int = TEXT_BYTES_MAX) -> None:
        self.groups: dict[int, list[int]] = {}
        self.at_once, self.room = at_once, room
        self.forgets = True

    async def call(
        self, kind: Message, status: int = 0, rows: int = 0, parts: Sequence[Any] = (), *, budget_s: float
    ) -> Reply:
        assert kind is Message.PLAN
        tags = json.loads(b"".join(parts))
        assert rows == len(tags)
        if not tags and not self.forgets:
            return Reply(Status.INVALID, 0, b"no tags")
        wrong = [tag["id"] for tag in tags if tag["address"] == "nowhere"][: self.at_once]
        if wrong:
            told = json.dumps([{"tag": id_, "key": "address", "text": "there is no such place"} for id_ in wrong])
            return Reply(Status.INVALID, 0, told.encode()[: self.room])
        self.groups[status] = [tag["id"] for tag in tags]
        return Reply(Status.OK, 0, b"")


def tag(number: int, address: str = "here", access: Any = "RW", name: str = "") -> BoundTag:
    return BoundTag(TagId(number), name or f"t{number}", address, ValueType.INT16, access, {})


@pytest.mark.parametrize("guest", [Guest(1), Guest(40), Guest(200)], ids=["one by one", "some", "more than fit"])
async def test_tell_leaves_out_every_tag_that_the_driver_refuses(guest: Guest) -> None:
    tags = [tag(number, "nowhere" if number % 5 == 0 else "here") for number in range(1, 201)]
    told = await Groups(4).tell(guest, RemotePlan(tags), WHERE)
    assert guest.groups == {told.number: [number for number in range(1, 201) if number % 5]}
    assert [each.id for each in told.refused] == list(range(5, 201, 5))
    assert (told.plan.rows, told.reason) == (160, "address: there is no such place")


async def test_tell_that_never_ends_parks_the_driver() -> None:
    tags = [tag(number, "nowhere") for number in range(TELLS_MAX + 1)]
    with pytest.raises(Misconfigured) as caught:
        await Groups(4).tell(Guest(1), RemotePlan(tags), WHERE)
    assert (caught.value.stable_code, "t0: address: there is no such place" in caught.value.text) == ("E4515", True)


async def test_introduction_with_a_refused_tag_still_names_those_that_are_written_only() -> None:
    guest, groups = Guest(), Groups(4)
    await groups.tell(guest, RemotePlan.introduction([tag(1, access="W"), tag(2, "nowhere", "W")]), WHERE)
    assert list(guest.groups.values()) == [[1]]
    assert (groups.has(1), groups.has(2)) == (True, False)


async def test_driver_that_does_not_forget_a_changed_tag_is_not_written() -> None:
    guest, groups = Guest(), Groups(4)
    await groups.tell(guest, RemotePlan([tag(1)]), WHERE)
    guest.forgets = False
    with pytest.raises((Misconfigured, NotConnected)):
        await groups.drop_changed(guest, {TagId(1): tag(1, "there")}, WHERE)
    assert groups.has(1)


async def test_plan_that_no_message_can_hold_says_what_to_do() -> None:
    plan = RemotePlan([tag(number, name="n" * 2_000) for number in range(MESSAGE_BYTES_MAX // 2_000)])
    with pytest.raises(Misconfigured) as caught:
        await Groups(4).tell(Guest(), plan, WHERE)
    assert (caught.value.stable_code, "divide it" in caught.value.text) == ("E4515", True)
