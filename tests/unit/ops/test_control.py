"""The control socket: both ends together, and hostile clients against the server."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from framegate.contract.errors import (
    Busy,
    DeviceRefused,
    GatewayError,
    Misconfigured,
    NoReply,
    NotConnected,
    StoreFailed,
)
from framegate.contract.letter import DeadLetter
from framegate.observe.command_health import DoorHealth
from framegate.observe.rule_face import AlarmRow
from framegate.ops.client import ControlClient
from framegate.ops.control import CLIENTS_MAX, ControlServer, serve
from framegate.ops.message import REQUEST_BYTES_MAX, WATCHED_TAGS_MAX
from framegate.testing.doors import MemoryAudit
from tests.unit.ops.conftest import ask


async def raw(server: ControlServer, line: bytes) -> dict[str, Any]:
    reader, writer = await asyncio.open_unix_connection(server.path)
    try:
        writer.write(line)
        async with asyncio.timeout(5):
            return json.loads(await reader.readline())  # type: ignore[no-any-return]
    finally:
        writer.close()


async def test_health_over_the_socket_is_the_same_record(server: ControlServer, face: Any) -> None:
    assert await ask(server, lambda client: client.health()) == face.record


async def test_tags_beyond_a_page_arrive_whole_and_in_order(server: ControlServer, face: Any) -> None:
    face.rows = [type(face.rows[0])(**{**_fields(face.rows[0]), "id": n, "name": f"x{n}"}) for n in range(1, 1_203)]
    rows = await ask(server, lambda client: list(client.tags("", 10_000)))
    assert [row.id for row in rows] == list(range(1, 1_203))
    assert len(await ask(server, lambda client: list(client.tags("", 501)))) == 501


async def test_tags_with_a_pattern_filters(server: ControlServer) -> None:
    rows = await ask(server, lambda client: list(client.tags("t1?", 100)))
    assert [row.name for row in rows] == [f"t1{n}" for n in range(10)]


async def test_get_of_an_unknown_tag_names_it(server: ControlServer) -> None:
    with pytest.raises(DeviceRefused, match=r"E4014 tag nix: no such tag"):
        await ask(server, lambda client: client.get("nix"))


async def test_get_carries_bytes_as_base64_and_nan_as_null(server: ControlServer, face: Any) -> None:
    face.rows = [type(face.rows[0])(**{**_fields(face.rows[0]), "value": value, "name": name})
                 for name, value in (("blob", b"\x00\xff"), ("nan", float("nan")))]  # fmt: skip
    assert (await ask(server, lambda client: client.get("blob"))).value == "AP8="
    assert (await ask(server, lambda client: client.get("nan"))).value is None


async def test_watch_sends_everything_once_then_changes_only(server: ControlServer, face: Any) -> None:
    def two_lists(client: ControlClient) -> tuple[list[str], list[tuple[str, object]]]:
        stream = client.watch([1, 2, 4])
        first = [row.name for row in next(stream)]
        loop.call_soon_threadsafe(face.change, "t2", 99.5)
        for rows in stream:
            if rows:
                return first, [(row.name, row.value) for row in rows]
        raise AssertionError

    loop = asyncio.get_running_loop()
    first, then = await ask(server, two_lists)
    assert first == ["t1", "t2", "t4"]
    assert then == [("t2", 99.5)]


async def test_letters_beyond_a_page_arrive_whole_and_in_order(
    server: ControlServer, face: Any, make_letter: Callable[..., DeadLetter]
) -> None:
    face.letters.add(*(make_letter(position) for position in range(1, 1_203)), make_letter(3, "other"))
    rows = await ask(server, lambda client: list(client.letters("cloud")))
    assert [row.position for row in rows] == list(range(1, 1_203))
    assert [row.id for row in await ask(server, lambda client: list(client.letters("other")))] == ["other/3"]
    assert len(await ask(server, lambda client: list(client.letters("")))) == 1_203
    letters = await ask(server, lambda client: [client.letter(row) for row in rows[:2]])
    assert letters == [make_letter(1), make_letter(2)], "payloads that are no text too"


async def test_letter_sent_again_is_taken_refused_or_not_sent(
    server: ControlServer, face: Any, make_letter: Callable[..., DeadLetter]
) -> None:
    face.letters.add(*map(make_letter, range(1, 7)))
    busy, store = Busy("one is under way", wait_s=1, code="E4023"), StoreFailed("being written", code="E3001")
    errors = (NotConnected("away", code="E2405"), NoReply("silent", code="E2406"), busy, store)
    face.letters.outcome.update({"cloud/2": "refused", **{f"cloud/{n}": error for n, error in enumerate(errors, 3)}})
    assert await ask(server, lambda client: client.retry_letter("cloud/1")) is None
    left = await ask(server, lambda client: client.retry_letter("cloud/2"))
    assert left is not None
    assert (left.id, left.tries) == ("cloud/2", 7)
    for number, error in enumerate(errors, 3):
        with pytest.raises(type(error), match=error.stable_code):
            await ask(server, lambda client, number=number: client.retry_letter(f"cloud/{number}"))  # type: ignore[misc]


async def test_letter_that_is_unknown_is_named_by_every_op(server: ControlServer) -> None:
    asked: list[Callable[[ControlClient], object]] = [
        lambda client: client.retry_letter("nix/1"),
        lambda client: client.drop_letter("nix/1"),
    ]
    for question in asked:
        with pytest.raises(DeviceRefused, match=r"E4019 letter nix/1: no such letter"):
            await ask(server, question)


async def test_letter_dropped_is_gone(server: ControlServer, face: Any, make_letter: Callable[..., DeadLetter]) -> None:
    face.letters.add(make_letter(1))
    await ask(server, lambda client: client.drop_letter("cloud/1"))
    assert face.letters.kept == {}


class Operated:
    """Rules of which one alarm may be operated."""

    def __init__(self, audit: MemoryAudit) -> None:
        self._audit = audit
        self.noted: list[int] = []  # records in the audit log, each time an alarm was operated

    async def operate(self, alarm: str, action: str, by: str, note: str, seconds: int) -> AlarmRow:
        self.noted.append(len(self._audit.entries))
        return AlarmRow(
            id=alarm, rule="r", condition="high", state=action, priority="high", tag="t", value=9.5, limit=9.0, by=by,
            note=note, message="", is_active=True, is_acknowledged=True, since_ns=1, until_ns=seconds,
        )  # fmt: skip


ACTS: list[tuple[Callable[[ControlClient], object], str, str, dict[str, object]]] = [
    (lambda client: client.retry_letter("cloud/1"), "letters.retry", "cloud/1", {}),
    (lambda client: client.drop_letter("cloud/1"), "letters.drop", "cloud/1", {}),
    (lambda client: client.rewind("cloud", first=7), "frames.replay", "cloud", {"first": 7, "since_ns": 0}),
    (
        lambda client: client.operate_alarm("a1", "ack", "seen"),
        "alarms.operate",
        "a1",
        {"action": "ack", "note": "seen", "seconds": 0},
    ),
]


@pytest.mark.parametrize(("act", "action", "target", "details"), ACTS)
async def test_act_is_in_the_audit_log_before_it_is_done(
    *,
    server: ControlServer,
    face: Any,
    make_letter: Callable[..., DeadLetter],
    act: Callable[[ControlClient], object],
    action: str,
    target: str,
    details: dict[str, object],
) -> None:
    face.letters.add(make_letter(1))
    face.rules = Operated(face.audit)
    await ask(server, act)
    (entry,) = face.audit.entries
    assert (entry.action, entry.target, entry.outcome, entry.details) == (action, target, "begun", details)
    assert entry.actor == f"local:uid {os.getuid()}"
    assert face.rules.noted == ([1] if action == "alarms.operate" else [])


@pytest.mark.parametrize("act", [act for act, *_ in ACTS])
async def test_act_that_cannot_be_noted_is_not_done(
    server: ControlServer, face: Any, make_letter: Callable[..., DeadLetter], act: Callable[[ControlClient], object]
) -> None:
    face.letters.add(make_letter(1))
    face.rules = Operated(face.audit)
    face.audit.room = 0
    with pytest.raises(StoreFailed, match="E4306"):
        await ask(server, act)
    assert (list(face.letters.kept), face.letters.retried, face.rules.noted) == (["cloud/1"], [], [])


async def test_health_tells_of_commands(server: ControlServer, face: Any) -> None:
    face.record = replace(face.record, commands_waiting=3, doors=(DoorHealth("rest", confirmed=5, unknown=1),))
    assert await ask(server, lambda client: client.health()) == face.record


async def test_socket_file_is_for_its_owner_only_and_goes_with_the_server(server: ControlServer) -> None:
    assert stat.S_IMODE(server.path.stat().st_mode) == 0o600
    await server.close()
    assert not server.path.exists()


async def test_serve_over_a_dead_socket_replaces_it(face: Any, tmp_path: Path) -> None:
    path = tmp_path / "edge.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    server = await serve(face, path)
    assert (await ask(server, lambda client: client.health())).name == "gw1"
    await server.close()


async def test_serve_where_a_file_lies_keeps_it_and_says_so(face: Any, tmp_path: Path) -> None:
    path = tmp_path / "edge.sock"
    path.write_text("precious")
    with pytest.raises(Misconfigured, match="E4012 control socket"):
        await serve(face, path)
    assert path.read_text() == "precious"


async def test_serve_in_a_deep_folder_works(face: Any, tmp_path: Path) -> None:
    folder = tmp_path / ("deep" * 40)
    folder.mkdir()
    server = await serve(face, folder / "edge.sock")
    assert (await ask(server, lambda client: client.health())).name == "gw1"
    await server.close()


def test_client_without_a_gateway_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(NotConnected, match=r"E4010 gateway in .*not running; start it with `edge run --home"):
        ControlClient(tmp_path / "run" / "edge.sock")


@pytest.mark.parametrize(
    "line",
    [
        b"{\n",
        b"[]\n",
        b"\xff\xfe\n",
        b'{"op": "reboot"}\n',
        b'{"op": "tags", "limit": 501}\n',
        b'{"op": "tags", "limit": "all"}\n',
        b'{"op": "tags", "pattern": 7}\n',
        b'{"op": "watch"}\n',
        b'{"op": "watch", "ids": ["t1"]}\n',
        b'{"op": "watch", "ids": [' + b"1," * WATCHED_TAGS_MAX + b"1]}\n",
        b'{"op": "' + b"x" * (2 * REQUEST_BYTES_MAX) + b'"}\n',
    ],
)
async def test_request_that_cannot_be_understood_is_refused_in_words(server: ControlServer, line: bytes) -> None:
    reply = await raw(server, line)
    assert (reply["ok"], reply["code"]) == (False, "E4013")
    assert reply["text"].startswith("control socket: ")
    assert (await ask(server, lambda client: client.health())).name == "gw1"


async def test_clients_beyond_the_bound_are_told_to_come_back(server: ControlServer) -> None:
    crowd = [await asyncio.open_unix_connection(server.path) for _ in range(CLIENTS_MAX)]
    with pytest.raises(Busy, match="E4015"):
        await ask(server, lambda client: client.health())
    for _, writer in crowd:
        writer.close()
    await _until(lambda: server.clients == 0)
    assert (await ask(server, lambda client: client.health())).name == "gw1"


async def test_client_that_reads_nothing_is_cut(server: ControlServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("framegate.ops.control.REPLY_WAIT_S", 0.2)
    with socket.socket(socket.AF_UNIX) as client:
        client.setblocking(False)
        client.connect(str(server.path))
        await _until(lambda: server.clients == 1)

        async def shout() -> None:
            while server.clients:
                with_health = b'{"op":"tags","limit":500}\n' * 100
                try:
                    client.send(with_health)
                except BlockingIOError:
                    pass
                except OSError:
                    return
                await asyncio.sleep(0)

        async with asyncio.timeout(10):
            await shout()
        assert server.clients == 0


async def test_close_with_clients_lets_them_go_at_once(face: Any, tmp_path: Path) -> None:
    server = await serve(face, tmp_path / "edge.sock")
    reader, writer = await asyncio.open_unix_connection(server.path)
    writer.write(b'{"op": "watch", "ids": [1]}\n')
    await reader.readline()
    async with asyncio.timeout(1):
        await server.close()
        assert await reader.read() == b""
    writer.close()


def test_errors_of_the_socket_are_gateway_errors() -> None:
    assert issubclass(NotConnected, GatewayError)


def _fields(row: Any) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__dataclass_fields__}


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - polls a plain fact
            await asyncio.sleep(0.005)


async def test_rewind_is_handed_on_with_the_user_that_the_kernel_names(server: ControlServer) -> None:
    done = await ask(server, lambda client: client.rewind("cloud", first=41))
    assert (done.connector, done.after, done.rows, done.by) == ("cloud", 40, 60, f"uid {os.getuid()}")
    assert (await ask(server, lambda client: client.rewind("cloud", since_ns=77))).time_ns == 77


async def test_rewind_that_is_refused_keeps_its_code(server: ControlServer) -> None:
    with pytest.raises(Misconfigured, match="E4030 connector nix"):
        await ask(server, lambda client: client.rewind("nix", first=1))


@pytest.mark.parametrize("place", [{}, {"first": 1, "since_ns": 1}, {"first": -1}, {"first": "1"}])
async def test_rewind_from_nowhere_is_refused(server: ControlServer, place: dict[str, object]) -> None:
    reply = await raw(server, json.dumps({"op": "rewind", "connector": "cloud", **place}).encode() + b"\n")
    assert (reply["ok"], reply["code"]) == (False, "E4013")
