"""Judge: a real mosquitto, with paho as the subscriber."""

from __future__ import annotations

import asyncio
import re
from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from hashlib import pbkdf2_hmac
from pathlib import Path
from typing import Self

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from framegate.contract.errors import NotConnected
from framegate_plugins.mqtt.tests.stage import Certificates, Mosquitto, Sender, Witness, until, windows

MakeMosquitto = Callable[..., Awaitable[Mosquitto]]
MakeSender = Callable[..., Sender]
MESSAGES = 500


@contextmanager
def subscriber(port: int, seen: list[paho.MQTTMessage] | None = None) -> Iterator[Witness]:
    """A paho client with a session of its own, which collects what it is sent."""
    witness = Witness()
    client = paho.Client(CallbackAPIVersion.VERSION2, "watch", clean_session=False, protocol=paho.MQTTv311)
    is_ready: list[bool] = []

    def take(_: paho.Client, __: object, message: paho.MQTTMessage) -> None:
        if seen is None:
            witness.take(message.topic, bytes(message.payload))
        else:
            seen.append(message)

    def connected(*_: object) -> None:
        client.subscribe("t/#", 2)

    client.on_message = take
    client.on_connect = connected
    client.on_subscribe = lambda *_: is_ready.append(True)
    client.reconnect_delay_set(1, 1)
    client.connect("127.0.0.1", port, 60)
    client.loop_start()
    try:
        while not is_ready:
            client._thread.join(0.005)  # type: ignore[union-attr]
        yield witness
    finally:
        client.disconnect()
        client.loop_stop()
        client._reset_sockets()  # its wake-up pair, which it leaves to the collector


@pytest.mark.parametrize("version", ["5", "3.1.1"])
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_mosquitto_passes_on_everything_once_and_in_order(
    make_mosquitto: MakeMosquitto, make_sender: MakeSender, qos: int, version: str
) -> None:
    broker = await make_mosquitto()
    sender = make_sender(f"tcp://127.0.0.1:{broker.port}", qos=qos, version=version)
    await sender.open()
    with subscriber(broker.port) as witness:
        await sender.send(windows(MESSAGES, 100))
        await until(lambda: len(witness.taken) >= MESSAGES)
    witness.assert_complete(MESSAGES)
    assert witness.duplicates == 0
    assert sender.losses == []


async def test_mosquitto_over_tls_with_client_certificate_takes_messages(
    make_mosquitto: MakeMosquitto, make_sender: MakeSender, certificates: Certificates
) -> None:
    files = certificates
    listener = f"cafile {files.ca}\ncertfile {files.server}\nkeyfile {files.server_key}\nrequire_certificate true"
    broker = await make_mosquitto(listener=f"{listener}\nuse_identity_as_username true")
    url = f"tls+tcp://127.0.0.1:{broker.port}"
    tls = {"ca": str(files.ca), "cert": str(files.client), "key": str(files.client_key), "server_name": "localhost"}
    sender = make_sender(url, {"broker": {"url": url, "tls": tls}})
    await sender.open()
    await sender.send(windows(MESSAGES, 100, payload_bytes=500))
    assert sender.losses == []
    bare = make_sender(url, {"broker": {"url": url, "tls": {"ca": str(files.ca), "server_name": "localhost"}}})
    with pytest.raises(NotConnected):
        await bare.open()


async def test_mosquitto_over_tls_takes_messages(
    make_mosquitto: MakeMosquitto, make_sender: MakeSender, certificates: Certificates
) -> None:
    listener = f"cafile {certificates.ca}\ncertfile {certificates.server}\nkeyfile {certificates.server_key}"
    broker = await make_mosquitto(listener=listener)
    url = f"tls+tcp://127.0.0.1:{broker.port}"
    sender = make_sender(
        url, {"broker": {"url": url, "tls": {"ca": str(certificates.ca), "server_name": "localhost"}}}, qos=2
    )
    await sender.open()
    await sender.send(windows(MESSAGES, 100))
    assert sender.losses == []


@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_mosquitto_with_passwords_takes_the_right_one_only(
    make_mosquitto: MakeMosquitto, make_sender: MakeSender, tmp_path: Path, version: str
) -> None:
    passwords = tmp_path / "passwords"
    passwords.write_text(hashed("gw1", "right"))
    broker = await make_mosquitto(f"password_file {passwords}", anonymous=False)
    url = f"tcp://127.0.0.1:{broker.port}"
    for password in ("right", "wrong"):
        row = {"url": url, "credentials": {"username": "gw1", "password": password}}
        sender = make_sender(url, {"broker": row}, version=version)
        if password == "right":
            await sender.open()
            await sender.send(windows(10, 10))
        else:
            with pytest.raises(NotConnected, match="not authorised"):
                await sender.open()


