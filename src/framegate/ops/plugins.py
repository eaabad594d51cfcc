"""Plugins on the control socket, for `edge plugin`: what there is and what waits, and changes of it.

{"op": "plugin_ls"}
{"op": "plugin_stage", "file": "/srv/acme-1.3.0.edge"}      verified, not active yet
{"op": "plugin_activate", "name": "acme", "accept": "5f0c..."}
{"op": "plugin_rollback", "name": "acme", "version": "1.1.0", "reason": "..."}     version absent: the last one
{"op": "plugin_remove", "name": "acme"}
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from framegate.contract.errors import FrameBroken
from framegate.observe.plugin_face import PluginFace
from framegate.ops.message import REASON_CHARACTERS_MAX

PLUGIN_OPS = ("plugin_ls", "plugin_stage", "plugin_activate", "plugin_rollback", "plugin_remove")
Note = Callable[[str, str, Mapping[str, Any]], Awaitable[None]]
"""Has an act noted first: action, target, details."""


async def reply_of_plugins(face: PluginFace, request: Mapping[str, Any], user: str, note: Note) -> Mapping[str, Any]:
    """Answer one request. user: "uid 1000"; raises FrameBroken E4013, and as PluginFace."""
    by = f"local:{user}"
    match request["op"]:
        case "plugin_ls":
            return {"ok": True, "plugins": face.plugins(), "staged": face.staged()}
        case "plugin_stage":
            file = Path(_text(request, "file"))
            if not file.is_absolute():
                raise FrameBroken("control socket: file is to be an absolute path", code="E4013")
            await note("plugins.install", file.name, {"file": str(file)})
            return {"ok": True, "staged": await face.stage(file, by)}
        case "plugin_activate":
            name, accept = _text(request, "name"), _text(request, "accept")
            await note("plugins.install", name, {"accept": accept})
            return {"ok": True, "change": await face.activate(name, accept, by)}
        case "plugin_rollback":
            name, version = _text(request, "name"), str(request.get("version", ""))
            reason = str(request.get("reason", ""))[:REASON_CHARACTERS_MAX]
            await note("plugins.rollback", name, {"version": version, "reason": reason})
            return {"ok": True, "change": await face.roll_back(name, by, version, reason)}
        case _:
            name = _text(request, "name")
            await note("plugins.remove", name, {})
            return {"ok": True, "change": await face.remove(name, by)}


def _text(request: Mapping[str, Any], key: str) -> str:
    value = request.get(key)
    if not isinstance(value, str) or not value or "\0" in value:
        raise FrameBroken(f"control socket: {key} is to be a text", code="E4013")
    return value
