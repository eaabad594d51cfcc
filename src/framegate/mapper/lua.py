"""LuaJIT, closed: runs expressions that expression.py has let through, many at once and by pointer.

Expressions that differ in numbers and tags only become one compiled loop, with what differs in columns of float64. The
others are fused into functions of FUSED_MAX assignments, which stay with the interpreter: thousands of distinct lines
that run once a second never earn the compiler's work. When a call fails, its expressions are called one by one to find
which.

Closed means: an expression sees the functions below and nothing else, neither io nor os nor ffi, and texts have no
methods. Memory is bounded, and so is the machine code of loops.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from lupa.luajit21 import LuaError, LuaRuntime

from framegate.contract.frame import Float64Column

LOOP_ROWS_MIN = 16  # fewer expressions of one shape are fused with the others
FUSED_MAX = 125  # expressions in one function: the cost of a call is spread, and a failure repeats few
NONE_FAILED: Mapping[int, str] = MappingProxyType({})
MEMORY_BYTES_MAX = 256 << 20  # of one runtime: 10,000 distinct expressions take about 3 MiB
REASON_MAX = 200  # characters of Lua's own words that go on

_OPEN = r"""
local ffi, bits, jit = require 'ffi', require 'bit', jit
local load, pcall, tonumber, tostring, error = load, pcall, tonumber, tostring, error
local floor, ceil, math_min, math_max = math.floor, math.ceil, math.min, math.max
local pointer = ffi.typeof 'double*'
getmetatable('').__index = nil
-- Traces are one per shape and branch; 64 MiB of machine code is what thousands of shapes may take.
jit.opt.start('maxtrace=20000', 'maxmcode=65536')

