"""Rules of kind lua: a script of HOME/rules that is given frames one by one and answers with frames.

    -- version: 1
    outputs = { ["pump1.hot"] = "bool" }
    function on_frame(frame)
      return { value = frame.value > 80 }
    end

The file begins with the version of this interface. Frames are tables: tag, value, quality, time, unit. What a script
may do and how long is `lua_sandbox`'s business; here rows become frames, and frames rows. A call that fails leaves
nothing behind: the script starts anew from the state that was saved last.

Source: docs/reference/rule-scripts.md.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt
import orjson

from framegate.contract.errors import GatewayError, Misconfigured
from framegate.contract.frame import Batch, Int32Column, Kind, TagId
from framegate.contract.quality import is_bad
from framegate.endpoint.quantity import bytes_from, seconds_from
from framegate.mapper.rules.lua_sandbox import DEADLINE_S, DEADLINE_S_MAX, MEMORY_BYTES_MAX, Frames, Sandbox
from framegate.mapper.rules.named_tags import TEXT_BYTES_MAX, OutputRow, batches_of, output_tags
from framegate.mapper.rules.plain import EXACT_INTEGER_MAX, Plain
from framegate.mapper.rules.rule import RuleContext

API_VERSION = "1"
SCRIPT_BYTES_MAX = 262_144
MEMORY_BYTES_MIN = 262_144
DEADLINE_S_MIN = 0.001
SLICE_ROWS = 1024
"""Rows that lie in a script's memory at once."""
SLICE_ROWS_TEXT = 16
"""The same for texts, which may be long."""
LAYOUTS_MAX = 1024  # tag arrays whose input rows are remembered; the oldest goes first
LOG_LINES_PER_S = 10
NS_PER_S = 1_000_000_000
_VERSION = re.compile(rb"(?:\xef\xbb\xbf)?--[ \t]*version:[ \t]*(\S+)[ \t]*\r?(?:\n|$)")
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.-]*)*\.lua")


@dataclass(frozen=True, slots=True)
class _Options:
    """A row's wishes after checking; memory in bytes, deadline in seconds of CPU time for one batch or tick."""

    file: str
    inputs: Sequence[str]
    outputs: Mapping[str, Any]
    memory: int
    deadline: float


class _Layout(NamedTuple):
    """Which rows of one tag array are inputs; it holds the array, so that its identity cannot be given again."""

    source: Int32Column
    rows: npt.NDArray[np.intp]
    places: list[int]  # of each row's tag among the inputs, from 1


