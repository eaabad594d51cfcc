"""What is told of plugins: records for people and programs, and the digest that an acceptance gives back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from framegate.config import Tables
from framegate.contract.errors import Misconfigured
from framegate.contract.plugin import Manifest, Permissions
from framegate.observe.plugin_face import PluginRecord, StagedRecord

ACCEPT_DIGITS = 32
USERS_TOLD_MAX = 10


class Users(NamedTuple):
    """Rows that name a plugin, enabled or not."""

    devices: tuple[str, ...]
    connectors: tuple[str, ...]
    bridges: tuple[str, ...]
    rules: tuple[str, ...]


def plugin_record(manifest: Manifest, tables: Tables, plugins_folder: Path) -> PluginRecord:
    """A plugin in force. plugins_folder: what lies below it and was not signed is under development."""
    driver = manifest.roles.get("driver")
    users = users_of(manifest.name, tables)
    source = "package" if manifest.files else "folder" if manifest.folder.is_relative_to(plugins_folder) else "built-in"
    return PluginRecord(
        name=manifest.name,
        version=manifest.version,
        serial=manifest.serial,
        summary=manifest.summary,
        source=source,
        shape="python" if driver is None else driver.shape,
        roles=tuple(manifest.roles),
        permissions=words_of(manifest.permissions),
        devices=users.devices,
        connectors=users.connectors,
        bridges=users.bridges,
        rules=users.rules,
    )


def staged_record(
    manifest: Manifest, replaces: Manifest | None, asks: Sequence[str], by: str, now_ns: int
) -> StagedRecord:
    """A package that waits."""
    return StagedRecord(
        name=manifest.name,
        version=manifest.version,
        serial=manifest.serial,
        summary=manifest.summary,
        replaces="" if replaces is None else replaces.version,
        asks=tuple(asks),
        accept=accept_digest(manifest, replaces, asks),
        by=by,
        since_ns=now_ns,
    )


def accept_digest(manifest: Manifest, replaces: Manifest | None, asks: Sequence[str]) -> str:
    """Digest of all that was shown: the package to its last byte, what it replaces, and what it asks beyond that."""
    told = [_identity(manifest), None if replaces is None else _identity(replaces), list(asks)]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:ACCEPT_DIGITS]


def users_of(name: str, tables: Tables) -> Users:
    """Who uses a plugin."""
    return Users(
        tuple(row.name for row in tables.drivers.values() if row.plugin == name),
        tuple(row.name for row in tables.connectors.values() if row.plugin == name),
        tuple(row.name for row in tables.bridges.values() if row.plugin == name),
        tuple(row.name for row in tables.rules.values() if row.options.get("plugin") == name),
    )


def refuse_used(name: str, tables: Tables) -> None:
    """A plugin that rows use stays. Raises Misconfigured E4659."""
    users = [user for kind in users_of(name, tables) for user in kind]
    if users:
        text = f"plugin {name}: rows of drivers.yml use it: {', '.join(users[:USERS_TOLD_MAX])}"
        raise Misconfigured(f"{text}; remove those first", code="E4659")


def words_of(permissions: Permissions) -> tuple[str, ...]:
    """Permissions for people."""
    words = [f"memory {permissions.memory >> 20} MiB"]
    if permissions.network == "own":
        words.append("opens network connections itself")
    if permissions.home:
        words.append("keeps files of its own")
    if permissions.in_process:
        words.append("may ask to run inside the gateway")
    return tuple(words)


def _identity(manifest: Manifest) -> list[object]:
    files = sorted((name, *file) for name, file in manifest.files.items())
    return [manifest.name, manifest.version, manifest.serial, files]
