"""Names of StatusCodes, all of OPC UA's. Source: OPC UA Part 6, Annex A, as asyncua carries it."""

from __future__ import annotations

from asyncua.ua.status_codes import get_name_and_doc

_CODE = 0xFFFF_0000


def name_of(status: int) -> str:
    """BadNodeIdUnknown; one that has no name as 0x80FF0000."""
    name, text = get_name_and_doc(status & _CODE)
    return f"0x{status:08X}" if text.startswith("Unknown") else name
