"""How values of one width stand in a message: numpy records, for what is read and for what is written by columns.

Source: OPC UA Part 6, 5.2.2.16 (Variant) and 5.2.2.17 (DataValue); Part 4, 7.25.2 (MonitoredItemNotification).
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import numpy as np

from framegate_plugins.opcua.wire import (
    FIXED,
    SERVER_BIT,
    SERVER_PICO_BIT,
    SOURCE_BIT,
    SOURCE_PICO_BIT,
    STATUS_BIT,
    VALUE_BIT,
)

_NUMPY: Final = {"?": "u1"}  # a Boolean is any byte that is not 0


@cache
def record(mask: int, kind: int, *, has_handle: bool) -> np.dtype[Any]:
    """One DataValue, with its client handle before it or not.

    mask  the DataValue's own: which fields are there
    kind  builtin type of the value, one of FIXED; of no meaning where the mask names no value
    """
    fields: list[tuple[str, str]] = [("handle", "<u4")] if has_handle else []
    fields.append(("mask", "u1"))
    if mask & VALUE_BIT:
        code = FIXED[kind].format[-1]
        fields += [("kind", "u1"), ("value", _NUMPY.get(code, f"<{code}"))]
    for bit, name, form in (
        (STATUS_BIT, "status", "<u4"),
        (SOURCE_BIT, "source", "<i8"),
        (SOURCE_PICO_BIT, "source_pico", "<u2"),
        (SERVER_BIT, "server", "<i8"),
        (SERVER_PICO_BIT, "server_pico", "<u2"),
    ):
        if mask & bit:
            fields.append((name, form))
    return np.dtype(fields)
