"""One script in one Lua runtime of its own: what it may reach, how long it may run, how much it may hold.

The privileged half, `sandbox.lua`, runs first and hands the script an environment that holds no way out: no files,
no loading, no clock, no chance, no Python. Time is bounded by a hook that no `pcall` can swallow, memory by the
allocator. This module moves columns in and frames out; what they mean is `script`'s business.

Time is the process's CPU time, so that a machine that stands still accuses no script.

Source: docs/decisions/0013-scripts.md; lupa 2.8 with LuaJIT 2.1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import lupa.luajit21 as lua

from framegate.contract.errors import GatewayError
from framegate.mapper.rules.plain import Plain, read_plain

MEMORY_BYTES_MAX = 16 << 20
"""What one script may hold beside its runtime; a row may ask for less."""
DEADLINE_S_MAX = 0.2
DEADLINE_S = 0.03
"""With what passes until a script is stopped, the loop of a gateway is held up for less than 50 ms."""
START_S_MAX = 0.2
"""CPU time of a script's own lines, outside of its functions, when it is loaded."""
LIMITS: Mapping[str, float] = {
    "hook_instructions": 50,  # between two looks at the budget, at most
    "hook_kib": 16_384,  # instructions between two looks, times KiB of memory held, at most
    "hooks_per_clock": 20,  # looks between two questions for the time, while little memory is held
    "pcall_depth": 100,
    "text_bytes": 65_536,
    "pattern_bytes": 128,
    "pattern_steps": 250_000,  # 20 to 30 ns each
    "list_entries": 65_536,
    "sort_entries": 4_096,
    "output_rows": 10_000,
    "log_lines": 8,  # of one call
    "log_bytes": 512,
    "state_depth": 8,
    "state_entries": 4_096,  # of all tables
    "state_bytes": 1_000_000,
    "time_max": 9_223_372_036.0,  # seconds since 1970 that int64 nanoseconds can hold
}
_PRIVILEGED = Path(__file__).with_name("sandbox.lua").read_bytes()
_OWN_PLACE = re.compile(r"^gateway:\d+: ")
_MEMORY, _OVERRUN = "not enough memory", "deadline"

Column: TypeAlias = Sequence[Any]


@dataclass(frozen=True, slots=True)
class Frames:
    """What one call has published, in columns of equal length.

    tag    names, as the script wrote them;  row  index of the input row they follow from, from 0; -1: of none
    value  numbers, booleans, bytes;  time  seconds since 1970, UTC
    """

    tag: Sequence[bytes]
    value: Sequence[Any]
    quality: Sequence[int]
    time: Sequence[float]
    row: Sequence[int]
    lines: Sequence[str]
    line_count: int


