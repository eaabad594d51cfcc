"""The three tables: read, checked as a whole, explained line by line, and given to the gateway as typed rows.

    tables = load_tables(folder, discover())            raises Misconfigured with every problem
    check_plugins(tables, make_driver, ...)              raises Misconfigured; no I/O
    for line in render_problems(error.problems, folder): ...

Text: yaml, places. Rules: schema, explain, references, warnings, endpoint_check, plugin_check, lints. Rows: rows,
tables, variables; made of templates: templates, placeholders, origins. Spreadsheets: sheet/. Start here: validate.py.
"""

from __future__ import annotations

from framegate.config.lints import lint_tables
from framegate.config.plugin_check import check_plugins
from framegate.config.problems import problems_as_json, render_problems
from framegate.config.rows import (
    ApiRow,
    BridgeRow,
    ConnectorRow,
    DriverRow,
    EndpointRow,
    GatewayRow,
    RuleRow,
    StoreRow,
    Tables,
    VariableRow,
)
from framegate.config.sample import write_samples
from framegate.config.schema import merge_schemas
from framegate.config.units import parse_bytes, parse_duration
from framegate.config.validate import garbage_waits, load_rules, load_tables

__all__ = [
    "ApiRow",
    "BridgeRow",
    "ConnectorRow",
    "DriverRow",
    "EndpointRow",
    "GatewayRow",
    "RuleRow",
    "StoreRow",
    "Tables",
    "VariableRow",
    "check_plugins",
    "garbage_waits",
    "lint_tables",
    "load_rules",
    "load_tables",
    "merge_schemas",
    "parse_bytes",
    "parse_duration",
    "problems_as_json",
    "render_problems",
    "write_samples",
]
