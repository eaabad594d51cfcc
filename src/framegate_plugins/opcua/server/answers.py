"""Structures of responses, as bytes. Pure. Source: OPC UA Part 4, 5 and 7; Part 6, 5.2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from framegate_plugins.opcua.server import binary
from framegate_plugins.opcua.server.binary import NULL, NodeId
from framegate_plugins.opcua.server.options import Policy

SERVICE_FAULT: Final = 397
SERVER: Final = 0
"""ApplicationType."""
MODE_NONE, MODE_SIGN, MODE_SIGN_AND_ENCRYPT = 1, 2, 3
"""MessageSecurityMode."""
TRANSPORT: Final = "http://opcfoundation.org/UA-Profile/Transport/uatcp-uasc-uabinary"
_POLICY_URI: Final[dict[Policy, str]] = {
    "basic256sha256": "http://opcfoundation.org/UA/SecurityPolicy#Basic256Sha256",
    "aes128_sha256_rsaoaep": "http://opcfoundation.org/UA/SecurityPolicy#Aes128_Sha256_RsaOaep",
    "aes256_sha256_rsapss": "http://opcfoundation.org/UA/SecurityPolicy#Aes256_Sha256_RsaPss",
    "none": "http://opcfoundation.org/UA/SecurityPolicy#None",
}
_LEVEL: Final[dict[Policy, int]] = {
    "none": 0,
    "basic256sha256": 100,
    "aes128_sha256_rsaoaep": 110,
    "aes256_sha256_rsapss": 120,
}
_ANONYMOUS, _USER_NAME = 0, 1
"""UserTokenType."""


class Application(NamedTuple):
    """What the server says of itself. certificate: DER."""

    uri: str
    name: str
    url: str
    certificate: bytes
    policies: tuple[Policy, ...]
    has_users: bool
    has_anonymous: bool


def response(encoding: int, handle: int, status: int, body: bytes, now_ns: int) -> bytes:
    """A whole response: the NodeId of its encoding, ResponseHeader (Part 4, 7.29), body."""
    return b"".join(
        (
            binary.node_id(NodeId(0, encoding)),
            binary.time(now_ns),
            binary.u32(handle),
            binary.u32(status),
            b"\x00",  # no diagnostics
            binary.NO_ARRAY,
            binary.NO_EXTENSION,
            body,
        )
    )


def statuses(codes: Sequence[int]) -> bytes:
    """Results and no diagnostics."""
    return binary.many([binary.u32(code) for code in codes]) + binary.NO_ARRAY


def policy_uri(policy: Policy) -> str:
    return _POLICY_URI[policy]


def channel_token(channel: int, token: int, created_ns: int, lifetime_ms: int, nonce: bytes) -> bytes:
    """Body of OpenSecureChannelResponse; the protocol version is 0."""
    token_bytes = binary.u32(channel) + binary.u32(token) + binary.time(created_ns) + binary.u32(lifetime_ms)
    return binary.u32(0) + token_bytes + binary.octets(nonce)


def application(about: Application, url: str) -> bytes:
    """ApplicationDescription."""
    return b"".join(
        (
            binary.text(about.uri),
            binary.text("urn:framegate"),
            binary.localized_text(about.name),
            binary.u32(SERVER),
            binary.text(None),
            binary.text(None),
            binary.many([binary.text(url)]),
        )
    )


def endpoints(about: Application, url: str) -> bytes:
    """EndpointDescription of each policy."""
    return binary.many([_endpoint(about, policy, url) for policy in about.policies])


def _endpoint(about: Application, policy: Policy, url: str) -> bytes:
    mode = MODE_NONE if policy == "none" else MODE_SIGN_AND_ENCRYPT
    return b"".join(
        (
            binary.text(url),
            application(about, url),
            binary.octets(about.certificate or None),
            binary.u32(mode),
            binary.text(_POLICY_URI[policy]),
            binary.many(_token_policies(about, policy)),
            binary.text(TRANSPORT),
            binary.u8(_LEVEL[policy]),
        )
    )


def _token_policies(about: Application, policy: Policy) -> list[bytes]:
    """UserTokenPolicy of each way to log in; a password is encrypted for itself, whatever the channel does."""
    found = []
    if about.has_anonymous:
        found.append(binary.text("anonymous") + binary.u32(_ANONYMOUS) + 3 * binary.text(None))
    if about.has_users:
        uri = _POLICY_URI[policy if policy != "none" else "basic256sha256"]
        found.append(binary.text("username") + binary.u32(_USER_NAME) + 2 * binary.text(None) + binary.text(uri))
    return found


def session_created(
    session: NodeId,
    token: NodeId,
    timeout_ms: float,
    nonce: bytes,
    about: Application,
    url: str,
    signature: tuple[str, bytes],
) -> bytes:
    """Body of CreateSessionResponse. signature: algorithm and bytes."""
    algorithm, signed = signature
    return b"".join(
        (
            binary.node_id(session),
            binary.node_id(token),
            binary.f64(timeout_ms),
            binary.octets(nonce),
            binary.octets(about.certificate or None),
            endpoints(about, url),
            binary.NO_ARRAY,
            binary.text(algorithm or None) + binary.octets(signed or None),
            binary.u32(0),
        )
    )


def reference(
    kind: int,
    target: NodeId,
    node_class: int,
    name: tuple[int, str],
    type_definition: NodeId | None,
    *,
    is_forward: bool,
    mask: int,
) -> bytes:
    """ReferenceDescription; what the mask does not ask for is left empty (Part 4, 5.8.2)."""
    return b"".join(
        (
            binary.node_id(NodeId(0, kind)) if mask & 1 else binary.node_id(NULL),
            binary.flag(is_forward if mask & 2 else False),
            binary.node_id(target),
            binary.qualified_name(*name) if mask & 8 else binary.qualified_name(0, ""),
            binary.localized_text(name[1]) if mask & 16 else b"\x00",
            binary.u32(node_class if mask & 4 else 0),
            binary.node_id(type_definition or NULL) if mask & 32 else binary.node_id(NULL),
        )
    )
