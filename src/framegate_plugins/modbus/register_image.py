"""The registers and bits that a bridge shows, kept in wire order: a read is one slice, a batch of rows one scatter.

Both register tables lie behind one another in one buffer, both bit tables in another (a byte per bit); beside each, a
byte per address says whether it may be read now. Rows come in columns and leave in columns: nothing is done per row,
except for texts and for tags that turn good or bad. What a value and a quality mean to a master is the policy's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from framegate.contract.frame import Batch, Int32Column, UInt32Column, ValueColumn
from framegate.contract.quality import Quality
from framegate_plugins.modbus.address import Area
from framegate_plugins.modbus.bridge_options import BridgeOptions, Gaps, QualityPolicy
from framegate_plugins.modbus.codec import ADDRESS_MAX, GATEWAY_SILENCE, ILLEGAL_ADDRESS
from framegate_plugins.modbus.register_column import Rows, columns_from
from framegate_plugins.modbus.register_map import Entry, RegisterMap

ADDRESSES: Final = ADDRESS_MAX + 1
_BAD: Final = 0x8000_0000
_SHOWN, _NOT_READY, _GAP = 0, 1, 2
_FIRST: Mapping[Area, int] = {
    Area.HOLDING_REGISTERS: 0,
    Area.INPUT_REGISTERS: ADDRESSES,
    Area.COILS: 0,
    Area.DISCRETE_INPUTS: ADDRESSES,
}
"""Place of each table's first address in its buffer."""
_ALL_SHOWN: Final = bytes(ADDRESSES)


class Refused(Exception):
    """What is asked cannot be answered; `exception` is the code that says why."""

    def __init__(self, exception: int) -> None:
        super().__init__(f"exception {exception:02X}")
        self.exception = exception


class _Table(NamedTuple):
    """One of the four tables. first: place of its first address in its buffer; access: the same among all addresses"""

    first: int
    access: int
    is_bits: bool


