"""Small honest stand-ins for what stands behind the API: a desk, an access room, an audit log. In memory.

They keep the promises of contract/command.py and contract/access.py that a door can see: the same id is the same
command, what may not be written is refused, a revoked token is no token, an audit log that cannot write raises.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from framegate.access.roles import ROLES
from framegate.access.token import Token, TokenWish, make_token
from framegate.contract.access import AuditEntry, Principal
from framegate.contract.command import Asker, Command, CommandRecord, Outcome, Stage
from framegate.contract.errors import Denied, Misconfigured, StoreFailed

RECEIVED_NS = 1_795_000_000_000_000_000


@dataclass
class MemoryDesk:
    """Commands in memory.

    outcomes  by tag: (outcome, code, reason); a tag that is not in it is confirmed
    held      tags whose commands wait until `release` is called
    """

    outcomes: dict[str, tuple[Outcome, str, str]] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)
    records: dict[str, CommandRecord] = field(default_factory=dict)
    sent: list[Command] = field(default_factory=list)
    is_broken: bool = False
    _moved: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def submit(self, commands: Sequence[Command], asker: Asker) -> Sequence[CommandRecord]:
        if self.is_broken:
            raise StoreFailed("command log: the disk does not take it", code="E3011")
        async with self._moved:
            records = [self._taken(command, asker) for command in commands]
            self._moved.notify_all()
        return records

    async def wait(self, id: str, seconds: float) -> CommandRecord | None:  # noqa: A002 - as in contract.command
        try:
            async with asyncio.timeout(seconds), self._moved:
                await self._moved.wait_for(lambda: self.records[id].outcome is not None)
        except TimeoutError:
            pass
        return self.records.get(id)

    def find(self, id: str) -> CommandRecord | None:  # noqa: A002 - as in contract.command
        return self.records.get(id)

    def recent(self, limit: int, before: str = "") -> Sequence[CommandRecord]:
        newest = list(reversed(self.records.values()))
        ids = [record.command.id for record in newest]
        start = ids.index(before) + 1 if before in ids else 0
        return newest[start : start + limit]

    async def waiting(self, commands: int) -> None:
        """Until so many commands are known."""
        async with asyncio.timeout(5), self._moved:
            await self._moved.wait_for(lambda: len(self.records) >= commands)

    async def release(self, tag: str) -> None:
        """Let what is held go on."""
        self.held.discard(tag)
        async with self._moved:
            for id_, record in self.records.items():
                if record.command.tag == tag and record.outcome is None:
                    self.records[id_] = self._ended(record)
            self._moved.notify_all()

    def _taken(self, command: Command, asker: Asker) -> CommandRecord:
        known = self.records.get(command.id)
        if known is not None and known.command == command:
            return known
        record = CommandRecord(command, asker.origin, Stage.ACCEPTED, None, "", "", RECEIVED_NS, 0)
        if known is not None:
            text = "this id was used with another content"
            return replace(record, outcome=Outcome.REJECTED, code="E4203", reason=text)
        if not asker.may(command.tag):
            record = replace(record, outcome=Outcome.REJECTED, code="E4300", reason="may not write", ended=RECEIVED_NS)
        elif command.tag not in self.held:
            record = self._ended(record)
        self.records[command.id] = record
        return record

    def _ended(self, record: CommandRecord) -> CommandRecord:
        outcome, code, reason = self.outcomes.get(record.command.tag, (Outcome.CONFIRMED, "", ""))
        if outcome in {Outcome.CONFIRMED, Outcome.UNKNOWN}:
            self.sent.append(record.command)
        ended = RECEIVED_NS + 1
        return replace(record, stage=Stage.DISPATCHED, outcome=outcome, code=code, reason=reason, ended=ended)


@dataclass
class MemoryAccess:
    """Principals by their tokens; those in `revoked`, by name, are nobody any more."""

    principals: dict[str, Principal] = field(default_factory=dict)
    revoked: set[str] = field(default_factory=set)
    made: dict[str, Token] = field(default_factory=dict)

    def add(self, role: str, tags: tuple[str, ...] = ("*",), name: str = "") -> str:
        """A token of somebody with a role; returns the Authorization header."""
        name = name or role
        self.principals[f"Bearer {name}"] = Principal(name, ROLES[role], tags)
        return f"Bearer {name}"

    async def authenticate(self, authorization: str, peer: str) -> Principal:
        principal = self.principals.get(authorization)
        if principal is None or not self.is_valid(principal):
            raise Denied("no valid credentials; send Authorization: Bearer TOKEN")
        return principal

    def is_valid(self, principal: Principal) -> bool:
        return principal.name not in self.revoked

    def tokens(self) -> Sequence[Token]:
        return tuple(self.made.values())

    def last_used(self) -> Mapping[str, int]:
        return {}

    async def create_token(self, wish: TokenWish, by: Principal) -> tuple[Token, str]:
        token, text = make_token(wish, RECEIVED_NS, secrets.token_bytes)
        if any(one.name == token.name for one in self.made.values()):
            raise Misconfigured(f"token {token.name}: there is one of this name", code="E4304")
        self.made[token.id] = token
        self.principals[f"Bearer {text}"] = token.principal("")
        return token, text

    async def revoke_token(self, name: str) -> Token:
        token = next((one for one in self.made.values() if name in {one.name, one.id}), None)
        if token is None:
            raise Misconfigured(f"token {name}: there is none", code="E4307")
        self.revoked.add(token.principal("").name)
        return self.made.pop(token.id)

    async def audit_records(self, limit: int, before: int = 0) -> Sequence[Mapping[str, Any]]:
        return [{"seq": 1, "action": "tokens.create"}][:limit]


@dataclass
class MemoryAudit:
    """What was noted, in order; `room` entries are taken before the disk is full."""

    entries: list[AuditEntry] = field(default_factory=list)
    room: int = 1_000_000

    async def note(self, entry: AuditEntry) -> None:
        if len(self.entries) >= self.room:
            raise StoreFailed("audit log: no space left; nothing was done", code="E4306")
        self.entries.append(entry)

    @property
    def story(self) -> list[tuple[str, str, str, str]]:
        """Who, what, to what, with which outcome."""
        return [(one.actor, one.action, one.target, one.outcome) for one in self.entries]
