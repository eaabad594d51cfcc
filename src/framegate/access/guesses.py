"""Slow-down of guesses: whoever shows wrong credentials over and over waits, up to a minute.

What was right from a peer before is let through meanwhile, so that one broken client behind a shared address keeps
nobody from the plant. An IPv6 peer is its /64: a household has 2^64 addresses. Nothing is kept on disk; both tables are
bounded, and the oldest entry makes room.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network, ip_address

from framegate.contract.errors import Busy
from framegate.contract.ports import Clock

FREE = 5
"""Wrong credentials before the first wait."""
WAIT_S_MIN, WAIT_S_MAX = 1.0, 60.0
"""The wait doubles with each wrong one after those."""
FORGET_S = 300.0
"""Without a wrong one for so long, a peer begins anew."""
PEERS_MAX = 4096
KNOWN_MAX = 4096
PEER_CHARACTERS_MAX = 64


@dataclass(slots=True)
class _Record:
    """Of one peer; times of the monotonic clock."""

    wrong: int
    last: float
    until: float


class Guesses:
    """Who guessed, and who did not."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._peers: OrderedDict[str, _Record] = OrderedDict()
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()

    def admit(self, peer: str, credential: str) -> None:
        """Let a credential (its hash) be looked at; raises Busy E4305 while its peer has to wait."""
        place = place_of(peer)
        record = self._peers.get(place)
        if record is None or (place, credential) in self._known:
            return
        wait = record.until - self._clock.monotonic()
        if wait > 0:
            text = f"too many wrong credentials came from this address; ask again in {wait:.0f} s, with the right ones"
            raise Busy(text, wait_s=wait, code="E4305")

    def wrong(self, peer: str) -> float:
        """Count a wrong credential; returns how long its peer has to wait now, in seconds."""
        place, now = place_of(peer), self._clock.monotonic()
        record = self._peers.pop(place, None)
        if record is None or now - record.last > FORGET_S:
            record = _Record(0, now, now)
        record.wrong, record.last = record.wrong + 1, now
        surplus = record.wrong - FREE
        wait = 0.0 if surplus <= 0 else min(WAIT_S_MIN * 2.0 ** min(surplus - 1, 16), WAIT_S_MAX)
        record.until = now + wait
        self._peers[place] = record
        if len(self._peers) > PEERS_MAX:
            self._peers.popitem(last=False)
        return wait

    def right(self, peer: str, credential: str) -> None:
        """Remember what was right; earlier wrong ones stay counted, as the right one may be the guesser's own."""
        key = place_of(peer), credential
        self._known[key] = None
        self._known.move_to_end(key)
        if len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)


def place_of(peer: str) -> str:
    """What is counted of an address: IPv4 whole, IPv6 its /64, anything else as it is, cut."""
    try:
        address = ip_address(peer.partition("%")[0])
    except ValueError:
        return peer[:PEER_CHARACTERS_MAX]
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(IPv6Network((address, 64), strict=False))
    return str(address)