class RegisterImage:
    """What a master reads.

    status  uint32[entries] newest StatusCode of each entry
    """

    def __init__(self, entries: RegisterMap, options: BridgeOptions) -> None:
        self._map = entries
        self._policy = options.quality
        self._registers = bytearray(2 * 2 * ADDRESSES)
        self._bits = bytearray(2 * ADDRESSES)
        self._tables = {
            area: _Table(_FIRST[area], number * ADDRESSES, area.is_bits) for number, area in enumerate(Area)
        }
        self._access = bytearray([_GAP]) * (len(Area) * ADDRESSES)
        self._not_ready = np.zeros(len(Area) * ADDRESSES, np.int8)  # tags of each address; at most 16
        count = len(entries.entries)
        self.status: UInt32Column = np.full(count, Quality.BAD_WAITING_FOR_INITIAL_DATA, np.uint32)
        self._has_value = np.zeros(count, np.bool_)
        self._is_ready = np.ones(count, np.bool_)
        self._slots = _slots_by_id(entries.entries)
        buffers = {False: np.frombuffer(self._registers, np.uint8), True: np.frombuffer(self._bits, np.uint8)}
        self._columns, self._column_of = columns_from(entries.entries, _FIRST, buffers)
        self._quality: npt.NDArray[np.uint16] | None = None
        self._open_extents(options)
        places = [self._tables[entry.point.area].access + entry.point.offset for entry in entries.entries]
        self._place = np.array(places, np.intp)
        self._width = np.array([entry.point.count for entry in entries.entries], np.intp)
        self._is_readable = np.array([entry.is_readable for entry in entries.entries], np.bool_)
        self.status[~self._is_readable] = Quality.BAD_NOT_READABLE
        self._settle(np.arange(count))

    def _open_extents(self, options: BridgeOptions) -> None:
        """Let be read what is shown, and the gaps between if the row says so."""
        for area, table in self._tables.items():
            extent = self._map.extent(area)
            if options.gaps is Gaps.ZERO:
                self._access[table.access + extent.start : table.access + extent.stop] = bytes(len(extent))
        for entry in self._map.entries:
            if entry.is_readable:
                first, count = self._tables[entry.point.area].access + entry.point.offset, entry.point.count
                self._access[first : first + count] = bytes(count)
        if options.quality is QualityPolicy.REGISTER:
            table, count = self._tables[Area.INPUT_REGISTERS], len(self._map.entries)
            first = table.first + options.quality_from
            self._quality = np.frombuffer(self._registers, ">u2")[first : first + count]
            first = table.access + options.quality_from
            self._access[first : first + count] = bytes(count)

    # -- masters --------------------------------------------------------------------------------------------------

    def read(self, area: Area, offset: int, count: int) -> bytes:
        """Data of the answer to a read, in wire order.

        raises Refused - 02 an address that is not shown; 0B a tag that is bad, or was never read
        """
        table = self._tables[area]
        access = table.access + offset
        if not self._access.startswith(_ALL_SHOWN[:count], access):
            is_gap = _GAP in self._access[access : access + count]
            raise Refused(ILLEGAL_ADDRESS if is_gap else GATEWAY_SILENCE)
        first = table.first + offset
        if table.is_bits:
            return np.packbits(np.frombuffer(self._bits, np.uint8, count, first), bitorder="little").tobytes()
        return bytes(self._registers[2 * first : 2 * (first + count)])

    def is_ready(self, entry: Entry) -> bool:
        """Whether the entry's registers hold a usable value of now."""
        return bool(self._has_value[entry.slot]) and int(self.status[entry.slot]) < _BAD

    def registers(self, area: Area, offset: int, count: int) -> bytes:
        """What registers hold, whoever may read it."""
        first = _FIRST[area] + offset
        return bytes(self._registers[2 * first : 2 * (first + count)])

    # -- rows -----------------------------------------------------------------------------------------------------

    def update(self, batches: Sequence[Batch]) -> None:
        """Show newest rows; those of tags that are not shown are passed over."""
        for batch in batches:
            slot = self._slots.take(batch.tag, mode="clip")
            value = batch.value
            quality = np.broadcast_to(batch.quality, len(slot))
            known = slot >= 0
            if not known.all():
                slot, value, quality = slot[known], value[known], quality[known]
            if len(slot):
                self._take(slot, value, quality)

    def _take(self, slot: Int32Column, value: ValueColumn, quality: UInt32Column) -> None:
        usable = quality < _BAD
        if usable.all():
            quality = self._put(slot, value, quality)
        elif usable.any():
            good = np.flatnonzero(usable)
            quality = quality.copy()
            quality[good] = self._put(slot[good], value[good], quality[good])
        self.status[slot] = quality  # of rows of one tag the last one counts, here and below
        self._settle(slot)

    def _put(self, slot: Int32Column, value: ValueColumn, quality: UInt32Column) -> UInt32Column:
        """Values into their registers; returns their quality, Bad where a value does not fit."""
        column_of = self._column_of[slot]
        only = int(column_of[0])
        if (column_of == only).all():
            fit = self._columns[only].put(slot, value)
        else:
            fit = Rows(np.zeros(len(slot), np.bool_), np.ones(len(slot), np.bool_))
            for number in np.flatnonzero(np.bincount(column_of)).tolist():
                rows = np.flatnonzero(column_of == number)
                part = self._columns[number].put(slot[rows], value[rows])
                if part is not None:
                    fit.is_wrong[rows], fit.is_shown[rows] = part
        if fit is None or not fit.is_wrong.any():
            self._has_value[slot] = True
            return quality
        self._has_value[slot[fit.is_shown]] = True
        return np.where(fit.is_wrong, np.uint32(Quality.BAD_OUT_OF_RANGE), quality)

    def _settle(self, slot: npt.NDArray[np.integer]) -> None:
        """Show the quality of these tags, as the policy has it."""
        if self._quality is not None:
            self._quality[slot] = self.status[slot] >> 16
            return
        ready = self._has_value[slot] | ~self._is_readable[slot]
        if self._policy is QualityPolicy.EXCEPTION:
            ready &= (self.status[slot] < _BAD) | ~self._is_readable[slot]
        is_other = ready != self._is_ready[slot]
        if is_other.any():
            self._turn(np.unique(slot[is_other]))

    def _turn(self, slot: npt.NDArray[np.integer]) -> None:
        """Open or close the addresses of tags; one that several tags share is open when all of them are ready."""
        self._is_ready[slot] ^= True
        width = self._width[slot]
        behind = np.cumsum(width)
        address = np.arange(behind[-1]) + np.repeat(self._place[slot] - behind + width, width)
        np.add.at(self._not_ready, address, np.repeat(np.where(self._is_ready[slot], -1, 1), width).astype(np.int8))
        access = np.frombuffer(self._access, np.uint8)
        access[address] = np.where(self._not_ready[address] > 0, _NOT_READY, _SHOWN)


def _slots_by_id(entries: Sequence[Entry]) -> Int32Column:
    """int32: slot of each tag id, -1 where it is not shown; its last element stands for every id beyond."""
    slots = np.full(max((entry.tag.id for entry in entries), default=0) + 2, -1, np.int32)
    for entry in entries:
        slots[entry.tag.id] = entry.slot
    return slots
