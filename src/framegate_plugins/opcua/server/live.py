"""Values of the Server object: what this server says of itself, made when it is asked. Source: OPC UA Part 5, 6.3."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from framegate.contract.ports import Clock
from framegate_plugins.opcua.server import binary
from framegate_plugins.opcua.server.limits import (
    CONTINUATION_POINTS_MAX,
    MESSAGE_BYTES_MAX,
    OPERATIONS_MAX,
    WRITES_MAX,
)
from framegate_plugins.opcua.server.options import Options
from framegate_plugins.opcua.server.space import Node

STANDARD_URI: Final = "http://opcfoundation.org/UA/"
SERVICE_LEVEL: Final = 255
_PRODUCT_URI, _MANUFACTURER, _PRODUCT = "urn:framegate", "Framegate", "Framegate"
_PROFILE: Final = "http://opcfoundation.org/UA-Profile/Server/StandardUA2017"
_BUILD_INFO, _SERVER_STATUS = 340, 864
"""Default Binary encodings."""
_STATUS, _CURRENT_TIME = 2256, 2258
_UINT16, _UINT32, _DOUBLE, _TEXT, _TIME, _EXTENSION = 5, 7, 11, 12, 13, 22
"""Builtin types."""

Values = dict[int, Callable[[], bytes]]


def is_live(node: Node) -> bool:
    """Whether the value of a standard node changes while the server runs."""
    return node.id.namespace == 0 and node.id.identifier in {_STATUS, _CURRENT_TIME}


def server_values(namespaces: list[str], version: str, options: Options, clock: Clock) -> Values:
    """Number of a variable -> its value now, as an encoded Variant."""
    started = binary.time(clock.now_ns())

    def now() -> bytes:
        return binary.time(clock.now_ns())

    build = b"".join(map(binary.text, (_PRODUCT_URI, _MANUFACTURER, _PRODUCT, version, version))) + binary.time(0)

    def status() -> bytes:
        body = started + now() + binary.u32(0) + build + binary.u32(0) + b"\x00"
        return binary.variant(_EXTENSION, binary.extension(_SERVER_STATUS, body))

    values: Values = {
        _STATUS: status,
        2257: _always(binary.variant(_TIME, started)),
        _CURRENT_TIME: lambda: binary.variant(_TIME, now()),
        2259: _always(binary.variant(6, binary.i32(0))),  # Running
        2260: _always(binary.variant(_EXTENSION, binary.extension(_BUILD_INFO, build))),
        2992: _always(binary.variant(_UINT32, binary.u32(0))),
        2993: _always(binary.variant(21, b"\x00")),
        2254: _always(binary.variant_array(_TEXT, [binary.text(namespaces[1])])),
        2255: _always(binary.variant_array(_TEXT, [binary.text(uri) for uri in namespaces])),
        2267: _always(binary.variant(3, binary.u8(SERVICE_LEVEL))),
        2994: _always(binary.variant(1, binary.flag(False))),
        2269: _always(binary.variant_array(_TEXT, [binary.text(_PROFILE)])),
        2271: _always(binary.variant_array(_TEXT, [])),
        2272: _always(binary.variant(_DOUBLE, binary.f64(0.0))),
        2735: _always(binary.variant(_UINT16, binary.u16(CONTINUATION_POINTS_MAX))),
        2736: _always(binary.variant(_UINT16, binary.u16(0))),
        2737: _always(binary.variant(_UINT16, binary.u16(0))),
    }
    words = {2262: _PRODUCT_URI, 2263: _MANUFACTURER, 2261: _PRODUCT, 2264: version, 2265: version}
    values |= {number: _always(binary.variant(_TEXT, binary.text(each))) for number, each in words.items()}
    values[2266] = _always(binary.variant(_TIME, binary.time(0)))
    return values | {
        number: _always(binary.variant(_UINT32, binary.u32(each))) for number, each in _bounds(options).items()
    }


def _bounds(options: Options) -> dict[int, int]:
    """ServerCapabilities and OperationLimits."""
    return {
        11705: OPERATIONS_MAX,
        11707: WRITES_MAX,
        11710: OPERATIONS_MAX,
        11711: OPERATIONS_MAX,
        11712: OPERATIONS_MAX,
        11714: OPERATIONS_MAX,
        11702: 0,  # MaxArrayLength: no tag is an array
        11703: MESSAGE_BYTES_MAX,
        24095: options.sessions_max,
        24098: options.subscriptions_max,
        24104: options.items_max,
    }


def _always(value: bytes) -> Callable[[], bytes]:
    return lambda: value
