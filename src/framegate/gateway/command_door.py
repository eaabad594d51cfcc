"""Binds a connector to the desk: who asks, and for which tags, is settled here, not by the connector.

The tags that a connector may write are the globs in option `commands` of its row, looked up each time the desk asks:
a command that waits while a change of the tables takes its permission away is not sent (C8).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from framegate.config import ConnectorRow
from framegate.contract.command import Asker, Command, CommandRecord, Desk
from framegate.contract.connector import CommandDoor

USER_CHARACTERS_MAX = 64
"""Of a remote's user in the origin of a command."""


def command_door(desk: Desk, connector: str, row: Callable[[], ConnectorRow | None]) -> CommandDoor | None:
    """The door of one connector; None where its row allows no tag.

    row  the connector's row in the tables of now; None once it has gone
    """
    return door_of(desk, asker_of(connector, row)) if _globs(row()) else None


def door_of(desk: Desk, asker: Asker) -> CommandDoor:
    """The desk as one asker sees it."""
    return _Door(desk, asker)


def asker_of(connector: str, row: Callable[[], ConnectorRow | None]) -> Asker:
    """Who a connector is to the desk: origin "north:NAME", and the tags that its row allows at the moment of asking."""

    def may(tag: str) -> bool:
        return any(fnmatchcase(tag, glob) for glob in _globs(row()))

    return Asker(f"north:{connector}", may)


class _Door:
    def __init__(self, desk: Desk, asker: Asker) -> None:
        self._desk, self._asker = desk, asker

    async def submit(self, commands: Sequence[Command], by: str = "") -> Sequence[CommandRecord]:
        asker = Asker(f"{self._asker.origin}/{by[:USER_CHARACTERS_MAX]}", self._asker.may) if by else self._asker
        return await self._desk.submit(commands, asker)

    async def wait(self, id: str, seconds: float) -> CommandRecord | None:  # noqa: A002 - as Desk.wait
        return await self._desk.wait(id, seconds)


def _globs(row: ConnectorRow | None) -> Sequence[str]:
    """Globs of tags; none where a row is missing, not enabled, or says nothing that can be understood."""
    commands = row.options.get("commands") if row is not None and row.enabled else None
    globs: Any = commands.get("tags") if isinstance(commands, Mapping) else None
    return [glob for glob in globs if isinstance(glob, str)] if isinstance(globs, list | tuple) else []
