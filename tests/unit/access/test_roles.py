"""Roles: each holds what the one before it holds; the page that operators read says the same as the code."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from framegate.access.roles import ROLES
from framegate.access.room import open_access
from framegate.config import load_tables, write_samples
from framegate.contract.access import Access, Audit, AuditEntry, Permission
from framegate.contract.errors import Denied
from framegate.endpoint.clock import SystemClock
from framegate.package.discover import discover
from framegate.testing.fakes import CollectingLog, FakeClock

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "how-to" / "access.md").read_text(encoding="utf-8")


def test_each_role_holds_what_the_one_before_holds() -> None:
    assert list(ROLES) == ["viewer", "operator", "engineer", "admin"]
    assert all(lesser < greater for lesser, greater in pairwise(ROLES.values()))
    assert ROLES["admin"] == set(Permission)


def test_only_operators_and_above_change_the_plant() -> None:
    holders = [name for name, role in ROLES.items() if Permission.TAGS_WRITE in role]
    assert holders == ["operator", "engineer", "admin"]
    assert [name for name, role in ROLES.items() if Permission.USERS_ADMIN in role] == ["admin"]


def test_page_lists_every_permission_with_its_roles() -> None:
    rows = re.findall(r"^\| `([a-z:]+)` \|(.*)\|$", PAGE, re.MULTILINE)
    listed = {name: [cell.strip() == "x" for cell in cells.split("|")[1:]] for name, cells in rows}
    assert listed == {each.value: [each in role for role in ROLES.values()] for each in Permission}
    header = re.search(r"^\| permission \|(.*)\|$", PAGE, re.MULTILINE)
    assert header is not None
    assert [cell.strip() for cell in header[1].split("|")][1:] == list(ROLES)


async def test_issuer_of_the_page_lets_its_tokens_in(tmp_path: Path, issuer: Any, clock: FakeClock) -> None:
    write_samples(tmp_path / "config", discover())
    (example,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    path = tmp_path / "config" / "drivers.yml"
    text = path.read_text(encoding="utf-8")
    path.write_text(example + text[text.index("\ndrivers:") :], encoding="utf-8")
    row = load_tables(tmp_path / "config", discover()).gateway
    room = open_access(tmp_path, row.name, row.tenant, row.access.issuers, clock, CollectingLog())
    principal = await room.authenticate(f"Bearer {issuer.token(aud='framegate')}", "10.0.0.7")
    assert principal.tenant == "gas"
    with pytest.raises(Denied):
        await room.authenticate(f"Bearer {issuer.token(aud='gw1')}", "10.0.0.7")
    await room.close()


async def test_room_of_a_home_without_anything_refuses_everybody(tmp_path: Path) -> None:
    opened = open_access(tmp_path, "gw1", "gas", [], SystemClock(), CollectingLog())
    room: Access = opened
    audit: Audit = opened.audit
    for text in ("edge_00000000_" + "0" * 64, "admin", "a.b.c", "edge_setup_" + "0" * 64):
        with pytest.raises(Denied):
            await room.authenticate(f"Bearer {text}", "10.0.0.7")
    await audit.note(AuditEntry("nobody", "access.authenticate", "", "denied"))
    await opened.close()
