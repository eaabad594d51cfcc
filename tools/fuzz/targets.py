"""Every target, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tools.fuzz.target import Target
from tools.fuzz.targets_modbus import TARGETS as MODBUS
from tools.fuzz.targets_modbus_bridge import TARGETS as MODBUS_BRIDGE
from tools.fuzz.targets_mqtt import TARGETS as MQTT
from tools.fuzz.targets_mqtt_commands import TARGETS as MQTT_COMMANDS
from tools.fuzz.targets_package import TARGETS as PACKAGE
from tools.fuzz.targets_package import WORDS as PACKAGE_WORDS
from tools.fuzz.targets_store import TARGETS as STORE
from tools.fuzz.targets_tables import TARGETS as TABLES
from tools.fuzz.targets_tables import WORDS as TABLE_WORDS

TARGETS: Mapping[str, Target] = {
    target.name: target for target in (*MODBUS, *MODBUS_BRIDGE, *MQTT, *MQTT_COMMANDS, *PACKAGE, *STORE, *TABLES)
}
WORDS: Mapping[str, Sequence[bytes]] = {
    **{target.name: TABLE_WORDS for target in TABLES},
    **{target.name: PACKAGE_WORDS for target in PACKAGE},
}
