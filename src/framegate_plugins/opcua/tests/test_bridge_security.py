"""Who gets in, and what they may do: policies, certificates, users, roles, sessions that are kept apart."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from asyncua.crypto import security_policies
from asyncua.crypto.cert_gen import generate_private_key, generate_self_signed_app_certificate
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import GeneralName, UniformResourceIdentifier
from cryptography.x509.oid import ExtendedKeyUsageOID

from framegate_plugins.opcua.pki import Pki
from framegate_plugins.opcua.server import channel
from framegate_plugins.opcua.server.identity import GUESS_S, GUESS_S_MAX, Guesses
from framegate_plugins.opcua.tests.bridge_stage import OPEN, Place, batch, stage, tag, until
from framegate_plugins.opcua.tests.bridge_trial import Client, ua

TAGS = [tag(1, "pump.speed"), tag(2, "valve.open")]
USERS = [
    {"name": "eye", "password": "${file:eye}"},
    {"name": "hand", "password": "${file:hand}", "role": "operator", "tags": ["pump.*"]},
]
SECRETS = {"eye": "seen", "hand": "done"}
CLIENT_URI = "urn:test:client"
policies: Any = security_policies


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name, secret in SECRETS.items():
        (tmp_path / name).write_text(secret + "\n")
    return tmp_path


class Certificate:
    """A client's own, made once a module: RSA keys take their time."""

    def __init__(self, folder: Path) -> None:
        key = generate_private_key()
        uri: list[GeneralName] = [UniformResourceIdentifier(CLIENT_URI)]
        usage = [ExtendedKeyUsageOID.CLIENT_AUTH]
        made = generate_self_signed_app_certificate(key, "client", {}, uri, extended=usage)
        self.der = made.public_bytes(Encoding.DER)
        self.cert, self.key = folder / "client.der", folder / "client.pem"
        self.cert.write_bytes(self.der)
        self.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Certificate(tmp_path_factory.mktemp("client"))


async def _client(place: Place, certificate: Certificate | None, user: str = "", password: str = "") -> Any:
    client = Client(place.url, timeout=5)
    client.application_uri = CLIENT_URI
    if certificate is not None:
        await client.set_security(policies.SecurityPolicyBasic256Sha256, str(certificate.cert), str(certificate.key))
    if user:
        client.set_user(user)
        client.set_password(password)
    return client


async def _fails(client: Any, error: str) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - asyncua raises many kinds; the name is what counts
        async with client:
            pass
    assert error in type(caught.value).__name__ or error in repr(caught.value)


async def test_listed_certificate_and_user_get_in_and_others_do_not(home: Path, certificate: Certificate) -> None:
    async with stage(home, TAGS, {"users": USERS}) as place:
        with pytest.raises(Exception):  # noqa: B017, PT011 - the connection ends, and asyncua says so in its own way
            async with await _client(place, certificate, "eye", "seen"):
                pass
        assert any("is not trusted" in reason for reason in place.refusals())
        pki = Pki(place.home / "scada" / "pki")
        [rejected] = [seen for seen in pki.seen() if seen.state == "rejected"]
        pki.trust(rejected.path.read_bytes())
        async with await _client(place, certificate, "eye", "seen") as client:
            place.bridge.update([batch({1: 4.0})])
            assert await client.get_node("ns=2;s=pump.speed").read_value() == 4.0


async def test_roles_and_globs_say_what_may_be_written(home: Path, certificate: Certificate) -> None:
    async with stage(home, TAGS, {"users": USERS, "trust": "any"}) as place:
        found = {}
        for user in ("eye", "hand"):
            async with await _client(place, certificate, user, SECRETS[user]) as client:
                for each in TAGS:
                    node = client.get_node(ua.NodeId(each.name, 2))
                    params = ua.WriteParameters(NodesToWrite=[_value(each.name)])
                    status = (await client.uaclient.write(params))[0].name
                    found[user, each.name] = (status, len(await node.get_user_access_level()))
    assert found == {
        ("eye", "pump.speed"): ("BadUserAccessDenied", 1),
        ("eye", "valve.open"): ("BadUserAccessDenied", 1),
        ("hand", "pump.speed"): ("Good", 2),
        ("hand", "valve.open"): ("BadUserAccessDenied", 1),
    }
    assert [(record.origin, record.command.tag) for record in place.desk.records.values()] == [
        ("bridge:scada/hand", "pump.speed")
    ]


async def test_session_without_security_is_refused_unless_the_row_says_so(home: Path) -> None:
    async with stage(home, TAGS, {"users": USERS}) as place:
        endpoints = await Client(place.url).connect_and_get_server_endpoints()
        await _fails(await _client(place, None, "eye", "seen"), "Bad")
    modes = {endpoint.SecurityMode for endpoint in endpoints}
    assert modes == {ua.MessageSecurityMode.SignAndEncrypt}
    assert len(endpoints) == 3


async def test_anonymous_is_refused_unless_the_row_says_so(home: Path, certificate: Certificate) -> None:
    async with stage(home, TAGS, {"users": USERS, "trust": "any"}) as place:
        await _fails(await _client(place, certificate), "Bad")
    options = {"anonymous": "viewer", "trust": "any"}
    async with stage(home, TAGS, options) as place, await _client(place, certificate) as client:
        params = ua.WriteParameters(NodesToWrite=[_value("pump.speed")])
        assert (await client.uaclient.write(params))[0].name == "BadUserAccessDenied"


