"""From a schema's verdict to a sentence an operator can act on: what is wrong, what would be right, a suggestion.

Texts of a schema's own come first: `patternErrorMessage` and `errorMessage`, which editors show as well.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import lru_cache
from heapq import nlargest
from itertools import islice
from typing import Any, NamedTuple

import jsonschema_rs

from framegate.config.schema import Check
from framegate.config.yaml import Path

SHOWN_MAX = 60
"""Characters of a wrong value that an error repeats."""
NEAR_MAX = 500
"""Allowed values that a suggestion is looked for in."""
COMPARED_MAX = 32
"""Of those, how many are compared letter by letter, which costs 20 us where they resemble each other."""
LISTED_MAX = 40
"""Allowed values that an error lists."""
_KINDS = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "object": "a mapping (key: value)",
    "array": "a list",
    "null": "nothing",
}


class Finding(NamedTuple):
    """One mistake, before it has a place in a file."""

    path: Path
    code: str
    text: str


def findings_of(check: Check, value: Any) -> Iterator[Finding]:
    """Every mistake that the check finds in a value, one per wrong value; paths begin at the value."""
    told: Path | None = None
    for error in check.errors(value):
        for finding in _explain(error, check.schema, _path_in(value, error.instance_path)):
            is_again = finding.path == told and finding.code not in {"E1106", "E1107"}
            told = finding.path
            if not is_again:
                yield finding


def suggestion(wrong: Any, allowed: Iterable[Any]) -> str:
    """` (did you mean x?)`, or nothing when no allowed value is near."""
    if not isinstance(wrong, str):
        return ""
    return _nearest(wrong, tuple(islice(allowed, NEAR_MAX)))


@lru_cache(maxsize=1_024)
def _nearest(wrong: str, allowed: tuple[Any, ...]) -> str:
    """Kept, because one slip is often copied to thousands of rows."""
    choices = {str(choice).casefold(): str(choice) for choice in allowed}
    folded = wrong.casefold()
    compared: Iterable[str] = choices
    if len(choices) > COMPARED_MAX:
        compared = nlargest(COMPARED_MAX, choices, key=lambda choice: _ends_alike(folded, choice))
    near = get_close_matches(folded, compared, n=1, cutoff=0.6)
    return f" (did you mean {choices[near[0]]}?)" if near else ""


def _ends_alike(one: str, other: str) -> int:
    """Characters that two words share at their beginning and at their end."""
    return _begins_alike(one, other) + _begins_alike(one[::-1], other[::-1])


def _begins_alike(one: str, other: str) -> int:
    for place, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return place
    return min(len(one), len(other))


def listed(allowed: Sequence[Any]) -> str:
    """Allowed values in one line, cut after LISTED_MAX."""
    shown = ", ".join(str(choice) for choice in allowed[:LISTED_MAX])
    return shown if len(allowed) <= LISTED_MAX else f"{shown} and {len(allowed) - LISTED_MAX} more"


def shown(value: Any) -> str:
    """A value from a table as an error repeats it, on one line and cut after SHOWN_MAX."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        text = repr(value)
    return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}..."


def _path_in(value: Any, steps: Sequence[str | int]) -> Path:
    """The path of an instance: jsonschema-rs gives a key of digits as a number, as if it stood in a list."""
    path: list[str | int] = []
    for step in steps:
        is_key = isinstance(value, Mapping)
        path.append(str(step) if is_key else step)
        try:
            value = value[path[-1]]
        except (KeyError, IndexError, TypeError):
            value = None
    return tuple(path)


def _explain(error: jsonschema_rs.ValidationError, root: Mapping[str, Any], path: Path) -> Iterator[Finding]:
    name = error.kind.name
    rule = _rule_at(root, error.schema_path)
    if name == "additionalProperties":
        allowed = sorted(rule.get("properties", {}))
        for key in error.kind.value:
            yield Finding(
                (*path, key), "E1106", f"no such key here{suggestion(key, allowed)}; keys are {listed(allowed)}"
            )
    elif name == "propertyNames":
        inner = next(_explain(error.kind.value, root, path), None)
        key = error.kind.value.instance
        yield Finding((*path, str(key)), "E1110", inner.text if inner is not None else error.message)
    elif name == "required":
        keys = rule if "properties" in rule else _rule_at(root, error.schema_path[:-1])  # of the row, from its `else`
        yield Finding(path, "E1107", _missing(error.kind.value, keys))
    else:
        code, make = _SENTENCES.get(name, ("E1104", _as_said))
        yield Finding(path, code, make(error, rule))


def _rule_at(root: Mapping[str, Any], schema_path: Sequence[str | int]) -> Mapping[str, Any]:
    """The subschema that holds the violated keyword."""
    rule: Any = root
    for step in schema_path[:-1]:
        try:
            rule = rule[step]
        except (KeyError, IndexError, TypeError):
            return {}
    return rule if isinstance(rule, Mapping) else {}


def _missing(key: str, rule: Mapping[str, Any]) -> str:
    wanted = rule.get("properties", {}).get(key, {})
    examples = wanted.get("examples", ()) if isinstance(wanted, Mapping) else ()
    hint = (
        f", for example {key}: {shown(examples[0])}" if examples and isinstance(examples[0], str | int | float) else ""
    )
    return f"the key {key} is missing{hint}"


