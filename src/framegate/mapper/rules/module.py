"""Rules of kind wasm: a sandboxed module that is given rows in columns and answers with columns.

    kind: wasm
    file: energy.wasm                    in HOME/rules; or plugin: NAME, an installed plugin with the role `rule`
    inputs: [meter1.power, meter2.power]
    outputs: {plant.power: float64}

Rows carry numbers in place of names: of the input in the order of `inputs`, of the output in the order of `outputs`.
Values are float64; texts are no inputs. Running the module, and its limits of time and memory, are the business of
whoever makes it (RuleContext.make_module). A call that fails leaves nothing behind: the module starts anew from the
state that was saved last.

Source: docs/reference/rule-modules.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt

from framegate.contract.errors import GatewayError, Misconfigured
from framegate.contract.frame import Batch, Float64Column, Int32Column, Kind, TagId
from framegate.contract.quality import is_bad
from framegate.endpoint.quantity import bytes_from, seconds_from
from framegate.mapper.rules.named_tags import Output, OutputRow, batches_of, output_tags
from framegate.mapper.rules.rule import Columns, RowModule, RuleContext

MEMORY_BYTES_MIN, MEMORY_BYTES_MAX, MEMORY_BYTES = 1 << 20, 256 << 20, 16 << 20
DEADLINE_S_MIN, DEADLINE_S_MAX, DEADLINE_S = 0.001, 0.2, 0.03
LAYOUTS_MAX = 1024  # tag arrays whose input rows are remembered; the oldest goes first
_HEADER = b"wasm 1\n"


@dataclass(frozen=True, slots=True)
class _Options:
    """A row's wishes after checking; memory in bytes, deadline in seconds for one batch or tick."""

    source: Mapping[str, str]
    inputs: Sequence[str]
    outputs: Mapping[str, Any]
    memory: int
    deadline: float


class _Layout(NamedTuple):
    """Which rows of one tag array are inputs; it holds the array, so that its identity cannot be given again."""

    source: Int32Column
    rows: npt.NDArray[np.intp]
    places: npt.NDArray[np.uint32]


