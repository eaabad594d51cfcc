"""The read plan of one scan class: its blocks, the requests that read them, and the columns they become.

Blocks may be split while the plan is in use: a device that refuses a merged read because of one address gets
smaller ones, so that the neighbours stay Good. `Columns.tag` and every `Batch.tag` stay the same objects.
"""

from __future__ import annotations

import pickle
import zlib
from collections.abc import Iterable, Mapping, Sequence

from framegate.contract.frame import Batch, Int32Column, TagId
from framegate.contract.quality import Quality
from framegate_plugins.modbus.codec import ExceptionReply
from framegate_plugins.modbus.columns import Columns
from framegate_plugins.modbus.exchange import NOT_ASKED, Answer, Ask, Silence
from framegate_plugins.modbus.options import Limits
from framegate_plugins.modbus.planner import Block, halves, merge
from framegate_plugins.modbus.tags import Point

SPLITS_MAX = 64
"""Blocks that a plan may have more than it began with; beyond that a refusal stays as wide as it is."""
SPLIT_EXCEPTIONS = frozenset({2, 3, 4})
"""Refusals that one address of many can cause."""


class ReadPlan:
    """Merged reads for the tags of one scan class.

    writable  points of the same tags that may be written, those that are never read among them
    opening   which opening of the driver the splits were learnt in
    """

    def __init__(self, unit: int, points: Sequence[Point], writable: Mapping[TagId, Point], limits: Limits) -> None:
        self.writable = writable
        self.opening: object = None
        self._unit = unit
        # Needed again only when blocks are split; 100,000 points would hold 15 MiB meanwhile.
        self._packed = zlib.compress(pickle.dumps(points), level=1)
        self._merged = tuple(merge(points, limits))
        self._columns = Columns(points, self._merged)
        self._take(self._merged)

    @property
    def tag(self) -> Int32Column:
        """int32[rows], every tag the plan reads."""
        return self._columns.tag

    def _points(self) -> Sequence[Point]:
        points: Sequence[Point] = pickle.loads(zlib.decompress(self._packed))  # noqa: S301 - our own bytes, never stored
        return points

    def _take(self, blocks: Sequence[Block]) -> None:
        self.blocks = tuple(blocks)
        self.asks = tuple(Ask(self._unit, block.request) for block in blocks)
        self._empty = tuple(bytes(ask.request.answer_bytes) for ask in self.asks)

    def forget_splits(self, opening: object) -> None:
        """Merge again as at first."""
        self.opening = opening
        if len(self.blocks) != len(self._merged):
            self._take(self._merged)
            self._columns.relocate(self._points(), self.blocks)

    def batches(self, answers: list[bytes], now: int) -> list[Batch]:
        """Batches of a scan in which every block was answered."""
        return self._columns.batches(b"".join(answers), now)

    def batches_with(self, answers: Sequence[Answer], now: int, *, partial: bool) -> list[Batch]:
        """Batches of a scan in which some blocks have no data; `partial` leaves out those the device kept silent on."""
        raw = b"".join(
            answer if isinstance(answer, bytes) else empty for answer, empty in zip(answers, self._empty, strict=True)
        )
        status = [status_of(answer) for answer in answers]
        if partial:
            return self._columns.batches_of(raw, now, status)
        return self._columns.batches(raw, now, [Quality.BAD_TIMEOUT if code is None else code for code in status])

    def splittable(self, answers: Sequence[Answer]) -> list[int]:
        """Blocks whose refusal may be one address's fault; [] when no more splits are allowed."""
        if len(self.blocks) - len(self._merged) >= SPLITS_MAX:
            return []
        return [
            number
            for number, answer in enumerate(answers)
            if isinstance(answer, ExceptionReply)
            and answer.exception in SPLIT_EXCEPTIONS
            and len(self.blocks[number].points) > 1
        ]

    def split(self, refused: Iterable[int], answers: Sequence[Answer]) -> list[Answer]:
        """Cut refused blocks in two from now on; returns the answers per new block, NOT_ASKED for those cut."""
        room = SPLITS_MAX + len(self._merged) - len(self.blocks)
        chosen = set(list(refused)[:room])
        points = self._points()
        blocks: list[Block] = []
        aligned: list[Answer] = []
        for number, block in enumerate(self.blocks):
            if number in chosen:
                blocks += halves(block, points)
                aligned += [NOT_ASKED, NOT_ASKED]
            else:
                blocks.append(block)
                aligned.append(answers[number])
        self._take(blocks)
        self._columns.relocate(points, self.blocks)
        return aligned


def status_of(answer: Answer) -> int | None:
    """StatusCode of a block's rows; None when the device said nothing for it."""
    if isinstance(answer, bytes):
        return Quality.GOOD
    if isinstance(answer, ExceptionReply):
        return answer.quality
    return None if isinstance(answer, Silence) else Quality.BAD_DECODING_ERROR
