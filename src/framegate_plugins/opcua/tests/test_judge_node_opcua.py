"""Judge: npm node-opcua, as a server with limits of its own, signed and encrypted by certificates of its own making."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from framegate.contract.command import Outcome, Write
from framegate.contract.errors import Misconfigured, NotConnected
from framegate.contract.frame import TagId, Value
from framegate.contract.quality import Quality
from framegate_plugins.opcua.certificates import self_signed
from framegate_plugins.opcua.command import run
from framegate_plugins.opcua.pki import Pki, certificate_from, short, thumbprint
from framegate_plugins.opcua.tests.peers import JUDGES, Peer
from framegate_plugins.opcua.tests.stage import OPEN, Stage, rows_in, tags, values_in

NODE, NPM = shutil.which("node"), shutil.which("npm")
INSTALL_S = 110.0
TAGS, MOST_PER_CALL = 1_000, 100
OPERATOR: Mapping[str, Any] = {"identity": "certificate", "user_certificate": "operator", "timeout": "10s"}


@pytest.fixture(scope="module")
def judges(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the server and its packages, and the certificate of a user whom it trusts."""
    if NODE is None or NPM is None:
        pytest.skip("node and npm are not installed")
    folder = tmp_path_factory.mktemp("judges")
    for name in ("package.json", "package-lock.json", "node_opcua.js"):
        shutil.copy(JUDGES / name, folder)
    command = [NPM, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"node-opcua was not installed within {INSTALL_S:g} s")
    if done.returncode:
        pytest.skip(f"node-opcua cannot be installed: {done.stderr[-200:]}")
    trusted = folder / "users" / "trusted" / "certs"
    trusted.mkdir(parents=True)
    make_user(folder)
    shutil.copy(folder / "operator.der", trusted)
    return folder


@pytest.fixture(scope="module")
def peer(judges: Path) -> Iterator[Peer]:
    assert NODE is not None
    with Peer((NODE, "node_opcua.js", "{port}", str(TAGS), str(MOST_PER_CALL)), judges) as peer:
        yield peer


