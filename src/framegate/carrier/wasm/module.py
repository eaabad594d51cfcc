"""A driver that is a core module: the canonical ABI by hand.

The module's imports and exports are compared with what contract/driver.wit means in flat types before it is
instantiated. Values lie in its linear memory: lists as (place, length), results behind a pointer: the discriminant at
0, the payload at the next multiple of its alignment. What the host hands over is written where `cabi_realloc` says.

Source: Component Model, CanonicalABI.md; contract/driver.wit.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

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
from framegate.carrier.wasm.world import CELL_BYTES, GUEST, HOST, Column, Errc, Host, Refusal, Rows, Trapped, Violation

IMPORTS: Mapping[str, Mapping[str, Signature]] = {
    HOST: {
        "send": Signature("iiii"),
        "recv": Signature("iiii"),
        "emit": Signature("iiiiiiiii"),
        "log": Signature("iii"),
        "now-ns": Signature("", "I"),
        "cancelled": Signature("", "i"),
    },
    wasi.MODULE: wasi.SIGNATURES,
}
EXPORTS: Mapping[str, Signature] = {
    f"{GUEST}#create": Signature("ii", "i"),
    f"{GUEST}#plan": Signature("iii", "i"),
    f"{GUEST}#connect": Signature("i", "i"),
    f"{GUEST}#poll": Signature("ii", "i"),
    f"{GUEST}#write": Signature("iiiiiiiiii", "i"),
    f"{GUEST}#disconnect": Signature(""),
    "cabi_realloc": Signature("iiii", "i"),
}
T = TypeVar("T")
INITIALIZE = "_initialize"
TABLE_ELEMENTS_MAX = 100_000
START_S = 1.0
"""For a module's start function and its runtime's initialisation."""
_PAIR = struct.Struct("<II")
_RESULT = struct.Struct("<B3xII")
"""result<_, string> and result<list<u8>, errc>: discriminant, place, length; an errc lies where the place does."""
_UNALIGNED = 1  # alignment of bytes and text


def problem_of(module: wasmtime.Module) -> str | None:
    """Why a module is no driver, in one sentence; None: it is one."""
    return next(_problems(module), None)


def _problems(module: wasmtime.Module) -> Iterator[str]:
    for wanted in module.imports:
        known = IMPORTS.get(wanted.module, {}).get(wanted.name or "")
        if known is None:
            yield f"imports {wanted.module} {wanted.name}, which a driver is not given"
        elif not _is(wanted.type, known):
            yield f"imports {wanted.module} {wanted.name} with a signature that is not that of contract/driver.wit"
    exports = {export.name: export.type for export in module.exports}
    if not isinstance(exports.get("memory"), wasmtime.MemoryType):
        yield "exports no memory"
    for name, signature in EXPORTS.items():
        if not _is(exports.get(name), signature):
            yield f"exports no {name} with the signature of contract/driver.wit"
    for name, type_ in exports.items():
        optional = Signature("i") if name.startswith("cabi_post_") else Signature("") if name == INITIALIZE else None
        if optional is not None and not _is(type_, optional):
            yield f"exports {name} with another signature than the canonical ABI has for it"


def _is(type_: object, signature: Signature) -> bool:
    return isinstance(type_, wasmtime.FuncType) and signature_of(type_) == signature


class CoreGuest:
    """One instance of a module that `problem_of` found nothing wrong with; satisfies Guest."""

    def __init__(self, module: wasmtime.Module, host: Host, memory_max: int) -> None:
        """Start it; raises Trapped.

        memory_max  bytes
        """
        self._host = host
        self._faults: list[BaseException] = []
        self._callbacks: list[Any] = []
        self._is_allocating = False
        self._wasi = wasi.Wasi(host)
        self._store = wasmtime.Store(engine())
        self._store.set_limits(memory_size=memory_max, table_elements=TABLE_ELEMENTS_MAX, instances=1, memories=1)
        self._context = context_of(self._store)
        allow_time(self._context, START_S)
        instance = instantiate(self._linker(module), self._store, module)
        exports = instance.exports(self._store)
        memory = exports["memory"]
        assert isinstance(memory, wasmtime.Memory), "problem_of has looked at it"
        self._memory = self._wasi.memory = Memory(self._store, memory)
        wanted = {**EXPORTS, INITIALIZE: Signature("")} | {
            f"cabi_post_{name}": Signature("i") for name in EXPORTS if name.startswith(GUEST)
        }
        self._calls: dict[str, RawCall] = {}
        for name, signature in wanted.items():
            function = exports.get(name)
            if isinstance(function, wasmtime.Func):
                self._calls[name] = RawCall(self._store, function, signature)
        self._realloc = self._calls["cabi_realloc"]
        self._poll_call = self._calls[f"{GUEST}#poll"]
        self._poll_post = self._calls.get(f"cabi_post_{GUEST}#poll")
        if INITIALIZE in self._calls:
            self._run(START_S, self._calls[INITIALIZE])

    def _linker(self, module: wasmtime.Module) -> wasmtime.Linker:
        """With the imports that the module has, and no others."""
        functions: Mapping[str, Mapping[str, Callable[..., int | None]]] = {
            HOST: {
                "send": self._send,
                "recv": self._recv,
                "emit": self._emit,
                "log": self._log,
                "now-ns": self._host.now_ns,
                "cancelled": self._host.cancelled,
            },
            wasi.MODULE: self._wasi.functions(),
        }
        linker = wasmtime.Linker(engine())
        named: set[tuple[str, str]] = set()
        for wanted in module.imports:
            name = wanted.name or ""
            if (wanted.module, name) in named:  # a module may import the same function twice
                continue
            named.add((wanted.module, name))
            callback = import_of(IMPORTS[wanted.module][name], functions[wanted.module][name], self._faults)
            self._callbacks.append(callback)
            assert isinstance(wanted.type, wasmtime.FuncType), "problem_of has looked at it"
            define(linker, wanted.module, name, wanted.type, callback)
        self._callbacks.append(linker)
        return linker

    # -- Guest ----------------------------------------------------------------------------------------------------

    def create(self, options_json: bytes, budget_s: float) -> Refusal:
        return self._refusal("create", budget_s, (), options_json)

    def plan(self, group: int, tags_json: bytes, budget_s: float) -> Refusal:
        return self._refusal("plan", budget_s, (group,), tags_json)

    def connect(self, channels: int, budget_s: float) -> Refusal:
        return self._refusal("connect", budget_s, (channels,), None)

    def poll(self, group: int, budget_ms: int, budget_s: float) -> Errc | None:
        def work() -> Errc | None:
            result = self._poll_call(group, budget_ms)
            answer = self._memory.read(result, 5)  # result<u32, errc>: payload at 4
            if self._poll_post is not None:
                self._poll_post(result)
            return _errc(answer[4]) if answer[0] else None

        return self._run(budget_s, work)

    def write(self, rows: Rows, budget_ms: int, budget_s: float) -> bytes | Errc:
        def work() -> bytes | Errc:
            return self._answer("write", (*self._lower(rows), budget_ms))

        return self._run(budget_s, work)

    def disconnect(self, budget_s: float) -> None:
        self._run(budget_s, self._calls[f"{GUEST}#disconnect"])

    def close(self) -> None:
        self._store.close()

    # -- calls into the guest -------------------------------------------------------------------------------------

    def _run(self, budget_s: float, work: Callable[[], T]) -> T:
        """Whatever runs code of the guest runs here: for so long, and a bug of ours within it comes up again."""
        allow_time(self._context, budget_s)
        try:
            with TICKER:
                return work()
        except Trapped:
            if self._faults:
                raise self._faults[0] from None
            raise
        except Violation as broken:
            raise Trapped(f"it {broken}") from None

    def _refusal(self, name: str, budget_s: float, head: Sequence[int], text: bytes | None) -> Refusal:
        """A call that answers with result<_, string>."""

        def work() -> Refusal:
            tail = () if text is None else (self._place(text, _UNALIGNED), len(text))
            answer = self._calls[f"{GUEST}#{name}"](*head, *tail)
            tag, place, length = _RESULT.unpack(self._memory.read(answer, _RESULT.size))
            said = self._memory.read(place, length).decode("utf-8", "replace") if tag else None
            self._post(name, answer)
            return said

        return self._run(budget_s, work)

    def _answer(self, name: str, arguments: Sequence[int]) -> bytes | Errc:
        """A call that answers with result<list<u8>, errc>."""
        answer = self._calls[f"{GUEST}#{name}"](*arguments)
        tag, place, length = _RESULT.unpack(self._memory.read(answer, _RESULT.size))
        said = _errc(place & 0xFF) if tag else self._memory.read(place, length)
        self._post(name, answer)
        return said

    def _post(self, name: str, answer: int) -> None:
        call = self._calls.get(f"cabi_post_{GUEST}#{name}")
        if call is not None:
            call(answer)

    def _place(self, data: bytes, alignment: int) -> int:
        """Where data was put in the guest's memory."""
        place = self._realloc(0, 0, alignment, len(data))
        self._memory.write(place, data)
        return place

    def _lower(self, rows: Rows) -> list[int]:
        """A batch as flat values."""
        flat: list[int] = []
        for data, size in ((rows.tag, 4), (rows.ts_ns, 8), (rows.quality, 4)):
            flat += [self._place(data, size), len(data) // size]
        if isinstance(rows.value, bytes):
            size = CELL_BYTES[rows.column]
            return [*flat, rows.column, self._place(rows.value, size), len(rows.value) // size]
        pairs = b"".join(_PAIR.pack(self._place(cell, _UNALIGNED), len(cell)) for cell in rows.value)
        return [*flat, rows.column, self._place(pairs, 4), len(rows.value)]

    # -- calls out of the guest -----------------------------------------------------------------------------------

    def _send(self, channel: int, place: int, length: int, result: int) -> None:
        error = self._host.send(channel, self._memory.read(place, length))
        self._extend()
        # result<_, errc>: nothing is aligned to more than a byte, so that the payload is at 1
        self._memory.write(result, b"\0\0" if error is None else bytes((1, error)))

    def _recv(self, channel: int, size_max: int, timeout_ms: int, result: int) -> None:
        if self._is_allocating:  # each way in and out again takes a piece of the thread's stack
            raise Violation("called recv within cabi_realloc")
        answer = self._host.recv(channel, size_max, timeout_ms)
        self._extend()
        if isinstance(answer, Errc):
            self._memory.write(result, struct.pack("<B3xB", 1, answer))
            return
        self._is_allocating = True
        try:
            place = self._place(answer, _UNALIGNED)
        except Trapped as stopped:
            raise Violation(f"failed in cabi_realloc: {stopped}") from None
        finally:
            self._is_allocating = False
        self._memory.write(result, struct.pack("<B3xII", 0, place, len(answer)))

    def _extend(self) -> None:
        extra_s = self._host.extra_s()
        if extra_s > 0:
            allow_time(self._context, extra_s)

    def _emit(self, *flat: int) -> None:
        tag, tags, ts, stamps, quality, qualities, case, value, values = flat
        read, column = self._memory.read, _column(case)
        cells = read(value, CELL_BYTES[column] * values) if column in CELL_BYTES else self._cells(value, values)
        self._host.emit(Rows(read(tag, 4 * tags), read(ts, 8 * stamps), read(quality, 4 * qualities), column, cells))

    def _cells(self, place: int, count: int) -> list[bytes]:
        pairs = self._memory.read(place, 8 * count)
        return [self._memory.read(cell, length) for cell, length in _PAIR.iter_unpack(pairs)]

    def _log(self, level: int, place: int, length: int) -> None:
        self._host.log(level, self._memory.read(place, length))


_COLUMNS = tuple(Column)
_ERRCS = tuple(Errc)


def _column(case: int) -> Column:
    if case >= len(_COLUMNS):
        raise Violation(f"emitted a column of case {case}; there are {len(_COLUMNS)}")
    return _COLUMNS[case]


def _errc(case: int) -> Errc:
    if case >= len(_ERRCS):
        raise Trapped(f"it answered with errc {case}; there are {len(_ERRCS)}")
    return _ERRCS[case]
