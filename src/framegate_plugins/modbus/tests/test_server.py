"""What bounds the clients of a bridge, and how requests travel on every kind of line."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from framegate.contract.bridge import ServerTls
from framegate.contract.command import Write
from framegate.contract.errors import Misconfigured
from framegate_plugins.modbus import bridge, server
from framegate_plugins.modbus.bridge_trial import BridgeTrial, Master
from framegate_plugins.modbus.framing import Rtu
from framegate_plugins.modbus.trial import Trial, bound_tags, values_in

ROWS = ["a int16 RW", "b int16 RW"]
READ_A = b"\x03\x00\x00\x00\x01"
A_IS_5 = b"\x03\x02\x00\x05"
WRITE_A = b"\x06\x00\x00\x00\x07"
DEADLINE_S = 5.0


async def test_clients_beyond_the_limit_are_turned_away_and_told(tmp_path: Path) -> None:
    async with BridgeTrial(ROWS, {"clients": 2}, home=tmp_path) as trial:
        trial.show(a=5)
        masters = [await trial.connect() for _ in range(4)]
        assert [await master.ask(READ_A) for master in masters[:2]] == [A_IS_5] * 2
        for master in masters[2:]:
            assert await master.hung_up() == b""
        assert (trial.bridge.health().clients, trial.bridge.health().refused_total) == (2, 2)
        assert trial.log.getvalue().count("modbus_client_refused") == 1, "repeats are counted"
        await masters[0].close()
        await gone(trial, 1)
        assert await (await trial.connect()).ask(READ_A) == A_IS_5


@asynccontextmanager
async def elsewhere(trial: BridgeTrial) -> AsyncIterator[Master]:
    """A master on another host."""
    master = Master(*await asyncio.open_connection("127.0.0.1", trial.port, local_addr=("127.0.0.2", 0)))
    yield master
    await master.close()


async def test_one_host_cannot_take_every_connection(tmp_path: Path) -> None:
    async with BridgeTrial(ROWS, {"clients_per_peer": 1}, home=tmp_path) as trial:
        trial.show(a=5)
        masters = [await trial.connect() for _ in range(2)]
        assert await masters[0].ask(READ_A) == A_IS_5
        assert await masters[1].hung_up() == b""
        async with elsewhere(trial) as other:
            assert await other.ask(READ_A) == A_IS_5


@pytest.mark.parametrize("sent", [b"\0", b"\0\1\0\0\0\6\1\3\0\0\0"])
async def test_request_that_never_ends_is_hung_up_on(
    sent: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "FRAME_S", 0.2)
    monkeypatch.setattr(server, "WATCH_S", 0.05)
    async with BridgeTrial(ROWS, home=tmp_path) as trial:
        master = await trial.connect()
        master.writer.write(sent)
        assert await master.hung_up() == b""
        assert trial.bridge.health().refused_total == 1


async def test_byte_by_byte_keeps_no_connection_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "FRAME_S", 0.3)
    monkeypatch.setattr(server, "WATCH_S", 0.05)
    async with BridgeTrial(ROWS, home=tmp_path) as trial:
        master = await trial.connect()
        loop = asyncio.get_running_loop()
        began = loop.time()
        for byte in b"\0\1\0\0\0\xfe" + bytes(254):
            master.writer.write(bytes((byte,)))
            if master.reader.at_eof():
                break
            await asyncio.sleep(0.05)
        assert loop.time() - began < 6.0, "all bytes of a frame take 13 s"


async def test_silent_client_is_hung_up_on_and_a_talking_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "WATCH_S", 0.05)
    async with BridgeTrial(ROWS, {"idle_timeout": 2}, home=tmp_path) as trial:
        trial.show(a=5)
        silent, talking = await trial.connect(), await trial.connect()
        left = asyncio.create_task(silent.hung_up())
        while not left.done():
            assert await talking.ask(READ_A) == A_IS_5
            await asyncio.sleep(0.1)
        assert trial.bridge.health().refused_total == 0, "silence is no offence"


async def test_garbage_is_hung_up_on(tmp_path: Path) -> None:
    async with BridgeTrial(ROWS, home=tmp_path) as trial:
        master = await trial.connect()
        master.writer.write(b"GET / HTTP/1.1\r\n" * 400)
        assert await master.hung_up() == b""
        assert trial.bridge.health().refused_total == 1


async def test_nothing_behind_lost_bytes_is_taken_for_a_request(tmp_path: Path) -> None:
    async with BridgeTrial(ROWS, home=tmp_path) as trial:
        master = await trial.connect()
        master.writer.write(struct.pack(">HHHB", 1, 0, 300, 1) + struct.pack(">HHHB", 2, 0, 6, 1) + WRITE_A)
        assert await master.hung_up() == b""
        assert trial.desk.written == []


async def test_client_that_takes_no_answers_is_hung_up_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "STALL_S", 0.3)
    monkeypatch.setattr(server, "WATCH_S", 0.05)
    async with BridgeTrial(
        ["a int16 RW", "z int16 RW address=hr:200"], {"requests_per_s": 1_000_000}, home=tmp_path
    ) as trial:
        trial.show(a=5)
        master = await trial.connect()
        request = struct.pack(">HHHB", 1, 0, 6, 1) + b"\x03\x00\x00\x00\x7d"
        master.writer.transport.pause_reading()  # type: ignore[attr-defined]
        for _ in range(100):
            master.writer.write(request * 2_000)
        await gone(trial, 0)
        assert "bytes of answers were not taken" in trial.log.getvalue()
        assert trial.bridge.health().requests_total < 100 * 2_000, "it stopped answering long before"


async def test_requests_beyond_the_rate_wait_and_are_answered(tmp_path: Path) -> None:
    async with BridgeTrial(ROWS, {"requests_per_s": 50}, home=tmp_path) as trial:
        trial.show(a=5)
        hasty = await trial.connect()
        loop = asyncio.get_running_loop()
        began = loop.time()
        for _ in range(80):
            hasty.say(READ_A)
        async with elsewhere(trial) as calm:
            assert await calm.ask(READ_A) == A_IS_5
        assert [await hasty.hear() for _ in range(80)] == [(number, 1, A_IS_5) for number in range(1, 81)]
        assert loop.time() - began > 0.5, "30 of them waited for their turn"


async def test_host_that_connects_anew_is_not_faster(tmp_path: Path) -> None:
    async with BridgeTrial(ROWS, {"requests_per_s": 20}, home=tmp_path) as trial:
        trial.show(a=5)
        loop = asyncio.get_running_loop()
        answers, began = 0, loop.time()
        for number in range(10):
            master = await trial.connect()
            for _ in range(20):
                master.say(READ_A)
            while number == 0 and answers < 15:
                await master.hear()
                answers += 1
            with contextlib.suppress(asyncio.IncompleteReadError, OSError, TimeoutError):
                async with asyncio.timeout(0.05):
                    while True:
                        await master.hear()
                        answers += 1
            await master.close()
        assert answers <= 20 + 20 * (loop.time() - began) + 1


async def test_pipelined_requests_are_answered_each_with_its_id(tmp_path: Path) -> None:
    async with BridgeTrial(ROWS, home=tmp_path) as trial:
        trial.show(a=5)
        master = await trial.connect()
        numbers = [master.say(READ_A) for _ in range(500)]
        assert [await master.hear() for _ in numbers] == [(number, 1, A_IS_5) for number in numbers]


async def test_masters_do_not_hear_each_other(tmp_path: Path) -> None:
    rows = [f"t{number} int16 RW" for number in range(8)]
    async with BridgeTrial(rows, home=tmp_path) as trial:
        trial.desk.echo = trial.show
        trial.show({f"t{number}": number for number in range(8)})
        masters = [await trial.connect() for _ in range(8)]

        async def talk(number: int, master: Master) -> None:
            for value in range(20):
                write = struct.pack(">BHH", 6, number, 100 * number + value)
                assert await master.ask(write) == write
                answer = await master.ask(struct.pack(">BHH", 3, number, 1))
                assert answer == struct.pack(">BBH", 3, 2, 100 * number + value)

        await asyncio.gather(*(talk(number, master) for number, master in enumerate(masters)))


async def test_request_in_pieces_is_answered_once_whole(tmp_path: Path) -> None:
    async with BridgeTrial(ROWS, home=tmp_path) as trial:
        trial.show(a=5)
        master = await trial.connect()
        for byte in struct.pack(">HHHB", 9, 0, 6, 1) + READ_A:
            master.writer.write(bytes((byte,)))
            await master.writer.drain()
            await asyncio.sleep(0)
        assert await master.hear() == (9, 1, A_IS_5)


async def test_client_that_leaves_takes_nothing_with_it(tmp_path: Path) -> None:
    async with BridgeTrial(ROWS, home=tmp_path) as trial:
        trial.show(a=5)
        trial.desk.held.add("a")
        leaver, stayer = await trial.connect(), await trial.connect()
        leaver.say(WRITE_A)
        await trial.desk.submitted.wait()
        leaver.writer.transport.abort()
        await gone(trial, 1)
        await trial.desk.release("a")
        assert await stayer.ask(READ_A) == A_IS_5


async def test_close_hangs_up_while_writes_wait(tmp_path: Path) -> None:
    async with BridgeTrial(ROWS, {"write_timeout": "5m"}, home=tmp_path) as trial:
        trial.desk.held.add("a")
        master = await trial.connect()
        master.say(WRITE_A)
        await trial.desk.submitted.wait()
        async with asyncio.timeout(DEADLINE_S):
            await trial.bridge.close()
        assert await master.hung_up() == b""


# -- other lines -------------------------------------------------------------------------------------------------


async def test_rtu_answers_its_own_unit_only(tmp_path: Path) -> None:
    async with BridgeTrial(ROWS, {"framing": "rtu", "unit": 7}, home=tmp_path) as trial:
        trial.show(a=5)
        master = await trial.connect()
        wrap: Callable[[int, int, bytes], bytes] = Rtu().wrap
        for frame in (wrap(0, 8, READ_A), wrap(0, 255, READ_A), wrap(0, 7, READ_A)):
            master.writer.write(frame)
        async with asyncio.timeout(DEADLINE_S):
            assert await master.reader.readexactly(7) == wrap(0, 7, A_IS_5)


async def test_write_that_an_rtu_master_does_not_wait_for_is_done_and_not_answered(tmp_path: Path) -> None:
    wrap = Rtu().wrap
    async with BridgeTrial(ROWS, {"framing": "rtu"}, home=tmp_path) as trial:
        trial.show(a=5)
        master = await trial.connect()
        master.writer.write(wrap(0, 1, WRITE_A) + wrap(0, 1, READ_A))
        await trial.desk.submitted.wait()
        master.writer.write(wrap(0, 1, READ_A))
        async with asyncio.timeout(DEADLINE_S):
            assert await master.reader.readexactly(14) == wrap(0, 1, A_IS_5) * 2


@pytest.mark.parametrize("following", [READ_A, b""], ids=["request", "noise"])
async def test_late_answer_is_not_sent_to_an_rtu_master_that_has_gone_on(following: bytes, tmp_path: Path) -> None:
    wrap = Rtu().wrap
    async with BridgeTrial(ROWS, {"framing": "rtu"}, home=tmp_path) as trial:
        trial.show(a=5)
        trial.desk.held.add("a")
        master = await trial.connect()
        master.writer.write(wrap(0, 1, WRITE_A))
        await trial.desk.submitted.wait()
        master.writer.write(wrap(0, 1, following) if following else b"\x55")
        await asyncio.sleep(0.05)
        await trial.desk.release("a")
        await asyncio.sleep(0.05)
        master.writer.write(wrap(0, 1, READ_A))
        expected = wrap(0, 1, A_IS_5) * (2 if following else 1)
        async with asyncio.timeout(DEADLINE_S):
            assert await master.reader.readexactly(len(expected)) == expected
        assert trial.desk.written == [("a", 7)]


async def test_answers_of_other_units_on_the_bus_are_passed_over(tmp_path: Path) -> None:
    wrap = Rtu().wrap
    others = [
        wrap(0, 5, b"\x03\x00\x00\x00\x02"), wrap(0, 5, b"\x03\x04\x10\x10\x10\x10"),
        wrap(0, 5, b"\x10\x00\x00\x00\x01\x02\x00\x00"), wrap(0, 5, b"\x10\x00\x00\x00\x01"), wrap(0, 5, b"\x83\x02"),
    ]  # fmt: skip
    async with BridgeTrial(ROWS, {"framing": "rtu"}, home=tmp_path) as trial:
        trial.show(a=5)
        master = await trial.connect()
        for other in others:
            master.writer.write(other + wrap(0, 1, READ_A))
            async with asyncio.timeout(DEADLINE_S):
                assert await master.reader.readexactly(7) == wrap(0, 1, A_IS_5)
        assert trial.desk.written == []


async def test_one_host_cannot_take_every_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "WRITES_PER_HOST_MAX", 2)
    async with BridgeTrial(ROWS, home=tmp_path) as trial:
        trial.desk.held.add("a")
        greedy = [await trial.connect() for _ in range(3)]
        for master in greedy:
            master.say(WRITE_A)
        assert (await greedy[2].hear())[2] == b"\x86\x06"
        async with elsewhere(trial) as other:
            other.say(WRITE_A)
            await trial.desk.release("a")
            assert (await other.hear())[2] == WRITE_A


async def test_unknown_function_is_refused_on_rtu_too(tmp_path: Path) -> None:
    async with BridgeTrial(ROWS, {"framing": "rtu"}, home=tmp_path) as trial:
        master = await trial.connect()
        for pdu in (b"\x07", b"\x11", b"\x08\x00\x00\x12\x34", b"\x63" + bytes(100)):
            master.writer.write(Rtu().wrap(0, 1, pdu))
            async with asyncio.timeout(DEADLINE_S):
                assert await master.reader.readexactly(5) == Rtu().wrap(0, 1, bytes((pdu[0] | 0x80, 1)))


async def test_broadcast_is_written_and_never_answered(tmp_path: Path) -> None:
    async with BridgeTrial(ROWS, {"framing": "rtu"}, home=tmp_path) as trial:
        trial.show(a=5)
        master = await trial.connect()
        master.writer.write(Rtu().wrap(0, 0, WRITE_A) + Rtu().wrap(0, 0, READ_A) + Rtu().wrap(0, 1, READ_A))
        async with asyncio.timeout(DEADLINE_S):
            assert await master.reader.readexactly(7) == Rtu().wrap(0, 1, A_IS_5)
        assert trial.desk.written == [("a", 7)]


@pytest.mark.parametrize(
    ("url", "framing"),
    [("udp://127.0.0.1:0", "tcp"), ("tcp://127.0.0.1:0", "ascii"), ("tcp://127.0.0.1:0", "rtu"), ("memory://m", "tcp")],
)
async def test_driver_reads_and_writes_on_other_lines(trial: Trial, url: str, framing: str, tmp_path: Path) -> None:
    async with BridgeTrial(ROWS, {"framing": framing}, home=tmp_path, url=url) as shown:
        await _read_and_write(trial, shown, shown.bridge.url, framing)


async def test_driver_reads_and_writes_on_a_serial_cable(trial: Trial, cable: tuple[str, str], tmp_path: Path) -> None:
    async with BridgeTrial(ROWS, home=tmp_path, url=f"serial://{cable[0]}?baud=19200") as shown:
        await _read_and_write(trial, shown, f"serial://{cable[1]}?baud=19200", "rtu")


async def test_serial_port_that_was_gone_is_served_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge, "REOPEN_S", 0.05)
    port = tmp_path / "port"
    far, near = os.openpty()
    port.symlink_to(os.ttyname(near))
    async with BridgeTrial(ROWS, home=tmp_path, url=f"serial://{port}") as trial:
        trial.show(a=5)
        os.close(near)
        os.close(far)
        await gone(trial, 0)
        port.unlink()
        far, near = os.openpty()
        port.symlink_to(os.ttyname(near))
        async with asyncio.timeout(DEADLINE_S):
            while not trial.bridge.health().clients:  # noqa: ASYNC110 - a port, nobody tells of it
                await asyncio.sleep(0.01)
        os.write(far, Rtu().wrap(0, 1, READ_A))
        assert await asyncio.to_thread(os.read, far, 256) == Rtu().wrap(0, 1, A_IS_5)
        assert trial.log.getvalue().count("modbus_bus_lost") == 1
    os.close(near)
    os.close(far)


async def test_tls_lets_in_whom_the_ca_knows(trial: Trial, tmp_path: Path) -> None:
    ca = trustme.CA()
    files = {name: tmp_path / f"{name}.pem" for name in ("ca", "cert", "key", "client", "client_key")}
    ca.cert_pem.write_to_path(str(files["ca"]))
    for cert, key in (("cert", "key"), ("client", "client_key")):
        issued = ca.issue_cert("127.0.0.1")
        issued.cert_chain_pems[0].write_to_path(str(files[cert]))
        issued.private_key_pem.write_to_path(str(files[key]))
    locked = serialization.load_pem_private_key(files["key"].read_bytes(), None).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
    )
    files["key"].write_bytes(locked)
    (tmp_path / "password").write_text("secret\n")
    tls = ServerTls("cert.pem", "key.pem", "ca.pem", "${file:password}", "1.3")
    async with BridgeTrial(ROWS, home=tmp_path, url="tls+tcp://127.0.0.1:0", tls=tls) as shown:
        own = {"ca": str(files["ca"]), "cert": str(files["client"]), "key": str(files["client_key"])}
        await _read_and_write(trial, shown, shown.bridge.url, "tcp", tls=own)
        unsigned = ssl.create_default_context(cafile=files["ca"])
        stranger = Master(*await asyncio.open_connection("127.0.0.1", shown.port, ssl=unsigned))
        stranger.say(READ_A)
        assert await stranger.hung_up() == b""
        await stranger.close()
        assert shown.bridge.health().requests_total == 2


async def _read_and_write(trial: Trial, shown: BridgeTrial, url: str, framing: str, **row: object) -> None:
    shown.show(a=5, b=-6)
    driver = await trial.open(url, {"framing": framing}, **row)
    tags = bound_tags("hr:0 int16", "hr:1 int16")
    assert values_in(await driver.read(driver.plan(tags))) == {0: 5, 1: -6}
    await driver.write([Write(tag.id, 70 + tag.id) for tag in tags])
    assert shown.desk.written == [("a", 70), ("b", 71)]


@pytest.mark.parametrize(
    ("url", "options", "code"),
    [
        ("tls+tcp://127.0.0.1:0", {}, "E2665"),
        ("serial:///dev/null", {"framing": "tcp"}, "E2664"),
        ("tcp://203.0.113.1:502", {}, "E2035"),
    ],
)
async def test_line_that_cannot_serve_is_refused(url: str, options: dict[str, str], code: str, tmp_path: Path) -> None:
    trial = BridgeTrial(ROWS, options, home=tmp_path, url=url)
    with pytest.raises(Misconfigured, match=code):
        await trial.__aenter__()
    await trial.bridge.close()


async def test_map_is_written_beside_the_bridge(tmp_path: Path) -> None:
    home = tmp_path / "bridges" / "scada"
    async with BridgeTrial(ROWS, home=home):
        assert sorted(path.name for path in home.iterdir()) == ["map.csv", "map.md"]
        assert "4x00001" in (home / "map.csv").read_text()


async def test_map_that_cannot_be_written_is_told_and_served(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    async with BridgeTrial(ROWS, home=tmp_path / "file") as trial:
        trial.show(a=5)
        assert await (await trial.connect()).ask(READ_A) == A_IS_5
        assert "modbus_map_unwritten" in trial.log.getvalue()


async def gone(trial: BridgeTrial, clients: int) -> None:
    """Until so many clients are left."""
    async with asyncio.timeout(DEADLINE_S):
        while trial.bridge.health().clients > clients:  # noqa: ASYNC110 - a count is asked for, nobody tells of it
            await asyncio.sleep(0.01)
