"""The tags that a rule reads and the tags that it publishes, as its row names them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any, NamedTuple

import numpy as np

from framegate.contract.errors import Misconfigured
from framegate.contract.frame import Batch, Kind, Tag, TagId, Value, ValueColumn, ValueType, uniform_time
from framegate.contract.ports import Catalogue
from framegate.contract.quality import is_bad
from framegate.mapper.rules.rule import RuleContext

INPUTS_MAX = 10_000
OUTPUTS_MAX = 10_000
TEXT_BYTES_MAX = 65_536
NAME_CHARACTERS_MAX = 256
FLOAT32_MAX = float(np.finfo(np.float32).max)
RULE_DEVICE = "rule/"
"""How the device of a tag begins that a rule publishes."""
_TYPES = {type_.value: type_ for type_ in ValueType if type_ is not ValueType.JSON}  # a script answers with scalars
_NUMPY = {
    Kind.FLOAT: np.float64,
    Kind.INT: np.int64,
    Kind.UINT: np.uint64,
    Kind.BOOL: np.bool_,
    Kind.OBJECT: np.object_,
}
_NOTHING: Mapping[Kind, Any] = {Kind.FLOAT: np.nan, Kind.INT: 0, Kind.UINT: 0, Kind.BOOL: False, Kind.OBJECT: ""}
_BOUNDS = {
    type_: (
        0 if type_.value[0] == "u" else -(1 << bits - 1),
        (1 << bits if type_.value[0] == "u" else 1 << bits - 1) - 1,
    )
    for type_ in ValueType
    for bits in (8, 16, 32, 64)
    if type_.value in {f"int{bits}", f"uint{bits}"}
}


@dataclass(frozen=True, slots=True)
class Output:
    """One tag that a rule publishes."""

    id: TagId
    name: str
    type: ValueType


class OutputRow(NamedTuple):
    """One derived value; `value` is ignored where `quality` is Bad."""

    output: Output
    value: Any
    quality: int
    time_ns: int


def output_tags(declared: Mapping[str, Any], inputs: Sequence[Tag], rule: str, context: RuleContext) -> list[Output]:
    """Tags of a declaration: name -> type, or name -> {type, unit}; `{tag}` in a name stands for each input.

    raises Misconfigured E5053 - no declaration, a type that does not exist, an input or a driver's tag as output
    """
    outputs: dict[str, Output] = {}
    for template, form in declared.items():
        type_, unit = _form(template, form, rule)
        names = [template.replace("{tag}", tag.name) for tag in inputs] if "{tag}" in template else [template]
        for name in names:
            _check_name(name, rule, context.catalogue)
            outputs[name] = Output(context.output(name, rule, type_, unit), name, type_)
        if len(outputs) > OUTPUTS_MAX:
            text = f"rule {rule}: declares {len(outputs)} outputs; {OUTPUTS_MAX} are allowed"
            raise Misconfigured(text, code="E5053")
    if not outputs:
        text = f"rule {rule}: declares no outputs; name each with its type, such as outputs: {{pump1.hot: bool}}"
        raise Misconfigured(text, code="E5053")
    read = {tag.name for tag in inputs} & outputs.keys()
    if read:
        text = f"rule {rule}: {min(read)} is both input and output; publish under another name"
        raise Misconfigured(text, code="E5053")
    return list(outputs.values())


def batches_of(rows: Sequence[OutputRow], gateway_time: int) -> list[Batch]:
    """Rows as batches, one per kind; rows of one tag stay in order.

    raises ValueError - a value does not fit its tag's type
    """
    by_kind: dict[Kind, list[OutputRow]] = {}
    for row in rows:
        by_kind.setdefault(row.output.type.kind, []).append(row)
    return [_batch(kind, part, gateway_time) for kind, part in by_kind.items()]


def fitted(value: Any, output: Output) -> Value:
    """The value as its tag's type wants it. Whole floats fit integers, decimal texts fit integers too.

    raises ValueError - it does not fit; with the name of the tag
    """
    type_ = output.type
    if type_.kind is Kind.FLOAT and isinstance(value, int | float) and not isinstance(value, bool):
        number = float(value)
        is_small = (
            type_ is ValueType.FLOAT64 or isnan(number) or number in (np.inf, -np.inf) or abs(number) <= FLOAT32_MAX
        )
        if is_small:
            return number
    elif type_ is ValueType.BOOL and isinstance(value, bool):
        return value
    elif type_.kind in (Kind.INT, Kind.UINT):
        whole = _whole(value)
        low, high = _BOUNDS[type_]
        if whole is not None and low <= whole <= high:
            return whole
    elif type_.kind is Kind.OBJECT and isinstance(value, str | bytes):
        data = value.encode("utf-8", "replace") if isinstance(value, str) else value
        if len(data) <= TEXT_BYTES_MAX:
            try:
                return data if type_ is ValueType.BYTES else data.decode("utf-8")
            except UnicodeDecodeError:
                raise ValueError(f"{output.name}: the text is not UTF-8; declare it as bytes") from None
    raise ValueError(f"{output.name}: {str(value)[:64]} is no {type_.value}")


def _batch(kind: Kind, rows: Sequence[OutputRow], gateway_time: int) -> Batch:
    values: list[Any] = [_NOTHING[kind] if is_bad(row.quality) else fitted(row.value, row.output) for row in rows]
    value: ValueColumn = np.empty(len(rows), _NUMPY[kind])
    value[:] = values
    tag = np.array([row.output.id for row in rows], np.int32)
    quality = np.array([row.quality for row in rows], np.uint32)
    times = [row.time_ns for row in rows]
    time = uniform_time(times[0]) if min(times) == max(times) else np.array(times, np.int64)
    for column in (tag, value, quality, time):
        column.flags.writeable = False
    return Batch(tag, value, quality, time, gateway_time)


def _whole(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bytes) and len(value) <= 20 and value.removeprefix(b"-").isdigit():
        return int(value)
    return None


def _form(name: str, form: Any, rule: str) -> tuple[ValueType, str]:
    row = form if isinstance(form, Mapping) else {"type": form}
    type_ = _TYPES.get(row.get("type", ""))
    unit = row.get("unit", "")
    if type_ is None or not isinstance(unit, str) or row.keys() - {"type", "unit"}:
        text = f"rule {rule}: output {name} is declared as {str(form)[:64]}; write one of {', '.join(_TYPES)}"
        raise Misconfigured(text, code="E5053")
    return type_, unit


def _check_name(name: str, rule: str, catalogue: Catalogue) -> None:
    if not 0 < len(name) <= NAME_CHARACTERS_MAX or not name.isprintable():
        text = f"rule {rule}: an output needs a name of 1 to {NAME_CHARACTERS_MAX} printable characters"
        raise Misconfigured(text, code="E5053")
    tag = catalogue.find(name)
    if tag is not None and tag.device not in (f"{RULE_DEVICE}{rule}", ""):
        text = f"rule {rule}: output {name} is a tag of {tag.device} already; publish under another name"
        raise Misconfigured(text, code="E5053")
