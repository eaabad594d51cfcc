"""Tokens of the home: shown once, kept as hashes; refused when wrong, revoked, expired, or of another home."""

from __future__ import annotations

import hmac
import json
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from framegate.access import token, token_file
from framegate.access.roles import ROLES
from framegate.access.room import AccessRoom, open_access
from framegate.access.setup import VALID_S
from framegate.access.token import TokenWish
from framegate.access.token_file import Book, TokenFile
from framegate.contract.access import Permission, Principal
from framegate.contract.errors import Denied, Misconfigured, StoreFailed
from framegate.testing.fakes import CollectingLog, FakeClock

ADMIN = Principal("token:root:00000000", frozenset(Permission))
PEER = "10.0.0.7"


async def made(room: AccessRoom, name: str = "anna", role: str = "operator", **wish: Any) -> str:
    return (await room.create_token(TokenWish(name, role, **wish), ADMIN))[1]


async def refused(room: AccessRoom, header: str, peer: str = PEER) -> str:
    with pytest.raises(Denied) as error:
        await room.authenticate(header, peer)
    return error.value.stable_code


async def test_token_of_a_role_may_what_the_role_may_on_its_tags(room: AccessRoom) -> None:
    text = await made(room, tags=("pump*", "meter1.*"))
    principal = await room.authenticate(f"Bearer {text}", PEER)
    assert principal.permissions == ROLES["operator"]
    assert principal.may(Permission.TAGS_WRITE, "pump7.speed")
    assert principal.may(Permission.TAGS_WRITE, "meter1.total")
    assert not principal.may(Permission.TAGS_WRITE, "valve1.open")
    assert not principal.may(Permission.CONFIG_APPLY)
    assert (principal.tenant, principal.name.startswith("token:anna:")) == ("gas", True)
    assert room.is_valid(principal)


async def test_token_of_permissions_has_just_those(room: AccessRoom) -> None:
    text = await made(room, role="", permissions=("tags:read", "alarms:ack"))
    principal = await room.authenticate(f"bearer {text}", PEER)
    assert principal.permissions == {Permission.TAGS_READ, Permission.ALARMS_ACK}


async def test_text_of_a_token_is_kept_nowhere(room: AccessRoom, tmp_path: Path, log: CollectingLog) -> None:
    text = await made(room)
    await room.authenticate(f"Bearer {text}", PEER)
    secret = text.rsplit("_", 1)[1]
    assert len(bytes.fromhex(secret)) * 8 == 256
    kept = [path for path in (tmp_path / "access").iterdir() if secret.encode() in path.read_bytes()]
    assert (kept, secret in str(log.lines), secret in repr(room.tokens())) == ([], False, False)
    assert stat.S_IMODE((tmp_path / "access" / "tokens.json").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "access").stat().st_mode) == 0o700


WRONG: dict[str, Callable[[str], str]] = {
    "cut": lambda text: text[:-1],
    "longer": lambda text: text + "0",
    "last digit changed": lambda text: text[:-1] + ("0" if text[-1] != "0" else "1"),
    "first digit of the secret changed": lambda text: f"{text[:14]}{'0' if text[14] != '0' else '1'}{text[15:]}",
    "id unknown": lambda text: f"edge_{'0' * 8}{text[13:]}",
    "id of nobody with its hash": lambda _: f"edge_{'0' * 8}_{'0' * 64}",
    "only the id": lambda text: text[:13],
    "in capital letters": lambda text: text[:14] + text[14:].upper().replace("0", "O"),
    "prefix in capitals": lambda text: text.replace("edge", "EDGE"),
    "NUL behind": lambda text: text + "\0",
    "NUL within": lambda text: f"{text[:20]}\0{text[20:]}",
    "line end behind": lambda text: text + "\n",
    "wide digits": lambda text: text[:14] + "".join(chr(0xFF10 + int(c)) if c.isdigit() else c for c in text[14:]),
    "arabic digits": lambda text: text[:14] + "".join(chr(0x660 + int(c)) if c.isdigit() else c for c in text[14:]),
    "padded": lambda text: text + "=",
    "huge": lambda text: text * 20_000,
    "its hash in place of the secret": lambda text: text[:14] + token.hash_of(text),
    "as set-up token": lambda text: f"edge_setup_{text[14:]}",
    "empty": lambda _: "",
}


