"""Guesses are slowed down per address, within bounds; nobody else has to wait for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from framegate.access import guesses
from framegate.access.audit_check import recent
from framegate.access.guesses import FORGET_S, FREE, WAIT_S_MAX, Guesses, place_of
from framegate.access.room import AccessRoom
from framegate.access.token import TokenWish
from framegate.contract.access import Permission, Principal
from framegate.contract.errors import Busy, Denied
from framegate.testing.fakes import CollectingLog, FakeClock

ADMIN = Principal("token:root:00000000", frozenset(Permission))


async def guess(room: AccessRoom, peer: str, times: int = 1) -> None:
    for number in range(times):
        with pytest.raises(Denied):
            await room.authenticate(f"Bearer edge_00000000_{number:064x}", peer)


async def test_guesser_waits_and_others_do_not(room: AccessRoom, log: CollectingLog, clock: FakeClock) -> None:
    _, text = await room.create_token(TokenWish("anna", "viewer"), ADMIN)
    await guess(room, "10.0.0.66", FREE + 1)
    with pytest.raises(Busy) as busy:
        await room.authenticate(f"Bearer {text}", "10.0.0.66")
    assert (busy.value.stable_code, busy.value.wait_s) == ("E4305", 1.0)
    await room.authenticate(f"Bearer {text}", "10.0.0.7")
    assert log.events("access_guesses") == [{"peer": "10.0.0.66", "wait_s": 1.0, "others": 0}]
    await clock.advance(1.0)
    await room.authenticate(f"Bearer {text}", "10.0.0.66")


async def test_known_credentials_pass_while_a_neighbour_behind_the_same_address_guesses(room: AccessRoom) -> None:
    _, text = await room.create_token(TokenWish("anna", "viewer"), ADMIN)
    await room.authenticate(f"Bearer {text}", "10.0.0.66")
    await guess(room, "10.0.0.66", FREE + 1)
    await room.authenticate(f"Bearer {text}", "10.0.0.66")
    await room.revoke_token("anna")
    with pytest.raises(Denied):
        await room.authenticate(f"Bearer {text}", "10.0.0.66")


async def test_right_credentials_do_not_wipe_out_wrong_ones(room: AccessRoom) -> None:
    _, text = await room.create_token(TokenWish("anna", "viewer"), ADMIN)
    for _ in range(FREE + 1):
        await guess(room, "10.0.0.66")
        await room.authenticate(f"Bearer {text}", "10.0.0.66")
    with pytest.raises(Busy):
        await room.authenticate("Bearer edge_00000000_" + "f" * 64, "10.0.0.66")


async def test_wait_doubles_up_to_a_minute_and_is_forgotten(clock: FakeClock) -> None:
    table = Guesses(clock)
    waits = [table.wrong("10.0.0.66") for _ in range(FREE + 9)]
    assert waits == [0.0] * FREE + [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, WAIT_S_MAX, WAIT_S_MAX, WAIT_S_MAX]
    for _ in range(2_000):
        assert table.wrong("10.0.0.66") == WAIT_S_MAX
    await clock.advance(FORGET_S + 1)
    assert table.wrong("10.0.0.66") == 0.0


def test_tables_are_bounded_and_the_oldest_goes(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guesses, "PEERS_MAX", 3)
    monkeypatch.setattr(guesses, "KNOWN_MAX", 3)
    table = Guesses(clock)
    for number in range(10):
        for _ in range(FREE + 1):
            table.wrong(f"10.0.0.{number}")
        table.right("10.0.0.9", str(number))
    assert (len(table._peers), len(table._known)) == (3, 3)
    table.admit("10.0.0.0", "x")
    table.admit("10.0.0.9", "9")
    with pytest.raises(Busy):
        table.admit("10.0.0.9", "0")


@pytest.mark.parametrize(
    ("peer", "place"),
    [
        ("10.0.0.7", "10.0.0.7"),
        ("::ffff:10.0.0.7", "10.0.0.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("local", "local"),
        ("x" * 1000, "x" * 64),
        ("", ""),
    ],
)
def test_place_of_a_peer(peer: str, place: str) -> None:
    assert place_of(peer) == place


async def test_jwt_that_is_wrong_counts_as_a_guess(room: AccessRoom, issuer: Any) -> None:
    for number in range(FREE + 1):
        with pytest.raises(Denied):
            await room.authenticate(f"Bearer {issuer.token(sub=f's{number}', aud='x')}", "10.0.0.66")
    with pytest.raises(Busy):
        await room.authenticate(f"Bearer {issuer.token()}", "10.0.0.66")


async def test_guesses_are_noted_and_flood_neither_log_nor_audit(
    room: AccessRoom, log: CollectingLog, clock: FakeClock, tmp_path: Path
) -> None:
    for number in range(20):
        await guess(room, f"10.0.1.{number}", FREE + 1)
    await room._refusals.close()
    await clock.advance(1.0)
    await guess(room, "10.0.2.0", FREE + 1)
    await room.close()
    noted = recent(tmp_path / "access", 100)
    assert [(note["actor"], note["action"], note["outcome"], note["peer"]) for note in noted] == [
        ("unknown", "access.authenticate", "E4305", "10.0.2.0"),
        ("unknown", "access.authenticate", "E4305", "10.0.1.0"),
    ]
    assert [values["others"] for values in log.events("access_guesses")] == [0, 19]
    assert noted[0]["details"] == {"wait_s": 1.0, "others": 19}
