"""Which endpoint of a server is used, how its channel is secured, and how a session says who it is.

The row decides policy and mode; nothing a server offers makes it less. A password never leaves in the clear, and a
server that is given one has to be trusted, also where the channel is not secured.
Source: OPC UA Part 4, 5.6.2, 5.6.3 and 7.40; Part 7, security policies.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from asyncua import ua
from asyncua.crypto.security_policies import (
    SecurityPolicy,
    SecurityPolicyAes128Sha256RsaOaep,
    SecurityPolicyAes256Sha256RsaPss,
    SecurityPolicyBasic256Sha256,
    SecurityPolicyNone,
    encrypt_asymmetric,
    sign_asymmetric,
)
from asyncua.ua.status_codes import StatusCodes
from asyncua.ua.ua_binary import Primitives
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from framegate.contract.errors import DeviceRefused, GatewayError, Misconfigured, NotConnected
from framegate.contract.ports import Credentials
from framegate_plugins.opcua.options import Options
from framegate_plugins.opcua.pki import Identity, Pki, certificate_from, short, thumbprint
from framegate_plugins.opcua.status import name_of

POLICIES: Final[Mapping[str, type[SecurityPolicy]]] = {
    "Basic256Sha256": SecurityPolicyBasic256Sha256,
    "Aes128_Sha256_RsaOaep": SecurityPolicyAes128Sha256RsaOaep,
    "Aes256_Sha256_RsaPss": SecurityPolicyAes256Sha256RsaPss,
}
MODES: Final = {
    "none": ua.MessageSecurityMode.None_,
    "sign": ua.MessageSecurityMode.Sign,
    "sign_and_encrypt": ua.MessageSecurityMode.SignAndEncrypt,
}
_NO_ENDPOINT, _NO_TOKEN, _IN_THE_CLEAR, _NOT_ADMITTED, _UNSIGNED = "E2724", "E2725", "E2726", "E2780", "E2781"
_IDENTITY: Final = frozenset(
    (
        StatusCodes.BadIdentityTokenInvalid, StatusCodes.BadIdentityTokenRejected, StatusCodes.BadUserAccessDenied,
        StatusCodes.BadUserSignatureInvalid,
    )
)  # fmt: skip
"""What a server answers to somebody whom it does not let in."""


@dataclass(frozen=True, slots=True)
class User:
    """Who the session is for: a name and password, a certificate and its key, or nobody in particular."""

    credentials: Credentials | None = None
    certificate: bytes = b""
    key: RSAPrivateKey | None = None

    @property
    def token_type(self) -> ua.UserTokenType:
        if self.credentials is not None:
            return ua.UserTokenType.UserName
        return ua.UserTokenType.Certificate if self.certificate else ua.UserTokenType.Anonymous


def choose(endpoints: Sequence[ua.EndpointDescription], options: Options) -> ua.EndpointDescription:
    """The endpoint of the wanted policy and mode with the highest security level.

    raises NotConnected E2724 - the server offers none
    """
    uri = SecurityPolicyNone.URI if options.security == "none" else POLICIES[options.policy].URI
    mode = MODES[options.security]
    fit = [
        each
        for each in endpoints
        if each.SecurityMode == mode
        and each.SecurityPolicyUri == uri
        and str(each.EndpointUrl).startswith("opc.tcp://")
    ]
    if fit:
        return max(fit, key=lambda each: int(each.SecurityLevel))
    offers = {
        f"{_policy_name(each.SecurityPolicyUri)}/{each.SecurityMode.name.rstrip('_')}" for each in endpoints[:100]
    }
    wanted = "no security" if options.security == "none" else f"{options.policy}/{mode.name}"
    text = f"the server offers no endpoint with {wanted}; it has {', '.join(sorted(offers)) or 'none'}"
    raise NotConnected(f"{text}: set policy and security so, or have the server offer it", code=_NO_ENDPOINT)


def _policy_name(uri: object) -> str:
    return str(uri).rpartition("#")[2]


async def judged(pki: Pki, endpoint: ua.EndpointDescription) -> bytes:
    """The server's certificate, if it is trusted; raises NotConnected with the code of the refusal."""
    der = bytes(endpoint.ServerCertificate or b"")
    uri = str(endpoint.Server.ApplicationUri or "")
    refusal = await asyncio.to_thread(pki.judge, der, uri=uri)
    if refusal is not None:
        raise NotConnected(f"server {endpoint.EndpointUrl}: {refusal.text}", code=refusal.code)
    return der


def policy_of(options: Options, own: Identity | None, server_certificate: bytes) -> SecurityPolicy:
    """asyncua's policy for one channel; it holds the keys of that channel alone."""
    if options.security == "none" or own is None:
        return SecurityPolicyNone()  # type: ignore[no-untyped-call]
    peer = certificate_from(server_certificate)
    made: SecurityPolicy = POLICIES[options.policy](
        peer, x509.load_der_x509_certificate(own.certificate), own.key, MODES[options.security]
    )
    return made


