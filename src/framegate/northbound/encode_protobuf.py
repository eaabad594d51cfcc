"""Protobuf encoder: one FrameBatch per kind and route in a window, written by hand from columns.

The bytes are those that the generated class would write (contract/frame.proto), at a hundredth of its cost. Rows of
several batches of one kind share a message; their positions are its runs. A tag whose kind changes (a driver answers
Bad rows with another kind, a mapping was swapped) closes every open message first, so that its rows stay in order.

Rows of `command.ack` are CmdAckFrames. `gateway_time` of a message is that of its first row. NaN and Bad values travel
as they are: quality tells.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from struct import pack
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from framegate.contract.command import ACK_TAG
from framegate.contract.connector import Window
from framegate.contract.frame import Batch, Gap, Int32Column, Placed
from framegate.contract.ports import Catalogue
from framegate.northbound.acknowledgement import acknowledgement
from framegate.northbound.compress import Compress
from framegate.northbound.json_text import object_text
from framegate.northbound.layout import Layouts
from framegate.northbound.route import Route
from framegate.northbound.slices import part
from framegate.northbound.wire import FIXED64, VARINT, field_bytes, field_fixed64, field_varint, tag_of, varint

MESSAGE_BYTES_MAX = 256 * 1024  # one longer value travels alone
CONTENT_TYPE: Final = "application/x-protobuf"
TIME_BYTES, QUALITY_BYTES = 8, 4
RUN_BYTES: Final = 18  # a run with its header, at most
# FrameBatch fields, contract/frame.proto.
_GATEWAY, _RUN, _NAME, _OTHER, _TS, _QOS, _GATEWAY_TIME, _BACKFILL = 1, 2, 3, 8, 9, 10, 11, 12
_VALUE_FIELD: Final = {"d": 4, "l": 5, "L": 6, "?": 7}
# Value fields.
_DOUBLE, _INT, _UINT, _BOOL, _TEXT, _BYTES, _JSON, _ACK = range(1, 9)
_GAP_REASON: Final = {"retention": 1, "disk_full": 2, "damage": 3}
_KINDS: Final = "dlL?O"


class ProtobufLayout:
    """Name fields of one tag array, and the spans of rows that share a route."""

    __slots__ = ("checked", "device", "kind", "names", "size", "tag")

    def __init__(self, tag: Int32Column, names: bytes, device: tuple[tuple[int, int, bytes], ...]) -> None:
        self.tag, self.names, self.device = tag, names, device
        self.size = len(names) + len(tag) * (TIME_BYTES + QUALITY_BYTES) + RUN_BYTES  # without values
        self.kind = ""
        self.checked = -1


class _Message:
    """A FrameBatch that fills.

    pieces  parts of batches: first position, rows, name fields, value bytes, times, qualities
    """

    __slots__ = ("gateway_time", "key", "kind", "pieces", "size")

    def __init__(self, key: bytes, kind: str, gateway_time: int) -> None:
        self.key, self.kind, self.gateway_time = key, kind, gateway_time
        self.pieces: list[tuple[int, int, bytes, bytes, bytes, bytes]] = []
        self.size = 0


class ProtobufEncoder:
    """Windows of FrameBatch messages, each at most MESSAGE_BYTES_MAX before compression."""

    __slots__ = (
        "_catalogue",
        "_compress",
        "_epoch",
        "_gateway",
        "_is_backfill",
        "_kind_of",
        "_layouts",
        "_mark",
        "_name",
        "_route",
        "_suffix",
        "encoding",
    )

    def __init__(
        self,
        route: Route,
        gateway: str,
        catalogue: Catalogue,
        compress: Compress | None,
        suffix: str,
        *,
        is_backfill: bool,
    ) -> None:
        self.encoding = CONTENT_TYPE + suffix
        self._route, self._catalogue, self._compress, self._suffix = route, catalogue, compress, suffix
        self._name = gateway
        self._is_backfill, self._mark = is_backfill, field_varint(_BACKFILL, int(is_backfill))
        self._gateway = field_bytes(_GATEWAY, gateway.encode()) if gateway else b""
        self._layouts = Layouts(self._layout)
        self._kind_of: npt.NDArray[np.int8] = np.zeros(1024, np.int8)  # by tag id; 0 = not seen, else place in _KINDS
        self._epoch = 0  # grows whenever a tag changes its kind

    def forget(self) -> None:
        """Drop what was learnt from the catalogue."""
        self._layouts.forget()

    def encode(self, placed: Sequence[Placed]) -> Window:
        """A window over placed batches; rows of one tag stay in order."""
        done: list[_Message] = []
        filling: dict[tuple[bytes, str], _Message] = {}
        for entry in placed:
            layout = self._layouts.of(entry.batch.tag)
            if self._changes_kind(layout, entry.batch.value.dtype.char):
                done.extend(filling.values())
                filling.clear()
            if len(layout.device) == 1:
                self._append(entry, layout.device[0][2], layout, filling, done)
                continue
            for start, stop, key in layout.device:
                piece = part(entry, start, stop)
                self._append(piece, key, self._layouts.of(piece.batch.tag), filling, done)
        done.extend(filling.values())
        payload = [self._written(message) for message in done]
        return Window(
            placed[0].first,
            placed[-1].last,
            [message.key for message in done],
            payload,
            [message.pieces[0][0] for message in done],
            [sum([piece[1] for piece in message.pieces]) for message in done],
            self.encoding,
        )

    def encode_gap(self, gap: Gap) -> Window | None:
        """A GapFrame, where its route differs from the data's; else None: the hole in the positions tells it.

        A reader that expects FrameBatch on a topic must not meet another message there.
        """
        if not (self._route.names_device or self._route.names_tag):
            return None
        data = b"".join(
            (
                field_bytes(1, gap.connector.encode()) if gap.connector else b"",
                field_fixed64(2, gap.first),
                field_fixed64(3, gap.last),
                field_varint(4, _GAP_REASON[gap.reason]),
                field_bytes(5, gap.detail.encode()) if gap.detail else b"",
                field_fixed64(6, gap.time),
                field_bytes(7, self._name.encode()) if self._name else b"",
                field_varint(8, int(self._is_backfill)),
            )
        )
        encoding = f'{CONTENT_TYPE}; messageType="framegate.v1.GapFrame"{self._suffix}'
        payload = data if self._compress is None else self._compress(data)
        return Window(gap.first, gap.last, [self._route.render_gap()], [payload], [gap.first], [0], encoding)

    def _layout(self, tag: Int32Column) -> ProtobufLayout:
        tags = [self._catalogue.tag(tag_id) for tag_id in tag.tolist()]
        names = b"".join([field_bytes(_NAME, entry.name.encode()) for entry in tags])
        device = [entry.device if self._route.names_device else "" for entry in tags]
        starts = [row for row in range(len(tags)) if row == 0 or device[row] != device[row - 1]]
        spans = zip(starts, [*starts[1:], len(tags)], strict=True)
        return ProtobufLayout(
            tag, names, tuple((start, stop, self._route.render(device[start])) for start, stop in spans)
        )

    def _changes_kind(self, layout: ProtobufLayout, kind: str) -> bool:
        """True when a tag of this layout was last seen with another kind. Free while kinds last."""
        if layout.checked == self._epoch and layout.kind == kind:
            return False
        mark = _KINDS.index(kind) + 1
        highest = int(layout.tag.max())
        if highest >= len(self._kind_of):
            self._kind_of = np.concatenate((self._kind_of, np.zeros(highest + 1, np.int8)))
        seen = self._kind_of[layout.tag]
        changes = bool(((seen != mark) & (seen != 0)).any())
        self._kind_of[layout.tag] = mark
        self._epoch += changes
        layout.kind, layout.checked = kind, self._epoch
        return changes

    def _append(
        self,
        placed: Placed,
        key: bytes,
        layout: ProtobufLayout,
        filling: dict[tuple[bytes, str], _Message],
        done: list[_Message],
    ) -> None:
        batch = placed.batch
        rows, kind = len(batch.tag), batch.value.dtype.char
        value = self._other_values(batch) if kind == "O" else batch.value.tobytes()
        size = layout.size + len(value)
        if size > MESSAGE_BYTES_MAX and rows > 1:
            for start, stop in ((0, rows // 2), (rows // 2, rows)):
                half = part(placed, start, stop)
                self._append(half, key, self._layouts.of(half.batch.tag), filling, done)
            return
        message = filling.get((key, kind))
        if message is None or message.size + size > MESSAGE_BYTES_MAX:
            if message is not None:
                done.append(message)
                del filling[key, kind]
            message = filling[key, kind] = _Message(key, kind, batch.gateway_time)
        message.size += size
        time, quality = batch.source_time.tobytes(), batch.quality.tobytes()
        message.pieces.append((placed.first, rows, layout.names, value, time, quality))

    def _other_values(self, batch: Batch) -> bytes:
        ack = self._catalogue.find(ACK_TAG)
        if ack is None or ack.id not in batch.tag:
            return b"".join([field_bytes(_OTHER, _value(item)) for item in batch.value.tolist()])
        rows = zip(batch.tag.tolist(), batch.value.tolist(), strict=True)
        return b"".join([field_bytes(_OTHER, _ack(item) if id_ == ack.id else _value(item)) for id_, item in rows])

    def _written(self, message: _Message) -> bytes:
        firsts, counts, names, values, times, qualities = zip(*message.pieces, strict=True)
        field = _VALUE_FIELD.get(message.kind)
        value = b"".join(values)
        data = b"".join(
            (
                self._gateway,
                _runs(firsts, counts),
                *names,
                value if field is None else field_bytes(field, value),
                field_bytes(_TS, _shared(times, counts, TIME_BYTES)),
                field_bytes(_QOS, _shared(qualities, counts, QUALITY_BYTES)),
                field_fixed64(_GATEWAY_TIME, message.gateway_time),
                self._mark,
            )
        )
        return data if self._compress is None else self._compress(data)


def _runs(firsts: Sequence[int], counts: Sequence[int]) -> bytes:
    """Run fields; neighbours in the log become one run."""
    written: list[bytes] = []
    first, rows = firsts[0], 0
    for start, count in zip(firsts, counts, strict=True):
        if start != first + rows:
            written.append(_run(first, rows))
            first, rows = start, 0
        rows += count
    written.append(_run(first, rows))
    return b"".join(written)


def _run(first: int, rows: int) -> bytes:
    count = varint(rows)
    # Field 2 with its length; field 1 fixed64 position; field 2 varint rows.
    return b"\x12%c\x09%b\x10%b" % (10 + len(count), pack("<Q", first), count)


def _shared(columns: Sequence[bytes], counts: Sequence[int], width: int) -> bytes:
    """One entry when every row has the same, else one per row."""
    if len(columns[0]) == width and columns.count(columns[0]) == len(columns):
        return columns[0]
    pairs = zip(columns, counts, strict=True)
    return b"".join([column * rows if len(column) == width else column for column, rows in pairs])


def _value(item: object) -> bytes:
    """A Value message; None is a Value without content."""
    write = _WRITE.get(type(item))
    return field_bytes(_JSON, object_text(item)) if write is None else write(item)


def _ack(item: object) -> bytes:
    """A Value message of a row of `command.ack`."""
    frame = acknowledgement(item)
    return _value(item) if frame is None else field_bytes(_ACK, frame)


def _integer(item: int) -> bytes:
    if -(1 << 63) <= item < 1 << 63:
        return tag_of(_INT, VARINT) + varint((item << 1 ^ item >> 63) & 0xFFFF_FFFF_FFFF_FFFF)  # zigzag
    if 0 <= item < 1 << 64:
        return tag_of(_UINT, VARINT) + varint(item)
    return field_bytes(_JSON, object_text(item))


_WRITE: Final[Mapping[type, Callable[[Any], bytes]]] = {
    type(None): lambda _: b"",
    str: lambda item: field_bytes(_TEXT, item.encode("utf-8", "replace")),
    bytes: lambda item: field_bytes(_BYTES, item),
    bool: lambda item: tag_of(_BOOL, VARINT) + varint(item),
    float: lambda item: tag_of(_DOUBLE, FIXED64) + pack("<d", item),
    int: _integer,
}
