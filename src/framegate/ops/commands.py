"""Commands on the control socket: `write` submits, `command` tells of one and may wait, `commands` lists the newest.

    {"op": "write", "commands": [{"id": "01JD...", "tag": "pump7.speed", "value": 42.0, "verify": true}]}
    {"op": "command", "id": "01JD...", "wait_s": 5}
    {"op": "commands", "limit": 20, "before": ""}

Whoever may open the socket may write what the tables allow; the asker is the user id that the kernel tells.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from framegate.contract.command import Asker, Desk
from framegate.contract.errors import DeviceRefused, FrameBroken
from framegate.contract.quality import Quality
from framegate.ops.message import COMMAND_WAIT_S_MAX, COMMANDS_PER_PAGE_MAX, COMMANDS_PER_REQUEST_MAX, command_from

COMMAND_OPS = ("write", "command", "commands")


async def reply_of_commands(desk: Desk, request: Mapping[str, Any], user: str) -> Mapping[str, Any]:
    """Answer one request. user: "uid 1000"; raises FrameBroken E4013, DeviceRefused E4219, StoreFailed, Busy."""
    match request["op"]:
        case "write":
            wanted = request.get("commands")
            if not isinstance(wanted, list) or not 0 < len(wanted) <= COMMANDS_PER_REQUEST_MAX:
                text = f"control socket: commands is to be a list of 1 to {COMMANDS_PER_REQUEST_MAX}"
                raise FrameBroken(text, code="E4013")
            asker = Asker(f"local:{user}", _whoever_may_enter)
            return {"ok": True, "records": await desk.submit([command_from(row) for row in wanted], asker)}
        case "command":
            id_, wait_s = str(request.get("id", "")), request.get("wait_s", 0)
            if not isinstance(wait_s, int | float) or not 0 <= wait_s <= COMMAND_WAIT_S_MAX:
                text = f"control socket: wait_s is to be a number from 0 to {COMMAND_WAIT_S_MAX:g}"
                raise FrameBroken(text, code="E4013")
            record = await desk.wait(id_, wait_s)
            if record is None:
                text = f"command {id_:.64}: no such command is known; `edge commands ls` lists the newest"
                raise DeviceRefused(text, code="E4219", quality=Quality.BAD_NODE_ID_UNKNOWN)
            return {"ok": True, "record": record}
        case _:
            limit = request.get("limit", COMMANDS_PER_PAGE_MAX)
            if not isinstance(limit, int) or not 0 < limit <= COMMANDS_PER_PAGE_MAX:
                text = f"control socket: limit is to be a number from 1 to {COMMANDS_PER_PAGE_MAX}"
                raise FrameBroken(text, code="E4013")
            return {"ok": True, "records": desk.recent(limit, str(request.get("before", "")))}


def _whoever_may_enter(tag: str) -> bool:
    """The rights of the home folder decide (docs/decisions/0003); which tags may be written, the tables."""
    return bool(tag)
