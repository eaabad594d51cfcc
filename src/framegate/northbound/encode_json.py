"""JSON encoders: one message per tag, or many frames in one message.

The text around values is constant per layout and kept in a list; a scan fills in value texts, and the one text for time
and quality that its rows share, and joins. Rows with times or qualities of their own take a wider list. No text is
copied before it is joined into its message.

Shapes are documented in docs/reference/payloads.md.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Final, NamedTuple

import numpy as np
import orjson

from framegate.contract.connector import Window
from framegate.contract.frame import Batch, Gap, Int32Column, Placed, ValueType
from framegate.contract.ports import Catalogue
from framegate.northbound.compress import Compress
from framegate.northbound.json_text import Narrow, TimeTexts, narrow_rows, number_texts, quality_texts, value_column
from framegate.northbound.layout import Layouts
from framegate.northbound.route import Route
from framegate.northbound.slices import part

MESSAGE_BYTES_MAX = 256 * 1024  # text and bytes per message; one longer value travels alone
CONTENT_TYPE: Final = "application/json"
_CUT: Final = b"\x01"  # JSON escapes control characters, so this never occurs in its text


class JsonLayout(NamedTuple):
    """Constant text of one tag array.

    parts    scratch list of the fast path: constant text stands, texts of a scan are filled in
    device   (start, stop, key) of rows that share a route
    key      per row, for encodings that send each tag on its own
    """

    parts: list[bytes]
    narrow: Narrow | None
    device: tuple[tuple[int, int, bytes], ...]
    key: list[bytes]


class _Json(ABC):
    """What both JSON encoders share."""

    __slots__ = ("_catalogue", "_compress", "_gateway", "_layouts", "_mark", "_route", "_time", "encoding")
    has_key_per_row: ClassVar[bool]

    def __init__(
        self,
        route: Route,
        gateway: str,
        catalogue: Catalogue,
        time: TimeTexts,
        compress: Compress | None,
        suffix: str,
        *,
        is_backfill: bool,
    ) -> None:
        self.encoding = CONTENT_TYPE + suffix
        self._route, self._catalogue, self._time, self._compress = route, catalogue, time, compress
        self._mark = b'"backfill":true,' if is_backfill else b""
        self._gateway = orjson.dumps(gateway) + (b',"backfill":true' if is_backfill else b"")
        self._layouts = Layouts(self._layout)

    def forget(self) -> None:
        """Drop what was learnt from the catalogue."""
        self._layouts.forget()

    def encode_gap(self, gap: Gap) -> Window | None:
        """A notice that stands for rows that are gone."""
        text = b'{"gateway":%b,"gap":{"first":%d,"last":%d,"reason":%b,"detail":%b%b},"ts":%b}' % (
            self._gateway,
            gap.first,
            gap.last,
            orjson.dumps(gap.reason),
            orjson.dumps(gap.detail),
            b',"connector":%b' % orjson.dumps(gap.connector) if gap.connector else b"",
            self._time.one(gap.time),
        )
        payload = self._packed([text])
        return Window(gap.first, gap.last, [self._route.render_gap()], payload, [gap.first], [0], self.encoding)

    def _packed(self, payload: list[bytes]) -> list[bytes]:
        compress = self._compress
        return payload if compress is None else [compress(text) for text in payload]

    def _layout(self, tag: Int32Column) -> JsonLayout:
        tags = [self._catalogue.tag(tag_id) for tag_id in tag.tolist()]
        mark = self._mark if self.has_key_per_row else b""  # else once, beside the gateway's name
        opening = [b'{%b"tag":%b,"value":' % (mark, orjson.dumps(entry.name)) for entry in tags]
        narrow = narrow_rows([entry.type is ValueType.FLOAT32 for entry in tags])
        key: list[bytes] = []
        if self.has_key_per_row:
            key = [self._route.render(entry.device, entry.name) for entry in tags]
        device = [entry.device if self._route.names_device else "" for entry in tags]
        starts = [row for row in range(len(tags)) if row == 0 or device[row] != device[row - 1]]
        spans = zip(starts, [*starts[1:], len(tags)], strict=True)
        routes = () if key else tuple((start, stop, self._route.render(device[start])) for start, stop in spans)
        return JsonLayout(self._constant(opening), narrow, routes, key)

    @abstractmethod
    def _constant(self, opening: Sequence[bytes]) -> list[bytes]:
        """The fast path's scratch list."""


