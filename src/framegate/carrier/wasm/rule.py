"""A sandboxed module that takes rows in columns: what a rule of kind wasm runs.

The module has room for a number of rows, in columns that the host fills; it works on them in place, and says how many
rows it has left there and which of them it keeps. It sees no clock and no chance of its own: time is that of the log,
random bytes are the same on each start, so that the same rows give the same answer.

    edge_rule_api() -> 1
    edge_rule_buffer() -> {u32 capacity, tag, time, quality, value, keep}      places of the columns
    edge_rule_batch(rows) -> rows                                              tag u32, time s64, quality u32, value f64
    edge_rule_tick(time s64) -> rows                                           optional
    edge_rule_state() -> {u32 place, size}                                     optional: what is kept over restarts

Source: docs/reference/rule-modules.md.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias, TypeVar, cast

import numpy as np
import numpy.typing as npt
import wasmtime

from framegate.carrier.wasm import wasi
from framegate.carrier.wasm.engine import TICKER, engine
from framegate.carrier.wasm.raw import (
    Memory,
    RawCall,
    Signature,
    allow_time,
    context_of,
    define,
    import_of,
    instantiate,
    signature_of,
)
from framegate.carrier.wasm.world import Errc, Overran, Rows, Trapped, Violation
from framegate.contract.errors import GatewayError

T = TypeVar("T")
Columns: TypeAlias = tuple[
    npt.NDArray[np.uint32], npt.NDArray[np.int64], npt.NDArray[np.uint32], npt.NDArray[np.float64]
]
"""Tag, source time, quality, value."""
API = 1
CAPACITY_MAX = 65_536
STATE_BYTES_MAX = 1_000_000
TABLE_ELEMENTS_MAX = 100_000
START_S = 0.2
EXPORTS = {
    "edge_rule_api": Signature("", "i"),
    "edge_rule_buffer": Signature("", "i"),
    "edge_rule_batch": Signature("i", "i"),
}
OPTIONAL = {
    "edge_rule_tick": Signature("I", "i"),
    "edge_rule_state": Signature("", "i"),
    "_initialize": Signature(""),
}
_HEADER = struct.Struct("<6I")
_PAIR = struct.Struct("<II")
_TYPES = ("<u4", "<i8", "<u4", "<f8")


def problem_of(made: object) -> str | None:
    """Why a file is no module of a rule, in one sentence; None: it is one."""
    if not isinstance(made, wasmtime.Module):
        return "is a component; a rule is a core module"
    return next(_problems(made), None)


def _problems(module: wasmtime.Module) -> Iterator[str]:
    for wanted in module.imports:
        known = wasi.SIGNATURES.get(wanted.name or "") if wanted.module == wasi.MODULE else None
        if known is None or not _is(wanted.type, known):
            yield f"imports {wanted.module} {wanted.name}, which a rule is not given"
    exports = {export.name: export.type for export in module.exports}
    if not isinstance(exports.get("memory"), wasmtime.MemoryType):
        yield "exports no memory"
    for name, signature in EXPORTS.items():
        if not _is(exports.get(name), signature):
            yield f"exports no {name} with the signature of docs/reference/rule-modules.md"
    for name, signature in OPTIONAL.items():
        if name in exports and not _is(exports[name], signature):
            yield f"exports {name} with another signature than docs/reference/rule-modules.md has"


def _is(type_: object, signature: Signature) -> bool:
    return isinstance(type_, wasmtime.FuncType) and signature_of(type_) == signature


class _Still:
    """A host without a device: what a rule's runtime asks for. Satisfies world.Host."""

    def __init__(self) -> None:
        self.time_ns = 0

    def send(self, channel: int, data: bytes) -> Errc | None:
        return Errc.UNSUPPORTED

    def recv(self, channel: int, size_max: int, timeout_ms: int) -> bytes | Errc:
        return Errc.UNSUPPORTED

    def emit(self, rows: Rows) -> None:
        """A rule answers in its columns."""

    def log(self, level: int, text: bytes) -> None:
        """What a rule prints is thrown away: each row would be a line."""

    def now_ns(self) -> int:
        return self.time_ns

    def cancelled(self) -> bool:
        return False

    def sleep(self, seconds: float) -> None:
        """Time does not pass within a call."""

    def extra_s(self) -> float:
        return 0.0


class _Wasi(wasi.Wasi):
    """Every clock is the log's, and chance is the same on each start."""

    def __init__(self, host: _Still) -> None:
        super().__init__(host)
        self._drawn = 0

    def _clock_time_get(self, clock: int, _precision: int, result: int) -> int:
        self._room.write(result, struct.pack("<q", self._host.now_ns()))
        return wasi.SUCCESS

    def _random_get(self, buffer: int, size: int) -> int:
        if size > wasi.RANDOM_BYTES_MAX:
            return wasi.INVAL
        self._drawn += 1
        self._room.write(buffer, hashlib.shake_256(self._drawn.to_bytes(8, "little")).digest(size))
        return wasi.SUCCESS


