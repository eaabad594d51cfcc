"""The demo's physical world: a tank with two pumps and an energy meter. Pure: time goes in, state comes out.

Nothing here knows a protocol; `registers.py` shows the state as two PLCs would.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

TANK_AREA_M2 = 2.0
TANK_HEIGHT_M = 3.0
FILL_PUMP_M3_PER_H = 36.0
DRAIN_PUMP_M3_PER_H = 22.0
AMBIENT_C = 21.0
FEED_C = 12.0
HEATER_KW = 15.0
WATER_KWH_PER_M3_K = 1.163
MAINS_V = 230.0
MAINS_HZ = 50.0
SECONDS_PER_HOUR = 3600.0


@dataclass(slots=True)
class Plant:
    """State of the plant; `step` moves it on.

    The fill pump runs between two level set points; the drain pump runs in a slow cycle, as demand does.
    """

    time_s: float = 0.0
    level_m: float = 1.2
    temperature_c: float = 30.0
    level_low_m: float = 0.9
    level_high_m: float = 2.2
    fill_on: bool = True
    drain_on: bool = True
    heater_on: bool = True
    energy_wh: float = 1_250_000.0

    def step(self, seconds: float) -> None:
        """Move the plant on by some seconds."""
        self.time_s += seconds
        self._switch()
        volume = self.level_m * TANK_AREA_M2
        inflow = self.inflow_m3_per_h * seconds / SECONDS_PER_HOUR
        outflow = self.outflow_m3_per_h * seconds / SECONDS_PER_HOUR
        heat = HEATER_KW * seconds / SECONDS_PER_HOUR if self.heater_on else 0.0
        mixed = (self.temperature_c * volume + FEED_C * inflow) / (volume + inflow)
        cooled = (mixed - AMBIENT_C) * 0.00002 * seconds
        self.temperature_c = mixed + heat / (WATER_KWH_PER_M3_K * (volume + inflow)) - cooled
        self.level_m = min(TANK_HEIGHT_M, max(0.05, (volume + inflow - outflow) / TANK_AREA_M2))
        self.energy_wh += 1000.0 * self.power_kw * seconds / SECONDS_PER_HOUR

    def _switch(self) -> None:
        if self.level_m <= self.level_low_m:
            self.fill_on = True
        elif self.level_m >= self.level_high_m:
            self.fill_on = False
        self.drain_on = math.sin(self.time_s / 40.0) > -0.6
        if self.temperature_c < 45.0:
            self.heater_on = True
        elif self.temperature_c > 48.0:
            self.heater_on = False

    @property
    def inflow_m3_per_h(self) -> float:
        return FILL_PUMP_M3_PER_H if self.fill_on else 0.0

    @property
    def outflow_m3_per_h(self) -> float:
        """Torricelli: a full tank drains faster."""
        return DRAIN_PUMP_M3_PER_H * math.sqrt(self.level_m / TANK_HEIGHT_M) * 1.4 if self.drain_on else 0.0

    @property
    def power_kw(self) -> float:
        pumps = 4.0 * self.fill_on + 2.2 * self.drain_on
        return 0.35 + pumps + HEATER_KW * self.heater_on

    @property
    def frequency_hz(self) -> float:
        return MAINS_HZ + 0.03 * math.sin(self.time_s / 7.0)

    def voltage_v(self, phase: int) -> float:
        """Line to neutral; sags a little under load."""
        return MAINS_V - 0.15 * self.power_kw + 0.8 * math.sin(self.time_s / 5.0 + 2.1 * phase)

    def current_a(self, phase: int) -> float:
        return 1000.0 * self.power_kw / 3.0 / self.voltage_v(phase)
