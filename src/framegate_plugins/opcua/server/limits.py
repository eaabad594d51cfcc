"""Bounds that hold for every client, and buckets that measure rates. What an operator may set is in options.py."""

from __future__ import annotations

from typing import Final

CHUNK_BYTES_MAX: Final = 65_536
"""Of one chunk, either way; announced in Acknowledge."""
CHUNK_BYTES_MIN: Final = 8_192
"""A client whose buffers are smaller is turned away (Part 6, 7.1.2.3)."""
MESSAGE_BYTES_MAX: Final = 4_194_304
"""Of one request, all chunks together. Clients made with asyncua hold answers to it as well."""
EARLY_MESSAGE_BYTES_MAX: Final = 131_072
"""Of one request before a login."""
CHUNKS_MAX: Final = 128
CHUNKS_AT_ONCE_MAX: Final = 16
"""Chunks of one connection that are worked on before the others have their turn."""
ANSWER_BYTES_MAX: Final = 4_194_304
"""Of one response; a client may announce less."""
HELLO_BYTES_MAX: Final = 4_160
"""Part 6, 7.1.2.3: a URL of 4,096 bytes at most, and the header."""
OPEN_BYTES_MAX: Final = 16_384
"""Of the one chunk that opens a channel: certificates take most of it."""
HANDSHAKE_S: Final = 5.0
"""From the connection to an open channel."""
ACTIVATION_S: Final = 15.0
"""From the connection to an activated session. A look at the endpoints needs none, and ends sooner."""
SEND_BYTES_MAX: Final = 8_388_608
"""Unsent bytes of one connection; a client that lets more of them gather loses it."""
SEND_BYTES_HIGH: Final = 524_288
"""From so many unsent bytes on, no request is taken and nothing is published until they have gone."""
SEND_S: Final = 30.0
"""For them to go; a client that reads nothing so long loses its connection."""
CHANNEL_S_MIN: Final = 10.0
CHANNEL_S_MAX: Final = 3_600.0
"""Life of a security token; a channel that is not renewed within 1.25 times of it ends."""
OPENINGS_PER_S: Final = 10.0
"""Channels that one peer may open: each costs private key operations."""
OPENINGS_BURST: Final = 20.0
PEERS_KEPT_MAX: Final = 1_024
"""Peers of which is remembered how often they opened a channel, or guessed a password."""
OPENING_THREADS: Final = 2
"""Channels that are opened at the same time."""

SESSION_S_MIN: Final = 10.0
SESSION_S_MAX: Final = 3_600.0
SESSIONS_PER_CHANNEL_MAX: Final = 4
NONCE_BYTES: Final = 32
NAME_CHARACTERS_MAX: Final = 256
"""Of what a client calls itself, as far as it is kept."""
OPERATIONS_MAX: Final = 10_000
"""Nodes or items of one request; announced in OperationLimits."""
WRITES_MAX: Final = 1_000
"""Values of one Write; announced as MaxNodesPerWrite."""
WRITE_REQUESTS_MAX: Final = 8
"""Write requests of one session that wait for their outcome."""
REFERENCES_MAX: Final = 1_000
"""References of one node in one answer; the others follow by BrowseNext."""
BROWSE_BYTES_MAX: Final = 2_097_152
"""Of the references in one answer; nodes beyond are refused, and asked for again."""
SCANNED_MAX: Final = 100_000
"""References that one request may have looked at."""
CONTINUATION_POINTS_MAX: Final = 32
"""Of one session; the oldest goes first."""
PATHS_TARGETS_MAX: Final = 1_000
"""Nodes that one step of a browse path may lead to."""
REGISTERED_URL_CHARACTERS_MAX: Final = 4_096

PUBLISHING_MS_MIN: Final = 50.0
PUBLISHING_MS_MAX: Final = 3_600_000.0
KEEP_ALIVE_COUNT_MAX: Final = 10_000
LIFETIME_COUNT_MAX: Final = 30_000
SUBSCRIPTION_S_MAX: Final = 3_600.0
"""A subscription of which nobody takes a notification ends after this, whatever its counts say."""
PUBLISH_REQUESTS_MAX: Final = 64
"""Of one session that wait for notifications; the oldest is answered first."""
NOTIFICATIONS_MAX: Final = 5_000
"""Values in one notification; a client may ask for less."""
UNACKNOWLEDGED_MAX: Final = 16
"""Notifications of a subscription that are kept for Republish."""
UNACKNOWLEDGED_BYTES_MAX: Final = 262_144
ITEMS_PER_NODE_MAX: Final = 256
"""Of all sessions: each of them is told of every row."""
QUEUE_MAX: Final = 1_000
"""Values that one monitored item keeps."""
SPARE_MAX: Final = 50_000
"""Values that all monitored items of a session may keep together, beyond the newest of each."""


class Bucket:
    """Tokens that come back at a rate, up to a burst."""

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, per_s: float, burst: float, now: float) -> None:
        self._rate, self._burst, self._tokens, self._at = per_s, burst, burst, now

    def take(self, now: float) -> bool:
        """One token, if there is one."""
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    @property
    def wait_s(self) -> float:
        """Until there is a token again."""
        return max(0.0, (1.0 - self._tokens) / self._rate)


class Peers:
    """A bucket for each peer; the one that was asked for least recently is forgotten first."""

    def __init__(self, per_s: float, burst: float) -> None:
        self._per_s, self._burst = per_s, burst
        self._buckets: dict[str, Bucket] = {}

    def take(self, peer: str, now: float) -> bool:
        bucket = self._buckets.pop(peer, None) or Bucket(self._per_s, self._burst, now)
        self._buckets[peer] = bucket
        if len(self._buckets) > PEERS_KEPT_MAX:
            del self._buckets[next(iter(self._buckets))]
        return bucket.take(now)


class Budget:
    """What one request may still cost: references looked at, and bytes of its answer."""

    __slots__ = ("bytes", "scans")

    def __init__(self) -> None:
        self.bytes, self.scans = BROWSE_BYTES_MAX, SCANNED_MAX

    @property
    def is_spent(self) -> bool:
        return self.bytes <= 0 or self.scans <= 0
