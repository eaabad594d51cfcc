"""Sending a dead letter again: what the remote answers is passed on; it is not waited for long."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import cast

import pytest

from framegate.contract.connector import ConnectorContext, Window
from framegate.contract.errors import Busy, GatewayError, NoReply, NotConnected, PayloadRefused
from framegate.contract.frame import Gap, Placed, Position
from framegate.contract.letter import DeadLetter
from framegate.contract.owed import Owed
from framegate.contract.ports import Catalogue, Lines
from framegate.northbound import letters
from framegate.northbound.encoder import make_encoder
from framegate.northbound.health import OutboxState
from framegate.northbound.letters import send_again
from framegate.northbound.outbox import Outbox
from framegate.observe.metrics import Metrics
from framegate.testing.fakes import CollectingLog

LETTER = DeadLetter("c", Position(5), 4, b"t/g", b"payload", "application/json", "no", 1, 1, 6)


class TurningClock:
    """Sleeping takes one turn of the loop and is remembered."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def now_ns(self) -> int:
        return 1

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)


class Remote:
    """Answers each send with the next of its answers: an error, or None for an acknowledgement; then with silence."""

    def __init__(self, *answers: Exception | None) -> None:
        self.answers = list(answers)
        self.windows: list[Window] = []

    async def open(self, context: ConnectorContext) -> None: ...

    async def send(self, window: Window) -> None:
        self.windows.append(window)
        if not self.answers:
            await asyncio.get_running_loop().create_future()
        answer = self.answers.pop(0)
        if answer is not None:
            raise answer

    async def close(self) -> None: ...


class EmptyLog:
    """Satisfies FrameSource and Cursors; nothing is in it."""

    durable = Position(0)

    def read(self, after: Position, rows_max: int) -> Sequence[Placed | Gap]:
        return []

    def subscribe(self, wake: Callable[[], None]) -> Callable[[], None]:
        return lambda: None

    def load(self, connector: str) -> Position | None:
        return None

    def commit(self, connector: str, position: Position) -> None: ...

    def load_owed(self, connector: str) -> Owed | None:
        return None

    def commit_owed(self, connector: str, owed: Owed) -> None: ...


def make_outbox(remote: Remote) -> Outbox:
    clock, log, empty = TurningClock(), CollectingLog(), EmptyLog()
    encoder = make_encoder("json", tenant="t", gateway="g", connector="c", template="", catalogue=cast(Catalogue, None))
    return Outbox(
        "c",
        remote,
        encoder,
        empty,
        empty,
        context=lambda lost: ConnectorContext("c", "g", "", cast(Lines, None), clock, log, lost),
        clock=clock,
        dice=random.Random(1),
        log=log,
        metrics=Metrics(),
    )


async def test_letter_goes_out_as_the_message_it_was() -> None:
    remote = Remote(None)
    await send_again(remote, LETTER, TurningClock())
    [window] = remote.windows
    assert (window.first, window.last, window.position, window.rows) == (5, 8, [5], [4])
    assert (window.key, window.payload, window.encoding) == ([b"t/g"], [b"payload"], "application/json")


@pytest.mark.parametrize("error", [PayloadRefused("no"), NotConnected("cut")])
async def test_answer_of_the_remote_is_passed_on(error: GatewayError) -> None:
    with pytest.raises(type(error)):
        await send_again(Remote(error), LETTER, TurningClock())


async def test_busy_remote_is_asked_again_within_bounds() -> None:
    clock, remote = TurningClock(), Remote(Busy("wait", wait_s=0.0), Busy("wait", wait_s=900.0), None)
    await send_again(remote, LETTER, clock)
    assert clock.slept == [0.05, 2.0]
    assert len({id(window) for window in remote.windows}) == 1, "the same window each time, as the contract asks"


async def test_silent_remote_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(letters, "RESEND_S", 0.01)
    with pytest.raises(NoReply, match="E2406 letter c/5"):
        await send_again(Remote(), LETTER, TurningClock())


async def test_outbox_sends_letters_only_while_it_is_connected() -> None:
    remote = Remote(None, TypeError("bug"))
    outbox = make_outbox(remote)
    with pytest.raises(NotConnected, match="E2405 connector c: not connected"):
        await outbox.resend(LETTER)
    task = asyncio.create_task(outbox.run())
    async with asyncio.timeout(5):
        while outbox.health.state is not OutboxState.CONNECTED:  # noqa: ASYNC110 - the state has no event
            await asyncio.sleep(0)
    await outbox.resend(LETTER)
    assert len(remote.windows) == 1
    with pytest.raises(GatewayError, match="E2404 connector c: TypeError: bug"):
        await outbox.resend(LETTER)
    await outbox.stop()
    await task
    with pytest.raises(NotConnected, match="E2405"):
        await outbox.resend(LETTER)
