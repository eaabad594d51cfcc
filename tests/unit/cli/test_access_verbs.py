"""`edge token` and `edge audit` on a home without a gateway, and what the first start says."""

from __future__ import annotations

import asyncio
import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from framegate.access.room import AccessRoom, open_access
from framegate.cli import exits
from framegate.cli.first_start import tell_first_start
from framegate.cli.main import main
from framegate.contract.access import Permission
from framegate.contract.errors import Denied
from framegate.endpoint.clock import SystemClock
from framegate.testing.fakes import CollectingLog

Printed = pytest.CaptureFixture[str]


def edge(home: Path, *words: str) -> int:
    return main([*words, "--home", str(home)])


def rows(printed: Printed) -> list[dict[str, Any]]:
    return [json.loads(line) for line in printed.readouterr().out.splitlines()]


def room_of(home: Path) -> AccessRoom:
    return open_access(home, "gw1", "gas", [], SystemClock(), CollectingLog())


async def test_token_works_at_once_and_no_longer_once_revoked(tmp_path: Path, capsys: Printed) -> None:
    room = room_of(tmp_path)
    words = ("--role", "operator", "--tags", "pump*", "--tags", "meter*", "--expires", "90d")
    assert edge(tmp_path, "token", "add", "anna", *words) == exits.OK
    printed = capsys.readouterr()
    text = printed.out.strip()
    assert re.fullmatch(r"edge_[0-9a-f]{8}_[0-9a-f]{64}", text)
    assert text not in printed.err
    principal = await room.authenticate(f"Bearer {text}", "10.0.0.7")
    assert principal.may(Permission.TAGS_WRITE, "meter3.total")
    assert not principal.may(Permission.TAGS_WRITE, "valve1.open")
    assert edge(tmp_path, "token", "revoke", "anna") == exits.OK
    with pytest.raises(Denied):
        await room.authenticate(f"Bearer {text}", "10.0.0.7")
    await room.close()


async def test_ls_shows_tokens_without_their_secrets(tmp_path: Path, capsys: Printed) -> None:
    assert edge(tmp_path, "token", "ls") == exits.OK
    assert "token add" in capsys.readouterr().err
    edge(
        tmp_path, "token", "add", "bob", "--permission", "tags:read", "--permission", "alarms:ack", "--expires", "never"
    )
    edge(tmp_path, "token", "add", "anna", "--role", "viewer", "--expires", "500ms")
    secrets = capsys.readouterr().out.split()
    room = room_of(tmp_path)
    await room.authenticate(f"Bearer {secrets[0]}", "10.0.0.7")
    await room.close()
    await asyncio.sleep(0.6)  # until hers has ended
    assert edge(tmp_path, "token", "ls") == exits.OK
    anna, bob = rows(capsys)
    assert (anna["name"], anna["role"], anna["state"], anna["used"]) == ("anna", "viewer", "expired", None)
    assert (bob["permissions"], bob["expires"], bob["state"]) == (["alarms:ack", "tags:read"], None, "valid")
    assert bob["used"].endswith(":00:00.000Z")
    assert not any(secret.rsplit("_", 1)[1] in json.dumps([anna, bob]) for secret in secrets)


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("token", "add", "anna"), exits.USAGE, "either a role or permissions"),
        (("token", "add", "anna", "--role", "chief"), exits.USAGE, "viewer, operator, engineer, admin"),
        (("token", "add", "a b", "--role", "viewer"), exits.USAGE, "E4304"),
        (("token", "add", "anna", "--role", "viewer", "--expires", "0s"), exits.USAGE, "E4304"),
        (("token", "add", "anna", "--role", "viewer", "--expires", "999999999d"), exits.USAGE, "E4304"),
        (("token", "add", "anna", "--role", "viewer", "--expires", "soon"), exits.MISCONFIGURED, "E1110"),
        (("token", "revoke"), exits.USAGE, "E4025"),
        (("token", "revoke", "nobody"), exits.FAILED, "E4307"),
        (("token", "revoke", "--jti", ""), exits.USAGE, "E4304"),
        (("audit", "verify"), exits.FAILED, "E4308"),
    ],
)
def test_what_cannot_be_done_says_why(
    words: tuple[str, ...], code: int, text: str, tmp_path: Path, capsys: Printed
) -> None:
    assert edge(tmp_path, *words) == code
    printed = capsys.readouterr()
    assert (printed.out, text in printed.err) == ("", True), printed.err


