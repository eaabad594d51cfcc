"""Calls into a core module and out of it, at the level of wasmtime's C API.

The library's own calls ask for the type of a function and convert value by value on each call, 18 us; these take 1 us.
They are safe for functions whose flat signatures were compared with `Signature` before (module.py does so once per
module): "unchecked" means that nobody looks again.

Source: wasmtime 50, func.h and linker.h of its C API; `wasmtime_val_raw_t` has 16 bytes.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import CFUNCTYPE, addressof, byref, c_int64, c_size_t, c_void_p, cast
from typing import Any, NamedTuple, NoReturn

import wasmtime
from wasmtime import _ffi as ffi

from framegate.carrier.wasm.engine import TICKER, ticks
from framegate.carrier.wasm.world import Overran, Trapped, Violation

REASON_CHARACTERS_MAX = 300
_MASK = {"i": 0xFFFF_FFFF, "I": 0xFFFF_FFFF_FFFF_FFFF}
_KIND = {"i32": "i", "i64": "I"}
_CALL = CFUNCTYPE(c_void_p, c_void_p, c_void_p, c_void_p, c_size_t, c_void_p)(("wasmtime_func_call_unchecked", ffi.dll))
_SET_EPOCH_DEADLINE = CFUNCTYPE(None, c_void_p, ctypes.c_uint64)(("wasmtime_context_set_epoch_deadline", ffi.dll))
_MEMORY_DATA = CFUNCTYPE(c_void_p, c_void_p, c_void_p)(("wasmtime_memory_data", ffi.dll))
_MEMORY_SIZE = CFUNCTYPE(c_size_t, c_void_p, c_void_p)(("wasmtime_memory_data_size", ffi.dll))
_CALLBACK = CFUNCTYPE(c_size_t, c_void_p, c_void_p, c_void_p, c_size_t)
_NO_FINALIZER = cast(0, CFUNCTYPE(None, c_void_p))


class Signature(NamedTuple):
    """A flat signature: i for i32, I for i64."""

    params: str
    results: str = ""


def signature_of(type_: wasmtime.FuncType) -> Signature:
    """Of a function; kinds beyond i32 and i64 as `?`."""
    kinds = ["".join(_KIND.get(str(each), "?") for each in some) for some in (type_.params, type_.results)]
    return Signature(*kinds)


class RawCall:
    """One export, ready to be called with integers; raises Trapped.

    slots  the larger of the number of parameters and results
    """

    __slots__ = ("_context", "_function", "_function_at", "_slots", "_trap", "_trap_at", "_values", "_values_at")

    def __init__(self, store: wasmtime.Store, function: wasmtime.Func, signature: Signature) -> None:
        self._context = context_of(store)
        self._function = function._func  # noqa: SLF001 - what `_function_at` points to must live
        self._function_at = addressof(self._function)
        self._slots = max(1, len(signature.params), len(signature.results))
        self._values = (c_int64 * (2 * self._slots))()
        self._values_at = addressof(self._values)
        self._trap = c_void_p()
        self._trap_at = addressof(self._trap)

    def __call__(self, *arguments: int) -> int:
        """The result, unsigned 32 bits; 0 where there is none."""
        values = self._values
        for place, argument in enumerate(arguments):
            values[2 * place] = argument
        error = _CALL(self._context, self._function_at, self._values_at, self._slots, self._trap_at)
        if error or self._trap.value:
            trap, self._trap.value = self._trap.value, None
            raise_stopped(error, trap)
        return values[0] & 0xFFFF_FFFF


def raise_stopped(error: int | None, trap: int | None) -> NoReturn:
    """Why wasmtime stopped a call; takes the one object that there is."""
    if error:
        text = str(wasmtime.WasmtimeError._from_ptr(cast(error, ctypes.POINTER(ffi.wasmtime_error_t))))  # noqa: SLF001
        raise stopped(text)
    stopping = wasmtime.Trap._from_ptr(cast(trap or 0, ctypes.POINTER(ffi.wasm_trap_t)))  # noqa: SLF001
    raise stopped(stopping.message)


def stopped(message: str) -> Trapped:
    """The last cause of a message of wasmtime, which begins with a trace of the guest's functions."""
    cause = message.strip().rpartition("\n")[2].strip()
    reason = cause.partition("wasm trap: ")[2] or cause.partition(": ")[2] or cause
    reason = reason[:REASON_CHARACTERS_MAX]
    return Overran(reason) if reason == "interrupt" else Trapped(reason)


