"""The services: which request is answered how, and by whom it may be asked.

SERVICES is the whole list; what is not in it is BadServiceUnsupported. Each request names its session by a token that
belongs to one channel, and a session sees nothing of another. What is asked before a login is discovery, a session and
the login itself; per address those are bounded in rate. Source: OPC UA Part 4, 5.4, 5.6, 5.8, 5.10.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final, NamedTuple, Protocol, cast
from urllib.parse import urlsplit

from framegate.contract.errors import FrameBroken, GatewayError
from framegate.contract.ports import Clock
from framegate_plugins.opcua.server import answers, binary
from framegate_plugins.opcua.server import requests as r
from framegate_plugins.opcua.server.answers import Application
from framegate_plugins.opcua.server.attributes import Attributes
from framegate_plugins.opcua.server.binary import NodeId, Reader
from framegate_plugins.opcua.server.counts import Counts
from framegate_plugins.opcua.server.decoding import REQUESTS, read_header, read_request
from framegate_plugins.opcua.server.identity import Gatekeeper
from framegate_plugins.opcua.server.limits import (
    NAME_CHARACTERS_MAX,
    NONCE_BYTES,
    OPENINGS_BURST,
    OPENINGS_PER_S,
    OPERATIONS_MAX,
    REGISTERED_URL_CHARACTERS_MAX,
    WRITE_REQUESTS_MAX,
    WRITES_MAX,
    Budget,
    Peers,
)
from framegate_plugins.opcua.server.monitoring import MONITORING, Monitoring
from framegate_plugins.opcua.server.options import User
from framegate_plugins.opcua.server.session import Channel, Session, Sessions
from framegate_plugins.opcua.server.status import (
    BAD_APPLICATION_SIGNATURE_INVALID,
    BAD_CERTIFICATE_URI_INVALID,
    BAD_DECODING_ERROR,
    BAD_IDENTITY_CHANGE_NOT_SUPPORTED,
    BAD_INTERNAL_ERROR,
    BAD_NONCE_INVALID,
    BAD_NOTHING_TO_DO,
    BAD_RESPONSE_TOO_LARGE,
    BAD_SECURITY_CHECKS_FAILED,
    BAD_SECURITY_POLICY_REJECTED,
    BAD_SERVICE_UNSUPPORTED,
    BAD_SESSION_ID_INVALID,
    BAD_SESSION_NOT_ACTIVATED,
    BAD_TIMESTAMPS_TO_RETURN_INVALID,
    BAD_TOO_MANY_OPERATIONS,
    GOOD,
    ServiceFault,
)
from framegate_plugins.opcua.server.tag_node import NO_TIMES
from framegate_plugins.opcua.server.view import View
from framegate_plugins.opcua.server.writing import Writer


class SecureChannel(Channel, Protocol):
    """What services ask of a connection."""

    @property
    def peer(self) -> str:
        """Address of the client."""

    @property
    def certificate(self) -> bytes:
        """Of the client, DER; b"" where the channel has no security."""

    @property
    def certificate_uri(self) -> str: ...
    @property
    def is_secure(self) -> bool: ...
    def sign(self, data: bytes) -> tuple[str, bytes]:
        """Algorithm and signature; both empty where the channel has no security."""

    def is_signed(self, data: bytes, signature: bytes) -> bool: ...
    def activated(self) -> None:
        """Somebody has logged in."""


class Call(NamedTuple):
    """One request on its way."""

    channel: SecureChannel
    id: int
    header: r.RequestHeader
    session: Session | None


class Rules(NamedTuple):
    """What a server allows. allows_none: sessions without security."""

    about: Application
    allows_none: bool


_BEFORE_SESSION: Final = frozenset(
    (r.FIND_SERVERS, r.GET_ENDPOINTS, r.CREATE_SESSION, r.ACTIVATE_SESSION, r.CLOSE_SESSION)
)


class Services:
    """Answers requests. spawn: runs what has to wait, as a task that somebody owns."""

    def __init__(
        self,
        rules: Rules,
        parts: Parts,
        sessions: Sessions,
        clock: Clock,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._rules, self._parts, self._sessions, self._clock, self._spawn = rules, parts, sessions, clock, spawn
        self._logins = Peers(OPENINGS_PER_S, OPENINGS_BURST)

    def serve(self, channel: SecureChannel, request_id: int, message: bytes) -> None:
        """Answer one message, now or later.

        raises  FrameBroken E2770 - it has no header that could be answered
        """
        self._parts.counts.requests_total += 1
        reader = Reader(message)
        encoding = reader.node_id()
        header = read_header(reader)
        try:
            self._serve(channel, request_id, encoding, header, reader)
        except ServiceFault as fault:
            channel.fault(request_id, header.handle, fault.status)
        except FrameBroken:
            self._parts.counts.refused("a request that cannot be decoded", channel.peer)
            channel.fault(request_id, header.handle, BAD_DECODING_ERROR)
        except GatewayError as error:
            self._parts.counts.refused(error.text, channel.peer)
            channel.fault(request_id, header.handle, BAD_INTERNAL_ERROR)

    def _serve(
        self, channel: SecureChannel, request_id: int, encoding: NodeId, header: r.RequestHeader, reader: Reader
    ) -> None:
        number = encoding.identifier
        if encoding.namespace or not isinstance(number, int) or number not in REQUESTS:
            raise ServiceFault(BAD_SERVICE_UNSUPPORTED)
        session = self._session(channel, number, header)
        request = read_request(number, reader)
        call = Call(channel, request_id, header, session)
        if number in MONITORING:
            assert session is not None
            body = MONITORING[number](self._parts.monitoring, session, request_id, header, request)
        else:
            body = SERVICES[number](self, call, request)
        if body is not None:
            channel.answer(request_id, number + 3, header.handle, body)

    def _session(self, channel: SecureChannel, number: int, header: r.RequestHeader) -> Session | None:
        session = self._sessions.find(header.token)
        if number in _BEFORE_SESSION:
            return session
        if session is None or session.channel is not channel:
            raise ServiceFault(BAD_SESSION_ID_INVALID)
        if session.user is None:
            raise ServiceFault(BAD_SESSION_NOT_ACTIVATED)
        session.seen = self._clock.monotonic()
        return session

    # -- discovery and sessions ---------------------------------------------------------------------------------

    def find_servers(self, call: Call, request: r.FindServers) -> bytes:
        about = self._rules.about
        is_asked = not request.server_uris or about.uri in request.server_uris
        return binary.many([answers.application(about, self._url(request.endpoint_url))] if is_asked else [])

    def get_endpoints(self, call: Call, request: r.GetEndpoints) -> bytes:
        return answers.endpoints(self._rules.about, self._url(request.endpoint_url))

    def create_session(self, call: Call, request: r.CreateSession) -> bytes:
        channel, now = call.channel, self._clock.monotonic()
        self._may_log_in(channel, now)
        if not channel.is_secure and not self._rules.allows_none:
            raise ServiceFault(BAD_SECURITY_POLICY_REJECTED)
        if channel.is_secure:
            if len(request.nonce) < NONCE_BYTES:
                raise ServiceFault(BAD_NONCE_INVALID)
            if not request.certificate.startswith(channel.certificate):
                raise ServiceFault(BAD_SECURITY_CHECKS_FAILED)
            if channel.certificate_uri != request.application_uri:
                raise ServiceFault(BAD_CERTIFICATE_URI_INVALID)
        timeout_s = request.timeout_ms / 1000.0 if request.timeout_ms > 0.0 else 0.0
        name = request.session_name[:NAME_CHARACTERS_MAX]
        session = self._sessions.create(channel, name, channel.certificate, timeout_s, now)
        signature = channel.sign(channel.certificate + request.nonce)
        return answers.session_created(
            session.id, session.token, session.timeout_s * 1000.0, session.nonce, self._rules.about,
            self._url(request.endpoint_url), signature,
        )  # fmt: skip

    def activate_session(self, call: Call, request: r.ActivateSession) -> bytes:
        channel, session, now = call.channel, call.session, self._clock.monotonic()
        self._may_log_in(channel, now)
        if session is None:
            raise ServiceFault(BAD_SESSION_ID_INVALID)
        is_moved = session.channel is not channel
        if is_moved and (session.user is None or session.certificate != channel.certificate):
            raise ServiceFault(BAD_SESSION_ID_INVALID)
        if not channel.is_signed(self._rules.about.certificate + session.nonce, request.signature):
            raise ServiceFault(BAD_APPLICATION_SIGNATURE_INVALID)
        try:
            user = self._parts.gatekeeper.admit(request, session.nonce, channel.peer, is_encrypted=channel.is_secure)
        except ServiceFault:
            self._parts.counts.refused("a login that was not right", channel.peer)
            raise
        if is_moved and user != session.user:
            raise ServiceFault(BAD_IDENTITY_CHANGE_NOT_SUPPORTED)
        if is_moved:
            session.detach()
        session.channel, session.user, session.seen = channel, user, now
        channel.activated()
        self._parts.counts.admitted(user.name, channel.peer)
        return binary.octets(session.renew_nonce()) + binary.NO_ARRAY + binary.NO_ARRAY

    def close_session(self, call: Call, request: r.CloseSession) -> bytes:
        if call.session is None or call.session.channel is not call.channel:
            raise ServiceFault(BAD_SESSION_ID_INVALID)
        self._sessions.close(call.session)
        return b""

    def cancel(self, call: Call, request: r.Cancel) -> bytes:
        return binary.u32(0)  # what can wait, a write, is not taken back

    def _may_log_in(self, channel: SecureChannel, now: float) -> None:
        if not self._logins.take(channel.peer, now):
            self._parts.counts.refused("more logins than an address may try", channel.peer)
            raise ServiceFault(BAD_TOO_MANY_OPERATIONS)

    def _url(self, asked: str) -> str:
        """Our URL with the host that the client reached us by; it knows best which of our addresses it can reach."""
        ours = self._rules.about.url
        if len(asked) > REGISTERED_URL_CHARACTERS_MAX or not asked.isprintable():
            return ours
        try:
            netloc = urlsplit(asked).netloc
        except ValueError:
            return ours
        return urlsplit(ours)._replace(netloc=netloc).geturl() if netloc and "@" not in netloc else ours

    # -- nodes --------------------------------------------------------------------------------------------------

    def browse(self, call: Call, request: r.Browse) -> bytes:
        session = _of(call, len(request.nodes))
        view, most, budget = self._parts.view, request.references_max, Budget()
        results = [view.browse(each, most, session.keep_place, budget) for each in request.nodes]
        return binary.many(results) + binary.NO_ARRAY

    def browse_next(self, call: Call, request: r.BrowseNext) -> bytes:
        session = _of(call, len(request.points))
        places = [session.take_place(point) for point in request.points]
        if request.is_release:
            results = [binary.u32(GOOD) + binary.octets(None) + binary.NO_ARRAY for _ in places]
        else:
            budget = Budget()
            results = [self._parts.view.browse_next(place, session.keep_place, budget) for place in places]
        return binary.many(results) + binary.NO_ARRAY

    def translate(self, call: Call, request: r.Translate) -> bytes:
        _of(call, len(request.paths))
        budget = Budget()
        return binary.many([self._parts.view.translate(*path, budget) for path in request.paths]) + binary.NO_ARRAY

    def register_nodes(self, call: Call, request: r.Nodes) -> bytes:
        _of(call, len(request.nodes))
        return binary.many([binary.node_id(node) for node in request.nodes])

    def unregister_nodes(self, call: Call, request: r.Nodes) -> bytes:
        _of(call, len(request.nodes))
        return b""

    def read(self, call: Call, request: r.Read) -> bytes:
        session = _of(call, len(request.nodes))
        if request.timestamps > NO_TIMES:
            raise ServiceFault(BAD_TIMESTAMPS_TO_RETURN_INVALID)
        read, user, now_ns = self._parts.attributes.read, cast(User, session.user), self._clock.now_ns()
        values, room = [], call.channel.answer_bytes_max
        for node in request.nodes:
            values.append(read(node, request.timestamps, user, now_ns))
            room -= len(values[-1])
            if room < 0:
                raise ServiceFault(BAD_RESPONSE_TOO_LARGE)
        return binary.many(values) + binary.NO_ARRAY

    def write(self, call: Call, request: r.Write) -> None:
        session = _of(call, len(request.nodes), WRITES_MAX)
        if session.writes >= WRITE_REQUESTS_MAX:
            raise ServiceFault(BAD_TOO_MANY_OPERATIONS)
        self._parts.counts.writes_total += len(request.nodes)
        session.writes += 1
        self._spawn(self._write(call, session, request))

    async def _write(self, call: Call, session: Session, request: r.Write) -> None:
        try:
            user = cast(User, session.user)
            results = await self._parts.writer.write(request.nodes, user, call.header.timeout_ms)
        finally:
            session.writes -= 1
        if session.channel is call.channel:  # else nobody waits for the answer
            call.channel.answer(call.id, r.WRITE + 3, call.header.handle, answers.statuses(results))


class Parts(NamedTuple):
    """What the services are made of."""

    view: View
    attributes: Attributes
    writer: Writer
    monitoring: Monitoring
    gatekeeper: Gatekeeper
    counts: Counts


def _of(call: Call, operations: int, most: int = OPERATIONS_MAX) -> Session:
    """The session of a request with a list; raises ServiceFault."""
    if not operations:
        raise ServiceFault(BAD_NOTHING_TO_DO)
    if operations > most:
        raise ServiceFault(BAD_TOO_MANY_OPERATIONS)
    assert call.session is not None
    return call.session


SERVICES: Final[dict[int, Callable[..., bytes | None]]] = {
    r.FIND_SERVERS: Services.find_servers,
    r.GET_ENDPOINTS: Services.get_endpoints,
    r.CREATE_SESSION: Services.create_session,
    r.ACTIVATE_SESSION: Services.activate_session,
    r.CLOSE_SESSION: Services.close_session,
    r.CANCEL: Services.cancel,
    r.BROWSE: Services.browse,
    r.BROWSE_NEXT: Services.browse_next,
    r.TRANSLATE: Services.translate,
    r.REGISTER_NODES: Services.register_nodes,
    r.UNREGISTER_NODES: Services.unregister_nodes,
    r.READ: Services.read,
    r.WRITE: Services.write,
}
"""Those of subscriptions are in monitoring.py. None: the answer comes later."""
