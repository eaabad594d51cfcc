from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest
import trustme

from framegate.contract.errors import Misconfigured, NotConnected
from framegate.endpoint.endpoint import TlsVersion
from framegate.endpoint.tls import server_context

if TYPE_CHECKING:
    from tests.unit.endpoint.conftest import Bench, Recorder

    MakeRecorder = type[Recorder]

OLD, NEW = TlsVersion.TLS_1_2, TlsVersion.TLS_1_3


@dataclass(frozen=True)
class Files:
    """Certificates of one test; `write` adds more."""

    folder: Path
    ca: trustme.CA

    def write(self, name: str, certificate: trustme.LeafCert) -> None:
        certificate.cert_chain_pems[0].write_to_path(self.folder / f"{name}.pem")
        certificate.private_key_pem.write_to_path(self.folder / f"{name}.key")

    def server(
        self, name: str = "srv", *, ca: bool = False, minimum: TlsVersion = OLD, highest: TlsVersion = NEW
    ) -> ssl.SSLContext:
        folder = self.folder
        trusted = folder / "ca.pem" if ca else None
        return server_context(
            folder / f"{name}.pem", folder / f"{name}.key", ca=trusted, minimum=minimum, highest=highest
        )


class ForeignServer:
    """A TCP server in a thread that treats each client as told; unlike asyncio's it sends alerts."""

    def __init__(self, manner: str, context: ssl.SSLContext | None = None) -> None:
        self.manner = manner
        self.context = context
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"tls+tcp://127.0.0.1:{self.socket.getsockname()[1]}"
        self.hellos: list[bytes] = []
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.socket.accept()
                with client, contextlib.suppress(OSError):
                    client.settimeout(5.0)
                    self._treat(client)

    def _treat(self, client: socket.socket) -> None:
        hello = client.recv(4096, socket.MSG_PEEK)
        self.hellos.append(hello)
        is_tls = hello[:1] == b"\x16"
        if self.manner == "intolerant" and is_tls and b"\x00\x2b" in hello and b"\x03\x04" in hello:
            client.recv(4096)
            client.sendall(bytes.fromhex("15030100020246"))  # alert protocol_version to the mere offer of 1.3
        elif self.manner in {"intolerant", "tls"}:
            assert self.context is not None
            with self.context.wrap_socket(client, server_side=True) as tls:
                tls.sendall(tls.recv(100))
                tls.recv(100)
        elif is_tls and self.manner == "answers":
            client.recv(4096)
            client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        elif is_tls and self.manner == "silent":
            while client.recv(4096):
                pass
        elif not is_tls:
            client.sendall(client.recv(100))
            client.recv(100)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.thread.join(10.0)


@pytest.fixture
def files(bench: Bench) -> Files:
    ca = trustme.CA()
    files = Files(bench.base, ca)
    ca.cert_pem.write_to_path(bench.base / "ca.pem")
    files.write("srv", ca.issue_cert("127.0.0.1", "localhost"))
    files.write("gw", ca.issue_cert("gw1.example"))
    return files


def row(url: str, **tls: object) -> dict[str, object]:
    return {"url": url, "tls": {"ca": "ca.pem", **tls}}


async def refusal(bench: Bench, make_recorder: MakeRecorder, tables: Mapping[str, object]) -> NotConnected:
    pool = bench.pool(broker=tables)
    with pytest.raises(NotConnected) as caught:
        await pool.acquire("broker", make_recorder)
    return caught.value


async def test_tls_line_carries_bytes_and_is_1_3(bench: Bench, make_recorder: MakeRecorder, files: Files) -> None:
    listener = await bench.listen("tls+tcp://127.0.0.1:0", files.server())
    pool = bench.pool(broker=row(listener.url))
    lease = await pool.acquire("broker", make_recorder)
    payload = bytes(range(256)) * 1000
    lease.session.line.write(payload)
    await bench.until(lambda: len(lease.session.data) == len(payload))
    assert lease.session.data == payload
    assert bench.log.named("endpoint_opened")[0]["tls"] == "TLSv1.3"
    assert bench.value("edge_endpoint_received_bytes_total", endpoint="broker") == len(payload)
    assert bench.value("edge_endpoint_tls_downgrades_total", endpoint="broker", step="tls_1_2") == 0
    lease.release()
    await bench.until(lambda: listener.clients == 0)


