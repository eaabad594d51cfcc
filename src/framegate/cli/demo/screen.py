"""The demo's live screen: what arrived at the broker, how the gateway is, and what was lost."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from framegate.cli.demo.registers import POINTS
from framegate.cli.demo.witness import Witness
from framegate.contract.quality import describe
from framegate.observe.face import GatewayHealth

STALE_S = 3.0


def draw(witness: Witness, health: GatewayHealth | None, story: str) -> RenderableType:
    """One frame of the live screen; `story` says what is happening now."""
    return Group(
        Panel(Text(story), title="Framegate demo", border_style="cyan"),
        _values(witness),
        _machine(health),
        Text(_counts(witness), style="bold"),
    )


def _values(witness: Witness) -> RenderableType:
    table = Table(title="values that arrived at the broker", title_justify="left", expand=True, pad_edge=False)
    for column, justify in (
        ("tag", "left"),
        ("value", "right"),
        ("unit", "left"),
        ("quality", "left"),
        ("age", "right"),
    ):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    now_ms = time.time() * 1000
    for point in POINTS:
        seen = witness.last.get(point.tag)
        if seen is None:
            table.add_row(point.tag, "no data", point.unit, "", "")
            continue
        age_s = max(0.0, (now_ms - seen.time_ms) / 1000)
        style = "red" if seen.quality else ("yellow" if age_s > STALE_S else "")
        table.add_row(point.tag, _shown(seen.value), point.unit, describe(seen.quality), f"{age_s:.1f} s", style=style)
    return table


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    return "-" if value is None else str(value)


def _machine(health: GatewayHealth | None) -> RenderableType:
    if health is None:
        return Text("gateway: starting ...", style="yellow")
    table = Table(expand=True, pad_edge=False)
    for column in ("part", "state", "detail"):
        table.add_column(column)
    for device in health.devices:
        detail = device.error or f"{device.scans_ok} scans, {device.scan_ms:.1f} ms each"
        table.add_row(f"device {device.name}", device.state, detail, style="red" if device.error else "")
    for way_out in health.connectors:
        detail = way_out.error or f"{way_out.rows} rows acknowledged, p50 {way_out.latency_p50_ms:.0f} ms"
        style = "red" if way_out.error else ""
        table.add_row(f"connector {way_out.name}", way_out.state, f"lag {way_out.lag_rows} rows; {detail}", style=style)
    wal = health.wal
    table.add_row("durable log", wal.state, f"position {wal.durable}, {wal.bytes / 2**20:.1f} MiB, {wal.gaps} gaps")
    return table


def _counts(witness: Witness) -> str:
    account = witness.account()
    return (
        f"{witness.frames} frames in {witness.messages} messages   lost {account['lost']}   "
        f"repeated {account['repeated']}   out of order {witness.out_of_order}"
    )
