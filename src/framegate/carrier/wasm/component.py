"""A driver that is a component: values cross as wasmtime's dynamic values, whose lists numpy reads and writes at once.

The library's own conversion walks every list element by element in Python, 0.7 ms for a batch of 125 rows, and keeps
the last exception of any thread in a global. Here the few types of contract/driver.wit are converted by hand, over the
C API. A component's types are compared with those before it runs.

Who owns what: arguments of a call are ours, its result is deleted once it was read; arguments that a guest hands to the
host are wasmtime's, results are handed over.

Source: wasmtime 50, component/val.h and component/linker.h of its C API.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from ctypes import byref, c_void_p, cast
from typing import Any, TypeVar

import wasmtime
import wasmtime.component as wc
from wasmtime import _ffi as ffi

from framegate.carrier.wasm import values
from framegate.carrier.wasm.engine import TICKER, engine
from framegate.carrier.wasm.raw import allow_time, context_of, raise_stopped
from framegate.carrier.wasm.world import (
    GUEST,
    HOST,
    TYPES,
    Errc,
    Host,
    Refusal,
    Rows,
    Trapped,
    Violation,
)

START_S = 5.0
"""For what a component does before its first call."""
WASI_INTERFACES = ("wasi:cli/", "wasi:clocks/", "wasi:filesystem/", "wasi:io/", "wasi:random/", "wasi:sockets/")
"""What runtimes of languages import. They get it empty: no folder, no address, no variable (see ComponentGuest)."""
CLOCK = "wasi:clocks/monotonic-clock@"
TABLE_ELEMENTS_MAX = 1_000_000
INSTANCES_MAX = 64  # a component is made of several modules
MEMORIES_MAX = 4
LAST_WORDS_BYTES_MAX = 4096
LAST_WORDS_CHARACTERS_MAX = 200
T = TypeVar("T")
_FREE = ctypes.CFUNCTYPE(None, c_void_p)


# -- what a component is, and whether it is a driver ---------------------------------------------------------------


def problem_of(made: wc.Component) -> str | None:
    """Why a component is no driver, in one sentence; None: it is one."""
    type_ = made.type
    for name, extern in type_.imports(engine()).items():
        if name == HOST:
            problem = next(_problems(extern.ty, _IMPORTED, must_have_all=False), None)
            if problem:
                return f"imports {HOST}: {problem}"
        elif name != TYPES and not name.startswith(WASI_INTERFACES):
            return f"imports {name}, which a driver is not given"
    guest = type_.exports(engine()).get(GUEST)
    if guest is None:
        return f"exports no {GUEST}"
    problem = next(_problems(guest.ty, _EXPORTED, must_have_all=True), None)
    return f"exports {GUEST}: {problem}" if problem else None


_BATCH = (
    "record(tag:list(U32),ts-ns:list(S64),quality:list(U32),value:variant("
    + ",".join(
        f"{name}:list({cell})"
        for name, cell in zip(values.CASES, ("F64", "S64", "U64", "U8", "String", "list(U8)"), strict=True)
    )
    + "))"
)
_ENUM = "enum(" + ",".join(values.ERRC) + ")"
_IMPORTED = {
    "send": f"(U32,list(U8))result(-,{_ENUM})",
    "recv": f"(U32,U32,U32)result(list(U8),{_ENUM})",
    "emit": f"({_BATCH})-",
    "log": "(U8,String)-",
    "now-ns": "()S64",
    "cancelled": "()Bool",
}
_EXPORTED = {
    "create": "(String)result(-,String)",
    "plan": "(U32,String)result(-,String)",
    "connect": "(U32)result(-,String)",
    "poll": f"(U32,U32)result(U32,{_ENUM})",
    "write": f"({_BATCH},U32)result(list(U8),{_ENUM})",
    "disconnect": "()-",
}


def _problems(item: Any, wanted: Mapping[str, str], *, must_have_all: bool) -> Iterator[str]:
    if not isinstance(item, wc.ComponentInstanceType):
        yield "is no interface"
        return
    found = {name: each.ty for name, each in item.exports(engine()).items()}
    functions = {name: type_ for name, type_ in found.items() if isinstance(type_, wc.FuncType)}
    for name, spelt in wanted.items():
        type_ = functions.get(name)
        if type_ is None:
            if must_have_all:
                yield f"{name} is missing"
            continue
        said = f"({','.join(_spelt(each) for _, each in type_.params)}){_spelt(type_.result)}"
        if said != spelt:
            yield f"{name} has the type {said}, not {spelt}"
    if not must_have_all and (strange := functions.keys() - wanted.keys()):
        yield f"{min(strange)} is unknown"


def _spelt(type_: Any) -> str:
    """A type in a form that can be compared."""
    if type_ is None:
        return "-"
    spell = _SPELL.get(type(type_))
    return type(type_).__name__ if spell is None else spell(type_)


def _fields(entries: Sequence[tuple[str, Any]]) -> str:
    return ",".join(f"{name}:{_spelt(each)}" for name, each in entries)


_SPELL: Mapping[type, Callable[[Any], str]] = {
    wc.ListType: lambda type_: f"list({_spelt(type_.element)})",
    wc.RecordType: lambda type_: f"record({_fields(type_.fields)})",
    wc.VariantType: lambda type_: f"variant({_fields(type_.cases)})",
    wc.EnumType: lambda type_: f"enum({','.join(type_.names)})",
    wc.ResultType: lambda type_: f"result({_spelt(type_.ok)},{_spelt(type_.err)})",
}


# -- one instance ---------------------------------------------------------------------------------------------------


class ComponentGuest:
    """One instance of a component that `problem_of` found nothing wrong with; satisfies Guest."""

    def __init__(self, made: wc.Component, host: Host, memory_max: int) -> None:
        """Start it; raises Trapped.

        memory_max  bytes
        """
        self._host = host
        self._faults: list[BaseException] = []
        self._kept: list[Any] = []
        self._store = wasmtime.Store(engine())
        self._printing = b""  # a line that has not ended yet
        self._words = b""  # the last it wrote to stderr
        wasi = wasmtime.WasiConfig()  # nothing is inherited, and nothing opened
        wasi.stdout_custom = self._printed
        wasi.stderr_custom = self._complained
        self._store.set_wasi(wasi)
        self._store.set_limits(memory_max, TABLE_ELEMENTS_MAX, INSTANCES_MAX, INSTANCES_MAX, MEMORIES_MAX)
        self._context = context_of(self._store)
        allow_time(self._context, START_S)
        linker = wc.Linker(engine())
        linker.allow_shadowing = True
        linker.add_wasip2()
        self._define(linker, made)
        instance = ffi.wasmtime_component_instance_t()
        with TICKER:
            context = self._store._context()  # noqa: SLF001
            error = ffi.wasmtime_component_linker_instantiate(linker.ptr(), context, made.ptr(), byref(instance))
        self._kept.append(linker)
        self._check(error)
        started = wc.Instance._from_raw(instance)  # noqa: SLF001
        guest = started.get_export_index(self._store, GUEST)
        self._functions = {}
        for name in _EXPORTED:
            index = started.get_export_index(self._store, name, guest)
            function = None if index is None else started.get_func(self._store, index)
            assert function is not None, "problem_of has looked at it"
            self._functions[name] = function._func  # noqa: SLF001

    # -- Guest ------------------------------------------------------------------------------------------------------

    def create(self, options_json: bytes, budget_s: float) -> Refusal:
        return self._refusal("create", budget_s, values.text(options_json))

    def plan(self, group: int, tags_json: bytes, budget_s: float) -> Refusal:
        return self._refusal("plan", budget_s, values.u32(group), values.text(tags_json))

    def connect(self, channels: int, budget_s: float) -> Refusal:
        return self._refusal("connect", budget_s, values.u32(channels))

    def poll(self, group: int, budget_ms: int, budget_s: float) -> Errc | None:
        def read(answer: Any) -> Errc | None:
            return None if answer.of.result.is_ok else values.errc_in(answer)

        return self._call("poll", budget_s, (values.u32(group), values.u32(budget_ms)), read)

    def write(self, rows: Rows, budget_ms: int, budget_s: float) -> bytes | Errc:
        def read(answer: Any) -> bytes | Errc:
            said = answer.of.result
            return values.numbers_in(said.val.contents, "<u1") if said.is_ok else values.errc_in(answer)

        return self._call("write", budget_s, (values.batch(rows), values.u32(budget_ms)), read)

    def disconnect(self, budget_s: float) -> None:
        self._run("disconnect", budget_s, (), None)

    def close(self) -> None:
        self._store.close()

    def _refusal(self, name: str, budget_s: float, *arguments: Any) -> Refusal:
        def read(answer: Any) -> Refusal:
            return None if answer.of.result.is_ok else values.text_in(answer.of.result.val.contents).decode()

        return self._call(name, budget_s, arguments, read)

    def _call(self, name: str, budget_s: float, arguments: Sequence[Any], read: Callable[[Any], T]) -> T:
        result = values.Value()
        self._run(name, budget_s, arguments, result)
        try:
            return read(result)
        finally:
            ffi.wasmtime_component_val_delete(byref(result))

    def _run(self, name: str, budget_s: float, arguments: Sequence[Any], result: Any | None) -> None:
        room = (values.Value * max(1, len(arguments)))(*arguments)
        function, context = byref(self._functions[name]), self._store._context()  # noqa: SLF001
        results = (None, 0) if result is None else (byref(result), 1)
        allow_time(self._context, budget_s)
        try:
            with TICKER:
                error = ffi.wasmtime_component_func_call(function, context, room, len(arguments), *results)
            self._check(error)
        finally:
            for place in range(len(arguments)):
                ffi.wasmtime_component_val_delete(byref(room[place]))

    def _check(self, error: Any) -> None:
        if error:
            address = cast(error, c_void_p).value
            if self._faults:
                ffi.wasmtime_error_delete(error)
                raise self._faults[0]
            try:
                raise_stopped(address, None)
            except Trapped as stopped:
                # What Python says; behind it its runtime, which is in Rust, says that it panicked.
                said = self._words.decode("utf-8", "replace").partition("\nthread '")[0]
                last = said.strip().rpartition("\n")[2]
                if not last:
                    raise
                raise type(stopped)(f"{stopped}; its last words: {last[:LAST_WORDS_CHARACTERS_MAX]}") from None

    def _printed(self, data: bytes) -> int:
        *lines, rest = (self._printing + data).split(b"\n")
        for line in filter(None, lines):
            self._host.log(1, line)
        self._printing = rest[-LAST_WORDS_BYTES_MAX:]
        return len(data)

    def _complained(self, data: bytes) -> int:
        """A runtime writes the trace of an error that nobody caught before it stops."""
        self._words = (self._words + data)[-LAST_WORDS_BYTES_MAX:]
        return len(data)

    # -- calls out of the guest -------------------------------------------------------------------------------------

    def _define(self, linker: wc.Linker, made: wc.Component) -> None:
        names = made.type.imports(engine())
        with linker.root() as root:
            for name in names:
                if name.startswith(CLOCK):
                    with root.add_instance(name) as place:
                        for called, work in _MONOTONIC.items():
                            self._define_one(place, called, work)
            if HOST in names:
                with root.add_instance(HOST) as place:
                    for name, function in self._imports().items():
                        self._define_one(place, name, function)

    def _imports(self) -> Mapping[str, Callable[[Any, Any], None]]:
        host = self._host

        def send(given: Any, result: Any) -> None:
            error = host.send(given[0].of.u32, values.numbers_in(given[1], "<u1"))
            self._extend()
            values.set_result(result, None if error is None else values.errc(error), is_ok=error is None)

        def recv(given: Any, result: Any) -> None:
            answer = host.recv(given[0].of.u32, given[1].of.u32, given[2].of.u32)
            self._extend()
            payload = values.errc(answer) if isinstance(answer, Errc) else values.numbers(answer, "<u1")
            values.set_result(result, payload, is_ok=not isinstance(answer, Errc))

        def emit(given: Any, _result: Any) -> None:
            host.emit(values.rows_in(given[0]))

        def log(given: Any, _result: Any) -> None:
            host.log(given[0].of.u8, values.text_in(given[1]))

        def now_ns(_given: Any, result: Any) -> None:
            result[0].kind, result[0].of.s64 = ffi.WASMTIME_COMPONENT_S64, host.now_ns()

        def cancelled(_given: Any, result: Any) -> None:
            result[0].kind, result[0].of.boolean = ffi.WASMTIME_COMPONENT_BOOL, host.cancelled()

        return {"send": send, "recv": recv, "emit": emit, "log": log, "now-ns": now_ns, "cancelled": cancelled}

    def _define_one(self, place: wc.LinkerInstance, name: str, function: Callable[[Any, Any], None]) -> None:
        def call(_data: Any, _context: Any, _type: Any, given: Any, _count: int, result: Any, _results: int) -> int:
            try:
                function(given, result)
            except Violation as broken:
                return _error(f"it {broken}")
            except BaseException as error:  # noqa: BLE001 - the edge of C: raised again behind the call
                self._faults.append(error)
                return _error("the gateway failed")
            return 0

        callback = ffi.wasmtime_component_func_callback_t(call)
        self._kept.append(callback)
        text = name.encode()
        error = ffi.wasmtime_component_linker_instance_add_func(
            place.ptr(), ctypes.create_string_buffer(text), len(text), callback, None, cast(0, _FREE)
        )
        self._check(error)

    def _extend(self) -> None:
        extra_s = self._host.extra_s()
        if extra_s > 0:
            allow_time(self._context, extra_s)


def _refuse_sleep(_given: Any, _result: Any) -> None:
    """Nothing can wake a guest that sleeps in the library's own clock."""
    raise Violation("slept; wait in recv")


def _monotonic_ns(_given: Any, result: Any) -> None:
    result[0].kind, result[0].of.u64 = ffi.WASMTIME_COMPONENT_U64, time.monotonic_ns()


def _nanosecond(_given: Any, result: Any) -> None:
    result[0].kind, result[0].of.u64 = ffi.WASMTIME_COMPONENT_U64, 1


_MONOTONIC = {
    "now": _monotonic_ns,
    "resolution": _nanosecond,
    "subscribe-instant": _refuse_sleep,
    "subscribe-duration": _refuse_sleep,
}


def _error(text: str) -> int:
    return cast(ffi.wasmtime_error_new(f"wasm trap: {text}".encode()), c_void_p).value or 0
