"""LuaJIT, closed: what runs expressions that expression.py has let through, many at once and by pointer.

Closed means: an expression sees the functions of machine.lua and nothing else, neither io nor os nor ffi, and texts
have no methods. Memory is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lupa.luajit21 import LuaRuntime

from framegate.contract.frame import Float64Column
from framegate.mapper.sweep import STEP_WORDS, Sweep

MEMORY_BYTES_MAX = 256 << 20  # of one runtime: 10,000 distinct expressions over texts take about 3 MiB
_OPEN = Path(__file__).with_name("machine.lua").read_text("utf-8")


class Machine:
    """One LuaJIT with the newest values of all tags that expressions read.

    May be made in any thread; afterwards it belongs to one thread at a time.
    inputs       float64[slots], newest values by slot; booleans are 1 and 0
    input_texts  Lua table of newest texts by slot
    """

    def __init__(self, inputs: Float64Column) -> None:
        self._lua = LuaRuntime(register_eval=False, register_builtins=False, max_memory=MEMORY_BYTES_MAX)
        opened: tuple[Callable[..., Any], ...] = self._lua.execute(_OPEN)
        self.fuse, self._sweep, self.each, self.refusal = opened
        self.inputs = inputs
        self.inputs_address: int = inputs.ctypes.data
        self.input_texts = self.table()

    def sweep(self, sweep: Sweep) -> Callable[[], float]:
        """The sweep as one call, which gives 0 when all results are finite, else NaN.

        It points into the sweep's columns; the caller keeps them.
        """
        steps = self.list_of(sweep.steps)
        call: Callable[[], float] = self._sweep(
            sweep.column.ctypes.data,
            sweep.operands.ctypes.data,
            self.inputs_address,
            steps,
            len(sweep.steps) // STEP_WORDS,
        )
        return call

    def table(self) -> Any:
        return self._lua.table()

    def list_of(self, items: Sequence[Any]) -> Any:
        return self._lua.table_from(items)


def quoted(text: str) -> str:
    """A text as Lua writes it: every byte by its number, so that nothing in it can end it."""
    return '"' + "".join(f"\\{byte:03d}" for byte in text.encode("utf-8", "replace")) + '"'
