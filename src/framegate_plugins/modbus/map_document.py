"""The register map as a document for whoever configures the master: CSV for its import, Markdown for people. Pure."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from framegate_plugins.modbus.address import Area
from framegate_plugins.modbus.bridge_options import BridgeOptions
from framegate_plugins.modbus.register_map import Entry, RegisterMap, place_of
from framegate_plugins.modbus.tags import TEXT_TYPES

COLUMNS: Final = (
    "table", "number", "address", "registers", "tag", "type", "order", "scale", "access", "unit", "low", "high",
    "texts", "quality", "device", "description",
)  # fmt: skip
_TABLE: Mapping[Area, tuple[str, str]] = {
    Area.COILS: ("coils", "0x"),
    Area.DISCRETE_INPUTS: ("discrete inputs", "1x"),
    Area.INPUT_REGISTERS: ("input registers", "3x"),
    Area.HOLDING_REGISTERS: ("holding registers", "4x"),
}
_ORDERS = "ABCDEFGH"
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


def document_rows(entries: RegisterMap) -> Iterator[Sequence[str]]:
    """One row for each tag, in the order of the tags; see COLUMNS.

    number  counted from 1 with the table's digit, as manuals print it; address: counted from 0, as it travels
    order   bytes as they arrive, the most significant one is A
    scale   value = register * scale; "" for 1
    quality input register of the tag's quality; "" where the bridge has none
    """
    for entry in entries.entries:
        point, tag = entry.point, entry.tag
        table, digit = _TABLE[point.area]
        suffix = place_of(entry).partition(".")[2] if point.count == 1 else ""
        span = ("", "") if tag.span is None else (f"{tag.span[0]:g}", f"{tag.span[1]:g}")
        quality = "" if entry.quality_offset is None else f"3x{entry.quality_offset + 1:05}"
        texts = ", ".join(f"{number} = {text}" for number, text in tag.enumeration.items())
        yield (
            table,
            f"{digit}{point.offset + 1:05}{'.' + suffix if suffix else ''}",
            place_of(entry),
            str(point.count),
            tag.name,
            f"{point.type.value}[{len(point.source)}]" if point.type in TEXT_TYPES else point.type.value,
            _order(entry),
            "" if entry.scale == 1.0 else f"{entry.scale:g}",
            _access(entry),
            tag.unit,
            *span,
            texts,
            quality,
            tag.device,
            tag.description,
        )


def as_csv(entries: RegisterMap) -> str:
    """The map as CSV; a cell that a spreadsheet would take for a formula gets an apostrophe."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in document_rows(entries):
        writer.writerow([f"'{cell}" if cell.startswith(_FORMULA) and not _is_number(cell) else cell for cell in row])
    return out.getvalue()


def as_markdown(entries: RegisterMap, options: BridgeOptions, gateway: str, bridge: str, url: str) -> str:
    """The map as a page."""
    lines = [
        f"# Register map of bridge {bridge}",
        "",
        f"Gateway {gateway}, {url}, unit {options.unit}. Quality: {options.quality.value}. Gaps: {options.gaps.value}.",
        "",
        "`number` counts from 1, `address` from 0. Byte A is the most significant.",
        "A quality register holds the upper half of an OPC UA StatusCode: 0 is Good, from 8000 hexadecimal on Bad.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|---" * len(COLUMNS) + "|",
    ]
    lines += [f"| {' | '.join(_cell(cell) for cell in row)} |" for row in document_rows(entries)]
    return "\n".join(lines) + "\n"


def _order(entry: Entry) -> str:
    """Bytes as they arrive: ABCD, CDAB ...; "" where there is no order to choose."""
    source = entry.point.source
    if len(source) < 2 or len(source) > len(_ORDERS) or entry.point.type in TEXT_TYPES:
        return ""
    letters = {offset: _ORDERS[rank] for rank, offset in enumerate(source)}
    return "".join(letters[offset] for offset in range(len(source)))


def _access(entry: Entry) -> str:
    return ("R" if entry.is_readable else "") + ("W" if entry.is_writable else "")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\r", " ").replace("\n", " ")
