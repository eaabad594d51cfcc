"""Write: a client's values become commands, their outcomes become StatusCodes.

The node's own value does not change here: it changes when the gateway has read or confirmed the new one. All values of
one request are one submission, waited for together. What a client learns:

    CONFIRMED               Good
    REJECTED                by its code, see REJECTED below; surely not applied
    NOT_SENT                BadNotConnected, BadTimeout or BadResourceUnavailable; surely not applied
    UNKNOWN, or no outcome  Uncertain: it may be applied or not; read before writing again

Source: OPC UA Part 4, 5.10.4; contract/command.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final
from uuid import uuid4

from framegate.contract.command import Command, CommandRecord, Outcome
from framegate.contract.connector import CommandDoor
from framegate.contract.errors import Busy, StoreFailed
from framegate_plugins.opcua.server.attributes import VALUE, attribute_of
from framegate_plugins.opcua.server.binary import Variant
from framegate_plugins.opcua.server.options import User
from framegate_plugins.opcua.server.requests import WriteValue
from framegate_plugins.opcua.server.space import Node, Space
from framegate_plugins.opcua.server.status import (
    BAD_ATTRIBUTE_ID_INVALID,
    BAD_CONFIGURATION_ERROR,
    BAD_DEVICE_FAILURE,
    BAD_INDEX_RANGE_INVALID,
    BAD_INTERNAL_ERROR,
    BAD_INVALID_STATE,
    BAD_NODE_ID_UNKNOWN,
    BAD_NOT_CONNECTED,
    BAD_NOT_WRITABLE,
    BAD_OUT_OF_RANGE,
    BAD_RESOURCE_UNAVAILABLE,
    BAD_TIMEOUT,
    BAD_TOO_MANY_OPERATIONS,
    BAD_TYPE_MISMATCH,
    BAD_USER_ACCESS_DENIED,
    BAD_WRITE_NOT_SUPPORTED,
    GOOD,
    UNCERTAIN,
)
from framegate_plugins.opcua.server.tag_node import TagNode

REJECTED: Final = {
    "E1195": BAD_OUT_OF_RANGE,  # the device cannot be given this value
    "E4200": BAD_TYPE_MISMATCH,
    "E4201": BAD_NODE_ID_UNKNOWN,
    "E4202": BAD_NOT_WRITABLE,
    "E4205": BAD_USER_ACCESS_DENIED,
    "E4206": BAD_INVALID_STATE,  # interlocked
    "E4207": BAD_INVALID_STATE,  # not selected
    "E4208": BAD_INVALID_STATE,  # selected by another
    "E4209": BAD_TOO_MANY_OPERATIONS,
    "E4211": BAD_DEVICE_FAILURE,  # the device answered, and refused
}
"""Code of a rejected command -> StatusCode; BadInternalError for any other."""
NOT_SENT: Final = {
    "E2600": BAD_TIMEOUT,  # its time ran out before anything was sent
    "E4204": BAD_RESOURCE_UNAVAILABLE,
    "E4213": BAD_NOT_CONNECTED,
    "E4216": BAD_RESOURCE_UNAVAILABLE,
    "E4217": BAD_CONFIGURATION_ERROR,
    "E4218": BAD_RESOURCE_UNAVAILABLE,
}
"""Code of a command that was not sent -> StatusCode; BadNotConnected for any other."""
MARGIN_S: Final = 0.5
"""Waited beyond a command's own time, for its outcome to come back."""


class Writer:
    """Hands in writes. write_s: how long a command may take, unless the client waits less."""

    def __init__(self, space: Space, commands: CommandDoor | None, write_s: float) -> None:
        self._space, self._commands, self._write_s = space, commands, write_s

    async def write(self, values: Sequence[WriteValue], user: User, timeout_ms: int) -> list[int]:
        """One StatusCode for each value."""
        ttl_s = min(self._write_s, timeout_ms / 1000.0) if timeout_ms else self._write_s
        results, places, commands = [], [], []
        for place, value in enumerate(values):
            found = self._command(value, user, ttl_s)
            results.append(found if isinstance(found, int) else UNCERTAIN)
            if isinstance(found, Command):
                places.append(place)
                commands.append(found)
        if commands:
            for place, status in zip(places, await self._submit(commands, user, ttl_s), strict=True):
                results[place] = status
        return results

    async def _submit(self, commands: Sequence[Command], user: User, ttl_s: float) -> list[int]:
        assert self._commands is not None
        try:
            records = await self._commands.submit(commands, user.name)
        except (StoreFailed, Busy):
            return [BAD_RESOURCE_UNAVAILABLE] * len(commands)
        return await asyncio.gather(*(self._outcome(record, ttl_s) for record in records))

    async def _outcome(self, record: CommandRecord, ttl_s: float) -> int:
        if record.outcome is None and self._commands is not None:
            record = await self._commands.wait(record.command.id, ttl_s + MARGIN_S) or record
        return status_of(record)

    def _command(self, value: WriteValue, user: User, ttl_s: float) -> Command | int:
        """The command of one value, or the StatusCode of what keeps it from being one."""
        node = self._space.find(value.node)
        refusal = self._refusal(node, value, user)
        if refusal or not isinstance(node, TagNode):
            return refusal
        try:
            wanted = node.parse(value.value.value or Variant(0, None))
        except TypeError:
            return BAD_TYPE_MISMATCH
        except ValueError:
            return BAD_OUT_OF_RANGE
        return Command(uuid4().hex, node.tag.name, wanted, ttl_s=ttl_s)

    def _refusal(self, node: Node | TagNode | None, value: WriteValue, user: User) -> int:
        """What keeps a node from being written; 0 for a tag that may be."""
        if node is None:
            return BAD_NODE_ID_UNKNOWN
        if not isinstance(node, TagNode) or value.attribute != VALUE:
            has_it = value.attribute == VALUE or attribute_of(node, value.attribute, user) is not None
            return BAD_NOT_WRITABLE if has_it else BAD_ATTRIBUTE_ID_INVALID
        checks = (
            ("W" not in node.tag.access or self._commands is None, BAD_NOT_WRITABLE),
            (not user.may_write(node.tag.name), BAD_USER_ACCESS_DENIED),
            (bool(value.index_range), BAD_INDEX_RANGE_INVALID),
            (value.value.status != GOOD, BAD_WRITE_NOT_SUPPORTED),  # quality is the gateway's; times are passed over
        )
        return next((status for is_so, status in checks if is_so), 0)


def status_of(record: CommandRecord) -> int:
    """What a client is told of a command."""
    match record.outcome:
        case Outcome.CONFIRMED:
            return GOOD
        case Outcome.REJECTED:
            return REJECTED.get(record.code, BAD_INTERNAL_ERROR)
        case Outcome.NOT_SENT:
            return NOT_SENT.get(record.code, BAD_NOT_CONNECTED)
    return UNCERTAIN
