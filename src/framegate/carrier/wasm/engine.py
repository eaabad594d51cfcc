"""The engine all sandboxes of the process share, and the ticker that ends those whose time is over.

Machine code is bound to this configuration: CONFIGURATION is part of the name under which it is kept (cache.py).

Source: wasmtime 50, config.h and store.h of its C API.
"""

from __future__ import annotations

import math
import threading
import time
from functools import cache

import wasmtime
from wasmtime import _ffi as ffi

TICK_S = 0.01
"""How often the time of running guests is looked at."""
IDLE_TICKS = 5
"""Without a guest before the ticker sleeps: drivers that are read often do not wake it each time."""
WASM_STACK_BYTES_MAX = 256 << 10
"""Far below the stack of the threads that guests run in (worker.py): beyond it a guest traps, and nothing else does."""
CONFIGURATION = f"epoch stack={WASM_STACK_BYTES_MAX} no-threads no-memory64 fixed-memory"


@cache
def engine() -> wasmtime.Engine:
    """The one engine."""
    config = wasmtime.Config()
    config.epoch_interruption = True
    config.max_wasm_stack = WASM_STACK_BYTES_MAX
    config.wasm_threads = False
    config.wasm_memory64 = False
    ffi.wasmtime_config_memory_may_move_set(config.ptr(), False)  # a guest's memory stays where it is while it grows
    return wasmtime.Engine(config)


def ticks(seconds: float) -> int:
    """Ticks after which so much time has passed in any case."""
    return math.ceil(seconds / TICK_S) + 1


class _Ticker:
    """Moves the engine's epoch on while a guest runs, and a little longer; sleeps otherwise."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running = 0
        self._is_asleep = True
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> None:
        with self._lock:
            self._running += 1
            if self._is_asleep:
                self._is_asleep = False
                self._wake.set()
                if self._thread is None:
                    self._thread = threading.Thread(target=self._tick, name="edge-wasm-epoch", daemon=True)
                    self._thread.start()

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._running -= 1

    def _tick(self) -> None:
        shared = engine()
        while True:
            self._wake.wait()
            self._wake.clear()
            told, idle = time.monotonic(), 0  # the moment that the epoch stands for; ticks without a guest
            while not self._falls_asleep(idle):
                time.sleep(TICK_S)
                passed = int((time.monotonic() - told) / TICK_S)  # more than one where the machine was busy
                for _ in range(passed):
                    shared.increment_epoch()
                told += passed * TICK_S
                idle = 0 if self._running else idle + 1

    def _falls_asleep(self, idle: int) -> bool:
        with self._lock:
            self._is_asleep = idle >= IDLE_TICKS and not self._running
            return self._is_asleep


TICKER = _Ticker()
"""Entered while a guest runs."""
