"""Quality: OPC UA StatusCodes, for every protocol.

The top two bits are the severity: 00 Good, 01 Uncertain, 10 Bad. Each plugin maps its own status words onto
this table, both ways where it also serves.

Source: OPC UA Part 4, 7.39 and the StatusCode list of Part 6, Annex A.
"""

from __future__ import annotations

from enum import IntEnum, unique

_BAD = 0x8000_0000
_UNCERTAIN = 0x4000_0000


@unique
class Quality(IntEnum):
    """The StatusCodes that the gateway itself writes; any other code passes through unchanged."""

    GOOD = 0x0000_0000
    UNCERTAIN = 0x4000_0000
    UNCERTAIN_LAST_USABLE_VALUE = 0x4090_0000
    UNCERTAIN_SUB_NORMAL = 0x4095_0000
    BAD = 0x8000_0000
    BAD_UNEXPECTED_ERROR = 0x8001_0000
    BAD_COMMUNICATION_ERROR = 0x8005_0000
    BAD_TIMEOUT = 0x800A_0000
    BAD_SHUTDOWN = 0x800C_0000
    BAD_USER_ACCESS_DENIED = 0x801F_0000
    BAD_WAITING_FOR_INITIAL_DATA = 0x8032_0000
    BAD_NODE_ID_UNKNOWN = 0x8034_0000
    BAD_NOT_READABLE = 0x803A_0000
    BAD_NOT_WRITABLE = 0x803B_0000
    BAD_OUT_OF_RANGE = 0x803C_0000
    BAD_NOT_SUPPORTED = 0x803D_0000
    BAD_TYPE_MISMATCH = 0x8074_0000
    BAD_CONFIGURATION_ERROR = 0x8089_0000
    BAD_NOT_CONNECTED = 0x808A_0000
    BAD_DEVICE_FAILURE = 0x808B_0000
    BAD_SENSOR_FAILURE = 0x808C_0000
    BAD_OUT_OF_SERVICE = 0x808D_0000
    BAD_NO_COMMUNICATION = 0x8031_0000
    BAD_RESOURCE_UNAVAILABLE = 0x8004_0000
    BAD_DECODING_ERROR = 0x8007_0000
    BAD_NO_DATA = 0x809B_0000


def is_good(status: int) -> bool:
    return status & (_BAD | _UNCERTAIN) == 0


def is_bad(status: int) -> bool:
    return status & _BAD != 0


def describe(status: int) -> str:
    """Name of a StatusCode, as OPC UA spells it: BadTimeout; unknown codes as 0x801F0000."""
    try:
        return "".join(part.capitalize() for part in Quality(status & 0xFFFF_0000).name.split("_"))
    except ValueError:
        return f"0x{status:08X}"