def make_user(folder: Path) -> RSAPrivateKey:
    """operator.der and operator.pem."""
    folder.mkdir(parents=True, exist_ok=True)
    key = generate_private_key(65537, 2048)
    certificate = self_signed(key, "urn:judge:operator", "operator", [])
    (folder / "operator.der").write_bytes(certificate.public_bytes(Encoding.DER))
    (folder / "operator.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return key


@pytest.mark.timeout(240)
async def test_limit_of_a_hundred_items_per_call_and_one_bad_node_of_a_thousand(stage: Stage, peer: Peer) -> None:
    driver = await stage.open(peer.url, {**OPEN, "timeout": "10s"})
    rows = tags(*(f"ns=1;s=t{number} float64" for number in range(TAGS)))
    rows[7] = rows[7]._replace(address="ns=1;s=gone")
    plan = await stage.follow(driver, rows, period_s=0.2)
    assert driver._session is not None
    assert driver._session.limits.monitor == MOST_PER_CALL
    statuses = {tag: status for tag, _, status in rows_in(await driver.read(plan))}
    assert len(statuses) == TAGS
    assert {tag: status for tag, status in statuses.items() if status} == {7: Quality.BAD_NODE_ID_UNKNOWN}
    writes = [Write(TagId(number), 0.5 + number) for number in range(TAGS) if number != 7]
    assert {result.outcome for result in await driver.write(writes)} == {Outcome.CONFIRMED}
    wanted: dict[int, Value] = {int(write.tag): write.value for write in writes}
    assert await stage.until(driver, plan, lambda found: found.keys() >= wanted.keys()) == wanted


async def test_matrix_is_read_whole_and_by_range(stage: Stage, peer: Peer) -> None:
    driver = await stage.open(peer.url)
    rows = tags("ns=1;s=matrix json", "ns=1;s=matrix json")
    rows[1] = rows[1]._replace(options={"index_range": "1,0:1"})
    found = values_in(await driver.read(driver.plan(rows)))
    assert found[0] == [[1, 2, 3], [4, 5, 6]]
    assert found[1] == [[4, 5]]


async def test_method_answers_are_outcomes(stage: Stage, peer: Peer) -> None:
    driver = await stage.open(peer.url)
    (row,) = tags("ns=1;s=double float64 W")
    found = {found.path[-1]: found async for found in driver.browse("", 1)}
    driver.plan([row._replace(options={"method": found["tags"].address})])
    results = await driver.write([Write(TagId(0), 2.0), Write(TagId(0), -1.0), Write(TagId(0), "x")])
    assert [result.outcome for result in results] == [Outcome.CONFIRMED, Outcome.REJECTED, Outcome.REJECTED]
    assert "BadOutOfRange" in results[1].reason


@pytest.mark.parametrize("policy", ["Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss"])
async def test_secured_session_with_a_user(stage: Stage, peer: Peer, tmp_path: Path, policy: str) -> None:
    (tmp_path / "password").write_text("secret")
    (tmp_path / "password").chmod(0o600)
    secret = f"${{file:{tmp_path / 'password'}}}"
    row: dict[str, Any] = {"credentials": {"username": "operator", "password": secret}}
    options = {"policy": policy, "timeout": "10s"}
    await trust(stage, peer, options, **row)
    driver = await stage.open(peer.url, options, **row)
    plan = await stage.follow(driver, tags("ns=1;s=t1 float64"))
    (before,) = values_in(await driver.read(plan)).values()
    assert isinstance(before, float)
    (result,) = await driver.write([Write(TagId(0), before + 1)])
    assert result.outcome is Outcome.CONFIRMED
    assert await stage.until(driver, plan, lambda found: 0 in found) == {0: before + 1}


@pytest.mark.parametrize("security", ["sign_and_encrypt", "sign", "none"])
@pytest.mark.parametrize("policy", ["Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss"])
async def test_user_whose_certificate_is_trusted_is_let_in(
    stage: Stage, peer: Peer, judges: Path, policy: str, security: str
) -> None:
    options = {**OPERATOR, "policy": policy, "security": security}
    own = folder_of(stage)
    for name in ("operator.der", "operator.pem"):
        shutil.copy(judges / name, own)
    if security != "none":
        await trust(stage, peer, options)
    driver = await stage.open(peer.url, options)
    (value,) = values_in(await driver.read(driver.plan(tags("ns=1;s=t1 float64")))).values()
    assert isinstance(value, float)


async def test_user_whose_certificate_is_unknown_is_turned_away(stage: Stage, peer: Peer) -> None:
    make_user(folder_of(stage))
    await trust(stage, peer, OPERATOR)
    with pytest.raises(NotConnected, match="BadIdentityTokenRejected") as caught:
        await stage.open(peer.url, OPERATOR)
    mark = short(thumbprint(certificate_from((folder_of(stage) / "operator.der").read_bytes())))
    assert caught.value.stable_code == "E2780"
    assert f"does not let in the user with certificate {mark}" in caught.value.text


async def test_user_with_the_key_of_another_certificate_is_turned_away(
    stage: Stage, peer: Peer, judges: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, other = folder_of(stage), make_user(tmp_path / "other")
    await trust(stage, peer, {**OPERATOR, "identity": "anonymous", "user_certificate": ""})
    shutil.copy(judges / "operator.der", own)
    shutil.copy(tmp_path / "other" / "operator.pem", own)
    with pytest.raises(Misconfigured, match=r"operator\.pem"):  # seen here already
        await stage.open(peer.url, OPERATOR)
    monkeypatch.setattr(Pki, "user", lambda *_: ((judges / "operator.der").read_bytes(), other))
    with pytest.raises(NotConnected, match="BadUserSignatureInvalid") as caught:  # and by the server
        await stage.open(peer.url, OPERATOR)
    assert caught.value.stable_code == "E2780"


async def trust(stage: Stage, peer: Peer, options: Mapping[str, Any], **row: Any) -> None:
    """Have the driver trust the server, which it has turned away."""
    with pytest.raises(NotConnected, match="E2702"):
        await stage.open(peer.url, options, **row)
    assert stage.home is not None
    (seen,) = [each for each in run(["trust", "ls"], stage.home) if each["state"] == "rejected"]
    run(["trust", "add", str(seen["thumbprint"])], stage.home)


def folder_of(stage: Stage) -> Path:
    """Of the driver's own certificates."""
    assert stage.home is not None
    folder = stage.home / "pki" / "own"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