def _not_listed(error: jsonschema_rs.ValidationError, rule: Mapping[str, Any]) -> str:
    allowed = error.kind.value
    if "errorMessage" in rule:
        return f"{shown(error.instance)} {rule['errorMessage']}"
    if isinstance(error.instance, str):
        return f"{shown(error.instance)} is not one of {listed(allowed)}{suggestion(error.instance, allowed)}"
    return f"{shown(error.instance)} is not one of {listed([shown(choice) for choice in allowed])}"


def _wrong_type(error: jsonschema_rs.ValidationError, rule: Mapping[str, Any]) -> str:
    value, wanted = error.instance, error.kind.value
    kinds = " or ".join(_KINDS.get(kind, kind) for kind in wanted)
    if value is None:
        takes = f"one of {listed(rule['enum'])}" if "enum" in rule else kinds
        return f"nothing stands here; it takes {takes}"
    in_quotes = shown(value)
    if "pattern" in rule and not _fits(in_quotes, rule):
        return f"{in_quotes} {rule.get('patternErrorMessage', f'is not {kinds}')}"
    if "errorMessage" in rule:
        return f"{in_quotes} {rule['errorMessage']}"
    text = f"{in_quotes} is not {kinds}"
    if "string" in wanted and isinstance(value, bool | int | float):
        text += "; put quotes around it"
        if not isinstance(value, float):  # 1.10 has become 1.1 already
            text += f': "{in_quotes}"'
    elif isinstance(value, str) and {"integer", "number"} & set(wanted) and _is_number(value):
        text += "; write it as a decimal number without quotes"
    return text


def _fits(text: str, rule: Mapping[str, Any]) -> bool:
    """Whether the value would do if only it were text."""
    return bool(jsonschema_rs.is_valid({"pattern": rule["pattern"]}, text))


def _is_number(text: str) -> bool:
    try:
        int(text, 0)
    except ValueError:
        try:
            float(text)
        except ValueError:
            return False
    return True


def _out_of_range(error: jsonschema_rs.ValidationError, rule: Mapping[str, Any]) -> str:
    low = rule.get("minimum", rule.get("exclusiveMinimum"))
    high = rule.get("maximum", rule.get("exclusiveMaximum"))
    side = "below" if "inimum" in error.kind.name else "above"
    text = f"{shown(error.instance)} is {side} {error.kind.value}"
    if error.kind.name.startswith("exclusive"):
        text = f"{shown(error.instance)} is not {'above' if side == 'below' else 'below'} {error.kind.value}"
    return f"{text}; it can be {low} to {high}" if low is not None and high is not None else text


def _wrong_length(error: jsonschema_rs.ValidationError, rule: Mapping[str, Any]) -> str:
    name, limit = error.kind.name, error.kind.value
    thing = "characters" if name.endswith("Length") else "items" if name.endswith("Items") else "keys"
    if name.startswith("min") and limit == 1 and not error.instance:
        return "nothing stands here; it cannot be empty"
    return f"{shown(error.instance)} has {'fewer' if name.startswith('min') else 'more'} than {limit} {thing}"


def _wrong_form(error: jsonschema_rs.ValidationError, rule: Mapping[str, Any]) -> str:
    said = rule.get("patternErrorMessage", f"does not look like {error.kind.value}")
    return f"{shown(error.instance)} {said}"


def _not_allowed(error: jsonschema_rs.ValidationError, rule: Mapping[str, Any]) -> str:
    return f"{shown(error.instance)} {rule.get('errorMessage', 'is not allowed here')}"


def _no_choice(error: jsonschema_rs.ValidationError, rule: Mapping[str, Any]) -> str:
    if "errorMessage" in rule:
        return f"{shown(error.instance)} {rule['errorMessage']}"
    branches = [branch for branch in getattr(error.kind, "context", ()) if branch]
    wanted = [finding.text for branch in branches for finding in _explain(branch[0], {}, ())]
    return "; or ".join(dict.fromkeys(wanted)) or _as_said(error, rule)


def _as_said(error: jsonschema_rs.ValidationError, rule: Mapping[str, Any]) -> str:
    if "errorMessage" in rule:
        return f"{shown(error.instance)} {rule['errorMessage']}"
    message = error.message
    return message if len(message) <= 4 * SHOWN_MAX else f"{message[: 4 * SHOWN_MAX]}..."


_SENTENCES: Mapping[str, tuple[str, Callable[[jsonschema_rs.ValidationError, Mapping[str, Any]], str]]] = {
    "enum": ("E1104", _not_listed),
    "const": ("E1104", _as_said),
    "type": ("E1108", _wrong_type),
    "minimum": ("E1109", _out_of_range),
    "maximum": ("E1109", _out_of_range),
    "exclusiveMinimum": ("E1109", _out_of_range),
    "exclusiveMaximum": ("E1109", _out_of_range),
    "multipleOf": ("E1109", _as_said),
    "minLength": ("E1109", _wrong_length),
    "maxLength": ("E1109", _wrong_length),
    "minItems": ("E1109", _wrong_length),
    "maxItems": ("E1109", _wrong_length),
    "minProperties": ("E1109", _wrong_length),
    "maxProperties": ("E1109", _wrong_length),
    "pattern": ("E1110", _wrong_form),
    "not": ("E1109", _not_allowed),
    "anyOf": ("E1104", _no_choice),
    "oneOf": ("E1104", _no_choice),
}
