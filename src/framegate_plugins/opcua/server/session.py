"""Sessions: who a client is, what belongs to it, and the publish requests that wait for its notifications.

A session outlives its connection, so that a client that comes back finds its subscriptions; it ends when nothing has
been asked in it for its time-out. What belongs to one session is never touched by another. Tokens are 32 random bytes.
Source: OPC UA Part 4, 5.6 (sessions) and 5.13.5 (Publish).
"""

from __future__ import annotations

import secrets
from collections import deque
from typing import Final, NamedTuple, Protocol

from framegate_plugins.opcua.server import binary
from framegate_plugins.opcua.server.binary import NodeId
from framegate_plugins.opcua.server.limits import (
    CONTINUATION_POINTS_MAX,
    NONCE_BYTES,
    PUBLISH_REQUESTS_MAX,
    SESSION_S_MAX,
    SESSION_S_MIN,
    SESSIONS_PER_CHANNEL_MAX,
)
from framegate_plugins.opcua.server.options import User
from framegate_plugins.opcua.server.requests import PUBLISH, BrowseDescription
from framegate_plugins.opcua.server.status import (
    BAD_SESSION_CLOSED,
    BAD_TIMEOUT,
    BAD_TOO_MANY_PUBLISH_REQUESTS,
    BAD_TOO_MANY_SESSIONS,
    ServiceFault,
)
from framegate_plugins.opcua.server.subscription import Subscription

TOKEN_BYTES: Final = 32
_OVERHEAD_BYTES: Final = 4_096
"""Of an answer, beside the notification in it."""


class Channel(Protocol):
    """The secure channel that a session speaks through now."""

    @property
    def answer_bytes_max(self) -> int: ...
    @property
    def has_room(self) -> bool:
        """Whether the line takes more than it still has to send."""

    def answer(self, request_id: int, encoding: int, handle: int, body: bytes) -> None: ...
    def fault(self, request_id: int, handle: int, status: int) -> None: ...


class PublishRequest(NamedTuple):
    """expires: monotonic seconds; results: StatusCodes of what it acknowledged."""

    id: int
    handle: int
    expires: float
    results: tuple[int, ...]


class Browsing(NamedTuple):
    """Where BrowseNext goes on."""

    description: BrowseDescription
    start: int
    references_max: int


class Session:
    """One session. user None: not activated yet."""

    def __init__(
        self, number: int, channel: Channel, name: str, certificate: bytes, timeout_s: float, now: float
    ) -> None:
        self.id = NodeId(1, number)
        self.token = NodeId(0, secrets.token_bytes(TOKEN_BYTES))
        self.name, self.certificate = name, certificate
        self.timeout_s = min(max(timeout_s, SESSION_S_MIN), SESSION_S_MAX)
        self.channel: Channel | None = channel
        self.user: User | None = None
        self.seen = now
        self.nonce = b""
        self.writes = 0
        self.subscriptions: dict[int, Subscription] = {}
        self._requests: deque[PublishRequest] = deque()
        self._late: dict[int, Subscription] = {}
        self._points: dict[bytes, Browsing] = {}
        self.renew_nonce()

    def renew_nonce(self) -> bytes:
        self.nonce = secrets.token_bytes(NONCE_BYTES)
        return self.nonce

    # -- publishing ---------------------------------------------------------------------------------------------

    @property
    def answer_bytes_max(self) -> int:
        return self.channel.answer_bytes_max - _OVERHEAD_BYTES if self.channel is not None else 0

    def has_request(self) -> bool:
        return bool(self._requests) and self.channel is not None and self.channel.has_room

    def take_publish(self, request: PublishRequest) -> None:
        """A publish request has come: it waits, or is answered at once by a subscription that is late."""
        assert self.channel is not None
        if len(self._requests) >= PUBLISH_REQUESTS_MAX:
            oldest = self._requests.popleft()
            self.channel.fault(oldest.id, oldest.handle, BAD_TOO_MANY_PUBLISH_REQUESTS)
        self._requests.append(request)
        for subscription in self.subscriptions.values():
            subscription.asked()
        for subscription in list(self._late.values()):
            if not self.has_request():
                return
            del self._late[subscription.id]
            subscription.send()

    def publish(self, subscription: Subscription, message: bytes, *, has_more: bool) -> None:
        assert self.channel is not None
        request = self._requests.popleft()
        body = (
            binary.u32(subscription.id)
            + binary.many([binary.u32(sequence) for sequence in subscription.sequences])
            + binary.flag(has_more)
            + message
            + binary.many([binary.u32(status) for status in request.results])
            + binary.NO_ARRAY
        )
        self.channel.answer(request.id, PUBLISH + 3, request.handle, body)

    def is_late(self, subscription: Subscription) -> None:
        self._late[subscription.id] = subscription

    def is_over(self, subscription: Subscription) -> None:
        if self.has_request():
            self.publish(subscription, subscription.timeout(), has_more=False)
        self.drop(subscription.id)

    def drop(self, number: int) -> bool:
        """End a subscription."""
        subscription = self.subscriptions.pop(number, None)
        self._late.pop(number, None)
        if subscription is not None:
            subscription.stop()
        return subscription is not None

    def expire_requests(self, now: float) -> None:
        """Answer publish requests whose client does not wait any longer."""
        while self._requests and now > self._requests[0].expires and self.channel is not None:
            request = self._requests.popleft()
            self.channel.fault(request.id, request.handle, BAD_TIMEOUT)

    def refuse_requests(self, status: int) -> None:
        """Answer all of them with a fault."""
        while self._requests:
            request = self._requests.popleft()
            if self.channel is not None:
                self.channel.fault(request.id, request.handle, status)

    def detach(self) -> None:
        """The channel has gone, and with it the requests that came through it."""
        self._requests.clear()
        self.channel = None

    @property
    def items(self) -> int:
        return sum(len(each.items) for each in self.subscriptions.values())

    @property
    def spare(self) -> int:
        """Values that its items may keep together, beyond the newest of each."""
        return sum(each.spare for each in self.subscriptions.values())

    def give(self, number: int) -> Subscription:
        """A subscription leaves for another session."""
        self._late.pop(number, None)
        return self.subscriptions.pop(number)

    # -- browsing -----------------------------------------------------------------------------------------------

    def keep_place(self, browsing: Browsing) -> bytes:
        """A continuation point."""
        point = secrets.token_bytes(8)
        self._points[point] = browsing
        if len(self._points) > CONTINUATION_POINTS_MAX:
            del self._points[next(iter(self._points))]
        return point

    def take_place(self, point: bytes | None) -> Browsing | None:
        return self._points.pop(point, None) if point is not None else None