class Script:
    """One script as a rule; see the contract."""

    def __init__(self, name: str, options: _Options, text: bytes, context: RuleContext) -> None:
        self.name = name
        self._file, self._text = options.file, text
        self._memory, self._deadline_s = options.memory, options.deadline
        self._log = _ScriptLog(name, context)
        self._saved = b""
        self._sandbox: Sandbox | None = None
        try:
            sandbox = Sandbox(options.file, text, options.memory)
            declared, version = sandbox.declared("outputs"), sandbox.declared("state_version")
        except GatewayError as error:
            raise Misconfigured(f"rule {name}: {error.text}", code="E5052") from error
        self._tags = sorted(context.inputs(options.inputs), key=lambda tag: tag.id)
        outputs = output_tags({**_declaration(declared, name), **options.outputs}, self._tags, name, context)
        self._outputs = {output.name.encode(): output for output in outputs}
        self._header = f"lua {1 if version is None else version!r}\n".encode()
        self._ids = np.array([tag.id for tag in self._tags], np.int32)
        self.inputs: frozenset[TagId] = frozenset(tag.id for tag in self._tags)
        self._layouts: dict[int, _Layout] = {}
        self._ready(sandbox)

    def take(self, batch: Batch) -> Sequence[Batch]:
        """What the script answers to the inputs among these rows; raises GatewayError, see the sandbox and E5057."""
        layout = self._layouts.get(id(batch.tag)) or self._learn(batch.tag)
        slice_rows = SLICE_ROWS_TEXT if batch.kind is Kind.OBJECT else SLICE_ROWS
        rows: list[OutputRow] = []
        for start in range(0, len(layout.rows), slice_rows):
            stop = start + slice_rows
            rows += self._slice(batch, layout.rows[start:stop], layout.places[start:stop], is_first=start == 0)
        return self._published(rows, batch.gateway_time)

    def tick(self, now_ns: int) -> Sequence[Batch]:
        deadline_s = self._deadline_s if self._sandbox is not None else 0.0
        try:
            frames = self._running().tick(deadline_s, now_ns / NS_PER_S)
        except GatewayError as error:
            self._failed(error)
        self._log.write(frames, now_ns)
        return self._published(self._rows_of(frames, [], now_ns), now_ns)

    def save(self) -> bytes:
        """The script's `state`, behind the version that it gives its form. Raises GatewayError E5058: no plain data."""
        try:
            self._saved = self._running().save()
        except GatewayError as error:
            if error.stable_code == "E5054":
                error = GatewayError(error.text, code="E5058")
            self._failed(error)
        return self._header + self._saved

    def load(self, state: bytes) -> None:
        """Raises GatewayError E5058: damaged, or of another `state_version`."""
        if not state.startswith(self._header):
            text = f"rule {self.name}: the state is of another state_version of {self._file}; it starts anew"
            raise GatewayError(text, code="E5058")
        before, self._saved = self._saved, state[len(self._header) :]
        self._sandbox = None
        try:
            self._running()
        except ValueError as error:
            self._saved = before
            text = f"rule {self.name}: the state kept of {self._file} is damaged ({error}); it starts anew"
            raise GatewayError(text, code="E5058") from error

    def close(self) -> None:
        self._sandbox = None

    def _running(self) -> Sandbox:
        """The script; after a failure one that starts anew from the state saved last, within the time of one call."""
        if self._sandbox is None:
            sandbox = Sandbox(self._file, self._text, self._memory, self._deadline_s)
            if self._saved:
                sandbox.restore(self._saved)
            self._ready(sandbox)
            return sandbox
        return self._sandbox

    def _ready(self, sandbox: Sandbox) -> None:
        only = next(iter(self._outputs.values())).name if len(self._outputs) == 1 else None
        sandbox.bind([tag.name for tag in self._tags], [tag.unit for tag in self._tags], only)
        self._sandbox = sandbox

    def _slice(
        self, batch: Batch, rows: npt.NDArray[np.intp], places: Sequence[int], *, is_first: bool
    ) -> list[OutputRow]:
        quality = np.broadcast_to(batch.quality, len(batch.tag))[rows]
        times = np.broadcast_to(batch.source_time, len(batch.tag))[rows].tolist()
        try:
            values = _lua_values(batch.value[rows], batch.kind, quality.tolist())
            deadline_s = self._deadline_s if is_first and self._sandbox is not None else 0.0
            frames = self._running().rows(
                deadline_s, places, values, quality.tolist(), [time / NS_PER_S for time in times]
            )
        except GatewayError as error:
            self._failed(error)
        self._log.write(frames, batch.gateway_time)
        return self._rows_of(frames, times, batch.gateway_time)

    def _rows_of(self, frames: Frames, times: Sequence[int], now_ns: int) -> list[OutputRow]:
        rows: list[OutputRow] = []
        for name, value, quality, time, row in zip(
            frames.tag, frames.value, frames.quality, frames.time, frames.row, strict=True
        ):
            output = self._outputs.get(name)
            if output is None:
                self._failed(GatewayError(self._undeclared(name), code="E5057"))
            source_ns = times[row] if row >= 0 else now_ns
            # Seconds in float64 hold a quarter of a microsecond: a time that was not touched keeps its nanoseconds.
            is_untouched = time == source_ns / NS_PER_S
            rows.append(OutputRow(output, value, quality, source_ns if is_untouched else round(time * NS_PER_S)))
        return rows

    def _published(self, rows: Sequence[OutputRow], gateway_time: int) -> Sequence[Batch]:
        try:
            return batches_of(rows, gateway_time)
        except ValueError as error:
            self._failed(GatewayError(f"{self._file}: {error}", code="E5057"))

    def _undeclared(self, name: bytes) -> str:
        shown = name.decode("utf-8", "replace")[:256]
        if any(tag.name == shown for tag in self._tags):
            return f"{self._file}: frame of the input {shown}; set frame.tag to one of the outputs"
        return f"{self._file}: frame of {shown}, which is not declared; add it to `outputs`"

    def _failed(self, error: GatewayError) -> NoReturn:
        self._sandbox = None  # it may hold anything by now
        raise GatewayError(f"rule {self.name}: {error.text}", code=error.stable_code) from error

    def _learn(self, tag: Int32Column) -> _Layout:
        while len(self._layouts) >= LAYOUTS_MAX:
            del self._layouts[next(iter(self._layouts))]
        place = np.minimum(np.searchsorted(self._ids, tag), len(self._ids) - 1)
        rows = np.flatnonzero(self._ids[place] == tag)
        layout = self._layouts[id(tag)] = _Layout(tag, rows, (place[rows] + 1).tolist())
        return layout


