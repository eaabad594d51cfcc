"""Errors, sorted by what the gateway does next.

    GatewayError
    ├── Misconfigured     wait for new tables
    ├── NotConnected      reconnect, with back-off
    ├── NoReply           mark the rows Bad, back off this device; its line stays open for its neighbours
    ├── Busy              ask again after wait_s
    ├── DeviceRefused     mark these rows Bad, go on
    ├── PayloadRefused    the remote will never take this message: count, then dead-letter
    ├── FrameBroken       count, resynchronise
    │   └── FrameShort    wait for more bytes
    ├── Expired           the deadline passed before the first byte left
    ├── Denied            the asker has to show who they are, or may not do this
    └── StoreFailed       the durable log cannot promise: stop accepting, reopen

Each carries a stable code, listed with its meaning in contract/errors.toml. A text says what, where, why and
what to do next; it never blames and never holds a secret. A failed assert is a bug: it stops the slot, not
the gateway.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from framegate.contract.frame import Batch


class GatewayError(Exception):
    """Root of every error the gateway raises on purpose.

    partial  what a driver had read of a plan before this ended the scan: those rows are published, and the tags
             without one are Bad for the reason that the error is
    """

    code: ClassVar[str] = "E0000"

    def __init__(self, text: str, *, code: str | None = None, partial: Sequence[Batch] = ()) -> None:
        super().__init__(text)
        self.text = text
        self.stable_code = code or self.code
        self.partial = tuple(partial)

    def __str__(self) -> str:
        return f"{self.stable_code} {self.text}"


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in one table.

    table   "endpoints" | "drivers" | "variables"
    path    keys and list indexes that lead to the value, e.g. ("variables", 17, "address")
    code    stable code, contract/errors.toml
    text    what is wrong and what would be right, one sentence
    """

    table: str
    path: tuple[str | int, ...]
    code: str
    text: str


@dataclass(frozen=True, slots=True)
class TagProblem:
    """One mistake in one row of the tag table, as a driver sees it; config turns it into a Problem.

    tag   name of the tag;  key  the column at fault, e.g. "address";  code, text  as in Problem
    """

    tag: str
    key: str
    code: str
    text: str


class Misconfigured(GatewayError):
    """The tables ask for something impossible. `problems` and `tag_problems` name each place."""

    code = "E1000"

    def __init__(
        self,
        text: str,
        *,
        code: str | None = None,
        problems: Sequence[Problem] = (),
        tag_problems: Sequence[TagProblem] = (),
    ) -> None:
        super().__init__(text, code=code)
        self.problems = tuple(problems)
        self.tag_problems = tuple(tag_problems)


class NotConnected(GatewayError):
    """No line to the remote, or the line broke."""

    code = "E2000"


class NoReply(GatewayError):
    """The device kept silent until the deadline."""

    code = "E2100"


class Busy(GatewayError):
    """The remote asks for patience."""

    code = "E2200"

    def __init__(self, text: str, *, wait_s: float, code: str | None = None, partial: Sequence[Batch] = ()) -> None:
        super().__init__(text, code=code, partial=partial)
        self.wait_s = wait_s


class DeviceRefused(GatewayError):
    """The device answered, and the answer is no; `quality` says why in its StatusCode."""

    code = "E2300"

    def __init__(self, text: str, *, quality: int, code: str | None = None, partial: Sequence[Batch] = ()) -> None:
        super().__init__(text, code=code, partial=partial)
        self.quality = quality


class PayloadRefused(GatewayError):
    """The remote refuses this message for good (schema, size, topic)."""

    code = "E2400"


class FrameBroken(GatewayError):
    """Bytes that are no frame of the protocol."""

    code = "E2500"


class FrameShort(FrameBroken):
    """A frame that has begun and needs more bytes."""

    code = "E2501"


class Expired(GatewayError):
    """The deadline passed and nothing was sent."""

    code = "E2600"


class Denied(GatewayError):
    """Nobody has shown who they are, or who has may not do this; the text never says which part was wrong."""

    code = "E4300"


class StoreFailed(GatewayError):
    """The durable log failed to write, sync or open."""

    code = "E3000"
