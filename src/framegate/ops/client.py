"""The command line's end of the control socket: blocking, with a deadline on every wait.

    with ControlClient(home / "run" / "edge.sock") as gateway:
        gateway.health()

Message forms and bounds are in message.py; the other end is control.py.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from framegate.contract.command import Command, CommandRecord
from framegate.contract.errors import (
    Busy,
    DeviceRefused,
    FrameBroken,
    GatewayError,
    Misconfigured,
    NoReply,
    NotConnected,
    StoreFailed,
)
from framegate.contract.letter import DeadLetter
from framegate.contract.quality import Quality
from framegate.observe.face import (
    ChangeRecord,
    GatewayHealth,
    GenerationRecord,
    LetterRow,
    RewindRecord,
    TagRow,
)
from framegate.observe.plugin_face import PluginChangeRecord, PluginRecord, StagedRecord
from framegate.observe.rule_face import AlarmRow, RuleHealth
from framegate.ops.message import (
    ALARMS_PER_PAGE_MAX,
    COMMAND_WAIT_S_MAX,
    COMMANDS_PER_PAGE_MAX,
    LETTERS_PER_PAGE_MAX,
    REPLY_BYTES_MAX,
    TAGS_PER_PAGE_MAX,
    alarm_from,
    change_from,
    command_record_from,
    command_value,
    decode,
    encode,
    generation_from,
    health_from,
    letter_from,
    letter_row_from,
    plugin_change_from,
    plugin_from,
    problems_from,
    rewind_from,
    rule_from,
    staged_from,
    tag_from,
)
from framegate.ops.socket_file import address_of

REPLY_WAIT_S = 5.0
CHANGE_WAIT_S = 60.0
"""100,000 tags take seconds to check, and a connector may take some to end what is under way."""
REWIND_WAIT_S = 15.0
"""A connector may take some seconds to end what is under way."""
RETRY_REPLY_WAIT_S = 15.0  # a gateway waits 10 s for a remote to take a dead letter
STAGE_WAIT_S = 720.0
"""A sandboxed plugin is compiled, which may take 600 s (carrier/wasm/compiler.py)."""
PLUGIN_WAIT_S = 600.0
"""Hundreds of devices change one after another, and the first is watched for some seconds."""
WRITE_WAIT_S = 10.0  # a gateway waits 5 s for its log
RETRY_S = 1.0
_BUSY_CODES = frozenset(("E4015", "E4023", "E4036", "E4204", "E4631", "E4661"))
_UNKNOWN_CODES = frozenset(("E4014", "E4019", "E4219", "E5034", "E5035"))
_KINDS: Mapping[str, type[GatewayError]] = {
    "E4030": Misconfigured, "E4031": Misconfigured, "E4032": Misconfigured, "E4034": StoreFailed, "E4218": StoreFailed,
    "E4306": StoreFailed, "E4035": Misconfigured, "E2406": NoReply, "E5036": StoreFailed, "E4624": StoreFailed,
    "E4658": FrameBroken, "E4665": StoreFailed, "E46": Misconfigured, "E1": Misconfigured,
    "E2": NotConnected, "E3": StoreFailed,
}  # fmt: skip
"""By code, else by its first three or two characters."""


class ControlClient:
    """One connection to a running gateway.

    raises NotConnected E4010 - no gateway runs in this home; E4011 - its socket belongs to another user
           NoReply E4016 - it is there and does not answer; Busy E4015 - too many clients
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(REPLY_WAIT_S)
        try:
            with address_of(path) as address:
                self._socket.connect(address)
        except OSError as error:
            self._socket.close()
            raise _not_running(path, error) from error
        self._file = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def health(self) -> GatewayHealth:
        return health_from(self._ask({"op": "health"})["health"])

    def get(self, tag: str) -> TagRow:
        """One tag; raises DeviceRefused E4014 where there is no such tag."""
        return tag_from(self._ask({"op": "get", "tag": tag})["row"])

    def tags(self, pattern: str, rows_max: int) -> Iterator[TagRow]:
        """Tags that match a shell pattern, fetched page by page."""
        after, left = 0, rows_max
        while left > 0:
            limit = min(left, TAGS_PER_PAGE_MAX)
            reply = self._ask({"op": "tags", "pattern": pattern, "after": after, "limit": limit})
            rows = [tag_from(row) for row in reply["rows"]]
            yield from rows
            if len(rows) < limit:
                return
            left -= len(rows)
            after = rows[-1].id

    def watch(self, ids: Sequence[int]) -> Iterator[list[TagRow]]:
        """Changed rows, again and again; the list is empty when nothing has changed for a while."""
        self._send({"op": "watch", "ids": list(ids)})
        while True:
            yield [tag_from(row) for row in self._receive()["rows"]]

    def rewind(self, connector: str, *, first: int = 0, since_ns: int = 0) -> RewindRecord:
        """Deliver again from a position on, or what came since a wall time; one of both is given.

        raises Misconfigured E4030 - it cannot be done as asked; StoreFailed - the disk does not take it
        """
        self._socket.settimeout(REWIND_WAIT_S)
        reply = self._ask({"op": "rewind", "connector": connector, "first": first, "since_ns": since_ns})
        return rewind_from(reply["rewind"])

    def rules(self) -> list[RuleHealth]:
        """Every rule of the table."""
        return [rule_from(row) for row in self._ask({"op": "rules"})["rows"]]

    def alarms(self) -> Iterator[AlarmRow]:
        """Every alarm in order of ids, fetched page by page."""
        after = ""
        while True:
            reply = self._ask({"op": "alarms", "after": after, "limit": ALARMS_PER_PAGE_MAX})
            rows = [alarm_from(row) for row in reply["rows"]]
            yield from rows
            if len(rows) < ALARMS_PER_PAGE_MAX:
                return
            after = rows[-1].id

    def operate_alarm(self, id_: str, action: str, note: str = "", seconds: int = 0) -> AlarmRow:
        """Acknowledge, shelve, ...: durable on return, with the asker's user id.

        raises DeviceRefused E5034 - no such alarm; E5035 - not possible in its state; StoreFailed E5036
        """
        request = {"op": "alarm", "id": id_, "action": action, "note": note, "seconds": seconds}
        return alarm_from(self._ask(request)["row"])

    def write(self, commands: Sequence[Command]) -> list[CommandRecord]:
        """Submit commands; each is durable on return.

        raises StoreFailed E4218, Busy E4204 - nothing was accepted
        """
        names = ("id", "tag", "ttl_s", "verify", "retry", "select")
        rows = [{**{name: getattr(one, name) for name in names}, "value": command_value(one.value)} for one in commands]
        reply = self._ask_patiently({"op": "write", "commands": rows}, WRITE_WAIT_S)
        return [command_record_from(record) for record in reply["records"]]

    def command(self, id_: str, wait_s: float = 0.0) -> CommandRecord:
        """What is known of a command once it has its outcome, or after so long; raises DeviceRefused E4219."""
        request = {"op": "command", "id": id_, "wait_s": min(wait_s, COMMAND_WAIT_S_MAX)}
        return command_record_from(self._ask_patiently(request, REPLY_WAIT_S + wait_s)["record"])

    def commands(self, limit: int) -> Iterator[CommandRecord]:
        """The newest commands, newest first, fetched page by page."""
        before, left = "", limit
        while left > 0:
            page = min(left, COMMANDS_PER_PAGE_MAX)
            rows = self._ask({"op": "commands", "limit": page, "before": before})["records"]
            records = [command_record_from(row) for row in rows]
            yield from records
            if len(records) < page:
                return
            left -= page
            before = records[-1].command.id

    def apply_config(self, author: str, reason: str, *, is_trial: bool = False) -> ChangeRecord:
        """Have the tables in HOME/config take effect, or (is_trial) hear what that would do.

        raises Misconfigured - with every problem; StoreFailed E4034
        """
        request = {"op": "config_apply", "author": author, "reason": reason, "is_trial": is_trial}
        return change_from(self._ask_patiently(request, CHANGE_WAIT_S)["change"])

    def roll_back_config(self, generation: int, author: str, reason: str) -> ChangeRecord:
        """Have an old generation take effect again; raises as apply_config, and Misconfigured E4032."""
        request = {"op": "config_rollback", "generation": generation, "author": author, "reason": reason}
        return change_from(self._ask_patiently(request, CHANGE_WAIT_S)["change"])

    def config_history(self) -> list[GenerationRecord]:
        """Generations that are kept, newest first."""
        return [generation_from(row) for row in self._ask({"op": "config_history"})["rows"]]

    def letters(self, connector: str) -> Iterator[LetterRow]:
        """Dead letters, of one connector or ("") of all, fetched page by page."""
        after = ""
        while True:
            request = {"op": "letters", "connector": connector, "after": after, "limit": LETTERS_PER_PAGE_MAX}
            rows = [letter_row_from(row) for row in self._ask(request)["rows"]]
            yield from rows
            if len(rows) < LETTERS_PER_PAGE_MAX:
                return
            after = rows[-1].id

    def letter(self, row: LetterRow) -> DeadLetter:
        """A dead letter with its payload; raises DeviceRefused E4019 where it is gone."""
        return letter_from(self._ask({"op": "letter", "id": row.id})["letter"])

    def retry_letter(self, id_: str) -> LetterRow | None:
        """Have a dead letter sent again: None when the remote took it, else the letter that stays.

        raises DeviceRefused E4019; NotConnected E2405, NoReply E2406, Busy E4023 - not now
        """
        row = self._ask_patiently({"op": "letter_retry", "id": id_}, RETRY_REPLY_WAIT_S)["row"]
        return None if row is None else letter_row_from(row)

    def drop_letter(self, id_: str) -> None:
        """Have a dead letter thrown away; raises DeviceRefused E4019."""
        self._ask({"op": "letter_drop", "id": id_})

    def plugin_ls(self) -> tuple[list[PluginRecord], list[StagedRecord]]:
        """Plugins that rows can name, and packages that wait."""
        reply = self._ask({"op": "plugin_ls"})
        return [plugin_from(row) for row in reply["plugins"]], [staged_from(row) for row in reply["staged"]]

    def plugin_stage(self, file: Path) -> StagedRecord:
        """Have a package file verified and kept; it is not active yet. Raises Misconfigured with the reason; Busy."""
        request = {"op": "plugin_stage", "file": str(file.absolute())}
        return staged_from(self._ask_patiently(request, STAGE_WAIT_S)["staged"])

    def plugin_activate(self, name: str, accept: str) -> PluginChangeRecord:
        """Have a staged package come into force, its asks accepted; see observe.plugin_face for what is raised."""
        return self._changed_plugin({"op": "plugin_activate", "name": name, "accept": accept})

    def plugin_rollback(self, name: str, version: str = "", reason: str = "") -> PluginChangeRecord:
        """Have a version that was active before come into force again; "": the last one."""
        return self._changed_plugin({"op": "plugin_rollback", "name": name, "version": version, "reason": reason})

    def plugin_remove(self, name: str) -> PluginChangeRecord:
        """Have the package that waits taken away; where none does, the plugin, unless a row uses it."""
        return self._changed_plugin({"op": "plugin_remove", "name": name})

    def _changed_plugin(self, request: object) -> PluginChangeRecord:
        return plugin_change_from(self._ask_patiently(request, PLUGIN_WAIT_S)["change"])

    def _ask_patiently(self, request: object, wait_s: float) -> dict[str, Any]:
        self._socket.settimeout(wait_s)
        try:
            return self._ask(request)
        finally:
            self._socket.settimeout(REPLY_WAIT_S)

    def _ask(self, request: object) -> dict[str, Any]:
        self._send(request)
        return self._receive()

    def _send(self, request: object) -> None:
        try:
            self._socket.sendall(encode(request))
        except OSError as error:
            raise _lost(self._path) from error

    def _receive(self) -> dict[str, Any]:
        try:
            line = self._file.readline(REPLY_BYTES_MAX)
        except TimeoutError as error:
            waited_s = self._socket.gettimeout()
            text = f"gateway at {self._path}: no answer within {waited_s:.0f} s; it may be overloaded, see its log"
            raise NoReply(text, code="E4016") from error
        except OSError as error:
            raise _lost(self._path) from error
        if not line:
            raise _lost(self._path)
        if not line.endswith(b"\n"):
            raise FrameBroken("control socket: an answer beyond its limit; ask for fewer tags at a time", code="E4013")
        reply = decode(line)
        if not reply.get("ok"):
            raise _refusal(str(reply.get("code")), str(reply.get("text")), reply.get("problems") or ())
        return reply


