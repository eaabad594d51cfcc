"""Units of measurement as OPC UA writes them: EUInformation with a UNECE code.

Source: OPC UA Part 8, 5.6.4.3 (EUInformation; how a code becomes a number); UNECE Recommendation 20, Common Codes.
"""

from __future__ import annotations

from typing import Final

from framegate_plugins.opcua.server.binary import i32, localized_text, text

UNECE_URI: Final = "http://www.opcfoundation.org/UA/units/un/cefact"
UNIT_UNKNOWN: Final = -1

_CODES: Final = {
    "%": "P1", "ppm": "59", "1": "C62", "pcs": "C62", "dB": "2N",
    "°C": "CEL", "degC": "CEL", "°F": "FAH", "degF": "FAH", "K": "KEL",
    "Pa": "PAL", "hPa": "A97", "kPa": "KPA", "MPa": "MPA", "bar": "BAR", "mbar": "MBR", "psi": "PS",
    "m": "MTR", "km": "KMT", "cm": "CMT", "mm": "MMT", "µm": "4H", "um": "4H", "in": "INH", "ft": "FOT",
    "m2": "MTK", "m²": "MTK", "mm2": "MMK", "mm²": "MMK", "cm2": "CMK", "cm²": "CMK",
    "m3": "MTQ", "m³": "MTQ", "cm3": "CMQ", "cm³": "CMQ",
    "l": "LTR", "L": "LTR", "ml": "MLT", "mL": "MLT", "hl": "HLT",
    "s": "SEC", "ms": "C26", "µs": "B98", "us": "B98", "min": "MIN", "h": "HUR", "d": "DAY",
    "g": "GRM", "mg": "MGM", "kg": "KGM", "t": "TNE", "lb": "LBR",
    "m/s": "MTS", "m/min": "2X", "km/h": "KMH", "mm/s": "C16", "m/s2": "MSK", "m/s²": "MSK",
    "Hz": "HTZ", "kHz": "KHZ", "MHz": "MHZ", "rpm": "RPM", "1/min": "RPM", "rad": "C81", "rad/s": "2A", "°": "DD",
    "deg": "DD",
    "N": "NEW", "kN": "B47", "Nm": "NU", "N.m": "NU", "J": "JOU", "kJ": "KJO", "MJ": "3B",
    "W": "WTT", "kW": "KWT", "MW": "MAW", "Wh": "WHR", "kWh": "KWH", "MWh": "MWH",
    "VA": "D46", "kVA": "KVA", "var": "D44", "kvar": "KVR", "kvarh": "K3",
    "V": "VLT", "mV": "2Z", "kV": "KVT", "A": "AMP", "mA": "4K", "kA": "B22",
    "Ω": "OHM", "ohm": "OHM", "kΩ": "B49",
    "MΩ": "B75", "F": "FAR", "H": "81", "S": "SIE", "lx": "LUX", "lm": "LUM", "cd": "CDL",
    "m3/h": "MQH", "m³/h": "MQH", "m3/s": "MQS", "m³/s": "MQS",
    "l/min": "L2", "L/min": "L2", "l/s": "G51", "L/s": "G51",
    "l/h": "E32", "L/h": "E32", "kg/h": "E93", "kg/s": "KGS", "kg/m3": "KMQ", "kg/m³": "KMQ", "g/l": "GL", "g/L": "GL",
    "mg/l": "M1", "mg/L": "M1", "mol": "C34", "pH": "Q30", "W/m2": "D54", "W/m²": "D54",
}  # fmt: skip


def unit_id(unit: str) -> int:
    """The UNECE code of a unit as a number; UNIT_UNKNOWN where the unit has none here.

    Each character of the code is one byte of the number, the first the highest (Part 8, 5.6.4.3).
    """
    code = _CODES.get(unit)
    return UNIT_UNKNOWN if code is None else int.from_bytes(code.encode("ascii"), "big")


def eu_information(unit: str, namespace: str) -> bytes:
    """The body of EUInformation. namespace: who defines a unit that UNECE does not."""
    number = unit_id(unit)
    uri = UNECE_URI if number != UNIT_UNKNOWN else namespace
    return text(uri) + i32(number) + localized_text(unit) + localized_text(unit)
