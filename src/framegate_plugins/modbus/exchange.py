"""What one driver wants from its device at one time: requests in order, and the answers that came.

An exchange is filled by the session (`client.py`) and read by the driver when it is over. Whoever waits for that is
called back, or awaits one future for the whole scan; there is none per request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from enum import Enum, unique
from typing import TypeAlias

from framegate.contract.errors import FrameBroken, NotConnected
from framegate_plugins.modbus.codec import (
    GATEWAY_SILENCE,
    PATIENCE_CODES,
    READS,
    ExceptionReply,
    Request,
    encode_request,
)

GATEWAY_CODES = frozenset({10, GATEWAY_SILENCE})
"""The gateway answers in place of a device that does not."""


@unique
class Silence(Enum):
    """Why a request has no answer."""

    NOT_ASKED = "its bytes never left"
    UNANSWERED = "its bytes left; nothing is known of what became of them"
    TIMED_OUT = "asked as often as allowed, and the device kept silent"


NOT_ASKED, UNANSWERED = Silence.NOT_ASKED, Silence.UNANSWERED
Answer: TypeAlias = bytes | ExceptionReply | FrameBroken | Silence


class Ask:
    """One request ready to be sent; made once per plan, sent on every scan.

    tail         Modbus TCP frame behind the transaction id
    answer_head  Modbus TCP answer behind the transaction id, up to the data, when all is well; b"" for writes
    answer_size  bytes of that whole frame
    """

    __slots__ = ("answer_head", "answer_size", "pdu", "request", "tail", "unit")

    def __init__(self, unit: int, request: Request) -> None:
        self.unit = unit
        self.request = request
        self.pdu = encode_request(request)
        self.tail = b"\0\0" + (len(self.pdu) + 1).to_bytes(2, "big") + bytes((unit,)) + self.pdu
        size = request.answer_bytes
        is_read = request.function in READS
        head = (size + 3).to_bytes(2, "big") + bytes((unit, request.function, size)) if is_read else b""
        self.answer_head = b"\0\0" + head if is_read else b""
        self.answer_size = 9 + size


class Exchange:
    """Requests to one unit that belong together: one scan, or one command's writes.

    is_over   every request is settled, the device fell silent, or the line was lost
    ended     called then; None: nobody waits
    answers   per request
    faults    answers that are no data
    is_silent the device did not answer several times running: the rest was not asked
    error     the line was lost
    """

    __slots__ = (
        "_again", "_following", "_silences", "_tries", "answers", "asks", "ended", "error", "expires_at", "faults",
        "is_over", "is_silent", "is_write", "open", "pipeline", "retries", "timeout_s", "unit",
    )  # fmt: skip

    def __init__(
        self, unit: int, asks: Sequence[Ask], *, timeout_s: float, retries: int = 0, pipeline: int = 1,
        answers: list[Answer] | None = None,
    ) -> None:  # fmt: skip
        self.unit = unit
        self.asks = asks
        self.timeout_s = timeout_s
        self.retries = retries
        self.pipeline = pipeline
        self.is_write = False
        self.expires_at = 0.0
        """Loop time after which a write may no longer begin; 0: no such time."""
        self.is_over = False
        self.ended: Callable[[], None] | None = None
        self.answers: list[Answer] = [NOT_ASKED] * len(asks) if answers is None else answers
        self.faults = 0
        self.is_silent = False
        self.error: NotConnected | None = None
        # With answers given, only the gaps among them are asked.
        self._following = 0 if answers is None else len(asks)
        self._again = [] if answers is None else [i for i, answer in enumerate(answers) if answer is NOT_ASKED]
        self.open = len(asks) if answers is None else len(self._again)
        self._silences = 0
        self._tries: dict[int, int] | None = None  # repeats, by index; most exchanges need none

    @property
    def done(self) -> asyncio.Future[None]:
        """A future for its end; for one who waits, and instead of `ended`."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.is_over:
            done.set_result(None)
        else:
            self.ended = lambda: None if done.done() else done.set_result(None)
        return done

    @property
    def is_clean(self) -> bool:
        """Every request was answered with data; to be asked once it is over."""
        return not self.faults and not self.is_silent and self.error is None

    @property
    def has_work(self) -> bool:
        """True while a request waits to be sent."""
        return self._following < len(self.asks) or bool(self._again)

    @property
    def is_unsent(self) -> bool:
        """True while no byte of it has left."""
        return all(answer is NOT_ASKED for answer in self.answers)

    def take(self) -> int:
        """Index of the next request to send; repeats come after everything else was asked once."""
        index = self._following
        if index < len(self.asks):
            self._following = index + 1
            return index
        return self._again.pop(0)

    def settle(self, index: int, answer: bytes) -> None:
        """Data has come."""
        self.answers[index] = answer
        self.open -= 1
        self._silences = 0

    def refuse(self, index: int, answer: ExceptionReply | FrameBroken) -> None:
        """The device said no, or something that cannot be understood."""
        if isinstance(answer, ExceptionReply) and answer.exception in GATEWAY_CODES:
            self._silences += 1
        else:
            self._silences = 0
            is_patient = isinstance(answer, ExceptionReply) and answer.exception in PATIENCE_CODES
            if is_patient and not self.is_write and self._may_repeat(index):
                return
        self.answers[index] = answer
        self.faults += 1
        self.open -= 1
        self._give_up_after_silences()

    def miss(self, index: int) -> None:
        """The time-out passed without an answer."""
        self._silences += 1
        if self.is_write:
            # Bytes have left: nobody knows. What follows is not sent to a silent device.
            self._end_silent()
            return
        if self._silences <= self.retries and self._may_repeat(index):
            return
        self.answers[index] = Silence.TIMED_OUT
        self.faults += 1
        self.open -= 1
        self._give_up_after_silences()

    def forget(self) -> None:
        """Send nothing more: its driver was cancelled, or the line is lost."""
        self._following = len(self.asks)
        self._again.clear()

    def finish(self) -> None:
        """It is over; tells who waits."""
        if not self.is_over:
            self.is_over = True
            if self.ended is not None:
                self.ended()

    def _may_repeat(self, index: int) -> bool:
        if self._tries is None:
            self._tries = {}
        tries = self._tries.get(index, 0)
        if tries >= self.retries:
            return False
        self._tries[index] = tries + 1
        self.answers[index] = NOT_ASKED
        self._again.append(index)
        return True

    def _give_up_after_silences(self) -> None:
        if self._silences > self.retries:
            self._end_silent()

    def _end_silent(self) -> None:
        self.is_silent = True
        self.open = 0
        self.forget()
