"""TLS to a real etcd that shows a certificate and wants one: what opens the door, and what a refusal says."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trustme

from framegate.config.etcd import Centre, Client, read_options
from framegate.contract.errors import NotConnected
from framegate.testing.etcd import IS_INSTALLED, Etcd

pytestmark = pytest.mark.skipif(not IS_INSTALLED, reason="etcd and etcdctl are not installed")


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Etcd]:
    """The server's certificate serves as a client's too: the JSON gateway of etcd calls etcd with it."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    trustme.CA().cert_pem.write_to_path(tmp_path / "other-ca.pem")
    for name, certificate in (
        ("server", ca.issue_cert("127.0.0.1", "etcd.example")), ("client", ca.issue_cert("gw.example")),
    ):  # fmt: skip
        certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / f"{name}.pem")
    server = Etcd(
        tmp_path,
        tls=(
            f"--cert-file={tmp_path}/server.pem", f"--key-file={tmp_path}/server.pem",
            f"--trusted-ca-file={tmp_path}/ca.pem", "--client-cert-auth",
        ),
        control_options=(
            f"--cacert={tmp_path}/ca.pem", f"--cert={tmp_path}/client.pem", f"--key={tmp_path}/client.pem",
        ),
    )  # fmt: skip
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextlib.asynccontextmanager
async def centre(folder: Path, etcd: Etcd, tls: str) -> AsyncIterator[Centre]:
    file = folder / "config-centre.yml"
    file.write_text(f"endpoints: ['{etcd.url}']\nsite: plant1\ngateway: line4\ntls: {{{tls}}}\n")
    options = read_options(file)
    client = Client(options)
    try:
        yield Centre(client, options.root)
    finally:
        await client.close()


@pytest.mark.parametrize("name", ["", ", server_name: etcd.example"])
async def test_both_certificates_open_the_door(tmp_path: Path, etcd: Etcd, name: str) -> None:
    async with centre(tmp_path, etcd, f"ca: ca.pem, cert: client.pem{name}") as held:
        assert (await held.head()).generation is None


@pytest.mark.parametrize(
    "tls", ["ca: other-ca.pem, cert: client.pem", "ca: ca.pem, cert: client.pem, server_name: else.example"]
)
async def test_certificate_of_a_stranger_is_refused(tmp_path: Path, etcd: Etcd, tls: str) -> None:
    async with centre(tmp_path, etcd, tls) as held:
        with pytest.raises(NotConnected) as caught:
            await held.head()
    assert caught.value.stable_code == "E2024"


async def test_etcd_that_wants_a_certificate_says_which_key_is_missing(tmp_path: Path, etcd: Etcd) -> None:
    async with centre(tmp_path, etcd, "ca: ca.pem") as held:
        for _ in range(10):  # the refusal races with the request: an alert, or a broken pipe
            with pytest.raises(NotConnected, match=r"tls\.cert"):
                await held.head()
