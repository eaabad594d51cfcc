"""The command line's end of the control socket: blocking, with a deadline on every wait.

    with ControlClient(home / "run" / "edge.sock") as gateway:
        gateway.health()

Message forms and bounds are in message.py; the other end is control.py.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

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
from framegate.contract.quality import Quality
from framegate.observe.face import GatewayHealth, RewindRecord, TagRow
from framegate.ops.message import (
    REPLY_BYTES_MAX,
    TAGS_PER_PAGE_MAX,
    decode,
    encode,
    health_from,
    rewind_from,
    tag_from,
)
from framegate.ops.socket_file import address_of

REPLY_WAIT_S = 5.0
REWIND_WAIT_S = 15.0
"""A connector may take some seconds to end what is under way."""
RETRY_S = 1.0


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
            raise _refusal(str(reply.get("code")), str(reply.get("text")))
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


def _refusal(code: str, text: str) -> GatewayError:
    if code == "E4015":
        return Busy(text, wait_s=RETRY_S, code=code)
    if code == "E4014":
        return DeviceRefused(text, quality=Quality.BAD_NODE_ID_UNKNOWN, code=code)
    if code == "E4030":
        return Misconfigured(text, code=code)
    if code.startswith("E3"):
        return StoreFailed(text, code=code)
    return FrameBroken(text, code=code)