def context_of(store: wasmtime.Store) -> int:
    return cast(store._context(), c_void_p).value or 0  # noqa: SLF001


def allow_time(context: int, seconds: float) -> None:
    """Stop what runs in a store once so much time has passed, in place of what was said before."""
    _SET_EPOCH_DEADLINE(context, ticks(seconds))


class Memory:
    """A guest's linear memory. Places and lengths are the guest's: what lies outside raises Violation."""

    __slots__ = ("_base", "_context", "_memory", "_memory_at", "_size")

    def __init__(self, store: wasmtime.Store, memory: wasmtime.Memory) -> None:
        self._context = context_of(store)
        self._memory = memory._memory  # noqa: SLF001 - as above
        self._memory_at = addressof(self._memory)
        self._base: int = _MEMORY_DATA(self._context, self._memory_at)  # never moves, see engine.py
        self._size = 0

    def _check(self, place: int, size: int) -> None:
        if place + size > self._size:
            self._size = _MEMORY_SIZE(self._context, self._memory_at)  # it may have grown
            if place + size > self._size:
                raise Violation(f"handed over {size} bytes at {place}, beyond the {self._size} bytes of its memory")

    def read(self, place: int, size: int) -> bytes:
        if place + size > self._size:
            self._check(place, size)
        return ctypes.string_at(self._base + place, size)

    def write(self, place: int, data: bytes) -> None:
        if place + len(data) > self._size:
            self._check(place, len(data))
        ctypes.memmove(self._base + place, data, len(data))


def import_of(signature: Signature, function: Callable[..., int | None], faults: list[BaseException]) -> Any:
    """A function of the host as C sees it. What it raises becomes a trap of the guest; a bug is kept in `faults` too.

    No exception leaves through wasmtime, whose Python face keeps the last one in a global of the process.
    """
    places = [(2 * place, _MASK[kind]) for place, kind in enumerate(signature.params)]
    room = c_int64 * (2 * max(1, len(signature.params), len(signature.results)))
    has_result = bool(signature.results)

    def call(_environment: object, _caller: object, values_at: int, _count: int) -> int:
        values = room.from_address(values_at)
        try:
            result = function(*[values[place] & mask for place, mask in places])
        except Violation as broken:
            return trap_with(f"it {broken}")
        except BaseException as error:  # noqa: BLE001 - the edge of C: raised again behind the call
            faults.append(error)
            return trap_with("the gateway failed")
        if has_result:
            values[0] = result or 0
        return 0

    return _CALLBACK(call)


def trap_with(text: str) -> int:
    data = f"wasm trap: {text}".encode()
    return cast(ffi.wasmtime_trap_new(data, len(data)), c_void_p).value or 0


def define(linker: wasmtime.Linker, module: str, name: str, type_: wasmtime.FuncType, callback: Any) -> None:
    """Name a function of the host; `callback` must live as long as the linker and its instances do."""
    module_, name_ = module.encode(), name.encode()
    error = ffi.wasmtime_linker_define_func_unchecked(
        linker.ptr(),
        ctypes.create_string_buffer(module_),
        len(module_),
        ctypes.create_string_buffer(name_),
        len(name_),
        type_.ptr(),
        cast(callback, ffi.wasmtime_func_unchecked_callback_t),
        None,
        _NO_FINALIZER,
    )
    if error:
        raise_stopped(cast(error, c_void_p).value, None)


def instantiate(linker: wasmtime.Linker, store: wasmtime.Store, module: wasmtime.Module) -> wasmtime.Instance:
    """An instance; its start function has run. Raises Trapped."""
    instance, trap = ffi.wasmtime_instance_t(), ctypes.POINTER(ffi.wasm_trap_t)()
    with TICKER:
        error = ffi.wasmtime_linker_instantiate(
            linker.ptr(),
            store._context(),  # noqa: SLF001
            module.ptr(),
            byref(instance),
            byref(trap),
        )
    if error or trap:
        raise_stopped(cast(error, c_void_p).value, cast(trap, c_void_p).value)
    return wasmtime.Instance._from_raw(instance)  # noqa: SLF001
