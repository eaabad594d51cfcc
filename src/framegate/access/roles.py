"""Roles: sets of permissions with a name. Code asks for permissions; only tokens know roles.

`users:admin` makes tokens of any kind, so whoever holds it holds everything.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from framegate.contract.access import Permission

VIEWER = frozenset((Permission.TAGS_READ, Permission.FRAMES_READ, Permission.ALARMS_READ, Permission.SYSTEM_READ))
OPERATOR = VIEWER | {Permission.TAGS_WRITE, Permission.ALARMS_ACK}
ENGINEER = OPERATOR | {
    Permission.FRAMES_REPLAY,
    Permission.CONFIG_READ,
    Permission.CONFIG_APPLY,
    Permission.AUDIT_READ,
}
ADMIN = frozenset(Permission)

ROLES: Mapping[str, frozenset[Permission]] = MappingProxyType(
    {"viewer": VIEWER, "operator": OPERATOR, "engineer": ENGINEER, "admin": ADMIN}
)