def _not_running(path: Path, error: OSError) -> GatewayError:
    home = path.parent.parent
    if error.errno in (errno.EACCES, errno.EPERM):
        text = f"gateway in {home}: its control socket may not be opened; run as the gateway's user"
        return NotConnected(text, code="E4011")
    if error.errno == errno.EAGAIN:
        return Busy(f"gateway in {home}: it does not take connections now; try again", wait_s=RETRY_S, code="E4015")
    text = f"gateway in {home}: not running; start it with `edge run --home {home}`, or name its home with --home"
    return NotConnected(text, code="E4010")


def _lost(path: Path) -> NotConnected:
    return NotConnected(f"gateway in {path.parent.parent}: it closed the connection; it may have stopped", code="E4010")


def _refusal(code: str, text: str, problems: Sequence[Mapping[str, Any]]) -> GatewayError:
    if code in _BUSY_CODES:
        return Busy(text, wait_s=RETRY_S, code=code)
    if code in _UNKNOWN_CODES:
        return DeviceRefused(text, quality=Quality.BAD_NODE_ID_UNKNOWN, code=code)
    kind = _KINDS.get(code) or _KINDS.get(code[:3]) or _KINDS.get(code[:2], FrameBroken)
    if kind is Misconfigured:
        return Misconfigured(text, code=code, problems=problems_from(problems))
    return kind(text, code=code)
