"""Commands as the columns that a native driver is given, and its statuses as outcomes."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress

import numpy as np

from framegate.carrier.child.abi import Cell
from framegate.carrier.child.instance import UNTOUCHED
from framegate.carrier.remote.calls import Reply
from framegate.carrier.remote.statuses import outcome_of
from framegate.contract.command import Outcome, Write, WriteResult
from framegate.contract.driver import BoundTag
from framegate.contract.frame import Kind, TagId, Value, ValueType

TEXT_BYTES_MAX = 1 << 20
"""Of one value; the outcome of a longer one is REJECTED."""
REASON_CHARACTERS_MAX = 400
_U64 = struct.Struct("<Q")
_I64 = struct.Struct("<q")
_F64 = struct.Struct("<d")


class Written:
    """Some commands made ready for a driver; those that it cannot be given have their outcome already."""

    def __init__(self, commands: Sequence[Write], tags: Mapping[TagId, BoundTag]) -> None:
        self._commands = commands
        self._results: dict[int, WriteResult] = {}
        self._sent: list[int] = []
        self.tags: list[BoundTag] = []
        columns: list[tuple[bytes, int, int]] = []
        self._heap = bytearray()
        for index, command in enumerate(commands):
            tag = tags.get(command.tag)
            packed = None if tag is None else self._packed(tag, command.value)
            if tag is None or packed is None:
                said = "the driver does not know the tag" if tag is None else f"the value does not fit {tag.type.value}"
                self._results[index] = WriteResult(command.tag, Outcome.REJECTED, said)
                continue
            self._sent.append(index)
            self.tags.append(tag)
            columns.append((packed[0], int(command.tag), packed[1]))
        self._columns = columns

    @property
    def rows(self) -> int:
        return len(self._sent)

    def parts(self) -> list[bytes]:
        """Columns as in carrier.child.wire."""
        values, tags, kinds = zip(*self._columns, strict=True) if self._columns else ((), (), ())
        rows = len(self._columns)
        tag = np.array(tags, np.uint32).tobytes()
        return [b"".join(values), bytes(8 * rows), tag, bytes(4 * rows), bytes(kinds), bytes(self._heap)]

    def refused(self, outcome: Outcome, reason: str) -> list[WriteResult]:
        """Results where the driver was not asked, or has not told."""
        for index in self._sent:
            self._results.setdefault(index, WriteResult(self._commands[index].tag, outcome, reason))
        return [self._results[index] for index in range(len(self._commands))]

    def results(self, reply: Reply) -> list[WriteResult]:
        """Results from a driver's answer; a row that it passed over has the status of the call, or is unknown."""
        if len(reply.body) >= 4 * self.rows:
            statuses = np.frombuffer(reply.body, np.int32, self.rows).tolist()
            reasons = _reasons(reply.body[4 * self.rows :], self.rows)
            for index, status, said in zip(self._sent, statuses, reasons, strict=True):
                is_untouched = status == UNTOUCHED
                if is_untouched and reply.status == 0:
                    outcome, reason = Outcome.UNKNOWN, "the driver said nothing of it"
                else:
                    outcome, reason = outcome_of(reply.status if is_untouched else status)
                self._results[index] = WriteResult(self._commands[index].tag, outcome, said or reason)
        return self.refused(Outcome.UNKNOWN, "the driver gave no status for it")

    def _packed(self, tag: BoundTag, value: Value) -> tuple[bytes, Cell] | None:
        """The cell of a value, and its kind; None: the tag cannot take it."""
        kind = tag.type.kind
        if kind is Kind.BOOL:
            return (_U64.pack(value), Cell.BOOL) if isinstance(value, bool) else None
        if kind is Kind.OBJECT:
            return self._text(tag.type, value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        if kind is Kind.FLOAT:
            return _F64.pack(value), Cell.F64
        try:
            return (_U64.pack(value), Cell.U64) if kind is Kind.UINT else (_I64.pack(value), Cell.I64)
        except struct.error:  # beyond 64 bits, or not whole
            return None

    def _text(self, type_: ValueType, value: Value) -> tuple[bytes, Cell] | None:
        if type_ is ValueType.JSON:
            data, cell = json.dumps(value, ensure_ascii=False, default=str).encode("utf-8", "surrogatepass"), Cell.STR
        elif type_ is ValueType.STRING and isinstance(value, str):
            data, cell = value.encode("utf-8", "surrogatepass"), Cell.STR
        elif type_ is ValueType.BYTES and isinstance(value, bytes):
            data, cell = value, Cell.BYTES
        else:
            return None
        if len(self._heap) + len(data) > TEXT_BYTES_MAX:
            return None
        at = len(self._heap)
        self._heap += data
        return _U64.pack(at | len(data) << 32), cell


def _reasons(body: bytes, rows: int) -> list[str]:
    """What a driver says of each row, where it says anything: a list of texts as JSON."""
    if body:
        with suppress(ValueError, RecursionError):
            said = json.loads(body)
            if isinstance(said, list) and len(said) == rows:
                return [str(each)[:REASON_CHARACTERS_MAX] for each in said]
    return [""] * rows
