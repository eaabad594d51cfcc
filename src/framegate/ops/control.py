"""The control socket of a running gateway: what `edge tags`, `edge top` and their kin talk to.

    server = await serve(face, home / "run" / "edge.sock")
    ...
    await server.close()

Health, tags in pages, one tag, a watch on a window of tags; dead letters, which may be sent again and dropped; rules
and alarms; commands (commands.py); plugins (plugins.py); changes of the configuration and the rewind of a connector.
Whatever changes something is in the audit log before it is done, with the user id that the kernel tells of the asker:
commands and changes of the configuration see to that themselves, the others are noted here. Whoever may enter the
gateway's home may ask (docs/decisions/0003); everything is bounded: bytes of a line, clients, tags, time to read an
answer. Message forms are in message.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from framegate.contract.access import AuditEntry
from framegate.contract.errors import DeviceRefused, FrameBroken, GatewayError, Misconfigured
from framegate.contract.frame import Position
from framegate.contract.quality import Quality
from framegate.observe.face import GatewayFace, TagRow
from framegate.ops.commands import COMMAND_OPS, reply_of_commands
from framegate.ops.message import (
    ALARMS_PER_PAGE_MAX,
    GENERATIONS_PER_PAGE_MAX,
    LETTERS_PER_PAGE_MAX,
    REASON_CHARACTERS_MAX,
    REQUEST_BYTES_MAX,
    TAGS_PER_PAGE_MAX,
    WATCH_ALIVE_S,
    WATCH_INTERVAL_S,
    WATCHED_TAGS_MAX,
    decode,
    encode,
    problems_as_rows,
)
from framegate.ops.plugins import PLUGIN_OPS, reply_of_plugins
from framegate.ops.socket_file import listening_socket

CONFIG_OPS = ("config_apply", "config_rollback", "config_history")
LETTER_OPS = ("letters", "letter", "letter_retry", "letter_drop")
CLIENTS_MAX = 16
REQUEST_WAIT_S = 60.0
"""A client that asks nothing for so long is let go."""
REPLY_WAIT_S = 10.0
"""A client that does not read its answer for so long is cut."""
SHELVE_S_MAX = 1 << 31
"""Of a request; how long an alarm may be shelved is its rule's business."""
_POSITION_MAX = 2**63 - 1
_PEER = struct.Struct("3i")  # struct ucred of unix(7): process, user, group


async def serve(face: GatewayFace, path: Path) -> ControlServer:
    """Listen at a path; raises Misconfigured E4012."""
    server = ControlServer(face, path)
    await server.start()
    return server


