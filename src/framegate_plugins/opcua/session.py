"""One session of OPC UA with a server: found, secured, activated, kept alive, and its services.

The driver opens one, uses it until it fails, and closes it; nothing here tries again. What values services carry is
decoded by wire.py; asyncua decodes the rest, which holds no values. Source: OPC UA Part 4, 5.4 to 5.11 and 5.13.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.crypto.security_policies import SecurityPolicy, SecurityPolicyNone
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.ua_binary import from_binary

from framegate.contract.driver import DriverContext
from framegate.contract.errors import DeviceRefused, FrameBroken, GatewayError, Misconfigured, NotConnected
from framegate.contract.ports import Lease
from framegate_plugins.opcua.channel import MESSAGE_BYTES_MAX, RENEW_SHARE, Channel
from framegate_plugins.opcua.options import Options
from framegate_plugins.opcua.pki import WARN_DAYS, Identity, Pki, application_uri, days_left
from framegate_plugins.opcua.read_request import ReadRequest, item
from framegate_plugins.opcua.security import User, choose, identify, judged, not_admitted, policy_of, user_of
from framegate_plugins.opcua.wire import BROKEN, Reader

SESSION_TIMEOUT_MS: Final = 60_000.0
"""What is asked for; a server keeps a session that is not heard of for so long."""
CLOSE_S: Final = 0.5
NAMESPACES_MAX: Final = 10_000
_SERVER_CERTIFICATE_WRONG = "E2728"
_T = TypeVar("_T")
_LIMIT_NODES: Final = {  # ServerCapabilities.OperationLimits, Part 5, 6.3.11, and the subscription limits of 1.05
    "read": 11705,
    "write": 11707,
    "call": 11709,
    "browse": 11710,
    "monitor": 11714,
    "items": 24104,
}
_NAMESPACE_ARRAY = 2255
logging.getLogger("asyncua").setLevel(logging.CRITICAL)  # what it would say is in our errors, once


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Items of one call, and of one subscription, as server and row allow together."""

    read: int
    write: int
    call: int
    browse: int
    monitor: int
    items: int