class Sessions:
    """All sessions of a server."""

    def __init__(self, sessions_max: int) -> None:
        self._by_token: dict[NodeId, Session] = {}
        self._sessions_max = sessions_max
        self._number = secrets.randbelow(1 << 30)

    def __len__(self) -> int:
        return len(self._by_token)

    def create(self, channel: Channel, name: str, certificate: bytes, timeout_s: float, now: float) -> Session:
        """raises ServiceFault BadTooManySessions"""
        if sum(session.channel is channel for session in self._by_token.values()) >= SESSIONS_PER_CHANNEL_MAX:
            raise ServiceFault(BAD_TOO_MANY_SESSIONS)
        if len(self._by_token) >= self._sessions_max:
            # Part 4, 5.6.2: those that nobody has logged in to make room, the oldest first.
            idle = next((session for session in self._by_token.values() if session.user is None), None)
            if idle is None:
                raise ServiceFault(BAD_TOO_MANY_SESSIONS)
            self.close(idle)
        self._number += 1
        session = Session(self._number, channel, name, certificate, timeout_s, now)
        self._by_token[session.token] = session
        return session

    def find(self, token: NodeId) -> Session | None:
        return self._by_token.get(token)

    def owner_of(self, subscription: int) -> Session | None:
        """The session that has a subscription."""
        return next((each for each in self._by_token.values() if subscription in each.subscriptions), None)

    def of(self, channel: Channel) -> list[Session]:
        return [session for session in self._by_token.values() if session.channel is channel]

    def close(self, session: Session) -> None:
        """End a session, and what belongs to it."""
        session.refuse_requests(BAD_SESSION_CLOSED)
        for number in list(session.subscriptions):
            session.drop(number)
        self._by_token.pop(session.token, None)

    def close_all(self) -> None:
        for session in list(self._by_token.values()):
            self.close(session)

    def lost(self, channel: Channel) -> None:
        """A channel has ended: sessions that were activated wait for their client, the others go."""
        for session in self.of(channel):
            session.detach()
            if session.user is None or not session.subscriptions:
                self.close(session)

    def sweep(self, now: float) -> None:
        """End what has timed out. Called once a second."""
        for session in list(self._by_token.values()):
            if now - session.seen > session.timeout_s:
                self.close(session)
            else:
                session.expire_requests(now)