class RuleModule:
    """One instance of a module that `problem_of` found nothing wrong with.

    Every call raises GatewayError E4562 (stopped), E4563 (what it answers is wrong) or E4564 (its state); after that it
    is only good for closing.

    capacity  rows that it takes at once
    """

    def __init__(self, module: wasmtime.Module, memory_max: int) -> None:
        self._host = _Still()
        self._wasi = _Wasi(self._host)
        self._faults: list[BaseException] = []
        self._store = wasmtime.Store(engine())
        self._store.set_limits(memory_size=memory_max, table_elements=TABLE_ELEMENTS_MAX, instances=1, memories=1)
        self._context = context_of(self._store)
        self._kept: list[object] = []
        self._calls: dict[str, RawCall] = {}
        self._run(START_S, lambda: self._start(module))
        header = self._run(START_S, self._buffer)
        self.capacity, self._places = header[0], header[1:]

    def _start(self, module: wasmtime.Module) -> None:
        exports = instantiate(self._linker(module), self._store, module).exports(self._store)
        memory = exports["memory"]
        assert isinstance(memory, wasmtime.Memory), "problem_of has looked at it"
        self._memory = self._wasi.memory = Memory(self._store, memory)
        for name, signature in {**EXPORTS, **OPTIONAL}.items():
            function = exports.get(name)
            if isinstance(function, wasmtime.Func):
                self._calls[name] = RawCall(self._store, function, signature)
        if "_initialize" in self._calls:
            self._calls["_initialize"]()

    def _linker(self, module: wasmtime.Module) -> wasmtime.Linker:
        functions = self._wasi.functions()
        linker = wasmtime.Linker(engine())
        for name, type_ in {wanted.name or "": wanted.type for wanted in module.imports}.items():
            assert isinstance(type_, wasmtime.FuncType), "problem_of has looked at it"
            callback = import_of(wasi.SIGNATURES[name], functions[name], self._faults)
            self._kept.append(callback)
            define(linker, wasi.MODULE, name, type_, callback)
        self._kept.append(linker)
        return linker

    def _buffer(self) -> tuple[int, ...]:
        version = self._calls["edge_rule_api"]()
        if version != API:
            raise Violation(f"speaks version {version} of the interface of rules; this gateway speaks {API}")
        header: tuple[int, ...] = _HEADER.unpack(self._memory.read(self._calls["edge_rule_buffer"](), _HEADER.size))
        if not 1 <= header[0] <= CAPACITY_MAX:
            raise Violation(f"has room for {header[0]} rows; 1 to {CAPACITY_MAX} are allowed")
        for place, size in zip(header[1:], (4, 8, 4, 8, 1), strict=True):
            self._memory.read(place, size * header[0])
        return header

    def take(self, columns: Columns, now_ns: int, budget_s: float) -> Columns:
        """The rows that it keeps of those that it made of these; at most `capacity` are handed over."""

        def work() -> Columns:
            for place, column, type_ in zip(self._places, cast(Sequence[Any], columns), _TYPES, strict=False):
                self._memory.write(place, column.astype(type_, copy=False).tobytes())
            self._memory.write(self._places[4], bytes(len(columns[0])))
            return self._kept_of(self._calls["edge_rule_batch"](len(columns[0])))

        self._host.time_ns = now_ns
        return self._run(budget_s, work)

    def tick(self, now_ns: int, budget_s: float) -> Columns:
        """The rows that follow from time alone."""
        call = self._calls.get("edge_rule_tick")
        if call is None:
            return _NOTHING
        self._host.time_ns = now_ns
        return self._run(budget_s, lambda: self._kept_of(call(now_ns)))

    def _kept_of(self, rows: int) -> Columns:
        if rows > self.capacity:
            raise Violation(f"answers with {rows} rows; it has room for {self.capacity}")
        if not rows:
            return _NOTHING
        keep = np.frombuffer(self._memory.read(self._places[4], rows), np.uint8) != 0
        tag, time, quality, value = (
            np.frombuffer(self._memory.read(place, rows * int(type_[-1])), type_)[keep]
            for place, type_ in zip(self._places, _TYPES, strict=False)
        )
        return tag, time, quality, value

    def save(self) -> bytes:
        """What it wants to have kept; empty where it keeps nothing."""
        return self._run(START_S, lambda: self._memory.read(*self._state()))

    def load(self, state: bytes) -> None:
        """Give back what `save` gave; one of another size is refused."""

        def work() -> None:
            place, size = self._state()
            if size != len(state):
                text = f"the state kept has {len(state)} bytes, and the module has room for {size}; it starts anew"
                raise GatewayError(text, code="E4564")
            self._memory.write(place, state)

        self._run(START_S, work)

    def _state(self) -> tuple[int, int]:
        call = self._calls.get("edge_rule_state")
        if call is None:
            return 0, 0
        place, size = _PAIR.unpack(self._memory.read(call(), _PAIR.size))
        if size > STATE_BYTES_MAX:
            raise GatewayError(f"its state has {size} bytes; {STATE_BYTES_MAX} are kept", code="E4564")
        return place, size

    def close(self) -> None:
        self._store.close()

    def _run(self, budget_s: float, work: Callable[[], T]) -> T:
        allow_time(self._context, budget_s)
        try:
            with TICKER:
                return work()
        except Overran:
            text = f"ran longer than {budget_s * 1000:.0f} ms; simplify it, or raise `deadline`"
            raise GatewayError(text, code="E4562") from None
        except Trapped as stopped:
            if self._faults:
                raise self._faults[0] from None
            raise GatewayError(f"was stopped: {stopped}", code="E4562") from None
        except Violation as broken:
            raise GatewayError(f"it {broken}", code="E4563") from None


_NOTHING: Columns = (np.empty(0, np.uint32), np.empty(0, np.int64), np.empty(0, np.uint32), np.empty(0, np.float64))