class _ScriptLog:
    """What a script writes with log(): at most LOG_LINES_PER_S in a second of gateway time, the others counted."""

    def __init__(self, name: str, context: RuleContext) -> None:
        self._name, self._log = name, context.log
        self._second, self._lines, self._dropped = 0, 0, 0

    def write(self, frames: Frames, now_ns: int) -> None:
        if not frames.line_count:
            return
        second = now_ns // NS_PER_S
        if second != self._second:
            self._second, self._lines = second, 0
        shown = frames.lines[: LOG_LINES_PER_S - self._lines]
        for line in shown:
            self._log.info("rule_script_said", rule=self._name, text=line, dropped=self._dropped)
            self._dropped = 0
        self._lines += len(shown)
        self._dropped += frames.line_count - len(shown)


def make(name: str, options: Mapping[str, Any], context: RuleContext) -> Script:
    """A rule of kind lua.

    options  file, inputs, outputs, memory, deadline; contract/tables/drivers.schema.json, lua_rule
    raises   Misconfigured E5050 - the file; E5051 - its version; E5052 - it does not run; E5053 - outputs;
             E5059 - inputs
    """
    checked = _checked(name, options)
    return Script(name, checked, _script_text(name, checked.file, context.folder), context)


def fingerprint(options: Mapping[str, Any], folder: Path) -> bytes:
    """What must be equal for a rule to be unchanged: its row and the bytes of its file. 32 bytes."""
    digest = hashlib.sha256(orjson.dumps(options, option=orjson.OPT_SORT_KEYS))
    try:
        digest.update(_read(str(options.get("file", "")), folder))
    except (OSError, ValueError) as error:
        digest.update(type(error).__name__.encode())
    return digest.digest()


def _checked(name: str, options: Mapping[str, Any]) -> _Options:
    try:
        memory = bytes_from(options.get("memory", MEMORY_BYTES_MAX))
        deadline = seconds_from(options.get("deadline", DEADLINE_S))
    except ValueError as error:
        raise Misconfigured(f"rule {name}: {error}", code="E5052") from error
    if not MEMORY_BYTES_MIN <= memory <= MEMORY_BYTES_MAX:
        raise Misconfigured(f"rule {name}: memory must be 256KiB to 16MiB", code="E5052")
    if not DEADLINE_S_MIN <= deadline <= DEADLINE_S_MAX:
        raise Misconfigured(f"rule {name}: deadline must be 1ms to 200ms; the gateway waits for it", code="E5052")
    inputs = options.get("inputs", ())
    if not inputs or not all(isinstance(pattern, str) for pattern in inputs):
        raise Misconfigured(f"rule {name}: inputs must name tags, such as [pump1.temp, pump*.flow]", code="E5059")
    return _Options(str(options.get("file", "")), tuple(inputs), options.get("outputs", {}), memory, deadline)