class JsonEncoder(_Json):
    """One message per row: {"tag":...,"value":...,"ts":...,"qos":...,"pos":...}."""

    __slots__ = ()
    has_key_per_row = True

    def encode(self, placed: Sequence[Placed]) -> Window:
        """A window over placed batches, in order."""
        key: list[bytes] = []
        payload: list[bytes] = []
        position: list[int] = []
        with np.errstate(over="ignore", invalid="ignore"):  # a float64 that float32 cannot hold
            for first, batch in placed:
                layout = self._layouts.of(batch.tag)
                key.extend(layout.key)
                payload.extend(self._rows(first, batch, layout).split(_CUT))
                position.extend(range(first, first + batch.rows))
        rows = [1] * len(payload)
        return Window(placed[0].first, placed[-1].last, key, self._packed(payload), position, rows, self.encoding)

    def _constant(self, opening: Sequence[bytes]) -> list[bytes]:
        parts = [b"}"] * (4 * len(opening) + 1)
        parts[0:-1:4] = [b"}" + _CUT + text for text in opening]
        parts[0] = opening[0]
        return parts

    def _rows(self, first: int, batch: Batch, layout: JsonLayout) -> bytes:
        texts, patched = value_column(batch, layout.narrow)
        places = number_texts(np.arange(first, first + batch.rows))
        quality, time = batch.quality, batch.source_time
        if len(quality) == 1 and len(time) == 1 and not patched:
            parts = layout.parts
            shared = b',"ts":%b,"qos":%d,"pos":' % (self._time.one(time.item(0)), quality.item(0))
            parts[1::4] = texts
            parts[2::4] = [shared] * batch.rows
            parts[3::4] = places
            return b"".join(parts)
        parts = [b',"pos":'] * (8 * batch.rows + 1)
        parts[0:-1:8] = layout.parts[0:-1:4]
        parts[1::8] = texts
        parts[2::8] = [b',"ts":'] * batch.rows
        parts[3::8] = self._time.rows(batch)
        parts[4::8] = [b',"qos":'] * batch.rows
        parts[5::8] = quality_texts(batch, patched)
        parts[7::8] = places
        parts[-1] = b"}"
        return b"".join(parts)


