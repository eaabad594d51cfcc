"""Values of every kind reach an independent subscriber as what they are: value, type, quality, unit's scale."""

from __future__ import annotations

import math
import struct
import subprocess
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme

from framegate.observe.face import GatewayHealth
from framegate.testing import plant
from framegate.testing.account import Account
from framegate.testing.mosquitto import PROGRAM, Mosquitto
from framegate_plugins.modbus.simulator import Simulator as Plc
from framegate_plugins.mqtt.simulator import start as start_broker

Run = Callable[[Path], subprocess.Popen[bytes]]
Start = Callable[..., Awaitable[Plc]]
Subscribe = Callable[..., Awaitable[Account]]


@dataclass(frozen=True)
class Point:
    """One tag: its row, the bytes that the PLC holds for it, and what a receiver must read."""

    tag: str
    address: str
    type: str
    held: bytes
    expected: Any
    extra: str = ""

    @property
    def row(self) -> str:
        return f"tag: {self.tag}, source: plc, address: '{self.address}', type: {self.type}{self.extra}"


POINTS = (
    Point("i8", "hr:0.h", "int8", b"\x80\x00", -128),
    Point("u8", "hr:1.l", "uint8", b"\x00\xff", 255),
    Point("i16", "hr:2", "int16", struct.pack(">h", -32768), -32768),
    Point("twelve", "hr:3", "int16", struct.pack(">h", 12), 12),
    Point("u16", "hr:4", "uint16", struct.pack(">H", 65535), 65535),
    Point("i32", "hr:6", "int32", struct.pack(">i", -(2**31)), -(2**31)),
    Point("u32", "hr:8", "uint32", struct.pack(">I", 2**32 - 1), 2**32 - 1),
    Point("i64", "hr:10", "int64", struct.pack(">q", -(2**62) - 1), -(2**62) - 1),
    Point("u64", "hr:14", "uint64", struct.pack(">Q", 2**64 - 1), 2**64 - 1),
    Point("f32", "hr:18", "float32", struct.pack(">f", 1.1), 1.1),
    Point("f64", "hr:20", "float64", struct.pack(">d", math.pi), math.pi),
    Point("whole", "hr:24", "float32", struct.pack(">f", 12.0), 12.0),
    Point("swapped", "hr:26", "float32", struct.pack("<f", -2.5), -2.5, ", byte_order: little, word_order: little"),
    Point("bit", "hr:28.3", "bool", b"\x00\x08", expected=True),
    Point("clear", "hr:28", "bool", b"\x00\x08", expected=False, extra=", bit: 2"),
    Point("text", "hr:30", "string", "Pumpe Süd 泵".encode().ljust(20, b"\0"), "Pumpe Süd 泵", ", length: 20"),
    Point("raw", "hr:40", "bytes", b"\x00\x01\xfe\xff", "AAH+/w==", ", length: 4"),
    Point("flow", "hr:50", "int16", struct.pack(">h", 3), 0.3, ", scale: 0.1, unit: m3/h"),
    Point("celsius", "hr:51", "uint16", struct.pack(">H", 2931), 19.95, ", scale: 0.1, offset: -273.15"),
    Point("broken", "hr:60", "float32", struct.pack(">f", math.nan), None),
)
BIT_POINTS = (
    Point("coil", "coil:7", "bool", b"", expected=True),
    Point("contact", "1x00004", "bool", b"", expected=False),
)


def hold(plc: Plc) -> None:
    """Put every point into the PLC."""
    unit = plc.units[1]
    for point in POINTS:
        first = int(point.address.removeprefix("hr:").partition(".")[0])
        words = struct.unpack(f">{len(point.held) // 2}H", point.held)
        unit.hold[first : first + len(words)] = words
    unit.coils[7] = True


def tables(home: Path, plc: Plc, broker: str, connector: str, options: str) -> None:
    plant.write_config(
        home,
        endpoints={"plc": f"url: '{plc.url}'", "broker": broker},
        drivers={"plc": "plugin: modbus, endpoint: plc, scan: {default: 100ms}"},
        connectors={"cloud": f"plugin: mqtt, endpoint: broker, {connector}, options: {{{options}}}"},
        variables=[point.row for point in (*POINTS, *BIT_POINTS)],
    )


async def arrived(account: Account) -> None:
    wanted = {point.tag for point in (*POINTS, *BIT_POINTS)}
    await plant.until(lambda: set(account.last) >= wanted and account.newest > 3 * len(wanted), "a value of every tag")
    assert set(account.last) == wanted
    assert (account.out_of_order, account.conflicts) == (0, 0)


def assert_exact(account: Account) -> None:
    """JSON tells types apart: 12 is not 12.0, true is not 1."""
    for point in (*POINTS, *BIT_POINTS):
        frame = account.last[point.tag]
        assert (frame.value, type(frame.value)) == (point.expected, type(point.expected)), point.tag
        assert frame.is_bad == (point.expected is None), point.tag
        assert frame.quality in {0, 0x803C0000}, point.tag


def assert_typed(account: Account) -> None:
    """Protobuf carries a double where a tag is a float; NaN travels as it is, quality Good as the device said."""
    for point in (*POINTS, *BIT_POINTS):
        value = account.last[point.tag].value
        if point.expected is None:
            assert math.isnan(value)
        elif isinstance(point.expected, float):
            assert isinstance(value, float)
            assert math.isclose(value, point.expected, rel_tol=1e-7), point.tag
        else:
            assert (value, type(value)) == (point.expected, type(point.expected)), point.tag
        assert account.last[point.tag].quality == 0, point.tag


