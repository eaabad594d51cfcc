"""What tag rows say for bridges, checked against drivers.yml and the plugins' schemas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from framegate.config.explain import findings_of, listed, suggestion
from framegate.config.problems import Problems
from framegate.config.rows import BridgeRow, VariableRow
from framegate.config.schema import Check, rebased, tag_schema
from framegate.contract.plugin import Manifest, RoleEntry


def check_shown(
    rows: Sequence[VariableRow],
    names: Mapping[str, Any] | None,
    bridges: Mapping[str, BridgeRow],
    plugins: Mapping[str, Manifest],
    problems: Problems,
) -> None:
    """Key `bridges` of every tag row.

    names    raw rows of the section `bridges`, wrong ones too; None when drivers.yml could not be read
    bridges  the valid ones
    """
    checks: dict[str, Check | None] = {}
    for index, row in enumerate(rows):
        for name, options in row.bridges.items():
            path = ("variables", index, "bridges", name)
            if name not in checks:
                checks[name] = _check_of(bridges.get(name), plugins)
            check = checks[name]
            if check is not None:
                for finding in findings_of(check, options):
                    is_key = finding.code == "E1106"
                    problems.add("variables", (*path, *finding.path), finding.code, finding.text, at_key=is_key)
            elif names is not None and name not in names:
                known = f"; it has {listed(list(names))}" if names else ""
                text = f"no bridge {name} in drivers.yml{suggestion(name, names)}{known}"
                problems.add("variables", path, "E1111", text, at_key=True)


def _check_of(bridge: BridgeRow | None, plugins: Mapping[str, Manifest]) -> Check | None:
    manifest = None if bridge is None else plugins.get(bridge.plugin)
    entry = None if manifest is None else manifest.roles.get("bridge")
    if entry is None:
        return None
    try:
        return Check(tag_options(entry))
    except ValueError:  # told once, where drivers.yml names the plugin
        return None


def tag_options(entry: RoleEntry) -> dict[str, Any]:
    """Schema of what one tag row says for a bridge of this plugin."""
    rule = {"type": "object", "additionalProperties": False, **tag_schema(entry)}
    return {**rebased(rule, "#/$defs/plugin"), "$defs": {"plugin": rebased(dict(entry.schema), "#/$defs/plugin")}}