class Sandbox:
    """Runs one script. Every method raises GatewayError E5054 (its own error), E5055 (time) or E5056 (memory).

    After an error the runtime may hold anything: it is to be closed and replaced.
    """

    def __init__(self, name: str, text: bytes, memory_bytes: int, start_s: float = START_S_MAX) -> None:
        """start_s: CPU time for the script's own lines; a call with a deadline of 0 goes on with what is left of it."""
        self.name = name
        self._memory_bytes, self._deadline_s = memory_bytes, start_s
        self._runtime: Any = lua.LuaRuntime(
            encoding=None,
            unpack_returned_tuples=False,
            register_eval=False,
            register_builtins=False,
            attribute_filter=_refuse_attribute,
            max_memory=memory_bytes,
        )
        start = self._runtime.execute(b"return function(...) return loadstring(...) end")
        privileged = start(_PRIVILEGED, b"=gateway")
        limits = {key.encode(): value for key, value in LIMITS.items()}
        self._calls: Any = privileged(self._runtime.table_from(limits))
        problem = self._guarded(self._calls[b"start"], start_s, text, name.encode())
        if problem is not None:
            self._fail(_text(problem))

    def declared(self, name: str) -> Plain:
        """Plain data that the script has left under a global name; None: nothing."""
        found = self._answer(self._guarded(self._calls[b"declared"], START_S_MAX, name.encode()))
        return None if found is False else read_plain(found)

    def bind(self, names: Sequence[str], units: Sequence[str], only_output: str | None) -> None:
        """Names and units of the inputs: `rows` refers to them by place, from 1."""
        table = self._runtime.table_from
        output = None if only_output is None else only_output.encode()
        columns = [table([text.encode() for text in texts]) for texts in (names, units)]
        self._guarded(self._calls[b"bind"], *columns, output)

    def rows(self, deadline_s: float, tags: Column, values: Column, qualities: Column, times: Column) -> Frames:
        """Hand rows to on_frame and on_bad, one by one.

        deadline_s  CPU time from now on; 0: the time of the call before goes on
        values      numbers, booleans or bytes;  times  seconds since 1970, UTC
        """
        table = self._runtime.table_from
        columns = self._guarded(lambda: [table(column) for column in (tags, values, qualities, times)])
        self._deadline_s = deadline_s or self._deadline_s
        return self._frames(self._guarded(self._calls[b"rows"], deadline_s, len(tags), *columns))

    def tick(self, deadline_s: float, now_s: float) -> Frames:
        self._deadline_s = deadline_s or self._deadline_s
        return self._frames(self._guarded(self._calls[b"tick"], deadline_s, now_s))

    def save(self) -> bytes:
        """Global `state` as canonical text; empty where there is none."""
        text = self._answer(self._guarded(self._calls[b"save"]))
        assert isinstance(text, bytes)
        return text

    def restore(self, text: bytes) -> None:
        """Set global `state` to what `save` gave. Raises ValueError for other text."""
        value = read_plain(text)
        table = self._runtime.table_from(value, recursive=True) if isinstance(value, dict) else value
        self._guarded(self._calls[b"restore"], table)

    def _frames(self, answer: Any) -> Frames:
        problem = answer[b"problem"]
        if problem is not None:
            self._fail(_text(problem))
        rows = int(answer[b"rows"])
        columns = [list(answer[key].values()) for key in (b"tag", b"value", b"quality", b"time", b"row")]
        assert all(len(column) == rows for column in columns)
        tag, value, quality, time, row = columns
        return Frames(
            tag,
            value,
            [int(number) for number in quality],
            time,
            [int(number) - 1 for number in row],
            [_text(line) for line in answer[b"lines"].values()],
            int(answer[b"line_count"]),
        )

    def _answer(self, answer: tuple[bool, Any]) -> Any:
        is_good, result = answer
        if not is_good:
            self._fail(_text(result))
        return result

    def _guarded(self, call: Any, *arguments: Any) -> Any:
        """The allocator may refuse memory for the arguments too, outside of any pcall of ours."""
        try:
            return call(*arguments)
        except (lua.LuaMemoryError, MemoryError):
            self._fail(_MEMORY)
        except lua.LuaError as error:
            self._fail(str(error))

    def _fail(self, problem: str) -> NoReturn:
        if problem == _OVERRUN:
            text = f"{self.name}: ran longer than {self._deadline_s * 1000:.0f} ms; simplify it, or raise `deadline`"
            raise GatewayError(text, code="E5055")
        if problem.endswith(_MEMORY):
            size = f"{self._memory_bytes / (1 << 20):.3g} MiB"
            text = f"{self.name}: needs more than {size} of memory; keep less, or raise `memory`"
            raise GatewayError(text, code="E5056")
        problem = _OWN_PLACE.sub("", problem)
        where = "" if problem.startswith(f"{self.name}:") else f"{self.name}: "
        raise GatewayError(where + problem[:1000], code="E5054")


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _refuse_attribute(_object: object, name: object, _is_setting: bool) -> NoReturn:
    raise AttributeError(name)
