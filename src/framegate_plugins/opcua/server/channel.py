"""The secure channel of one connection: which policy, whose certificate, and the keys, which asyncua keeps.

A channel without security may be opened by anyone, because clients look at the endpoints through one; no session
comes of it unless the row allows policy `none`. `open` reads certificates from the disk and uses private keys: it
belongs into a thread, and nothing else of the channel is used meanwhile. Source: OPC UA Part 4, 5.5; Part 6, 6.7.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from asyncua import ua
from asyncua.common.connection import SecureConnection, TransportLimits
from asyncua.common.utils import Buffer
from asyncua.crypto import security_policies as policies
from asyncua.ua.ua_binary import header_from_binary
from asyncua.ua.uaerrors import UaStatusCodeError
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from framegate_plugins.opcua.pki import certificate_from, uri_of
from framegate_plugins.opcua.server import answers
from framegate_plugins.opcua.server.answers import MODE_NONE, MODE_SIGN_AND_ENCRYPT, policy_uri
from framegate_plugins.opcua.server.binary import NodeId, Reader
from framegate_plugins.opcua.server.decoding import read_header, read_open_secure_channel
from framegate_plugins.opcua.server.limits import (
    CHANNEL_S_MAX,
    CHANNEL_S_MIN,
    CHUNK_BYTES_MAX,
    CHUNKS_MAX,
    EARLY_MESSAGE_BYTES_MAX,
    MESSAGE_BYTES_MAX,
)
from framegate_plugins.opcua.server.options import Policy
from framegate_plugins.opcua.server.requests import OPEN_SECURE_CHANNEL
from framegate_plugins.opcua.server.status import (
    BAD_NONCE_INVALID,
    BAD_SECURITY_CHECKS_FAILED,
    BAD_SECURITY_MODE_REJECTED,
    BAD_SECURITY_POLICY_REJECTED,
    GOOD,
)

_POLICY: Final[Mapping[Policy, type[policies.SecurityPolicy]]] = {
    "basic256sha256": policies.SecurityPolicyBasic256Sha256,
    "aes128_sha256_rsaoaep": policies.SecurityPolicyAes128Sha256RsaOaep,
    "aes256_sha256_rsapss": policies.SecurityPolicyAes256Sha256RsaPss,
    "none": policies.SecurityPolicyNone,
}
_HEADER_BYTES: Final = 12
"""UA TCP header and channel id."""


class ChannelRefused(Exception):
    """A channel is not opened, or ends. status: what the client learns; why: what we note."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status, self.why = status, why


@dataclass(frozen=True, slots=True)
class Security:
    """What all channels of a server share.

    judge         why a client's certificate is not accepted; "": it is. Reads files.
    next_channel  numbers channels
    """

    certificate: x509.Certificate
    key: RSAPrivateKey
    policies: tuple[Policy, ...]
    judge: Callable[[bytes], str]
    next_channel: Callable[[], int]
    now_ns: Callable[[], int]

    def factories(self) -> list[Any]:
        """What asyncua makes the policy of a channel with."""
        make, mode = cast(Any, policies).SecurityPolicyFactory, ua.MessageSecurityMode
        secure = [each for each in self.policies if each != "none"]
        made = [make(_POLICY[each], mode.SignAndEncrypt, self.certificate, self.key) for each in secure]
        return [*made, make(policies.SecurityPolicyNone, mode.None_)]


def is_plain(chunk: bytes) -> bool:
    """Whether a chunk asks for a channel without security. raises FrameBroken"""
    return Reader(chunk[_HEADER_BYTES:]).words() == policy_uri("none")