def identify(
    parameters: ua.ActivateSessionParameters,
    user: User,
    offered: Sequence[ua.UserTokenPolicy],
    policy: SecurityPolicy,
    server_certificate: bytes,
    nonce: bytes,
) -> None:
    """Fill in who the session is for.

    raises NotConnected E2725 - the server does not take such; E2726 - a password would travel in the clear; E2781 -
           the key of a certificate cannot be proven
    """
    token = _token(offered, user.token_type)
    if token is None:
        names = ", ".join(sorted({each.TokenType.name for each in offered})) or "none"
        text = f"the server takes no {user.token_type.name} identity here, but {names}; set `identity`, or credentials"
        raise NotConnected(f"{text} in the endpoint's row", code=_NO_TOKEN)
    uri = str(token.SecurityPolicyUri or policy.URI)
    challenge = server_certificate + nonce
    if user.credentials is not None:
        parameters.UserIdentityToken = _user_name(user.credentials, uri, policy, server_certificate, nonce)
    elif user.certificate:
        if uri == SecurityPolicyNone.URI:
            text = "the server does not say how the key of a user's certificate is to be proven; set security: sign"
            raise NotConnected(text, code=_UNSIGNED)
        parameters.UserIdentityToken = ua.X509IdentityToken(CertificateData=ua.ByteString(user.certificate))
        signature, algorithm = sign_asymmetric(user.key, challenge, uri)  # type: ignore[no-untyped-call]
        parameters.UserTokenSignature.Signature = signature
        parameters.UserTokenSignature.Algorithm = algorithm
    else:
        parameters.UserIdentityToken = ua.AnonymousIdentityToken()
    parameters.UserIdentityToken.PolicyId = token.PolicyId


def _token(offered: Sequence[ua.UserTokenPolicy], kind: ua.UserTokenType) -> ua.UserTokenPolicy | None:
    """The first of a kind, those before others whose algorithms are not out of date."""
    known = {"", *(each.URI for each in POLICIES.values())}
    fit = [each for each in offered if each.TokenType == kind]
    return min(fit, key=lambda each: str(each.SecurityPolicyUri or "") not in known, default=None)


def not_admitted(error: DeviceRefused, user: User, url: str) -> GatewayError:
    """What is told of a login that a server has refused, and what to do about it."""
    if error.quality not in _IDENTITY:
        return error
    if user.credentials is not None:
        who, advice = f"user {user.credentials.username!r}", "check name and password, and what the server lets them do"
    elif user.certificate:
        mark = short(thumbprint(certificate_from(user.certificate)))
        who, advice = f"the user with certificate {mark}", "have it trust that certificate, as one of a user"
    else:
        who, advice = "anybody without a name", "set credentials in the endpoint's row"
    text = f"{url}: the server does not let in {who} ({name_of(error.quality)}); {advice}"
    return NotConnected(text, code=_NOT_ADMITTED)


def _user_name(
    credentials: Credentials, uri: str, policy: SecurityPolicy, server_certificate: bytes, nonce: bytes
) -> Any:
    token = ua.UserNameIdentityToken(UserName=ua.String(credentials.username))
    password = credentials.password.encode()
    if uri == SecurityPolicyNone.URI:
        if policy.Mode != ua.MessageSecurityMode.SignAndEncrypt:
            text = (
                "the password would travel in the clear: the server asks for no encryption of it, nor is the channel "
            )
            raise NotConnected(f"{text}encrypted; set security: sign_and_encrypt", code=_IN_THE_CLEAR)
        token.Password = ua.ByteString(password)
        token.EncryptionAlgorithm = None
        return token
    if not server_certificate:
        raise NotConnected("the server shows no certificate to encrypt the password for", code=_IN_THE_CLEAR)
    key = certificate_from(server_certificate).public_key()
    sealed = Primitives.Bytes.pack(password + nonce)
    secret, algorithm = encrypt_asymmetric(key, sealed, uri)  # type: ignore[no-untyped-call]
    token.Password, token.EncryptionAlgorithm = ua.ByteString(secret), ua.String(algorithm)
    return token


def user_of(options: Options, credentials: Credentials | None, pki: Pki | None) -> User:
    """Who the row's session is for; reads files.

    raises Misconfigured E2727 - credentials or certificate are missing
    """
    if options.identity == "certificate":
        certificate, key = (b"", None) if pki is None else pki.user(options.user_certificate)
        if key is not None:
            return User(certificate=certificate, key=key)
        text = f"identity: certificate: put {options.user_certificate}.der and {options.user_certificate}.pem into "
        raise Misconfigured(f"{text}{'the home' if pki is None else pki.folder / 'own'}", code="E2727")
    if options.identity == "user" and credentials is None:
        raise Misconfigured("identity: user needs credentials in the endpoint's row", code="E2727")
    return User(credentials if options.identity in {"auto", "user"} else None)