@pytest.mark.parametrize(
    ("served", "wanted", "version"), [(OLD, "1.2", "TLSv1.2"), (NEW, "1.2", "TLSv1.3"), (NEW, "1.3", "TLSv1.3")]
)
async def test_tls_with_one_version_served_is_met(
    bench: Bench, make_recorder: MakeRecorder, files: Files, served: TlsVersion, wanted: str, version: str
) -> None:
    listener = await bench.listen("tls+tcp://127.0.0.1:0", files.server(minimum=served, highest=served))
    await bench.pool(broker=row(listener.url, min=wanted)).acquire("broker", make_recorder)
    assert bench.log.named("endpoint_opened")[0]["tls"] == version
    assert bench.value("edge_endpoint_tls_downgrades_total", endpoint="broker", step="tls_1_2") == 0


async def test_tls_min_1_3_at_a_1_2_server_is_refused_with_the_remedy(
    bench: Bench, make_recorder: MakeRecorder, files: Files
) -> None:
    with ForeignServer("tls", files.server(highest=OLD)) as foreign:
        error = await refusal(bench, make_recorder, row(foreign.url, min="1.3", plaintext="allowed"))
        assert len(foreign.hellos) == 1
    assert error.stable_code == "E2025"
    assert "no TLS 1.3 or later; set tls.min to 1.2" in error.text


async def test_tls_with_foreign_ca_is_refused(bench: Bench, make_recorder: MakeRecorder, files: Files) -> None:
    trustme.CA().cert_pem.write_to_path(bench.base / "ca.pem")
    listener = await bench.listen("tls+tcp://127.0.0.1:0", files.server())
    error = await refusal(bench, make_recorder, row(listener.url, plaintext="allowed"))
    assert error.stable_code == "E2024"
    assert "as tls.ca" in error.text
    assert bench.value("edge_endpoint_failures_total", endpoint="broker", reason="certificate") == 1


async def test_tls_without_ca_trusts_the_system_only(bench: Bench, make_recorder: MakeRecorder, files: Files) -> None:
    listener = await bench.listen("tls+tcp://127.0.0.1:0", files.server())
    assert (await refusal(bench, make_recorder, {"url": listener.url})).stable_code == "E2024"


async def test_tls_with_other_name_is_refused_until_named(
    bench: Bench, make_recorder: MakeRecorder, files: Files
) -> None:
    files.write("srv", files.ca.issue_cert("broker.example"))
    listener = await bench.listen("tls+tcp://127.0.0.1:0", files.server())
    error = await refusal(bench, make_recorder, row(listener.url))
    assert error.stable_code == "E2024"
    assert "set tls.server_name" in error.text
    pool = bench.pool(broker=row(listener.url, server_name="broker.example"))
    await pool.acquire("broker", make_recorder)


async def test_tls_with_expired_certificate_is_refused(bench: Bench, make_recorder: MakeRecorder, files: Files) -> None:
    now, day = dt.datetime.now(dt.UTC), dt.timedelta(days=1)
    files.write("srv", files.ca.issue_cert("127.0.0.1", not_before=now - 9 * day, not_after=now - day))
    listener = await bench.listen("tls+tcp://127.0.0.1:0", files.server())
    error = await refusal(bench, make_recorder, row(listener.url))
    assert error.stable_code == "E2024"
    assert "it has expired" in error.text


async def test_tls_device_certificate_can_be_pinned(bench: Bench, make_recorder: MakeRecorder, files: Files) -> None:
    listener = await bench.listen("tls+tcp://127.0.0.1:0", files.server())
    pool = bench.pool(broker=row(listener.url, ca="srv.pem"))
    await pool.acquire("broker", make_recorder)


@pytest.mark.parametrize("version", [OLD, NEW])
async def test_tls_client_certificate_is_shown(
    bench: Bench, make_recorder: MakeRecorder, files: Files, version: TlsVersion
) -> None:
    context = files.server(ca=True, minimum=version, highest=version)
    listener = await bench.listen("tls+tcp://127.0.0.1:0", context)
    pool = bench.pool(broker=row(listener.url, cert="gw.pem", key="gw.key"))
    lease = await pool.acquire("broker", make_recorder)
    lease.session.line.write(b"x")
    await bench.until(lambda: lease.session.data == b"x")
    assert bench.log.named("endpoint_key_exposed") == [{"endpoint": "broker", "file": str(bench.base / "gw.key")}]


async def test_tls_1_2_without_client_certificate_is_refused(
    bench: Bench, make_recorder: MakeRecorder, files: Files
) -> None:
    with ForeignServer("tls", files.server(ca=True, highest=OLD)) as foreign:
        error = await refusal(bench, make_recorder, row(foreign.url))
    assert error.stable_code == "E2025"
    assert "client certificate" in error.text


