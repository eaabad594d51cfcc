"""A request to read, from items that are bytes already: what is asked for at every scan is encoded once.

Source: OPC UA Part 4, 5.11.2; Part 6, 5.2.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from asyncua import ua
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.ua_binary import struct_to_binary, to_binary

_TYPE: Final[bytes] = to_binary(ua.NodeId, ua.ReadRequest().TypeId)
_BOTH_TIMES: Final = struct.Struct("<dIi")  # MaxAge 0: as new as can be; TimestampsToReturn; how many items


def item(node: ua.NodeId, attribute: AttributeIds = AttributeIds.Value, index_range: str | None = None) -> bytes:
    """One ReadValueId."""
    asked: bytes = struct_to_binary(ua.ReadValueId(NodeId=node, AttributeId=attribute, IndexRange=index_range))
    return asked


class ReadRequest:
    """Values and both timestamps of some attributes; the header is asyncua's, for the channel to fill in."""

    def __init__(self, items: Sequence[bytes]) -> None:
        self.RequestHeader = ua.RequestHeader()
        self._items = items

    def encode(self) -> bytes:
        header: bytes = struct_to_binary(self.RequestHeader)
        return b"".join(
            (_TYPE, header, _BOTH_TIMES.pack(0.0, ua.TimestampsToReturn.Both, len(self._items)), *self._items)
        )