def hashed(user: str, password: str) -> str:
    """One line of a mosquitto password file: PBKDF2 with SHA-512, as 2.0 writes it."""
    salt, rounds = b"framegate-te", 101
    digest = pbkdf2_hmac("sha512", password.encode(), salt, rounds, 64)
    return f"{user}:$7${rounds}${b64encode(salt).decode()}${b64encode(digest).decode()}\n"


async def test_mosquitto_keeps_the_last_message_when_asked_to_retain(
    make_mosquitto: MakeMosquitto, make_sender: MakeSender
) -> None:
    broker = await make_mosquitto()
    sender = make_sender(f"tcp://127.0.0.1:{broker.port}", retain=True)
    await sender.open()
    await sender.send(windows(20, 20))
    seen: list[paho.MQTTMessage] = []
    with subscriber(broker.port, seen):
        await until(lambda: len(seen) == 5)
    assert sorted(int(message.payload) for message in seen) == [16, 17, 18, 19, 20]
    assert all(message.retain for message in seen)


@pytest.mark.parametrize("version", ["5", "3.1.1"])
@pytest.mark.parametrize("qos", [1, 2])
async def test_mosquitto_behind_a_line_that_breaks_loses_nothing(
    make_mosquitto: MakeMosquitto, make_sender: MakeSender, qos: int, version: str
) -> None:
    broker = await make_mosquitto()
    async with Breaker(broker.port, bytes_between_cuts=9_000) as breaker:
        sender = make_sender(f"tcp://127.0.0.1:{breaker.port}", qos=qos, version=version, inflight_max=20)
        await sender.open()
        with subscriber(broker.port) as witness:
            await sender.send(windows(MESSAGES, 100, payload_bytes=200))
            await until(lambda: len(set(witness.taken)) >= MESSAGES)
        assert breaker.cuts >= 8
        assert '"is_resumed":true' in sender.log_lines.text
        await sender.close()
    witness.assert_complete(MESSAGES)
    if qos == 2:
        assert witness.duplicates == 0


@pytest.mark.parametrize("qos", [1, 2])
async def test_mosquitto_that_restarts_with_persistence_loses_nothing(
    make_mosquitto: MakeMosquitto, make_sender: MakeSender, tmp_path: Path, qos: int
) -> None:
    log = tmp_path / "log"
    broker = await make_mosquitto(f"log_dest file {log}\nlog_type debug")
    sender = make_sender(f"tcp://127.0.0.1:{broker.port}", qos=qos)
    await sender.open()
    with subscriber(broker.port) as witness:
        async with asyncio.TaskGroup() as group:
            group.create_task(sender.send(windows(4 * MESSAGES, 100, payload_bytes=200)))
            await until(lambda: len(witness.taken) > MESSAGES)
            await asyncio.to_thread(broker.stop)
            await broker.start()
        await until(lambda: len(set(witness.taken)) >= 4 * MESSAGES, "delivery after the restart")
    witness.assert_complete(4 * MESSAGES)
    assert sender.losses
    assert '"is_resumed":true' in sender.log_lines.text or qos == 1
    if qos == 2:
        # mosquitto itself repeats messages to its subscriber after a restart, under their old identifiers. A message
        # that we had sent it twice would have got another one.
        passed_on = set(re.findall(r"Sending PUBLISH to watch \(d\d, q2, r0, (m\d+),", log.read_text()))
        assert len(passed_on) == 4 * MESSAGES


async def test_mosquitto_with_a_size_limit_refuses_the_large_message_only(
    make_mosquitto: MakeMosquitto, make_sender: MakeSender
) -> None:
    broker = await make_mosquitto("message_size_limit 1000")
    sender = make_sender(f"tcp://127.0.0.1:{broker.port}")
    await sender.open()
    batches = windows(10, 5)
    batches[0].payload[2] = b"3" + b" " * 2000  # type: ignore[index]
    with subscriber(broker.port) as witness:
        await sender.send(batches)
        await until(lambda: len(set(witness.taken)) == 9)
    assert [error.stable_code for error in sender.refused] == ["E5107"]


class Breaker:
    """A TCP relay that hangs up on both sides after so many bytes towards the broker."""

    def __init__(self, target: int, bytes_between_cuts: int) -> None:
        self.port = 0
        self.cuts = 0
        self._target = target
        self._bytes = bytes_between_cuts
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        answers = asyncio.create_task(self._pass_on(there, writer, None))
        if await self._pass_on(reader, back, self._bytes):
            self.cuts += 1
        back.transport.abort()
        writer.transport.abort()
        await answers

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, budget: int | None) -> bool:
        """True when the budget of bytes is spent."""
        try:
            while data := await source.read(1024 if budget is None else min(1024, budget)):
                sink.write(data)
                await sink.drain()
                if budget is not None:
                    budget -= len(data)
                    if budget <= 0:
                        return True
        except OSError:
            pass
        return False
