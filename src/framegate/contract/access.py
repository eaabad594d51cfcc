"""Who may do what: permissions, principals, and what doors ask of the access room.

    principal = await access.authenticate("Bearer edge_...", "10.0.0.7")   raises Denied
    if principal.may(Permission.TAGS_WRITE, "pump7.speed"): ...
    if access.is_valid(principal): ...                                     it may have been revoked since
    await audit.note(entry)                                                durable when it returns

Code asks for permissions, never for roles; a role is a set of permissions with a name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum, unique
from fnmatch import fnmatchcase
from typing import Any, Protocol


@unique
class Permission(StrEnum):
    """What can be allowed."""

    TAGS_READ = "tags:read"
    TAGS_WRITE = "tags:write"
    FRAMES_READ = "frames:read"
    FRAMES_REPLAY = "frames:replay"
    ALARMS_READ = "alarms:read"
    ALARMS_ACK = "alarms:ack"
    CONFIG_READ = "config:read"
    CONFIG_APPLY = "config:apply"
    SYSTEM_READ = "system:read"
    AUDIT_READ = "audit:read"
    PLUGINS_ADMIN = "plugins:admin"
    USERS_ADMIN = "users:admin"


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody who has shown who they are.

    name     unique; the part of an origin behind the door: "alice", "token:4f2a"
    tags     globs of tag names that permissions on tags are limited to
    expires  ns UTC; 0 = never
    key      what `is_valid` looks up: a token's id, or a hash of a JWT
    """

    name: str
    permissions: frozenset[Permission]
    tags: tuple[str, ...] = ("*",)
    tenant: str = ""
    expires: int = 0
    key: str = ""

    def may(self, permission: Permission, tag: str | None = None) -> bool:
        """Whether this is allowed; with a tag: on that tag."""
        if permission not in self.permissions:
            return False
        return tag is None or "*" in self.tags or any(fnmatchcase(tag, glob) for glob in self.tags)


class Access(Protocol):
    """Tells who somebody is."""

    async def authenticate(self, authorization: str, peer: str) -> Principal:
        """The principal of an Authorization header.

        peer    address of the asker: guesses are slowed down by it
        raises  Denied E4300 - no, unknown, expired or revoked credentials; Busy E4305 - too many wrong ones from there
        """

    def is_valid(self, principal: Principal) -> bool:
        """Whether the principal still stands: neither expired nor revoked."""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One thing that somebody did, or tried to.

    action   as an operation of the API names itself: "tags.write", "config.apply", "tokens.create"
    target   tag, device, generation, token id
    outcome  "begun", durable before it is done; then "ok", "denied", or a stable code
    details  values before and after, reason, request id; never a secret
    """

    actor: str
    action: str
    target: str
    outcome: str
    peer: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


class Audit(Protocol):
    """The chain of what was done."""

    async def note(self, entry: AuditEntry) -> None:
        """Append; durable on return. Raises StoreFailed E4306: what must be audited must then not be done."""