local function unsigned(number) return number % 4294967296 end
local functions = {
  abs = math.abs, floor = floor, ceil = ceil, min = math_min, max = math_max, sqrt = math.sqrt, exp = math.exp,
  log = math.log, log10 = math.log10, sin = math.sin, cos = math.cos, tan = math.tan, asin = math.asin,
  acos = math.acos, atan = math.atan, atan2 = math.atan2, pow = math.pow, pi = math.pi,
  round = function(x) if x < 0 then return ceil(x - 0.5) end return floor(x + 0.5) end,
  clamp = function(x, low, high) if x < low then return low elseif x > high then return high end return x end,
  bit = function(x, place) return floor(x / 2 ^ place) % 2 == 1 end,
  band = function(a, b) return unsigned(bits.band(a, b)) end,
  bor = function(a, b) return unsigned(bits.bor(a, b)) end,
  bxor = function(a, b) return unsigned(bits.bxor(a, b)) end,
  lshift = function(a, places) return places >= 32 and 0 or unsigned(bits.lshift(a, places)) end,
  rshift = function(a, places) return places >= 32 and 0 or unsigned(bits.rshift(a, places)) end,
  number = function(text)
    local found = tonumber(text)
    if found == nil then error('"' .. text .. '" is no number', 0) end
    return found
  end,
  iif = function(condition, a, b) if condition then return a end return b end,
}
local names = {}
for name in pairs(functions) do names[#names + 1] = name end
local head = 'local F = ...\nlocal ' .. table.concat(names, ',') .. ' = F.' .. table.concat(names, ',F.') .. '\n'

local function compile(source)
  local chunk, problem = load(head .. 'return ' .. source, '=expr', 't', {})
  if not chunk then return nil, problem end
  return chunk(functions)
end
local function at(address) return ffi.cast(pointer, address) end
local function copy(count, places, from, to)
  for i = 1, count do local place = places[i]; to[place] = from[place] end
end
-- The interpreter is several times quicker on its own tables than on pointers: compiled loops copy to and fro.
local function fuse(source, places, slots, v, x, r, t, y, s)
  local make, problem = compile('function(v, x, r, t, y, s) return function()\n' .. source .. '\nend end')
  if not make then return nil, problem end
  local count, slot_count = #places, #slots
  local own, read, given = {}, {}, {}
  v, x, r = at(v), at(x), at(r)
  for i = 1, count do given[places[i]] = 0 end
  local straight = make(own, read, given, t, y, s)
  jit.off(straight)
  local function call()
    copy(count, places, v, own)
    copy(slot_count, slots, x, read)
    straight()
    copy(count, places, given, r)
  end
  jit.off(call)
  return call
end
local loops = setmetatable({}, {__mode = 'v'})
local function loop(source, n, v, x, r, k)
  local shared = loops[source]
  if not shared then
    local problem
    shared, problem = compile('function(n, v, x, r, k) for row = 0, n - 1 do\n' .. source .. '\nend end')
    if not shared then return nil, problem end
    loops[source] = shared
  end
  v, x, r, k = at(v), at(x), at(r), at(k)
  local function call() shared(n, v, x, r, k) end
  jit.off(call)
  return call
end
local function each(closures, count)
  local failed = {}
  for place = 1, count do
    local fine, problem = pcall(closures[place])
    if not fine then failed[place] = tostring(problem) end
  end
  return failed
end
local function refusal(why) return function() error(why, 0) end end
return fuse, loop, each, refusal
"""


class Assignment(NamedTuple):
    """One expression as Lua that assigns its result.

    template  with {row} for the row and {0}, {1}, ... for the operands, which are numbers, slots and quoted texts
    slots     of the inputs it reads
    is_plain  numbers only, so that it can run in a loop with expressions of the same template
    """

    template: str
    operands: tuple[str, ...]
    slots: tuple[int, ...]
    is_plain: bool

    def source(self, row: int) -> str:
        return self.template.format(*self.operands, row=row)


class Program:
    """Assignments that run together; those of one template stand side by side.

    value, result   float64[rows]: what the rows bring, and what they become
    texts, results  the same for texts, as Lua tables by row, from 0
    """

    __slots__ = ("_assignments", "_calls", "_closures", "_machine", "_memory", "_numbers", "results", "texts")

    def __init__(
        self, machine: Machine, assignments: Sequence[Assignment], value: Float64Column, result: Float64Column
    ) -> None:
        self._machine, self._assignments = machine, assignments
        self._memory = (value, result)  # with the numbers of loops: what addresses in Lua point into
        self._numbers: list[Float64Column] = []
        self.texts, self.results = machine.table(), machine.table()
        self._closures: dict[int, Any] = {}
        self._calls: list[tuple[Sequence[int], Any]] = []
        straight: list[int] = []
        place = 0
        for _, alike in groupby(assignments, key=lambda assignment: assignment.template):
            rows = list(alike)
            places = range(place, place + len(rows))
            place += len(rows)
            if len(rows) >= LOOP_ROWS_MIN and rows[0].is_plain:
                self._calls.append((places, self._loop(places)))
            else:
                straight += places
        for start in range(0, len(straight), FUSED_MAX):
            places_of = straight[start : start + FUSED_MAX]
            self._calls.append((places_of, self._fuse(places_of)[0]))

    def run(self) -> Mapping[int, str]:
        """Run every assignment; returns why, by place, those failed that did."""
        failed: Mapping[int, str] = NONE_FAILED
        for places, call in self._calls:
            try:
                if call is not None:
                    call()
                    continue
            except LuaError:
                pass  # of which one it is, and why, is found below
            failed = {**failed, **self._one_by_one(places)}
        return failed

    def _one_by_one(self, places: Sequence[int]) -> Mapping[int, str]:
        known = self._closures
        for place in places:
            if place not in known:
                known[place] = self._alone(place)
        problems = self._machine.each(self._machine.list_of([known[place] for place in places]), len(places))
        return {places[number - 1]: str(problem)[:REASON_MAX] for number, problem in problems.items()}

    def _alone(self, place: int) -> Any:
        """One assignment as a function; one that LuaJIT refuses, as a function that says so."""
        call, problem = self._fuse([place])
        return call if call is not None else self._machine.refusal(str(problem)[:REASON_MAX])

    def _fuse(self, places: Sequence[int]) -> tuple[Any, Any]:
        """Straight-line code for some assignments, or None and why there is none."""
        machine, assignments = self._machine, [self._assignments[place] for place in places]
        source = "\n".join([one.source(place) for one, place in zip(assignments, places, strict=True)])
        slots = sorted({slot for one in assignments for slot in one.slots})
        value, result = (column.ctypes.data for column in self._memory)
        lua_places, lua_slots = machine.list_of(places), machine.list_of(slots)
        found = machine.fuse(
            source,
            lua_places,
            lua_slots,
            value,
            machine.inputs_address,
            result,
            self.texts,
            machine.input_texts,
            self.results,
        )
        return found if isinstance(found, tuple) else (found, None)

    def _loop(self, places: range) -> Any:
        """All of one template as one loop; their operands are the rows of a table of numbers."""
        first = self._assignments[places[0]]
        count = len(places)
        numbers = np.array([[_number(word) for word in self._assignments[place].operands] for place in places])
        self._numbers.append(np.ascontiguousarray(numbers.T))
        words = [f"k[{place}*n+row]" for place in range(len(first.operands))]
        source = first.template.format(*words, row="row")
        value, result = (column.ctypes.data + 8 * places[0] for column in self._memory)  # 8 bytes per float64
        machine = self._machine
        call = machine.loop(source, count, value, machine.inputs_address, result, self._numbers[-1].ctypes.data)
        return None if isinstance(call, tuple) else call


class Machine:
    """One LuaJIT with the newest values of all tags that expressions read.

    May be made in any thread; afterwards it belongs to one thread at a time.
    inputs       float64[slots], newest values by slot; booleans are 1 and 0
    input_texts  Lua table of newest texts by slot
    """

    def __init__(self, inputs: Float64Column) -> None:
        self._lua = LuaRuntime(register_eval=False, register_builtins=False, max_memory=MEMORY_BYTES_MAX)
        opened: tuple[Callable[..., Any], ...] = self._lua.execute(_OPEN)
        self.fuse, self.loop, self.each, self.refusal = opened
        self.inputs = inputs
        self.inputs_address: int = inputs.ctypes.data
        self.input_texts = self.table()

    def table(self) -> Any:
        return self._lua.table()

    def list_of(self, items: Sequence[Any]) -> Any:
        return self._lua.table_from(items)


def quoted(text: str) -> str:
    """A text as Lua writes it: every byte by its number, so that nothing in it can end it."""
    return '"' + "".join(f"\\{byte:03d}" for byte in text.encode("utf-8", "replace")) + '"'


def _number(word: str) -> float:
    return float(int(word, 16)) if word[:2] in {"0x", "0X"} else float(word)