class JsonBatchEncoder(_Json):
    """Up to `batch` frames per message: {"gateway":...,"pos":...,"frames":[{"tag":...,"value":...,"ts":...}]}."""

    __slots__ = ("_batch",)
    has_key_per_row = False

    def __init__(
        self,
        route: Route,
        gateway: str,
        catalogue: Catalogue,
        time: TimeTexts,
        compress: Compress | None,
        suffix: str,
        batch: int,
        *,
        is_backfill: bool,
    ) -> None:
        super().__init__(route, gateway, catalogue, time, compress, suffix, is_backfill=is_backfill)
        self._batch = batch

    def encode(self, placed: Sequence[Placed]) -> Window:
        """A window over placed batches, in order; messages are filled across batches that share a route."""
        messages = _Messages(self._batch, b'{"gateway":%b,"pos":' % self._gateway)
        with np.errstate(over="ignore", invalid="ignore"):  # a float64 that float32 cannot hold
            for entry in placed:
                layout = self._layouts.of(entry.batch.tag)
                if len(layout.device) == 1:
                    self._append(messages, entry, layout, layout.device[0][2])
                    continue
                for start, stop, key in layout.device:
                    piece = part(entry, start, stop)
                    self._append(messages, piece, self._layouts.of(piece.batch.tag), key)
        messages.close()
        first, last, payload = placed[0].first, placed[-1].last, self._packed(messages.payload)
        return Window(first, last, messages.key, payload, messages.position, messages.rows, self.encoding)

    def _constant(self, opening: Sequence[bytes]) -> list[bytes]:
        parts = [b""] * (3 * len(opening))
        parts[0::3] = [b"," + text for text in opening]
        return parts

    def _append(self, messages: _Messages, placed: Placed, layout: JsonLayout, key: bytes) -> None:
        batch = placed.batch
        rows, quality, time = len(batch.tag), batch.quality, batch.source_time
        texts, patched = value_column(batch, layout.narrow)
        if len(quality) == 1 and len(time) == 1 and not patched:
            stride, parts = 3, layout.parts
            shared = b',"ts":%b,"qos":%d}' % (self._time.one(time.item(0)), quality.item(0))
            parts[1::3] = texts
            parts[2::3] = [shared] * rows
        else:
            stride, parts = 7, [b"}"] * (7 * rows)
            parts[0::7] = layout.parts[0::3]
            parts[1::7] = texts
            parts[2::7] = [b',"ts":'] * rows
            parts[3::7] = self._time.rows(batch)
            parts[4::7] = [b',"qos":'] * rows
            parts[5::7] = quality_texts(batch, patched)
        if batch.value.dtype.char == "O":
            messages.take_by_size(key, placed.first, stride, parts, [len(text) for text in texts])
        else:
            messages.take(key, placed.first, stride, parts, rows)


class _Messages:
    """Messages of a window while it fills.

    A message is joined as soon as it is full: the small texts it was made of are given back while the processor's
    cache still holds them, which is worth a third of the cost.

    open    texts of the message that still takes rows
    room    rows that it still takes
    weight  bytes of text values in it
    """

    __slots__ = ("_head", "_key", "_limit", "_next", "_open", "_room", "_weight", "key", "payload", "position", "rows")

    def __init__(self, limit: int, head: bytes) -> None:
        self.key: list[bytes] = []
        self.payload: list[bytes] = []
        self.position: list[int] = []
        self.rows: list[int] = []
        self._limit, self._head = limit, head
        self._open: list[bytes] = []
        self._key, self._next, self._room, self._weight = b"", -1, 0, 0

    def take(self, key: bytes, first: int, stride: int, parts: list[bytes], rows: int) -> None:
        """Add rows: `stride` texts each, the first of them beginning with a comma."""
        limit = self._limit
        row = self._room if key == self._key and first == self._next else 0
        if row:
            self._extend(parts[: row * stride], min(row, rows))
        while row < rows:
            self._begin(key, first + row, parts[row * stride : (row + limit) * stride], min(limit, rows - row))
            row += limit
        self._room = row - rows
        self._key, self._next = key, first + rows

    def take_by_size(self, key: bytes, first: int, stride: int, parts: list[bytes], sizes: Sequence[int]) -> None:
        """Like take, for values whose texts vary widely: messages stay bounded in bytes too."""
        if key != self._key or first != self._next:
            self._room = 0
        for row, size in enumerate(sizes):
            piece = parts[row * stride : (row + 1) * stride]
            if self._room == 0 or self._weight + size > MESSAGE_BYTES_MAX:
                self._begin(key, first + row, piece, 1)
                self._room = self._limit
            else:
                self._extend(piece, 1)
            self._room -= 1
            self._weight += size
        self._key, self._next = key, first + len(sizes)

    def close(self) -> None:
        """Join the open message."""
        if self._open:
            self._open.append(b"]}")
            self.payload.append(b"".join(self._open))
            self._open = []

    def _begin(self, key: bytes, position: int, parts: list[bytes], rows: int) -> None:
        self.close()
        parts[0] = b'%b%d,"frames":[%b' % (self._head, position, parts[0][1:])
        self._open, self._weight = parts, 0
        self.key.append(key)
        self.position.append(position)
        self.rows.append(rows)

    def _extend(self, parts: list[bytes], rows: int) -> None:
        self._open += parts
        self.rows[-1] += rows