@pytest.mark.parametrize(
    ("encoding", "compress", "qos", "version"),
    [
        ("json", "none", 0, "3.1.1"),
        ("json", "none", 2, "5"),
        ("json-batch", "none", 1, "5"),
        ("json-batch", "zstd", 2, "3.1.1"),
        ("protobuf", "none", 1, "3.1.1"),
        ("protobuf", "zstd", 2, "5"),
    ],
)
async def test_values_through_mosquitto_keep_value_and_type(
    *,
    home: Path,
    modbus: Start,
    mosquitto: Mosquitto,
    subscribe: Subscribe,
    run: Run,
    encoding: str,
    compress: str,
    qos: int,
    version: str,
) -> None:
    plc = await modbus()
    hold(plc)
    account = await subscribe(mosquitto.port, encoding=encoding, compress=compress, qos=2)
    connector = f"encoding: {encoding}, compress: {compress}"
    tables(home, plc, f"url: 'tcp://127.0.0.1:{mosquitto.port}'", connector, f"qos: {qos}, version: '{version}'")
    run(home)
    await arrived(account)
    (assert_typed if encoding == "protobuf" else assert_exact)(account)
    assert account.topics == (
        {f"flow/plc/{point.tag}" for point in (*POINTS, *BIT_POINTS)} if encoding == "json" else {"flow/gw"}
    )
    assert account.repeats == 0


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_values_through_embedded_broker_keep_value_and_type(
    home: Path, modbus: Start, subscribe: Subscribe, run: Run, qos: int
) -> None:
    plc = await modbus()
    hold(plc)
    broker = await start_broker()
    try:
        account = await subscribe(broker.port, qos=2)
        tables(home, plc, f"url: '{broker.url}'", "encoding: json-batch, batch: 7", f"qos: {qos}")
        run(home)
        await arrived(account)
        assert_exact(account)
    finally:
        await broker.close()


def certificates(home: Path) -> trustme.CA:
    """A CA, a server certificate for 127.0.0.1 and a client certificate, in HOME/config/certs."""
    folder = home / "config" / "certs"
    folder.mkdir(parents=True)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    for name, holder in (("server", authority.issue_cert("127.0.0.1")), ("gw", authority.issue_cert("gw.example"))):
        holder.private_key_pem.write_to_path(folder / f"{name}.key")
        (folder / f"{name}.key").chmod(0o600)
        for number, pem in enumerate(holder.cert_chain_pems):
            pem.write_to_path(folder / f"{name}.pem", append=number > 0)
    return authority


@pytest.mark.skipif(PROGRAM is None, reason="mosquitto is not installed")
@pytest.mark.parametrize("is_mutual", [False, True], ids=["tls", "mtls"])
async def test_values_over_tls_arrive(
    home: Path, modbus: Start, subscribe: Subscribe, run: Run, *, is_mutual: bool
) -> None:
    plc = await modbus()
    hold(plc)
    certificates(home)
    certs = home / "config" / "certs"
    wants = f"certfile {certs}/server.pem\nkeyfile {certs}/server.key\n"
    wants += f"cafile {certs}/ca.pem\nrequire_certificate true\n" if is_mutual else ""
    broker = Mosquitto(home, tls=wants)
    broker.start()
    try:
        account = await subscribe(broker.port)
        own = ", cert: certs/gw.pem, key: certs/gw.key" if is_mutual else ""
        url = f"url: 'tls+tcp://127.0.0.1:{broker.tls_port}', tls: {{ca: certs/ca.pem{own}}}"
        tables(home, plc, url, "encoding: json-batch", "qos: 1")
        run(home)
        await arrived(account)
        assert_exact(account)
    finally:
        broker.stop()


@pytest.mark.skipif(PROGRAM is None, reason="mosquitto is not installed")
@pytest.mark.parametrize("fault", ["stranger", "no_client_certificate"])
async def test_tls_without_trust_sends_nothing_and_says_why(
    home: Path,
    modbus: Start,
    subscribe: Subscribe,
    run: Run,
    health: Callable[[Path], Awaitable[GatewayHealth]],
    fault: str,
) -> None:
    plc = await modbus()
    hold(plc)
    certificates(home)
    certs = home / "config" / "certs"
    if fault == "stranger":
        trustme.CA().cert_pem.write_to_path(certs / "other.pem")
    ca = "other" if fault == "stranger" else "ca"
    mutual = f"certfile {certs}/server.pem\nkeyfile {certs}/server.key\ncafile {certs}/ca.pem\nrequire_certificate true"
    broker = Mosquitto(home, tls=mutual)
    broker.start()
    try:
        account = await subscribe(broker.port)
        url = f"url: 'tls+tcp://127.0.0.1:{broker.tls_port}', tls: {{ca: certs/{ca}.pem}}"
        tables(home, plc, url, "encoding: json-batch", "qos: 1")
        run(home)
        seen = await plant.eventually(lambda: health(home), lambda now: now.connectors[0].error != "", "an error")
        # With TLS 1.3 the client has sent already when it is refused: a reset may overtake the alert that says why.
        words = ("certificate", "reset") if fault == "no_client_certificate" else ("certificate",)
        assert any(word in seen.connectors[0].error for word in words)
        assert seen.connectors[0].rows == 0
        assert account.messages == 0
    finally:
        broker.stop()