def _script_text(name: str, file: str, folder: Path) -> bytes:
    try:
        text = _read(file, folder)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        text_ = f"rule {name}: {folder / file} cannot be read ({reason}); put the script there, or correct `file`"
        raise Misconfigured(text_, code="E5050") from error
    except ValueError as error:
        raise Misconfigured(f"rule {name}: {error}", code="E5050") from error
    version = _VERSION.match(text)
    if version is None:
        line = f"-- version: {API_VERSION}"
        raise Misconfigured(f"rule {name}: {file}:1: the first line must be `{line}`", code="E5051")
    if version[1] != API_VERSION.encode():
        shown = version[1].decode("utf-8", "replace")[:32]
        text_ = f"rule {name}: {file}:1: version {shown} is not known here; this gateway runs version {API_VERSION}"
        raise Misconfigured(text_, code="E5051")
    return text.removeprefix(b"\xef\xbb\xbf")


def _read(file: str, folder: Path) -> bytes:
    """Bytes of a script; raises OSError, or ValueError for a name that leads out of the folder, or a file too large."""
    if not _FILE.fullmatch(file):
        raise ValueError(f"file {file[:128]!r} is no name inside {folder}; write a name such as alarm_temp.lua")
    path = (folder / file).resolve(strict=True)
    if not path.is_relative_to(folder.resolve()):
        raise ValueError(f"file {file} leads out of {folder}; scripts lie inside it")
    if not path.is_file():
        raise ValueError(f"{folder / file} is no regular file")
    with path.open("rb") as script:
        text = script.read(SCRIPT_BYTES_MAX + 1)
    if len(text) > SCRIPT_BYTES_MAX:
        raise ValueError(f"{file} is larger than {SCRIPT_BYTES_MAX} bytes; split it")
    return text


def _declaration(declared: Plain, rule: str) -> Mapping[str, Any]:
    """Global `outputs` of a script with texts as str."""
    if declared is None:
        return {}
    table = _texts(declared)
    if not isinstance(table, dict) or not all(isinstance(key, str) for key in table):
        text = f'rule {rule}: outputs must be a table of names and types, such as {{ ["pump1.hot"] = "bool" }}'
        raise Misconfigured(text, code="E5053")
    return table


def _texts(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, dict):
        return {_texts(key): _texts(entry) for key, entry in value.items()}
    return value


def _lua_values(value: npt.NDArray[Any], kind: Kind, quality: Sequence[int]) -> list[Any]:
    """Values as numbers, booleans and bytes; None where the quality is Bad. Raises GatewayError E5057.

    Whole numbers beyond EXACT_INTEGER_MAX become decimal text: Lua's numbers would round them.
    """
    values: list[Any] = value.tolist()
    if kind is Kind.OBJECT:
        return [None if is_bad(status) else _lua_text(one) for one, status in zip(values, quality, strict=True)]
    if kind in (Kind.INT, Kind.UINT) and (max(values) > EXACT_INTEGER_MAX or min(values) < -EXACT_INTEGER_MAX):
        return [one if abs(one) <= EXACT_INTEGER_MAX else str(one).encode() for one in values]
    return values


def _lua_text(value: Any) -> bytes:
    data = value.encode("utf-8", "replace") if isinstance(value, str) else value
    if not isinstance(data, bytes) or len(data) > TEXT_BYTES_MAX:
        shown = f"of {len(data)} bytes" if isinstance(data, bytes) else f"that is a {type(data).__name__}"
        raise GatewayError(f"an input has a value {shown}; scripts take texts up to {TEXT_BYTES_MAX}", code="E5057")
    return data