async def test_tls_1_3_without_client_certificate_is_lost_with_the_reason(
    bench: Bench, make_recorder: MakeRecorder, files: Files
) -> None:
    # In TLS 1.3 the client is done before the server has judged its certificate.
    with ForeignServer("tls", files.server(ca=True)) as foreign:
        lease = await bench.pool(broker=row(foreign.url)).acquire("broker", make_recorder)
        await bench.until(lambda: lease.session.lost)
    assert lease.session.lost[0].stable_code == "E2026"
    assert "set tls.cert and tls.key" in lease.session.lost[0].text


async def test_tls_files_renewed_are_used_by_the_next_line(
    bench: Bench, make_recorder: MakeRecorder, files: Files
) -> None:
    listener = await bench.listen("tls+tcp://127.0.0.1:0", files.server())
    pool = bench.pool(broker=row(listener.url))
    (await pool.acquire("broker", make_recorder)).release()
    trustme.CA().cert_pem.write_to_path(bench.base / "ca.pem")
    with pytest.raises(NotConnected, match="certificate is not accepted"):
        await pool.acquire("broker", make_recorder)
    (bench.base / "ca.pem").unlink()
    with pytest.raises(Misconfigured) as caught:
        await pool.acquire("broker", make_recorder)
    assert caught.value.stable_code == "E2011"
    assert caught.value.problems[0].path == ("endpoints", "broker", "tls", "ca")


@pytest.fixture
def foreign(request: pytest.FixtureRequest, files: Files) -> Iterator[ForeignServer]:
    with ForeignServer(request.param, files.server(highest=OLD)) as server:
        yield server


@pytest.mark.parametrize("foreign", ["intolerant"], indirect=True)
async def test_tls_offer_of_1_3_refused_steps_down_to_1_2(
    bench: Bench, make_recorder: MakeRecorder, foreign: ForeignServer
) -> None:
    pool = bench.pool(broker=row(foreign.url))
    lease = await pool.acquire("broker", make_recorder)
    lease.session.line.write(b"x")
    await bench.until(lambda: lease.session.data == b"x")
    assert bench.value("edge_endpoint_tls_downgrades_total", endpoint="broker", step="tls_1_2") == 1
    assert bench.log.named("endpoint_tls_downgraded")[0]["tls"] == "TLSv1.2"
    lease.release()


@pytest.mark.parametrize("foreign", ["intolerant"], indirect=True)
async def test_tls_offer_of_1_3_refused_stops_where_min_says(
    bench: Bench, make_recorder: MakeRecorder, foreign: ForeignServer
) -> None:
    error = await refusal(bench, make_recorder, row(foreign.url, min="1.3", plaintext="allowed"))
    assert error.stable_code == "E2025"
    assert len(foreign.hellos) == 1


@pytest.mark.parametrize("foreign", ["answers", "closes", "silent"], indirect=True)
async def test_plaintext_where_allowed_is_used_warned_and_counted(
    bench: Bench, make_recorder: MakeRecorder, foreign: ForeignServer
) -> None:
    pool = bench.pool(broker={**row(foreign.url, plaintext="allowed"), "connect_timeout": "1s"})
    lease = await pool.acquire("broker", make_recorder)
    lease.session.line.write(b"in the clear")
    await bench.until(lambda: lease.session.data == b"in the clear")
    assert bench.value("edge_endpoint_plaintext_total", endpoint="broker") == 1
    assert bench.value("edge_endpoint_tls_downgrades_total", endpoint="broker", step="plaintext") == 1
    assert ("warning", "endpoint_plaintext") in [(level, name) for level, name, _ in bench.log.events]
    lease.release()


@pytest.mark.parametrize("foreign", ["answers", "closes", "silent"], indirect=True)
async def test_plaintext_where_not_allowed_is_never_tried(
    bench: Bench, make_recorder: MakeRecorder, foreign: ForeignServer
) -> None:
    error = await refusal(bench, make_recorder, {**row(foreign.url), "connect_timeout": "500ms"})
    assert error.stable_code == "E2025"
    assert "TLS" in error.text
    assert all(hello[:1] == b"\x16" for hello in foreign.hellos)
    assert len(foreign.hellos) == 1
    assert bench.value("edge_endpoint_plaintext_total", endpoint="broker") == 0


async def test_listener_drops_a_client_that_never_shakes_hands(bench: Bench, files: Files) -> None:
    listener = await bench.listen("tls+tcp://127.0.0.1:0", files.server())
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    async with asyncio.timeout(5.0):
        with contextlib.suppress(ConnectionResetError):
            while await reader.read(100):
                pass
    writer.close()
    assert listener.clients == 0