@pytest.mark.parametrize("name", WRONG)
async def test_wrong_token_is_refused(name: str, room: AccessRoom) -> None:
    text = await made(room)
    assert await refused(room, f"Bearer {WRONG[name](text)}") == "E4300"
    assert await room.authenticate(f"Bearer {text}", PEER)


async def test_missing_header_is_refused_and_no_guess(room: AccessRoom) -> None:
    for _ in range(50):
        assert await refused(room, "") == "E4300"


async def test_token_of_another_home_is_refused(room: AccessRoom, tmp_path: Path, clock: FakeClock) -> None:
    (tmp_path / "other").mkdir()
    other = open_access(tmp_path / "other", "gw2", "gas", [], clock, CollectingLog())
    await made(room)
    assert await refused(room, f"Bearer {await made(other)}") == "E4300"
    await other.close()


async def test_unknown_id_takes_the_same_comparison(room: AccessRoom, monkeypatch: pytest.MonkeyPatch) -> None:
    text = await made(room)
    compared: list[tuple[str, str]] = []
    sound = hmac.compare_digest

    def compare(a: str, b: str) -> bool:
        compared.append((a, b))
        return sound(a, b)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    steps = []
    for wrong in (WRONG["last digit changed"](text), WRONG["id unknown"](text)):
        compared.clear()
        await refused(room, f"Bearer {wrong}")
        steps.append([(len(a), len(b)) for a, b in compared])
    assert steps[0] == steps[1] != []


async def test_revoked_token_is_refused_at_once_also_when_another_process_revoked_it(
    room: AccessRoom, tmp_path: Path, clock: FakeClock
) -> None:
    text = await made(room)
    principal = await room.authenticate(f"Bearer {text}", PEER)
    TokenFile(tmp_path / "access", clock).revoke("anna")
    assert not room.is_valid(principal)
    assert await refused(room, f"Bearer {text}") == "E4300"


async def test_expired_token_is_refused_and_no_longer_valid(room: AccessRoom, clock: FakeClock) -> None:
    text = await made(room, expires=clock.now_ns() + 10**9)
    principal = await room.authenticate(f"Bearer {text}", PEER)
    clock.step_wall(1)
    assert not room.is_valid(principal)
    assert await refused(room, f"Bearer {text}") == "E4300"


@pytest.mark.parametrize(
    "wish",
    [
        TokenWish("", "viewer"),
        TokenWish("a b", "viewer"),
        TokenWish("anna\n", "viewer"),
        TokenWish("../x", "viewer"),
        TokenWish("a" * 65, "viewer"),
        TokenWish("deadbeef", "viewer"),
        TokenWish("anna", "root"),
        TokenWish("anna"),
        TokenWish("anna", "viewer", ("tags:read",)),
        TokenWish("anna", permissions=("tags:fly",)),
        TokenWish("anna", "viewer", tags=()),
        TokenWish("anna", "viewer", tags=("",)),
        TokenWish("anna", "viewer", tags=("a\n",)),
        TokenWish("anna", "viewer", tags=("a",) * 33),
        TokenWish("anna", "viewer", tags=("a" * 257,)),
        TokenWish("anna", "viewer", expires=1),
    ],
)
async def test_senseless_wish_makes_no_token(wish: TokenWish, room: AccessRoom) -> None:
    with pytest.raises(Misconfigured) as error:
        await room.create_token(wish, ADMIN)
    assert error.value.stable_code == "E4304"
    assert room.tokens() == ()


async def test_name_is_given_once_and_tokens_are_bounded(room: AccessRoom, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_file, "TOKENS_MAX", 2)
    await made(room)
    for name, why in (("anna", "of this name"), ("bob", ""), ("carl", "2 already")):
        if why:
            with pytest.raises(Misconfigured, match=why):
                await made(room, name)
        else:
            await made(room, name)
    await room.revoke_token("anna")
    await made(room, "carl")
    with pytest.raises(Misconfigured) as error:
        await room.revoke_token("anna")
    assert error.value.stable_code == "E4307"


