"""The plant as two PLCs show it: which register holds what, and the tag table that reads them.

One row here makes both the simulator's content and the row of variables.yml, so that the two cannot disagree.
PLC "tank" is big-endian; PLC "meter" has swapped words, as many energy meters do.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from framegate.cli.demo.plant import Plant

PlcName: TypeAlias = Literal["tank", "meter"]
Number: TypeAlias = Literal["int16", "uint16", "uint64", "float32"]
_PACK: dict[Number, str] = {"int16": ">h", "uint16": ">H", "uint64": ">Q", "float32": ">f"}
REGISTERS_PER_PLC = 200
COILS_PER_PLC = 16


@dataclass(frozen=True, slots=True)
class Point:
    """One tag: where it lies, what it means, and how the plant fills it with its raw value."""

    plc: PlcName
    tag: str
    address: str
    type: Number | Literal["bool"]
    raw: Callable[[Plant], float]
    unit: str = ""
    scale: float = 1.0
    scan: str = "default"

    def table_row(self) -> str:
        """The point's row of variables.yml."""
        extra = f", unit: '{self.unit}'" if self.unit else ""
        extra += f", scale: {self.scale}" if self.scale != 1.0 else ""
        extra += f", scan: {self.scan}" if self.scan != "default" else ""
        swapped = self.plc == "meter" and self.type in {"float32", "uint64"}
        extra += ", word_order: little" if swapped else ""
        return f"  - {{tag: {self.tag}, source: {self.plc}, address: '{self.address}', type: {self.type}{extra}}}"


POINTS: tuple[Point, ...] = (
    Point("tank", "tank.level", "hr:0", "int16", lambda p: p.level_m * 1000, "m", 0.001, "fast"),
    Point("tank", "tank.temperature", "hr:1", "int16", lambda p: p.temperature_c * 10, "°C", 0.1),
    Point("tank", "tank.level_low", "hr:2", "int16", lambda p: p.level_low_m * 1000, "m", 0.001),
    Point("tank", "tank.level_high", "hr:3", "int16", lambda p: p.level_high_m * 1000, "m", 0.001),
    Point("tank", "tank.inflow", "hr:10", "float32", lambda p: p.inflow_m3_per_h, "m3/h", scan="fast"),
    Point("tank", "tank.outflow", "hr:12", "float32", lambda p: p.outflow_m3_per_h, "m3/h", scan="fast"),
    Point("tank", "pump.fill.running", "coil:0", "bool", lambda p: p.fill_on),
    Point("tank", "pump.drain.running", "coil:1", "bool", lambda p: p.drain_on),
    Point("tank", "heater.on", "coil:2", "bool", lambda p: p.heater_on),
    Point("meter", "meter.voltage.l1", "hr:0", "float32", lambda p: p.voltage_v(0), "V"),
    Point("meter", "meter.voltage.l2", "hr:2", "float32", lambda p: p.voltage_v(1), "V"),
    Point("meter", "meter.voltage.l3", "hr:4", "float32", lambda p: p.voltage_v(2), "V"),
    Point("meter", "meter.current.l1", "hr:6", "float32", lambda p: p.current_a(0), "A"),
    Point("meter", "meter.power", "hr:12", "float32", lambda p: p.power_kw, "kW", scan="fast"),
    Point("meter", "meter.frequency", "hr:20", "uint16", lambda p: p.frequency_hz * 100, "Hz", 0.01),
    Point("meter", "meter.energy", "hr:30", "uint64", lambda p: p.energy_wh, "Wh"),
)


def holding_registers(plc: PlcName, plant: Plant) -> dict[int, int]:
    """Register number -> 16-bit content, for every holding register of one PLC that means something."""
    registers: dict[int, int] = {}
    for point in POINTS:
        area, _, number = point.address.partition(":")
        if point.plc != plc or point.type == "bool" or area != "hr":
            continue
        raw = point.raw(plant)
        packed = struct.pack(_PACK[point.type], raw if point.type == "float32" else round(raw))
        words = struct.unpack(f">{len(packed) // 2}H", packed)
        if plc == "meter" and len(words) > 1:
            words = words[::-1]
        registers.update(zip(range(int(number), int(number) + len(words)), words, strict=True))
    return registers


def coils(plc: PlcName, plant: Plant) -> dict[int, bool]:
    """Coil number -> state, for one PLC."""
    return {
        int(point.address.partition(":")[2]): bool(point.raw(plant))
        for point in POINTS
        if point.plc == plc and point.type == "bool"
    }