class ModuleRule:
    """One module as a rule; see the contract."""

    def __init__(self, name: str, options: _Options, context: RuleContext) -> None:
        self.name = name
        self._deadline_s = options.deadline
        if context.make_module is None:
            raise Misconfigured(f"rule {name}: no sandbox is at hand here", code="E4560")
        self._make, self._source, self._memory = context.make_module, options.source, options.memory
        tags = context.inputs(options.inputs)
        for tag in tags:
            if tag.type.kind is Kind.OBJECT:
                text = f"rule {name}: input {tag.name} is {tag.type.value}; a module is given numbers and booleans"
                raise Misconfigured(text, code="E4561")
        self._outputs: Sequence[Output] = output_tags(options.outputs, tags, name, context)
        place_of = {tag.id: place for place, tag in enumerate(tags)}
        self._ids = np.array(sorted(place_of), np.int32)
        self._places = np.array([place_of[tag] for tag in sorted(place_of)], np.uint32)
        self.inputs: frozenset[TagId] = frozenset(place_of)
        self._layouts: dict[int, _Layout] = {}
        self._saved = b""
        self._module: RowModule | None = self._made()

    def take(self, batch: Batch) -> Sequence[Batch]:
        """What the module answers to the inputs among these rows; raises GatewayError E4562-E4564."""
        layout = self._layouts.get(id(batch.tag)) or self._learn(batch.tag)
        rows = layout.rows
        if not len(rows):
            return ()
        count = len(batch.tag)
        columns = (
            layout.places,
            np.broadcast_to(batch.source_time, count)[rows],
            np.broadcast_to(batch.quality, count)[rows],
            _numbers(batch, rows),
        )
        return self._answered(columns, batch.gateway_time)

    def tick(self, now_ns: int) -> Sequence[Batch]:
        return self._answered(None, now_ns)

    def save(self) -> bytes:
        """The module's own state; raises GatewayError E4564."""
        self._saved = self._running().save()
        return _HEADER + self._saved

    def load(self, state: bytes) -> None:
        """Raises GatewayError E4564: it is of no use to this module."""
        if not state.startswith(_HEADER):
            raise GatewayError(f"rule {self.name}: the state kept is none of a module; it starts anew", code="E4564")
        self._running().load(state[len(_HEADER) :])
        self._saved = state[len(_HEADER) :]

    def close(self) -> None:
        module, self._module = self._module, None
        if module is not None:
            module.close()

    def _made(self) -> RowModule:
        module = self._make(self._source, self._memory)
        if self._saved:
            module.load(self._saved)
        return module

    def _running(self) -> RowModule:
        if self._module is None:
            self._module = self._made()
        return self._module

    def _answered(self, columns: Columns | None, now_ns: int) -> Sequence[Batch]:
        """Hand columns to the module, as many at once as it has room for; None: it is time that passes."""
        rows: list[OutputRow] = []
        try:
            module = self._running()
            if columns is None:
                rows += self._rows_of(module.tick(now_ns, self._deadline_s))
            else:
                for start in range(0, len(columns[0]), module.capacity):
                    stop = start + module.capacity
                    tag, time, quality, value = columns
                    part = (tag[start:stop], time[start:stop], quality[start:stop], value[start:stop])
                    rows += self._rows_of(module.take(part, now_ns, self._deadline_s))
            return batches_of(rows, now_ns)
        except GatewayError as error:
            self._failed(error.text, error.stable_code, error)
        except ValueError as error:
            self._failed(str(error), "E4563", error)

    def _rows_of(self, columns: Columns) -> list[OutputRow]:
        rows = []
        tags, times, qualities, values = (column.tolist() for column in columns)
        for tag, time, quality, value in zip(tags, times, qualities, values, strict=True):
            if tag >= len(self._outputs):
                raise ValueError(f"it answers with output {tag}; its row declares {len(self._outputs)}, from 0")
            output = self._outputs[tag]
            is_flag = output.type.kind is Kind.BOOL and not is_bad(quality)
            rows.append(OutputRow(output, bool(value) if is_flag else value, quality, time))
        return rows

    def _failed(self, text: str, code: str, cause: Exception) -> NoReturn:
        self.close()  # it may hold anything by now
        raise GatewayError(f"rule {self.name}: {text}", code=code) from cause

    def _learn(self, tag: Int32Column) -> _Layout:
        while len(self._layouts) >= LAYOUTS_MAX:
            del self._layouts[next(iter(self._layouts))]
        place = np.minimum(np.searchsorted(self._ids, tag), len(self._ids) - 1)
        rows = np.flatnonzero(self._ids[place] == tag)
        layout = self._layouts[id(tag)] = _Layout(tag, rows, self._places[place[rows]])
        return layout


def _numbers(batch: Batch, rows: npt.NDArray[np.intp]) -> Float64Column:
    """Values as float64; NaN where there is none."""
    value = batch.value[rows].astype(np.float64)
    quality = np.broadcast_to(batch.quality, len(batch.tag))[rows]
    value[quality & 0x8000_0000 != 0] = np.nan  # the bit of contract.quality.is_bad
    return value


def make(name: str, options: Mapping[str, Any], context: RuleContext) -> ModuleRule:
    """A rule of kind wasm.

    options  file or plugin, inputs, outputs, memory, deadline; contract/tables/drivers.schema.json, wasm_rule
    raises   Misconfigured E4560 - the module; E4561 - inputs or limits; E5030 - a tag; E5053 - outputs
    """
    try:
        memory = bytes_from(options.get("memory", MEMORY_BYTES))
        deadline = seconds_from(options.get("deadline", DEADLINE_S))
    except ValueError as error:
        raise Misconfigured(f"rule {name}: {error}", code="E4561") from error
    if not MEMORY_BYTES_MIN <= memory <= MEMORY_BYTES_MAX:
        raise Misconfigured(f"rule {name}: memory must be 1MiB to 256MiB", code="E4561")
    if not DEADLINE_S_MIN <= deadline <= DEADLINE_S_MAX:
        raise Misconfigured(f"rule {name}: deadline must be 1ms to 200ms; the gateway waits for it", code="E4561")
    source = {key: str(options[key]) for key in ("file", "plugin") if key in options}
    if len(source) != 1:
        raise Misconfigured(f"rule {name}: name one of `file` and `plugin`", code="E4560")
    inputs = options.get("inputs", ())
    if not inputs:
        raise Misconfigured(f"rule {name}: inputs must name tags, such as [pump1.temp, pump*.flow]", code="E4561")
    return ModuleRule(name, _Options(source, tuple(inputs), options.get("outputs", {}), memory, deadline), context)