async def test_revoked_jwts_are_bounded_and_forgotten_once_they_have_expired(
    room: AccessRoom, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_file, "REVOKED_MAX", 2)
    for jti in ("a", "b"):
        await room.revoke_jwt(jti)
    with pytest.raises(Misconfigured):
        await room.revoke_jwt("c")
    clock.step_wall(2 * 86_400)
    await room.revoke_jwt("c")
    for wrong in ("", "a\n", "a" * 129):
        with pytest.raises(Misconfigured):
            await room.revoke_jwt(wrong)


def changed(key: str, value: Any) -> Callable[[str], str]:
    """The file's text with one key of its only token changed."""

    def change(text: str) -> str:
        raw = json.loads(text)
        raw["tokens"][0][key] = value
        return json.dumps(raw)

    return change


DAMAGE: dict[str, Callable[[str], str]] = {
    "empty": lambda _: "",
    "cut": lambda text: text[: len(text) // 2],
    "zeros": lambda text: "\0" * len(text),
    "null": lambda _: "null",
    "list": lambda _: "[]",
    "other format": lambda text: text.replace('"format": 1', '"format": 2'),
    "key more": lambda text: text.replace('"format": 1', '"format": 1, "x": 1'),
    "tokens gone": lambda _: '{"format": 1}',
    "tokens null": lambda _: '{"format": 1, "tokens": null, "revoked": {}}',
    "token twice": lambda text: json.dumps({**json.loads(text), "tokens": json.loads(text)["tokens"] * 2}),
    "role unknown": changed("role", "root"),
    "permission unknown": changed("permissions", ["tags:fly"]),
    "tags empty": changed("tags", []),
    "tags numbers": changed("tags", [1]),
    "hash cut": changed("sha256", "00"),
    "id a path": changed("id", "../../x"),
    "expires a text": changed("expires", "never"),
    "expires negative": changed("expires", -1),
    "unknown key": changed("note", ""),
    "revoked a text": lambda text: text.replace('"revoked": {}', '"revoked": {"j": "x"}'),
    "huge": lambda text: text + " " * (token_file.FILE_BYTES_MAX + 1),
}


@pytest.mark.parametrize("name", DAMAGE)
async def test_damaged_file_lets_nobody_in_and_is_told_once(
    name: str, room: AccessRoom, issuer: Any, tmp_path: Path, log: CollectingLog
) -> None:
    text = await made(room)
    principal = await room.authenticate(f"Bearer {text}", PEER)
    path = tmp_path / "access" / "tokens.json"
    whole = path.read_text()
    path.write_text(DAMAGE[name](whole))
    for _ in range(2):
        assert await refused(room, f"Bearer {text}") == "E4301"
        assert await refused(room, f"Bearer {issuer.token()}") == "E4301"
    assert not room.is_valid(principal)
    assert room.setup_token() == ""
    assert len(log.events("access_tokens_damaged")) == 1
    with pytest.raises(Misconfigured) as error:
        await made(room, "bob")
    assert error.value.stable_code == "E4301"
    path.write_text(whole)
    assert room.is_valid(await room.authenticate(f"Bearer {text}", PEER))


async def test_file_that_others_may_write_lets_nobody_in(room: AccessRoom, tmp_path: Path) -> None:
    text = await made(room)
    (tmp_path / "access" / "tokens.json").chmod(0o620)
    assert await refused(room, f"Bearer {text}") == "E4301"
    (tmp_path / "access" / "tokens.json").chmod(0o600)
    assert await room.authenticate(f"Bearer {text}", PEER)


async def test_unwritable_folder_changes_nothing(room: AccessRoom, tmp_path: Path) -> None:
    text = await made(room)
    (tmp_path / "access" / ".tokens.json.new").mkdir()  # in the way of the file written aside
    with pytest.raises(StoreFailed) as error:
        await made(room, "bob")
    assert error.value.stable_code == "E4303"
    assert [each.name for each in room.tokens()] == ["anna"]
    assert await room.authenticate(f"Bearer {text}", PEER)


def test_tokens_made_at_once_by_many_are_all_kept(tmp_path: Path, clock: FakeClock) -> None:
    def add(number: int) -> None:
        TokenFile(tmp_path / "access", clock).add(TokenWish(f"t{number}", "viewer"))

    threads = [threading.Thread(target=add, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    names = {each.name for each in TokenFile(tmp_path / "access", clock).book().tokens.values()}
    assert names == {f"t{number}" for number in range(12)}


async def test_file_is_read_only_when_it_has_changed(room: AccessRoom, monkeypatch: pytest.MonkeyPatch) -> None:
    text = await made(room)
    await room.authenticate(f"Bearer {text}", PEER)
    reads: list[TokenFile] = []
    sound = TokenFile._read

    def read(self: TokenFile) -> Book:
        reads.append(self)
        return sound(self)

    monkeypatch.setattr(TokenFile, "_read", read)
    for _ in range(10):
        await room.authenticate(f"Bearer {text}", PEER)
    assert reads == []
    await room.create_token(TokenWish("bob", "viewer"), ADMIN)
    for _ in range(10):
        await room.authenticate(f"Bearer {text}", PEER)
    assert len(reads) == 2  # under the lock of the change, and at the next look


async def test_last_use_is_kept_to_the_hour(room: AccessRoom, tmp_path: Path, clock: FakeClock) -> None:
    text = await made(room)
    for _ in range(3):
        await room.authenticate(f"Bearer {text}", PEER)
    (id_,) = room.last_used()
    hour = room.last_used()[id_]
    assert 0 <= clock.now_ns() - hour < 3600 * 10**9
    await room.close()
    assert json.loads((tmp_path / "access" / "used.json").read_bytes()) == {id_: hour}


# -- the set-up token ------------------------------------------------------------------------------------------


async def test_setup_token_makes_the_first_admin_and_nothing_else(room: AccessRoom) -> None:
    text = room.setup_token()
    by = await room.authenticate(f"Bearer {text}", PEER)
    assert by.permissions == {Permission.USERS_ADMIN}
    assert not by.may(Permission.USERS_ADMIN, "pump7.speed")
    with pytest.raises(Denied):
        await room.create_token(TokenWish("anna", "operator"), by)
    _, admin = await room.create_token(TokenWish("root", "admin"), by)
    assert not room.is_valid(by)
    with pytest.raises(Denied):
        await room.create_token(TokenWish("root2", "admin"), by)
    assert await refused(room, f"Bearer {text}") == "E4300"
    assert (await room.authenticate(f"Bearer {admin}", PEER)).permissions == set(Permission)
    assert room.setup_token() == ""
    await room.revoke_token("root")
    assert await refused(room, f"Bearer {text}") == "E4300"


async def test_setup_token_ends_after_a_quarter_of_an_hour(room: AccessRoom, clock: FakeClock) -> None:
    text = room.setup_token()
    by = await room.authenticate(f"Bearer {text}", PEER)
    clock.step_wall(-3600)
    await clock.advance(VALID_S)
    assert not room.is_valid(by)
    with pytest.raises(Denied):
        await room.create_token(TokenWish("root", "admin"), by)
    assert await refused(room, f"Bearer {text}") == "E4300"


async def test_newer_setup_token_ends_the_older_one(room: AccessRoom) -> None:
    older, newer = room.setup_token(), room.setup_token()
    assert await refused(room, f"Bearer {older}") == "E4300"
    assert await room.authenticate(f"Bearer {newer}", PEER)


async def test_setup_token_is_of_no_use_once_somebody_else_made_a_token(
    room: AccessRoom, tmp_path: Path, clock: FakeClock
) -> None:
    text = room.setup_token()
    by = await room.authenticate(f"Bearer {text}", PEER)
    TokenFile(tmp_path / "access", clock).add(TokenWish("root", "admin"))
    with pytest.raises(Denied):
        await room.create_token(TokenWish("second", "admin"), by)
    assert not room.is_valid(by)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
async def test_files_made_by_root_belong_to_the_owner_of_the_home(tmp_path: Path, clock: FakeClock) -> None:
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, 1234, 1234)
    room = open_access(home, "gw1", "gas", [], clock, CollectingLog())
    await made(room)
    await room.close()
    owners = {path.name: path.stat().st_uid for path in (home / "access", *(home / "access").iterdir())}
    assert owners == dict.fromkeys(("access", "tokens.json", ".tokens.lock"), 1234)