class Session:
    """An activated session.

    namespaces  URIs, by the index that NodeIds carry in this session
    """

    def __init__(self, context: DriverContext, options: Options) -> None:
        self._context, self._options = context, options
        self._lease: Lease[Channel] | None = None
        self._renewal: asyncio.Task[None] | None = None
        self._is_activated = False
        self.timeout_s = options.timeout_s
        self.namespaces: tuple[str, ...] = ()
        self.limits = _limits(options, ())

    @property
    def channel(self) -> Channel:
        if self._lease is None:
            raise NotConnected(f"device {self._context.name}: the session is not open", code="E2721")
        return self._lease.session

    async def open(self) -> None:
        """Connect, secure, activate, and learn namespaces and limits.

        raises NotConnected, NoReply, Misconfigured
        """
        context, options = self._context, self._options
        pki = None if context.home is None else Pki(context.home / "pki")
        if pki is None and options.security != "none":
            raise Misconfigured(f"device {context.name}: there is no home for certificates", code="E2700")
        credentials = context.lines.credentials(context.endpoint) if options.identity != "anonymous" else None
        user = await asyncio.to_thread(user_of, options, credentials, pki)
        own = None if pki is None or options.security == "none" else await self._own(pki)
        endpoint = await self._find(pki, user)
        certificate = bytes(endpoint.ServerCertificate or b"")
        policy = policy_of(options, own, certificate)
        channel = await self._connect(policy)
        await self._activate(channel, policy, endpoint, certificate, own, user)
        self._renewal = asyncio.create_task(self._renew(channel), name=f"opcua token {context.name}")
        await self._learn()

    async def close(self) -> None:
        """End session and channel; never raises, within CLOSE_S."""
        renewal, self._renewal = self._renewal, None
        if renewal is not None:
            renewal.cancel()
        lease, self._lease = self._lease, None
        if lease is None:
            return
        channel = lease.session
        try:
            if self._is_activated and channel.error is None:
                with suppress(GatewayError):
                    await channel.call(ua.CloseSessionRequest(DeleteSubscriptions=True), CLOSE_S)
        finally:
            self._is_activated = False
            channel.close()
            lease.release()

    # -- services -----------------------------------------------------------------------------------------------

    async def call(self, request: Any) -> Reader:
        """Any service; the reader stands behind the header. raises NotConnected, NoReply, DeviceRefused, FrameBroken"""
        return await self.channel.call(request, self.timeout_s)

    async def read(self, items: Sequence[bytes]) -> Reader:
        """Values of at most `limits.read` items of read_request: the reader stands before the array of DataValues."""
        return await self.call(ReadRequest(items))

    async def values(self, nodes: Sequence[ua.NodeId], attribute: AttributeIds) -> list[tuple[Any, int]]:
        """One attribute of any number of nodes: natural value and status, in order."""
        found: list[tuple[Any, int]] = []
        for start in range(0, len(nodes), self.limits.read):
            part = nodes[start : start + self.limits.read]
            reader = await self.read([item(node, attribute) for node in part])
            if reader.count() != len(part):
                raise FrameBroken("an answer to Read has another number of values than were asked for", code=BROKEN)
            for _ in part:
                sample, _error = reader.sample()
                found.append((sample.value, sample.status))
        return found

    # -- inside -------------------------------------------------------------------------------------------------

    async def _own(self, pki: Pki) -> Identity:
        own = await asyncio.to_thread(pki.own, application_uri("edge"), "Framegate")
        left = days_left(own.not_after)
        if left < WARN_DAYS:
            self._context.log.warning("opcua_certificate_ends", driver_id=self._context.name, days=left)
        return own

    async def _find(self, pki: Pki | None, user: User) -> ua.EndpointDescription:
        """The server's endpoint that the row asks for, its certificate judged."""
        channel = await self._connect(_no_security())
        parameters = ua.GetEndpointsParameters(EndpointUrl=ua.String(self._url(channel)))
        reader = await channel.call(ua.GetEndpointsRequest(Parameters=parameters), self.timeout_s)
        endpoints: list[ua.EndpointDescription] = decoded(list[ua.EndpointDescription], reader) or []
        self._release()
        endpoint = choose(endpoints, self._options)
        if self._options.security != "none":
            assert pki is not None
            await judged(pki, endpoint)
        else:
            self._context.log.warning("opcua_unsecured", driver_id=self._context.name)
            if user.credentials is not None and pki is not None and endpoint.ServerCertificate:
                await judged(pki, endpoint)  # a password is for a server that is known
        return endpoint

    async def _connect(self, policy: SecurityPolicy) -> Channel:
        self._release()
        lines, name = self._context.lines, self._context.endpoint
        self._lease = await lines.acquire(name, lambda: Channel(policy), is_shared=False)
        channel = self._lease.session
        await channel.greet(self._url(channel), self.timeout_s)
        await channel.open(self.timeout_s)
        return channel

    def _url(self, channel: Channel) -> str:
        return f"opc.tcp://{channel.url.rpartition('://')[2].partition('?')[0]}{self._options.path}"

    def _release(self) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.session.close()
            lease.release()

    async def _activate(
        self,
        channel: Channel,
        policy: SecurityPolicy,
        endpoint: ua.EndpointDescription,
        certificate: bytes,
        own: Identity | None,
        user: User,
    ) -> None:
        nonce = os.urandom(32)
        own_certificate = b"" if own is None else own.certificate
        description = ua.ApplicationDescription(
            ApplicationUri=ua.String(application_uri("edge") if own is None else own.uri),
            ProductUri=ua.String("urn:framegate"),
            ApplicationName=ua.LocalizedText("Framegate"),
            ApplicationType=ua.ApplicationType.Client,
        )
        request = ua.CreateSessionRequest(
            Parameters=ua.CreateSessionParameters(
                ClientDescription=description,
                EndpointUrl=ua.String(self._url(channel)),
                SessionName=ua.String(f"framegate {self._context.name}"),
                ClientNonce=ua.ByteString(nonce),
                ClientCertificate=ua.ByteString(own_certificate) if own_certificate else None,
                RequestedSessionTimeout=ua.Double(SESSION_TIMEOUT_MS),
                MaxResponseMessageSize=ua.UInt32(MESSAGE_BYTES_MAX),
            )
        )
        created = decoded(ua.CreateSessionResult, await channel.call(request, self.timeout_s))
        self._check(policy, created, certificate, own_certificate + nonce)
        channel.token = created.AuthenticationToken
        server_nonce = bytes(created.ServerNonce or b"")
        parameters = ua.ActivateSessionParameters(LocaleIds=[ua.String("en")])
        parameters.ClientSignature.Algorithm = policy.AsymmetricSignatureURI
        challenge = certificate + server_nonce
        parameters.ClientSignature.Signature = policy.asymmetric_cryptography.signature(challenge)  # type: ignore[no-untyped-call]
        identify(parameters, user, endpoint.UserIdentityTokens, policy, certificate, server_nonce)
        try:
            await channel.call(ua.ActivateSessionRequest(Parameters=parameters), self.timeout_s)
        except DeviceRefused as error:
            raise not_admitted(error, user, channel.url) from error
        self._is_activated = True

    def _check(
        self, policy: SecurityPolicy, created: ua.CreateSessionResult, certificate: bytes, challenge: bytes
    ) -> None:
        """That the server holds the key of its certificate, and is the one whose endpoints were read."""
        if self._options.security == "none":
            return
        text = f"{self.channel.url}: the server does not prove that it holds the key of its certificate"
        shown = bytes(created.ServerCertificate or b"")
        if shown[: len(certificate)] != certificate:
            raise NotConnected(text, code=_SERVER_CERTIFICATE_WRONG)
        try:
            cryptography: Any = policy.asymmetric_cryptography
            cryptography.verify(challenge, bytes(created.ServerSignature.Signature or b""))
        except Exception as error:  # asyncua's verifiers raise what their libraries raise
            raise NotConnected(text, code=_SERVER_CERTIFICATE_WRONG) from error

    async def _learn(self) -> None:
        """Namespaces, and how much the server takes at once; limits that it does not name are the row's."""
        options = self._options
        nodes = [_NAMESPACE_ARRAY, *_LIMIT_NODES.values()]
        answers = await self.values([ua.NodeId(ua.Int32(node)) for node in nodes], AttributeIds.Value)
        names = answers[0][0]
        if not isinstance(names, list) or len(names) > NAMESPACES_MAX:
            raise NotConnected(f"{self.channel.url}: the server does not tell its namespaces", code="E2720")
        self.namespaces = tuple(str(name) for name in names)
        self.limits = _limits(options, [value for value, _ in answers[1:]])

    async def _renew(self, channel: Channel) -> None:
        """Ask for a new token in time, for as long as the channel lives; a failure fails the channel."""
        while channel.error is None:
            await asyncio.sleep(max(1.0, channel.lifetime_s * RENEW_SHARE))
            try:
                await channel.open(self.timeout_s)
            except GatewayError as error:
                channel.fail(NotConnected(f"the security token was not renewed: {error.text}", code="E2720"))


def _limits(options: Options, told: Sequence[object]) -> ServerLimits:
    """What row and server allow together; told: in the order of _LIMIT_NODES, anything but a number says nothing."""
    allowed = dict.fromkeys(_LIMIT_NODES, options.items_per_call) | {"items": options.items_per_subscription}
    for name, value in zip(_LIMIT_NODES, told, strict=False):
        if isinstance(value, int) and value > 0:
            allowed[name] = min(allowed[name], value)
    return ServerLimits(**allowed)


def decoded(type_: type[_T], reader: Reader) -> _T:
    """What asyncua makes of the bytes before the reader; raises FrameBroken E2715."""
    try:
        return from_binary(type_, Buffer(reader.data, reader.at))
    except Exception as error:  # the edge to asyncua: whatever its decoder makes of a peer's bytes
        text = f"an answer of the OPC UA server cannot be read ({type(error).__name__}: {error}); it is refused"
        raise FrameBroken(text, code=BROKEN) from error


def _no_security() -> SecurityPolicy:
    return SecurityPolicyNone()  # type: ignore[no-untyped-call]
