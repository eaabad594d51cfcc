"""Judge: open62541. Values of every type, limits of subscriptions, security policies and identities."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from framegate.contract.command import Outcome, Write
from framegate.contract.errors import NotConnected
from framegate.contract.frame import TagId, Value
from framegate.contract.quality import Quality
from framegate_plugins.opcua import channel
from framegate_plugins.opcua.certificates import self_signed
from framegate_plugins.opcua.command import run
from framegate_plugins.opcua.tests.peers import Peer
from framegate_plugins.opcua.tests.stage import OPEN, Stage, rows_in, tags, values_in

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="the package o6 (open62541) is for x86_64")
TAGS = 1_000
SECURE = {"timeout": "5s"}
TYPES: dict[str, tuple[str, Value]] = {
    "boolean": ("bool", True),
    "sbyte": ("int8", -128),
    "byte": ("uint8", 255),
    "int16": ("int16", -(2**15)),
    "uint16": ("uint16", 2**16 - 1),
    "int32": ("int32", -(2**31)),
    "uint32": ("uint32", 2**32 - 1),
    "int64": ("int64", -(2**63)),
    "uint64": ("uint64", 2**64 - 1),
    "float": ("float32", 1.5),
    "double": ("float64", -1e300),
    "string": ("string", "液位"),
    "guid": ("string", "72962b91-fa75-4ae6-8d28-b404dc7daf63"),
    "bytestring": ("bytes", b"\x00\xff"),
    "datetime": ("string", "2026-11-26T12:00:00Z"),
    "localized": ("json", {"Locale": "en", "Text": "pump"}),
    "array": ("json", [1.0, 2.0, 3.0]),
}
OTHER: dict[str, Value] = {
    "boolean": False, "sbyte": 5, "byte": 6, "int16": 7, "uint16": 8, "int32": 9, "uint32": 10, "int64": 11,
    "uint64": 2**63, "float": 0.25, "double": 2.5, "string": "", "guid": "00000000-0000-0000-0000-000000000005",
    "bytestring": b"abc", "datetime": "1999-12-31T23:59:59.5Z", "localized": {"Locale": "zh", "Text": "泵"},
    "array": [4.0, 5.0],
}  # fmt: skip


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Certificate and key of the server."""
    folder = tmp_path_factory.mktemp("server")
    key = generate_private_key(65537, 2048)
    certificate = self_signed(key, "urn:judge:open62541", "judge", ["127.0.0.1"])
    (folder / "cert.der").write_bytes(certificate.public_bytes(Encoding.DER))
    (folder / "key.der").write_bytes(key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
    return str(folder / "cert.der"), str(folder / "key.der")


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    with Peer.open62541(TAGS) as peer:
        yield peer


@pytest.fixture(scope="module")
def secure(pair: tuple[str, str]) -> Iterator[Peer]:
    with Peer.open62541(3, *pair) as peer:
        yield peer


async def test_values_of_every_type_are_read_watched_and_written(stage: Stage, peer: Peer) -> None:
    driver = await stage.open(peer.url)
    rows = tags(*(f"ns=1;s={name} {type_}" for name, (type_, _) in TYPES.items()))
    rows += [tags("ns=1;s=array float64", first=100)[0]._replace(options={"index_range": "1"})]
    plan = await stage.follow(driver, rows)
    found = values_in(await driver.read(plan))
    assert found.pop(100) == 2.0
    assert found == dict(enumerate(value for _, value in TYPES.values()))
    writes = [Write(TagId(number), OTHER[name]) for number, name in enumerate(TYPES)]
    for write, result in zip(writes, await driver.write(writes), strict=True):
        assert result.outcome is Outcome.CONFIRMED, (rows[write.tag].address, result.reason)
    wanted = dict(enumerate(OTHER.values()))
    found = await stage.until(driver, plan, lambda found: {tag: found.get(tag) for tag in wanted} == wanted)
    assert found[100] == 5.0
    (result,) = await driver.write([Write(TagId(100), 9.5)])
    assert result.outcome is Outcome.CONFIRMED
    assert (await stage.until(driver, plan, lambda found: 16 in found and 100 in found))[16] == [4.0, 9.5]


async def test_one_bad_node_of_a_thousand_stops_nothing(stage: Stage, peer: Peer) -> None:
    driver = await stage.open(peer.url, {**OPEN, "items_per_call": 100, "items_per_subscription": 300})
    rows = tags(*(f"ns=1;s=t{number} float64" for number in range(TAGS)))
    rows[500] = rows[500]._replace(address="ns=1;s=gone")
    plan = await stage.follow(driver, rows)
    statuses = {tag: status for tag, _, status in rows_in(await driver.read(plan))}
    assert len(statuses) == TAGS
    assert {tag for tag, status in statuses.items() if status} == {500}
    assert statuses[500] == Quality.BAD_NODE_ID_UNKNOWN
    assert len(driver._watches[plan].subscriptions) == 4
    writes = [Write(TagId(number), -1.0 - number) for number in range(0, TAGS, 99)]
    assert {result.outcome for result in await driver.write(writes)} == {Outcome.CONFIRMED}
    wanted = {int(write.tag): write.value for write in writes}
    assert await stage.until(driver, plan, lambda found: found.keys() >= wanted.keys()) == wanted


async def test_poll_reads_in_parts(stage: Stage, peer: Peer) -> None:
    driver = await stage.open(peer.url, {**OPEN, "mode": "poll", "items_per_call": 70})
    plan = await stage.follow(driver, tags(*(f"ns=1;s=t{number} float64" for number in range(TAGS))))
    assert set(values_in(await driver.read(plan))) == set(range(TAGS))


async def test_server_deadband_is_the_servers(stage: Stage, peer: Peer) -> None:
    driver = await stage.open(peer.url)
    row = tags("ns=1;s=t1 float64", "ns=1;s=t2 float64")
    row[0] = row[0]._replace(options={"server_deadband": 10.0})
    plan = await stage.follow(driver, row)
    await driver.write([Write(TagId(0), 1.0), Write(TagId(1), 1.0)])
    await driver.read(plan)
    await driver.write([Write(TagId(0), 5.0)])
    await driver.write([Write(TagId(1), 5.0)])
    assert await stage.until(driver, plan, lambda found: 1 in found) == {1: 5.0}
    await driver.write([Write(TagId(0), 50.0)])
    assert await stage.until(driver, plan, lambda found: 0 in found) == {0: 50.0}


@pytest.mark.parametrize("policy", ["Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss"])
@pytest.mark.parametrize("security", ["sign_and_encrypt", "sign"])
@pytest.mark.parametrize("identity", ["anonymous", "user"])
async def test_policy_security_and_identity(
    stage: Stage, secure: Peer, tmp_path: Path, policy: str, security: str, identity: str
) -> None:
    options = {**SECURE, "policy": policy, "security": security, "identity": identity}
    row: dict[str, Any] = {"credentials": {"username": "operator", "password": password(tmp_path, "secret")}}
    with pytest.raises(NotConnected) as caught:
        await stage.open(secure.url, options, **row)
    assert caught.value.stable_code == "E2702"
    home = stage.home
    assert home is not None
    (seen,) = [row for row in run(["trust", "ls"], home) if row["state"] == "rejected"]
    assert str(seen["thumbprint"]) in caught.value.text
    run(["trust", "add", str(seen["thumbprint"])[:12]], home)
    driver = await stage.open(secure.url, options, **row)
    plan = await stage.follow(driver, tags("ns=1;s=t1 float64"))
    (before,) = values_in(await driver.read(plan)).values()
    assert isinstance(before, float)
    (result,) = await driver.write([Write(TagId(0), before + 1)])
    assert result.outcome is Outcome.CONFIRMED
    assert await stage.until(driver, plan, lambda found: 0 in found) == {0: before + 1}


async def test_wrong_password_and_missing_offer_are_told(stage: Stage, secure: Peer, tmp_path: Path) -> None:
    row: dict[str, Any] = {"credentials": {"username": "operator", "password": password(tmp_path, "wrong")}}
    with pytest.raises(NotConnected):
        await stage.open(secure.url, SECURE, **row)
    assert stage.home is not None
    (seen,) = run(["trust", "ls"], stage.home)
    run(["trust", "add", str(seen["thumbprint"])], stage.home)
    with pytest.raises(
        NotConnected, match=r"does not let in user 'operator' \(Bad(UserAccessDenied|Identity)"
    ) as caught:
        await stage.open(secure.url, SECURE, **row)
    assert "wrong" not in str(caught.value)


def password(folder: Path, text: str) -> str:
    file = folder / "password"
    file.write_text(text)
    file.chmod(0o600)
    return f"${{file:{file}}}"


async def test_server_without_the_wanted_endpoint_is_told_with_its_offers(stage: Stage, peer: Peer) -> None:
    with pytest.raises(NotConnected, match="offers no endpoint with Basic256Sha256/SignAndEncrypt; it has None/None"):
        await stage.open(peer.url, SECURE)


async def test_scan_classes_beyond_the_servers_subscriptions_are_read(stage: Stage, peer: Peer) -> None:
    driver = await stage.open(peer.url)
    plans = [driver.plan(tags(f"ns=1;s=t{number} float64", first=number)) for number in range(20, 30)]
    driver.follow([(plan, 0.1) for plan in plans])
    for plan in plans:
        assert len(values_in(await driver.read(plan))) == 1
    watched = [bool(driver._watches[plan].subscriptions) for plan in plans]
    assert watched == [True] * 8 + [False] * 2
    (before,) = values_in(await driver.read(plans[9])).values()
    assert isinstance(before, float)
    await driver.write([Write(TagId(29), before + 1)])
    assert values_in(await driver.read(plans[9])) == {29: before + 1}


@pytest.mark.parametrize("security", ["sign_and_encrypt", "none"])
async def test_token_is_renewed_while_values_come(
    stage: Stage, secure: Peer, peer: Peer, monkeypatch: pytest.MonkeyPatch, security: str
) -> None:
    monkeypatch.setattr(channel, "LIFETIME_MS", 3_000)
    url = peer.url if security == "none" else secure.url
    if security != "none":
        with pytest.raises(NotConnected):
            await stage.open(url, SECURE)
        assert stage.home is not None
        run(["trust", "add", str(run(["trust", "ls"], stage.home)[0]["thumbprint"])], stage.home)
    driver = await stage.open(url, {**SECURE, "security": security})
    plan = await stage.follow(driver, tags("ns=1;s=t2 float64"))
    await driver.read(plan)
    assert driver._session is not None
    line = driver._session.channel
    first = line._connection.security_token.TokenId
    assert line.lifetime_s <= 10.0
    until, number = time.monotonic() + 2.5 * line.lifetime_s, 0.0
    while time.monotonic() < until:
        number += 1.0
        (result,) = await driver.write([Write(TagId(0), number)])
        assert result.outcome is Outcome.CONFIRMED
        wanted = {0: number}
        assert await stage.until(driver, plan, wanted.__eq__) == wanted
    assert line is driver._session.channel
    assert line._connection.security_token.TokenId > first
