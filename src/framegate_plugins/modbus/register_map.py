"""Which tag a bridge shows in which registers or bits. Pure; built once, before the bridge opens.

A tag whose row gives an address is shown there. The others are placed automatically, in the order of the tags, each in
the next free place of its table that is aligned to its width: a value of 2 registers begins at an even offset, one of
4 at a multiple of 4, a text anywhere. So nothing moves when tags are added at the end. Booleans go to coils, or to
discrete inputs when they can only be read; everything else to holding, or to input registers. Nobody makes room for
anybody: an address that is used twice is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from framegate.contract.bridge import BridgeTag
from framegate.contract.driver import BoundTag
from framegate.contract.errors import Misconfigured, Problem, TagProblem
from framegate.contract.frame import ValueType
from framegate_plugins.modbus.address import Address, Area
from framegate_plugins.modbus.bridge_options import BridgeOptions, QualityPolicy
from framegate_plugins.modbus.codec import ADDRESS_MAX
from framegate_plugins.modbus.options import Options
from framegate_plugins.modbus.tags import TEXT_TYPES, Point, points_from, width_of

ALIGNMENT_MAX = 4  # registers
WHOLE_REGISTER = 0xFFFF
SCALE_MIN, SCALE_MAX = 1e-9, 1e9


@dataclass(frozen=True, slots=True)
class Entry:
    """One tag in its place.

    slot            its number among the tags shown, from 0
    point           its place, with the type that is shown there
    is_readable     False where the tag can only be written: it is read as a gap
    quality_offset  input register of its quality; None where the bridge has none
    scale           value = register * scale, for whole numbers
    """

    slot: int
    tag: BridgeTag
    point: Point
    is_readable: bool
    is_writable: bool
    quality_offset: int | None = None
    scale: float = 1.0

    @property
    def offsets(self) -> range:
        """Registers (bits) that it takes, or takes a part of."""
        return range(self.point.offset, self.point.end)

    @property
    def mask(self) -> int:
        """Bits of each of its registers that are its own."""
        point = self.point
        if point.bit is not None:
            # With byte_order little, bit 0 of the value is bit 8 on the wire.
            return 1 << (point.bit ^ 8 if point.source == (1, 0) else point.bit)
        if len(point.source) == 1 and point.type not in TEXT_TYPES:
            return 0x00FF if point.source[0] else 0xFF00
        return WHOLE_REGISTER


class RegisterMap:
    """All that one bridge shows.

    entries  in the order of the tags
    """

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = tuple(entries)
        self._owners: Mapping[Area, dict[int, list[Entry]]] = {area: {} for area in Area}

    def take(self, entry: Entry) -> Entry | None:
        """Give an entry its registers; returns the one that has a part of them already."""
        owners = self._owners[entry.point.area]
        for offset in entry.offsets:
            for other in owners.get(offset, ()):
                if other.mask & entry.mask:
                    return other
        for offset in entry.offsets:
            owners.setdefault(offset, []).append(entry)
        return None

    def at(self, area: Area, offset: int) -> Sequence[Entry]:
        """Entries that have the address or a part of it."""
        return self._owners[area].get(offset, ())

    def extent(self, area: Area) -> range:
        """From the first to the last address that a tag has."""
        owners = self._owners[area]
        return range(min(owners), max(owners) + 1) if owners else range(0)


def register_map(tags: Sequence[BridgeTag], options: BridgeOptions) -> RegisterMap:
    """The map of these tags.

    raises Misconfigured - with a TagProblem for each tag that cannot be shown, or is in another's way
    """
    bound = _bound(tags, options)
    points = points_from(bound, Options(byte_order=options.byte_order, word_order=options.word_order))
    entries = [_entry(slot, tag, points[slot], options) for slot, tag in enumerate(tags)]
    found = RegisterMap(entries)
    problems = []
    for entry in sorted(entries, key=lambda entry: "address" not in entry.tag.options):  # explicit ones first
        other = found.take(entry)
        if other is not None:
            problems.append(_overlap(entry, other, options))
    problems += _quality_problems(found, options)
    _refuse(problems)
    return found


# -- places ------------------------------------------------------------------------------------------------------


def _bound(tags: Sequence[BridgeTag], options: BridgeOptions) -> list[BoundTag]:
    """Every tag with an address, in their order."""
    free = dict.fromkeys(Area, options.automatic_from)
    bound: list[BoundTag] = []
    problems: list[TagProblem] = []
    for tag in tags:
        problem = _type_problem(tag)
        if problem is not None:
            problems.append(problem)
            continue
        type_ = shown_type(tag)
        row = dict(tag.options)
        if type_ in TEXT_TYPES:
            row.setdefault("length", options.text_bytes)
        address = str(row["address"]) if "address" in row else ""
        if not address:
            size = _registers(type_, row)
            area = _area(tag, type_)
            offset = _aligned(free[area], 1 if type_ in TEXT_TYPES else min(size, ALIGNMENT_MAX))
            free[area] = offset + size
            if offset + size - 1 > ADDRESS_MAX:
                text = f"tag {tag.name}: no room is left behind the tags before it; give it an address"
                problems.append(TagProblem(tag.name, "address", "E2661", text))
                continue
            address = str(Address(area, offset))
        # A table that cannot be written is a fine place for a tag that can.
        bound.append(BoundTag(tag.id, tag.name, address, type_, "R", row))
    _refuse(problems)
    return bound


def shown_type(tag: BridgeTag) -> ValueType:
    """Type of a tag in its registers: what its row says, else its own.

    A text of an enumeration is shown as its number; a byte that is placed automatically has a register for itself.
    """
    said = tag.options.get("type")
    if said is not None:
        return ValueType(said)
    if tag.texts:
        return _narrowest(tag.enumeration)
    if "address" not in tag.options:
        return {ValueType.INT8: ValueType.INT16, ValueType.UINT8: ValueType.UINT16}.get(tag.type, tag.type)
    return tag.type


def _narrowest(numbers: Iterable[int]) -> ValueType:
    """Type for the numbers of an enumeration."""
    low, high = min(numbers), max(numbers)
    if low < 0:
        return ValueType.INT32 if low >= -(1 << 31) and high < 1 << 31 else ValueType.INT64
    return ValueType.UINT16 if high < 1 << 16 else ValueType.UINT32 if high < 1 << 32 else ValueType.UINT64


def _type_problem(tag: BridgeTag) -> TagProblem | None:
    said = tag.options.get("type")
    if said is not None and said not in {type_.value for type_ in ValueType}:
        return TagProblem(tag.name, "type", "E2662", f"tag {tag.name}: type {said!r} is none")
    shown = shown_type(tag)
    if ValueType.JSON in {tag.type, shown}:
        text = (
            f"tag {tag.name}: an array or structure has no place in registers; leave the tag out of the bridge's `tags`"
        )
        return TagProblem(tag.name, "type", "E2662", text)
    is_number = shown not in TEXT_TYPES and shown is not ValueType.BOOL
    if tag.type in TEXT_TYPES:
        fits = shown is tag.type or (is_number and bool(tag.texts))
    elif tag.type is ValueType.BOOL:
        fits = shown not in TEXT_TYPES
    else:
        fits = is_number
    if fits and "scale" in tag.options:
        return _scale_problem(tag, shown)
    if fits:
        return None
    text = f"tag {tag.name}: a {tag.type.value} cannot be shown as {shown.value}; leave type out, or choose another"
    return TagProblem(tag.name, "type", "E2662", text)


def _scale_problem(tag: BridgeTag, shown: ValueType) -> TagProblem | None:
    scale = tag.options["scale"]
    is_number = isinstance(scale, int | float) and not isinstance(scale, bool)
    if not is_number or not SCALE_MIN <= scale <= SCALE_MAX:
        text = f"tag {tag.name}: scale {scale!r} is no number from {SCALE_MIN:g} to {SCALE_MAX:g}"
        return TagProblem(tag.name, "scale", "E2662", text)
    if tag.type in TEXT_TYPES or tag.type is ValueType.BOOL or not shown.value.startswith(("int", "uint")):
        text = f"tag {tag.name}: only numbers shown as whole ones have a scale; set type: int16, or leave it out"
        return TagProblem(tag.name, "scale", "E2662", text)
    return None


def _registers(type_: ValueType, row: Mapping[str, object]) -> int:
    if type_ in TEXT_TYPES:
        length = row["length"]
        return (length + 1) // 2 if isinstance(length, int) else 1  # another length is refused later, with its reason
    return (width_of(type_) + 1) // 2


def _area(tag: BridgeTag, type_: ValueType) -> Area:
    if type_ is ValueType.BOOL:
        return Area.COILS if "W" in tag.access else Area.DISCRETE_INPUTS
    return Area.HOLDING_REGISTERS if "W" in tag.access else Area.INPUT_REGISTERS


def _aligned(offset: int, alignment: int) -> int:
    return -(-offset // alignment) * alignment


def _entry(slot: int, tag: BridgeTag, point: Point, options: BridgeOptions) -> Entry:
    is_register = options.quality is QualityPolicy.REGISTER
    return Entry(
        slot,
        tag,
        point,
        is_readable="R" in tag.access,
        is_writable="W" in tag.access and point.area.is_writable,
        quality_offset=options.quality_from + slot if is_register else None,
        scale=float(tag.options.get("scale", 1.0)),
    )


# -- problems ----------------------------------------------------------------------------------------------------


def _overlap(entry: Entry, other: Entry, options: BridgeOptions) -> TagProblem:
    place = f"{place_of(entry)} overlaps {place_of(other)} of tag {other.tag.name}"
    hint = "give one of them another address"
    if "address" not in entry.tag.options:
        hint = (
            f"it was placed automatically from {options.automatic_from} on; give it an address, or set automatic_from"
        )
    return TagProblem(entry.tag.name, "address", "E2660", f"tag {entry.tag.name}: {place}; {hint}")


def _quality_problems(found: RegisterMap, options: BridgeOptions) -> Iterator[TagProblem]:
    """Tags in the way of the quality registers."""
    if options.quality is not QualityPolicy.REGISTER or not found.entries:
        return
    last = options.quality_from + len(found.entries) - 1
    if last > ADDRESS_MAX:
        text = (
            f"quality_from: {len(found.entries)} quality registers from ir:{options.quality_from} on end beyond "
            f"{ADDRESS_MAX}; set it to {ADDRESS_MAX + 1 - len(found.entries)} or less"
        )
        raise Misconfigured(
            text, code="E2663", problems=[Problem("drivers", ("options", "quality_from"), "E2663", text)]
        )
    for entry in found.entries:
        point = entry.point
        if point.area is Area.INPUT_REGISTERS and point.offset <= last and options.quality_from < point.end:
            text = (
                f"tag {entry.tag.name}: {place_of(entry)} lies among the quality registers "
                f"ir:{options.quality_from}-{last}; give it another address, or set quality_from"
            )
            yield TagProblem(entry.tag.name, "address", "E2663", text)


def place_of(entry: Entry) -> str:
    """Address of an entry as text: hr:11, hr:11.3, hr:11-12."""
    point = entry.point
    if point.count > 1:
        return f"{point.area.value}:{point.offset}-{point.end - 1}"
    half = {0xFF00: "h", 0x00FF: "l"}.get(entry.mask) if point.source else None
    return str(Address(point.area, point.offset, point.bit, "h" if half == "h" else "l" if half else None))


def _refuse(problems: Sequence[TagProblem]) -> None:
    if problems:
        rest = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise Misconfigured(f"{problems[0].text}{rest}", code=problems[0].code, tag_problems=problems)