class ControlServer:
    """One listening socket and its clients."""

    def __init__(self, face: GatewayFace, path: Path) -> None:
        self.path = path
        self._face = face
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        listener = listening_socket(self.path)
        self._server = await asyncio.start_unix_server(self._connected, sock=listener, limit=REQUEST_BYTES_MAX)

    async def close(self) -> None:
        """Stop listening, let every client go, remove the file. Idempotent."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()

    @property
    def clients(self) -> int:
        return len(self._tasks)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._tasks) >= CLIENTS_MAX:
            text = f"control socket: {CLIENTS_MAX} clients are connected already; close one of them"
            writer.write(encode({"ok": False, "code": "E4015", "text": text}))
            writer.close()
            return
        task = asyncio.get_running_loop().create_task(self._converse(reader, writer), name="control-client")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: writer.close())  # one that is cancelled before its first step closes nothing

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.set_write_buffer_limits(high=0)  # so that drain() means: the client has taken everything
        try:
            while True:
                async with asyncio.timeout(REQUEST_WAIT_S):
                    line = await reader.readline()
                if not line.endswith(b"\n"):
                    return
                if not await self._answer(line, writer):
                    return
        except (TimeoutError, ConnectionError):
            writer.transport.abort()
        except ValueError:  # StreamReader's word for a line beyond its limit
            text = f"control socket: a request has more than {REQUEST_BYTES_MAX} bytes; ask for fewer tags at a time"
            writer.write(encode({"ok": False, "code": "E4013", "text": text}))

    async def _answer(self, line: bytes, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; False when the conversation is over."""
        try:
            request = decode(line)
            if request.get("op") == "watch":
                await self._watch(_ids(request), writer)
                return False
            if request.get("op") in LETTER_OPS:
                reply = await self._reply_of_letters(request, writer)
            elif request.get("op") in CONFIG_OPS:
                reply = await self._reply_of_config(request, writer)
            elif request.get("op") in COMMAND_OPS:
                reply = await reply_of_commands(self._face.commands, request, _user_of(writer))
            elif request.get("op") in PLUGIN_OPS:
                note = partial(self._note, writer)
                reply = await reply_of_plugins(self._face.plugins, request, _user_of(writer), note)
            elif request.get("op") == "rewind":
                reply = await self._rewind(request, writer)
            elif request.get("op") == "alarm":
                reply = await self._alarm(request, writer)
            else:
                reply = self._reply(request)
        except GatewayError as error:
            reply = {"ok": False, "code": error.stable_code, "text": error.text}
            if isinstance(error, Misconfigured) and error.problems:
                reply["problems"] = problems_as_rows(error.problems)
        await _send(writer, reply)
        return True

    def _reply(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        match request.get("op"):
            case "health":
                return {"ok": True, "health": self._face.health()}
            case "tags":
                rows = self._face.find_tags(
                    _text(request, "pattern", ""),
                    _number(request, "after", 0, 1 << 31),
                    _number(request, "limit", 100, TAGS_PER_PAGE_MAX),
                )
                return {"ok": True, "rows": rows}
            case "get":
                return {"ok": True, "row": self._tag(_text(request, "tag", ""))}
            case "rules":
                return {"ok": True, "rows": self._face.rules.rules()}
            case "alarms":
                limit = _number(request, "limit", 100, ALARMS_PER_PAGE_MAX)
                return {"ok": True, "rows": self._face.rules.alarms(_text(request, "after", ""), limit)}
            case other:
                asked = ("health", "tags", "get", "watch", "rewind", "rules", "alarms", "alarm")
                ops = ", ".join((*asked, *CONFIG_OPS, *LETTER_OPS, *COMMAND_OPS, *PLUGIN_OPS))
                raise FrameBroken(f"control socket: no op {other!r}; one of {ops}", code="E4013")

    async def _reply_of_config(self, request: Mapping[str, Any], writer: asyncio.StreamWriter) -> Mapping[str, Any]:
        config = self._face.config
        author = _text(request, "author", "")[:REASON_CHARACTERS_MAX] or _user_of(writer)
        reason = _text(request, "reason", "")[:REASON_CHARACTERS_MAX]
        match request["op"]:
            case "config_apply":
                is_trial = request.get("is_trial") is True
                return {"ok": True, "change": await config.apply(author, reason, is_trial=is_trial)}
            case "config_rollback":
                number = _number(request, "generation", 0, 1 << 31)
                return {"ok": True, "change": await config.rollback(number, author, reason)}
            case _:
                limit = _number(request, "limit", GENERATIONS_PER_PAGE_MAX, GENERATIONS_PER_PAGE_MAX)
                return {"ok": True, "rows": config.history(limit)}

    async def _reply_of_letters(self, request: Mapping[str, Any], writer: asyncio.StreamWriter) -> Mapping[str, Any]:
        letters, id_ = self._face.letters, _text(request, "id", "")
        match request["op"]:
            case "letters":
                connector, after = _text(request, "connector", ""), _text(request, "after", "")
                limit = _number(request, "limit", 100, LETTERS_PER_PAGE_MAX)
                return {"ok": True, "rows": letters.rows(connector, after, limit)}
            case "letter":
                return {"ok": True, "letter": letters.letter(id_)}
            case "letter_retry":
                await self._note(writer, "letters.retry", id_, {})
                return {"ok": True, "row": await letters.retry(id_)}
            case _:
                await self._note(writer, "letters.drop", id_, {})
                letters.drop(id_)
                return {"ok": True}

    def _tag(self, name: str) -> TagRow:
        row = self._face.value(name)
        if row is None:
            text = f"tag {name}: no such tag; `edge tags ls` lists them"
            raise DeviceRefused(text, code="E4014", quality=Quality.BAD_NODE_ID_UNKNOWN)
        return row

    async def _rewind(self, request: Mapping[str, Any], writer: asyncio.StreamWriter) -> Mapping[str, Any]:
        first = _number(request, "first", 0, _POSITION_MAX)
        since_ns = _number(request, "since_ns", 0, _POSITION_MAX)
        if bool(first) == bool(since_ns):
            raise FrameBroken("control socket: a rewind is from a position or since a time, one of both", code="E4013")
        name = _text(request, "connector", "")
        place = Position(first) if first else None
        await self._note(writer, "frames.replay", name, {"first": first, "since_ns": since_ns})
        return {"ok": True, "rewind": await self._face.rewind(name, place, since_ns, _user_of(writer))}

    async def _alarm(self, request: Mapping[str, Any], writer: asyncio.StreamWriter) -> Mapping[str, Any]:
        seconds = _number(request, "seconds", 0, SHELVE_S_MAX)
        id_, action, note = (_text(request, key, "") for key in ("id", "action", "note"))
        await self._note(writer, "alarms.operate", id_, {"action": action, "note": note, "seconds": seconds})
        row = await self._face.rules.operate(id_, action, _user_of(writer), note, seconds)
        return {"ok": True, "row": row}

    async def _note(self, writer: asyncio.StreamWriter, action: str, target: str, details: Mapping[str, Any]) -> None:
        """Have an act noted; `action` is what the API calls it. Raises StoreFailed E4306: it must not be done."""
        await self._face.note(AuditEntry(f"local:{_user_of(writer)}", action, target, "begun", details=details))

    async def _watch(self, ids: Sequence[int], writer: asyncio.StreamWriter) -> None:
        """Send rows that changed until the client leaves; a slow client gets fewer, newer rows."""
        seen: dict[int, tuple[int, int]] = {}
        loop = asyncio.get_running_loop()
        sent_at = 0.0
        while not writer.is_closing():
            rows = [row for row in self._face.values(ids) if seen.get(row.id) != (row.gateway_time, row.source_time)]
            if rows or loop.time() - sent_at >= WATCH_ALIVE_S:
                await _send(writer, {"ok": True, "rows": rows})
                sent_at = loop.time()
                seen.update((row.id, (row.gateway_time, row.source_time)) for row in rows)
            await asyncio.sleep(WATCH_INTERVAL_S)


async def _send(writer: asyncio.StreamWriter, reply: object) -> None:
    writer.write(encode(reply))
    async with asyncio.timeout(REPLY_WAIT_S):
        await writer.drain()


def _user_of(writer: asyncio.StreamWriter) -> str:
    peer = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    return f"uid {_PEER.unpack(peer)[1]}"


def _text(request: Mapping[str, Any], key: str, default: str) -> str:
    value = request.get(key, default)
    if not isinstance(value, str):
        raise FrameBroken(f"control socket: {key} is to be a text", code="E4013")
    return value


def _number(request: Mapping[str, Any], key: str, default: int, largest: int) -> int:
    value = request.get(key, default)
    if not isinstance(value, int) or not 0 <= value <= largest:
        raise FrameBroken(f"control socket: {key} is to be a number from 0 to {largest}", code="E4013")
    return value


def _ids(request: Mapping[str, Any]) -> list[int]:
    ids = request.get("ids")
    if not isinstance(ids, list) or len(ids) > WATCHED_TAGS_MAX or not all(isinstance(item, int) for item in ids):
        text = f"control socket: ids is to be a list of at most {WATCHED_TAGS_MAX} tag ids"
        raise FrameBroken(text, code="E4013")
    return ids
