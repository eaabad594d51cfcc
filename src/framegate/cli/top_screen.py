"""The screen of `edge top`: a health record as lines of text, at any width from 80 columns. Pure.

What fails comes first and says why on a line of its own; what is well may be cut when the screen is too low.
"""

from __future__ import annotations

from textwrap import wrap

from rich.text import Text

from framegate.observe.command_health import DoorHealth
from framegate.observe.face import BridgeRecord, ConnectorHealth, DeviceHealth, GatewayHealth

_NS = 1_000_000_000
_MIB = 1 << 20
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))
NAME_COLUMNS = 18
STATE_COLUMNS = 13
REASON_LINES_MAX = 3
WIDE_COLUMNS = 100
"""From this width on the driver of each device is shown, too."""
OUTCOMES = ("confirmed", "rejected", "not_sent", "unknown")
GOOD_STATES = frozenset(("active", "connected", "serving"))


def draw(now: GatewayHealth, before: GatewayHealth, width: int, height: int) -> Text:
    """One frame of at most `height` lines.

    before  an earlier record of the same gateway, for rates; the same record gives none
    """
    lines = [*_gateway(now, before), Text()]
    ways_out = (
        [Text(_CONNECTOR_HEAD, style="bold"), *_blocks_flat(_connectors(now, before, width))] if now.connectors else []
    )
    commands = _commands(now)
    devices = _devices(now, width)
    bridges = [Text(), Text(_BRIDGE_HEAD, style="bold"), *_blocks_flat(_bridges(now, width))] if now.bridges else []
    room = height - len(lines) - len(ways_out) - len(bridges) - len(commands) - 3
    shown, hidden = _fitting(devices, max(room, 3))
    lines += [Text(_DEVICE_HEAD + ("  DRIVER" if width >= WIDE_COLUMNS else ""), style="bold"), *shown]
    if hidden:
        lines.append(Text(f"... and {hidden} more devices; a taller terminal shows them", style="dim"))
    lines += [Text(), *ways_out, *bridges, *commands]
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return Text("\n").join(lines)


_NAME_AND_STATE = f"{{:<{NAME_COLUMNS}}} {{:<{STATE_COLUMNS}}} "
_DEVICE_HEAD = _NAME_AND_STATE.format("DEVICE", "STATE") + "LAST GOOD     SCAN        OK  FAILED  SKIPPED"
_CONNECTOR_HEAD = (
    _NAME_AND_STATE.format("CONNECTOR", "STATE") + "      LAG      OWED      P50       P99   ROWS/S  REFUSED"
)
_BRIDGE_HEAD = _NAME_AND_STATE.format("BRIDGE", "STATE") + "     TAGS   CLIENTS  REQUESTS    WRITES  REFUSED RESTARTS"


_DOOR_HEAD = _NAME_AND_STATE.format("COMMANDS FROM", "WAITING") + "CONFIRMED  REJECTED  NOT SENT   UNKNOWN"


def _commands(now: GatewayHealth) -> list[Text]:
    """What became of commands, a line for each door; nothing where there were none."""
    if not now.doors and not now.commands_waiting:
        return []
    waiting = _NAME_AND_STATE.format("all doors", f"{now.commands_waiting:,}")
    total = DoorHealth("", *(sum(getattr(door, name) for door in now.doors) for name in OUTCOMES))
    rows = [_outcomes(waiting, total), *(_outcomes(_NAME_AND_STATE.format(door.name, ""), door) for door in now.doors)]
    return [Text(), Text(_DOOR_HEAD, style="bold"), *rows]


def _outcomes(head: str, door: DoorHealth) -> Text:
    row = f"{head}{door.confirmed:>9} {door.rejected:>9} {door.not_sent:>9} {door.unknown:>9}"
    return Text(row, style="yellow" if door.unknown else "")


def _gateway(now: GatewayHealth, before: GatewayHealth) -> list[Text]:
    seconds = (now.now_ns - before.now_ns) / _NS
    delivered = _rate(sum(c.rows for c in now.connectors), sum(c.rows for c in before.connectors), seconds)
    cpu = f"{100 * (now.cpu_s - before.cpu_s) / seconds:.1f} %" if seconds > 0 else "-"
    lag = max((connector.lag_rows for connector in now.connectors), default=0)
    wal = now.wal
    fill = f"{100 * wal.bytes / wal.bytes_max:.1f} %" if wal.bytes_max else "-"
    title = Text(now.name, style="bold")
    about = f"  tenant {now.tenant}  up {span(now.now_ns - now.started_ns)}  framegate {now.version}  pid {now.pid}"
    title.append(about, style="not bold")
    lines = [
        title,
        Text(
            f"in {_rate(now.bus.rows, before.bus.rows, seconds)} rows/s   out {delivered} rows/s   "
            f"cpu {cpu}   rss {now.rss_bytes / _MIB:.0f} MiB"
        ),
        Text(
            f"wal {wal.state}, {fill} full ({wal.bytes / _MIB:.0f} MiB), {wal.bytes_free / (_MIB << 10):.1f} GiB free"
            f"   lag {lag:,} rows   gaps {wal.gaps}{', paused' if now.bus.is_paused else ''}"
        ),
    ]
    if now.problem:
        lines.append(Text(now.problem, style="bold red"))
    if now.config.problem:
        lines.append(Text(f"generation {now.config.generation} runs on; {now.config.problem}", style="bold red"))
    elif now.config.is_pending:
        lines.append(Text("changed tables wait for `edge cfg apply`", style="yellow"))
    if now.config.centre:
        lines.append(Text(f"config centre: {now.config.centre}", style="yellow"))
    if now.alarms_active or now.alarms_unacknowledged:
        text = f"alarms: {now.alarms_active} active, {now.alarms_unacknowledged} to acknowledge; `edge alarms ls`"
        lines.append(Text(text, style="bold red" if now.alarms_active else "yellow"))
    if now.packages_waiting:
        lines.append(
            Text(f"{now.packages_waiting} plugins wait until they are accepted; `edge plugin ls`", style="yellow")
        )
    letters = sum(connector.letters for connector in now.connectors)
    if letters:
        lines.append(Text(f"{letters:,} messages were refused for good; `edge dlq ls` shows why", style="yellow"))
    return lines