async def test_wrong_password_makes_the_next_try_wait(home: Path, certificate: Certificate) -> None:
    async with stage(home, TAGS, {"users": USERS, "trust": "any"}) as place:
        await _fails(await _client(place, certificate, "eye", "guess"), "BadUserAccessDenied")
        # The right one, too early: it looks the same.
        await _fails(await _client(place, certificate, "eye", "seen"), "BadUserAccessDenied")
        await _fails(await _client(place, certificate, "nobody", "seen"), "BadUserAccessDenied")
        assert "seen" not in str(place.log.lines)


async def test_password_is_encrypted_where_the_channel_is_not(home: Path) -> None:
    options = {"users": USERS, "security": ["none", "basic256sha256"]}
    async with stage(home, TAGS, options) as place, await _client(place, None, "hand", "done") as client:
        params = ua.WriteParameters(NodesToWrite=[_value("pump.speed")])
        assert (await client.uaclient.write(params))[0].is_good()


async def test_certificate_for_another_application_is_refused(home: Path, certificate: Certificate) -> None:
    async with stage(home, TAGS, {"users": USERS, "trust": "any"}) as place:
        client = await _client(place, certificate, "eye", "seen")
        client.application_uri = "urn:somebody:else"
        await _fails(client, "BadCertificateUriInvalid")


async def test_session_reaches_no_subscription_of_another(tmp_path: Path) -> None:
    async with stage(tmp_path, TAGS, OPEN) as place, Client(place.url) as owner, Client(place.url) as thief:
        subscription = await owner.create_subscription(100, Nobody())
        handle = await subscription.subscribe_data_change(owner.get_node("ns=2;s=pump.speed"))
        number = subscription.subscription_id
        deleted = await thief.uaclient.delete_subscriptions([number])
        params = ua.DeleteMonitoredItemsParameters(SubscriptionId=number, MonitoredItemIds=[handle])
        with pytest.raises(ua.UaStatusCodeError) as caught:
            await thief.uaclient.delete_monitored_items(params)
        transfer = ua.TransferSubscriptionsParameters(SubscriptionIds=[number], SendInitialValues=True)
        taken = await thief.uaclient.transfer_subscriptions(transfer)
        kept = await owner.uaclient.delete_subscriptions([number])
    assert deleted[0].name == "BadSubscriptionIdInvalid"
    assert caught.value.code == ua.StatusCodes.BadSubscriptionIdInvalid
    assert taken[0].StatusCode.name == "BadSubscriptionIdInvalid"
    assert kept[0].is_good()


async def test_nodes_cannot_be_added_and_methods_not_called(tmp_path: Path) -> None:
    async with stage(tmp_path, TAGS, OPEN) as place, Client(place.url) as client:
        for request in (
            client.uaclient.add_nodes([ua.AddNodesItem(NodeAttributes=ua.ObjectAttributes())]),
            client.uaclient.call([ua.CallMethodRequest(ObjectId=ua.NodeId(2253), MethodId=ua.NodeId(11492))]),
            client.uaclient.register_server(ua.RegisteredServer()),
        ):
            with pytest.raises(ua.UaStatusCodeError) as caught:
                await request
            assert caught.value.code == ua.StatusCodes.BadServiceUnsupported


def test_guesses_wait_longer_and_longer_up_to_a_bound() -> None:
    guesses, now, waits = Guesses(), 0.0, []
    for _ in range(12):
        assert guesses.may_try("peer", "user", now)
        guesses.note("peer", "user", now, is_right=False)
        start = now
        while not guesses.may_try("peer", "user", now):
            now += GUESS_S / 2
        waits.append(now - start)
    assert waits[:3] == [GUESS_S, 2 * GUESS_S, 4 * GUESS_S]
    assert waits[-1] == GUESS_S_MAX
    assert guesses.may_try("another", "user", 0.0)
    guesses.note("peer", "user", now, is_right=True)
    guesses.note("peer", "user", now, is_right=False)
    assert guesses.may_try("peer", "user", now + GUESS_S)


class Nobody:
    def datachange_notification(self, node: Any, value: Any, data: Any) -> None: ...


def _value(name: str) -> Any:
    value = ua.DataValue(ua.Variant(1.0, ua.VariantType.Double))
    return ua.WriteValue(ua.NodeId(name, 2), ua.AttributeIds.Value, None, value)


async def test_token_is_renewed_while_notifications_flow(
    home: Path, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "CHANNEL_S_MIN", 0.1)
    got: list[float] = []

    class Taker:
        def datachange_notification(self, _node: Any, value: float, _data: Any) -> None:
            got.append(value)

    async with stage(home, TAGS, {"users": USERS, "trust": "any"}) as place:
        client = await _client(place, certificate, "eye", "seen")
        client.secure_channel_timeout = 400  # asyncua renews after three quarters of it
        async with client:
            first = client.uaclient.protocol._connection.security_token.TokenId
            subscription = await client.create_subscription(50, Taker())
            await subscription.subscribe_data_change(client.get_node("ns=2;s=pump.speed"), sampling_interval=0)
            for number in range(100):
                place.bridge.update([batch({1: float(number)})])
                await asyncio.sleep(0.015)
            await until(lambda: 99.0 in got)
            last = client.uaclient.protocol._connection.security_token.TokenId
    assert last >= first + 3
    assert got[-1] == 99.0
    assert place.refusals() == []
