"""Writes of a bridge's clients: over the wire to the desk, and the outcomes back.

Both ends are here, so that they can be read together: `Caller` in the bridge's process, which is its CommandDoor, and
`Clerk` in the gateway. A call that is cut off by the end of either process has no answer; the command's own record
tells its outcome then, as for every door.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from framegate.bridge.wire import (
    Answer,
    FromBridge,
    PackedCommand,
    Submit,
    ToBridge,
    Wait,
    pack_record,
    unpack_record,
)
from framegate.contract.command import BATCH_MAX, TTL_S_MAX, Command, CommandRecord
from framegate.contract.connector import CommandDoor
from framegate.contract.errors import Busy, GatewayError, StoreFailed

CALLS_MAX = 1_024
"""Of one bridge, under way at once."""
SUBMIT_DEADLINE_S = 30.0
WAIT_GRACE_S = 5.0
_BUSY = "E4402"


class Caller:
    """Satisfies contract.connector.CommandDoor in the bridge's process."""

    def __init__(self, send: Callable[[FromBridge], None]) -> None:
        self._send = send
        self._calls: dict[int, asyncio.Future[Answer]] = {}
        self._number = 0

    async def submit(self, commands: Sequence[Command], by: str = "") -> Sequence[CommandRecord]:
        packed = [
            PackedCommand(each.id, each.tag, each.value, each.issued, each.ttl_s, each.verify) for each in commands
        ]
        answer = await self._call(lambda number: Submit(number, packed, by), SUBMIT_DEADLINE_S)
        if answer.code == _BUSY or answer.wait_s:
            raise Busy(answer.text, wait_s=answer.wait_s, code=answer.code)
        if answer.code:
            raise StoreFailed(answer.text, code=answer.code)
        return [unpack_record(record) for record in answer.records]

    async def wait(self, id: str, seconds: float) -> CommandRecord | None:  # noqa: A002 - as Desk.wait
        answer = await self._call(lambda number: Wait(number, id, seconds), seconds + WAIT_GRACE_S)
        return unpack_record(answer.records[0]) if answer.records else None

    def answered(self, answer: Answer) -> None:
        call = self._calls.pop(answer.call, None)
        if call is not None and not call.done():
            call.set_result(answer)

    async def _call(self, make: Callable[[int], FromBridge], limit_s: float) -> Answer:
        """raises Busy - too many calls are under way; StoreFailed - no answer came"""
        if len(self._calls) >= CALLS_MAX:
            raise Busy(f"bridge: {CALLS_MAX:,} writes are under way; send fewer at once", wait_s=1.0, code=_BUSY)
        self._number += 1
        number = self._number
        call = self._calls[number] = asyncio.get_running_loop().create_future()
        self._send(make(number))
        try:
            return await asyncio.wait_for(call, limit_s)
        except TimeoutError as error:
            text = f"bridge: the gateway did not answer within {limit_s:g} s; look the command up by its id"
            raise StoreFailed(text, code="E4403") from error
        finally:
            self._calls.pop(number, None)


class Clerk:
    """The gateway's end: hands calls of one bridge to its door. Used on the loop.

    door  None: the bridge's row allows no writes
    """

    def __init__(self, bridge: str, door: Callable[[], CommandDoor | None], send: Callable[[ToBridge], None]) -> None:
        self._bridge = bridge
        self._door = door
        self._send = send
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, call: Submit | Wait) -> None:
        if len(self._tasks) >= CALLS_MAX:
            text = f"bridge {self._bridge}: {CALLS_MAX:,} writes are under way; send fewer at once"
            self._send(Answer(call.call, [], _BUSY, text, 1.0))
            return
        task = asyncio.create_task(self._serve(call), name=f"bridge {self._bridge} call")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """Nobody listens any more; commands that were taken go on."""
        for task in tuple(self._tasks):
            task.cancel()

    async def _serve(self, call: Submit | Wait) -> None:
        try:
            records = await self._records(call)
        except GatewayError as error:
            wait_s = error.wait_s if isinstance(error, Busy) else 0.0
            self._send(Answer(call.call, [], error.stable_code, error.text, wait_s))
        else:
            self._send(Answer(call.call, [pack_record(record) for record in records]))

    async def _records(self, call: Submit | Wait) -> Sequence[CommandRecord]:
        door = self._door()
        if door is None:
            raise StoreFailed(f"bridge {self._bridge}: its row allows no writes", code="E4404")
        if isinstance(call, Submit):
            packed = call.commands[:BATCH_MAX]
            commands = [Command(each.id, each.tag, each.value, each.issued, each.ttl_s, each.verify) for each in packed]
            return await door.submit(commands, call.by)
        record = await door.wait(call.id, max(0.0, min(call.seconds, TTL_S_MAX)))
        return () if record is None else (record,)