class SecureChannelState:
    """Keys and numbers of one channel. certificate: of the client, DER; b"" without security."""

    def __init__(self, security: Security, send_chunk_bytes: int) -> None:
        self._security = security
        self._limits = TransportLimits(
            max_recv_buffer=CHUNK_BYTES_MAX,
            max_send_buffer=send_chunk_bytes,
            max_chunk_count=CHUNKS_MAX,
            max_message_size=EARLY_MESSAGE_BYTES_MAX,
        )
        self._connection = SecureConnection(cast(Any, policies.SecurityPolicyNone)(), self._limits)
        self._connection.set_policy_factories(security.factories())
        self._policy_uri = ""
        self.certificate = b""
        self.certificate_uri = ""
        self.lifetime_s = 0.0

    @property
    def is_secure(self) -> bool:
        return bool(self.certificate)

    def open(self, chunk: bytes) -> bytes:
        """Open the channel, or renew its token; returns the response.

        raises  ChannelRefused; anything else: the bytes are no such message
        """
        self._judge(chunk)
        message = self._receive(chunk)
        if message is None:
            raise ChannelRefused(BAD_SECURITY_CHECKS_FAILED, "a channel is to be opened in more than one chunk")
        request_id, body = message
        reader = Reader(body)
        if reader.node_id() != NodeId(0, OPEN_SECURE_CHANNEL):
            raise ChannelRefused(BAD_SECURITY_CHECKS_FAILED, "a channel is opened with another request")
        header, asked = read_header(reader), read_open_secure_channel(reader)
        if asked.is_renewal != self._connection.is_open():
            raise ChannelRefused(BAD_SECURITY_CHECKS_FAILED, "a channel is opened twice, or renewed before it is open")
        if asked.mode != (MODE_SIGN_AND_ENCRYPT if self.is_secure else MODE_NONE):
            raise ChannelRefused(BAD_SECURITY_MODE_REJECTED, "a security mode is asked for that is not offered")
        if self.is_secure and len(asked.nonce) != self._connection.security_policy.secure_channel_nonce_length:
            raise ChannelRefused(BAD_NONCE_INVALID, "a nonce of the wrong length")
        self.lifetime_s = min(max(asked.lifetime_ms / 1000.0, CHANNEL_S_MIN), CHANNEL_S_MAX)
        lifetime_ms = int(self.lifetime_s * 1000.0)
        kind = ua.SecurityTokenRequestType.Renew if asked.is_renewal else ua.SecurityTokenRequestType.Issue
        params = ua.OpenSecureChannelParameters(
            RequestType=kind, ClientNonce=asked.nonce, RequestedLifetime=cast(ua.UInt32, lifetime_ms)
        )
        granted = self._connection.open(params, self)
        now_ns = self._security.now_ns()
        token = granted.SecurityToken
        answer = answers.channel_token(token.ChannelId, token.TokenId, now_ns, lifetime_ms, granted.ServerNonce or b"")
        response = answers.response(OPEN_SECURE_CHANNEL + 3, header.handle, GOOD, answer, now_ns)
        return self._connection.message_to_binary(response, cast(Any, ua.MessageType.SecureOpen), request_id)

    def activated(self) -> None:
        """Somebody has logged in, and may ask for more at once."""
        self._limits.max_message_size = MESSAGE_BYTES_MAX

    def get_new_channel_id(self) -> int:
        """What asyncua asks its server for."""
        return self._security.next_channel()

    def decode(self, chunk: bytes) -> tuple[int, bytes] | None:
        """Request id and bytes of a message that is now whole; None while chunks are missing.

        raises  ChannelRefused - more or larger chunks than a message may have; anything else: it is forged or broken
        """
        return self._receive(chunk)

    def encode(self, message: bytes, request_id: int) -> bytes:
        return self._connection.message_to_binary(message, request_id=request_id)

    def sign(self, data: bytes) -> tuple[str, bytes]:
        if not self.is_secure:
            return "", b""
        policy = self._connection.security_policy
        signed: bytes = cast(Any, policy.asymmetric_cryptography).signature(data)
        return policy.AsymmetricSignatureURI, signed

    def is_signed(self, data: bytes, signature: bytes) -> bool:
        if not self.is_secure:
            return True
        try:
            cast(Any, self._connection.security_policy.asymmetric_cryptography).verify(data, signature)
        except InvalidSignature:
            return False
        return True

    def _judge(self, chunk: bytes) -> None:
        """Policy and certificate, before a private key is used for them."""
        reader = Reader(chunk[_HEADER_BYTES:])
        uri, sender = reader.words(), reader.octets() or b""
        if self._connection.is_open():
            if uri != self._policy_uri or (self.is_secure and not sender.startswith(self.certificate)):
                raise ChannelRefused(BAD_SECURITY_CHECKS_FAILED, "a channel is renewed with another certificate")
            return
        if uri == policy_uri("none"):
            self._policy_uri = uri
            return
        if uri not in {policy_uri(each) for each in self._security.policies}:
            raise ChannelRefused(BAD_SECURITY_POLICY_REJECTED, f"security policy {uri[-40:]!r} is not offered")
        why = self._security.judge(sender)
        if why:
            raise ChannelRefused(BAD_SECURITY_CHECKS_FAILED, why)
        certificate = certificate_from(sender)
        self._policy_uri = uri
        self.certificate = certificate.public_bytes(Encoding.DER)
        self.certificate_uri = uri_of(certificate)

    def _receive(self, chunk: bytes) -> tuple[int, bytes] | None:
        buffer = Buffer(chunk)
        header = header_from_binary(buffer)
        try:
            message = self._connection.receive_from_header_and_body(header, buffer)
        except UaStatusCodeError as error:
            raise ChannelRefused(error.code, "a message of more or larger chunks than are taken") from None
        if message is None:
            return None
        return message.SequenceHeader().RequestId, bytes(message.body())
