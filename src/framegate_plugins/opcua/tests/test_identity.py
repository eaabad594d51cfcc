"""Who a session is for: which of a server's ways to log in is taken, and what is told of a login that was refused."""

from __future__ import annotations

from typing import Any

import pytest
from asyncua import ua
from asyncua.crypto.security_policies import SecurityPolicyNone
from asyncua.ua.status_codes import StatusCodes
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding

from framegate.contract.errors import DeviceRefused, NotConnected
from framegate.contract.ports import Credentials
from framegate_plugins.opcua.certificates import self_signed
from framegate_plugins.opcua.security import POLICIES, User, identify, not_admitted

OLD = "http://opcfoundation.org/UA/SecurityPolicy#Basic256"
NEW = POLICIES["Basic256Sha256"].URI
SERVER, NONCE = b"server", b"nonce"


@pytest.fixture(scope="module")
def user() -> User:
    key: RSAPrivateKey = generate_private_key(65537, 2048)
    certificate = self_signed(key, "urn:a", "operator", []).public_bytes(Encoding.DER)
    return User(certificate=certificate, key=key)


def identified(user: User, *uris: str | None) -> Any:
    """What is sent over a channel without security to a server with these policies for users' certificates."""
    kind = ua.UserTokenType.Certificate
    offered = [ua.UserTokenPolicy(PolicyId=str(uri), TokenType=kind, SecurityPolicyUri=uri) for uri in uris]
    parameters = ua.ActivateSessionParameters()
    policy: Any = SecurityPolicyNone
    identify(parameters, user, offered, policy(), SERVER, NONCE)
    return parameters


def test_certificate_is_signed_for_by_a_policy_that_is_not_out_of_date(user: User) -> None:
    found = identified(user, OLD, NEW)
    assert found.UserIdentityToken.PolicyId == NEW
    assert found.UserTokenSignature.Algorithm == POLICIES["Basic256Sha256"].AsymmetricSignatureURI
    assert identified(user, OLD).UserIdentityToken.PolicyId == OLD  # where there is nothing else


@pytest.mark.parametrize("uri", [None, SecurityPolicyNone.URI])
def test_certificate_that_nobody_asks_to_be_proven_is_not_shown(user: User, uri: str | None) -> None:
    with pytest.raises(NotConnected, match="set security: sign") as caught:
        identified(user, uri)
    assert caught.value.stable_code == "E2781"


def test_refused_login_names_the_user_and_what_to_do(user: User) -> None:
    refused = DeviceRefused("refused", quality=StatusCodes.BadIdentityTokenRejected, code="E2723")
    named = User(Credentials("anna", "secret"))
    texts = [str(not_admitted(refused, each, "tcp://plc")) for each in (named, user, User())]
    assert all("E2780" in text and "BadIdentityTokenRejected" in text for text in texts)
    assert "'anna'" in texts[0]
    assert "secret" not in texts[0]
    assert "certificate" in texts[1]
    assert "set credentials" in texts[2]


def test_other_refusals_stay_what_they_are(user: User) -> None:
    refused = DeviceRefused("refused", quality=StatusCodes.BadTooManySessions, code="E2723")
    assert not_admitted(refused, user, "tcp://plc") is refused