def _devices(now: GatewayHealth, width: int) -> list[list[Text]]:
    """A block of lines per device, those in trouble first."""
    devices = sorted(now.devices, key=lambda device: (not device.error, device.name))
    return [
        _block(_device_line(device, now.now_ns, width), device.state, _reason(device.error, device.hint), width)
        for device in devices
    ]


def _device_line(device: DeviceHealth, now_ns: int, width: int) -> str:
    last_good = span(now_ns - device.last_good_ns) if device.last_good_ns else "never"
    return (
        f"{_cut(device.name)} {device.state:<{STATE_COLUMNS}} {last_good:>9} {device.scan_ms:>5.1f} ms "
        f"{device.scans_ok:>9} {device.scans_failed:>7} {device.scans_skipped:>8}"
        f"{f'  {_driver(device)}' if width >= WIDE_COLUMNS else ''}"
    )


def _driver(device: DeviceHealth) -> str:
    """What reads a device: plugin and version, and its shape where that says more."""
    where = "in a child" if device.isolation == "process" else ""
    shape = "" if device.shape == "python" else device.shape
    more = ", ".join(filter(None, (shape, where)))
    return f"{device.plugin} {device.version}{f' ({more})' if more else ''}".rstrip()


def _connectors(now: GatewayHealth, before: GatewayHealth, width: int) -> list[list[Text]]:
    seconds = (now.now_ns - before.now_ns) / _NS
    rows_before = {connector.name: connector.rows for connector in before.connectors}
    connectors = sorted(now.connectors, key=lambda connector: (not connector.error, connector.name))
    return [
        _block(
            _connector_line(connector, rows_before, seconds),
            connector.state,
            _reason(connector.error, connector.hint),
            width,
        )
        for connector in connectors
    ]


def _connector_line(connector: ConnectorHealth, rows_before: dict[str, int], seconds: float) -> str:
    rate = _rate(connector.rows, rows_before.get(connector.name, 0), seconds)
    return (
        f"{_cut(connector.name)} {connector.state:<{STATE_COLUMNS}} {connector.lag_rows:>9} "
        f"{connector.owed_rows:>9} "
        f"{connector.latency_p50_ms:>5.0f} ms {connector.latency_p99_ms:>6.0f} ms {rate:>8} {connector.refused:>8}"
    )


def _bridges(now: GatewayHealth, width: int) -> list[list[Text]]:
    bridges = sorted(now.bridges, key=lambda bridge: (not bridge.error, bridge.name))
    return [_block(_bridge_line(bridge), bridge.state, _reason(bridge.error, ""), width) for bridge in bridges]


def _bridge_line(bridge: BridgeRecord) -> str:
    return (
        f"{_cut(bridge.name)} {bridge.state:<{STATE_COLUMNS}} {bridge.tags:>9} {bridge.clients:>9} "
        f"{bridge.requests:>9} {bridge.writes:>9} {bridge.refused:>8} {bridge.restarts:>8}"
    )


def _block(line: str, state: str, reason: str, width: int) -> list[Text]:
    if not reason:
        return [Text(line, style="" if state in GOOD_STATES else "yellow")]
    words = wrap(
        reason, width, max_lines=REASON_LINES_MAX, placeholder=" ...", initial_indent="  ", subsequent_indent="  "
    )
    return [Text(line, style="red"), *(Text(row, style="red") for row in words)]


def _reason(error: str, hint: str) -> str:
    return f"{error}; {hint}" if error and hint else error


def _blocks_flat(blocks: list[list[Text]]) -> list[Text]:
    return [line for block in blocks for line in block]


def _fitting(blocks: list[list[Text]], room: int) -> tuple[list[Text], int]:
    """Lines of the first blocks that fit, and how many blocks do not."""
    shown: list[Text] = []
    for number, block in enumerate(blocks):
        if len(shown) + len(block) > room:
            return shown, len(blocks) - number
        shown += block
    return shown, 0


def _rate(now: int, before: int, seconds: float) -> str:
    return f"{max(0, now - before) / seconds:,.0f}" if seconds > 0 else "-"


def _cut(name: str) -> str:
    return f"{name[: NAME_COLUMNS - 1] + '~' if len(name) > NAME_COLUMNS else name:<{NAME_COLUMNS}}"


def span(ns: int) -> str:
    """A duration in its two largest units: "0.2 s", "1m 35s", "3d 4h"."""
    seconds = max(0, ns) / _NS
    if seconds < 10:
        return f"{seconds:.1f} s"
    left, parts = int(seconds), []
    for size, unit in _UNITS:
        if left >= size:
            parts.append(f"{left // size}{unit}")
            left %= size
    return " ".join(parts[:2])