def test_home_that_does_not_exist_is_not_made(tmp_path: Path, capsys: Printed) -> None:
    assert edge(tmp_path / "nowhere", "token", "add", "anna", "--role", "admin") == exits.NOT_PERMITTED
    assert not (tmp_path / "nowhere").exists()


def test_damaged_tokens_stop_every_verb(tmp_path: Path, capsys: Printed) -> None:
    edge(tmp_path, "token", "add", "anna", "--role", "admin")
    (tmp_path / "access" / "tokens.json").write_text("{")
    for words in (("ls",), ("revoke", "anna"), ("add", "bob", "--role", "admin")):
        assert edge(tmp_path, "token", *words) == exits.MISCONFIGURED
    assert capsys.readouterr().err.count("E4301") == 3


def test_every_change_is_noted_with_its_outcome(tmp_path: Path, capsys: Printed) -> None:
    edge(tmp_path, "token", "add", "anna", "--role", "admin")
    secret = capsys.readouterr().out.strip().rsplit("_", 1)[1]
    edge(tmp_path, "token", "add", "anna", "--role", "viewer")
    edge(tmp_path, "token", "revoke", "anna", "--jti", "j1")
    capsys.readouterr()
    assert edge(tmp_path, "audit", "ls") == exits.OK
    noted = rows(capsys)
    assert [(note["action"], note["target"], note["outcome"]) for note in noted] == [
        ("tokens.revoke_jwt", "j1", "ok"),
        ("tokens.revoke", "anna", "ok"),
        ("tokens.create", "anna", "E4304"),
        ("tokens.create", "anna", "ok"),
    ]
    assert all(note["actor"].startswith("local:uid ") for note in noted)
    assert secret not in (tmp_path / "access" / "audit.jsonl").read_text()
    assert edge(tmp_path, "audit", "ls", "--action", "tokens.rev", "--last", "1") == exits.OK
    assert [note["target"] for note in rows(capsys)] == ["j1"]
    assert edge(tmp_path, "audit", "ls", "--actor", "nobody") == exits.OK
    assert capsys.readouterr() == ("", "nothing like it is noted\n")


def test_nothing_is_changed_that_cannot_be_noted(tmp_path: Path, capsys: Printed) -> None:
    edge(tmp_path, "token", "add", "anna", "--role", "admin")
    (tmp_path / "access" / "audit.head").unlink()
    (tmp_path / "access" / "audit.head").mkdir()
    assert edge(tmp_path, "token", "revoke", "anna") == exits.FAILED
    assert "E4306" in capsys.readouterr().err
    assert edge(tmp_path, "token", "ls") == exits.OK
    assert [row["name"] for row in rows(capsys)] == ["anna"]


def test_verify_says_which_line_breaks(tmp_path: Path, capsys: Printed) -> None:
    for name in ("anna", "bob", "carl"):
        edge(tmp_path, "token", "add", name, "--role", "viewer")
    capsys.readouterr()
    assert edge(tmp_path, "audit", "verify") == exits.OK
    printed = capsys.readouterr()
    assert json.loads(printed.out)["records"] == 3
    assert "the chain holds" in printed.err
    path = tmp_path / "access" / "audit.jsonl"
    path.write_bytes(path.read_bytes().replace(b"bob", b"eve"))
    assert main(["audit", "verify", str(tmp_path / "access")]) == exits.FAILED
    printed = capsys.readouterr()
    assert "audit.jsonl:3: record 3 does not hold the hash" in printed.err
    assert json.loads(printed.out)["findings"] == 1


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


async def test_setup_token_is_shown_on_a_terminal_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = room_of(tmp_path)
    for stream in (io.StringIO(), Terminal()):
        monkeypatch.setattr(sys, "stderr", stream)
        tell_first_start(room, tmp_path)
        assert "edge token add NAME --role admin" in stream.getvalue()
        assert ("edge_setup_" in stream.getvalue()) == stream.isatty()
    text = stream.getvalue().split()[-1]
    principal = await room.authenticate(f"Bearer {text}", "10.0.0.7")
    assert principal.permissions == {Permission.USERS_ADMIN}
    monkeypatch.undo()
    edge(tmp_path, "token", "add", "anna", "--role", "admin")
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    tell_first_start(room, tmp_path)
    assert stream.getvalue() == ""
    await room.close()
