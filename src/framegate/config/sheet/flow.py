"""The canonical form of a row: one flow mapping on one line, `{tag: a, source: mb1, address: "4x1"}`.

What is not plainly text stands in double quotes; a backslash escapes what a text file should not hold.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from framegate.config.yaml import plain_value

_PLAIN = re.compile(r"[^\W\d_](?:[\w./ -]*\w)?")
_OF_OTHERS = frozenset(("y", "n", "yes", "no", "on", "off"))
"""Words that readers of YAML 1.1 take for booleans."""
_UNPRINTABLE = re.compile(r"[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


def flow_row(row: Mapping[str, Any]) -> str:
    """A row on one line."""
    return "{" + ", ".join(f"{flow_scalar(key)}: {flow_value(value, key)}" for key, value in row.items()) + "}"


def flow_value(value: Any, key: str = "") -> str:
    """A value on one line; addresses are always quoted, so that they are taken letter by letter."""
    if isinstance(value, Mapping):
        return flow_row(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(flow_value(item) for item in value) + "]"
    if isinstance(value, str):
        return _quoted(value) if key == "address" else flow_scalar(value)
    return json.dumps(value)


def flow_scalar(text: str) -> str:
    """A text, in quotes where it needs them."""
    is_plain = _PLAIN.fullmatch(text) and plain_value(text) is text and text.casefold() not in _OF_OTHERS
    return text if is_plain else _quoted(text)


def _quoted(text: str) -> str:
    quoted = json.dumps(text, ensure_ascii=False)
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", quoted)
