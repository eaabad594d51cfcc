"""Asking an independent client what it finds at an OPC UA server, and comparing that with what was shown there.

found = await ask(command, folder, url, wanted)         browse, read, subscribe, write, each tag
assert differences(found, wanted, written) == []        a line for each difference
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from framegate.contract.frame import Value, ValueType
from framegate_plugins.opcua.tests.bridge_trial import TYPES, Wanted

DEADLINE_S = 60.0


async def ask(
    command: Sequence[str], folder: Path, url: str, wanted: Sequence[Wanted], more: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What a judge finds. command: of its process, which runs in `folder`; more: what it is told besides."""
    tags = [
        {"name": each.tag.name, "type": TYPES[each.tag.type], "write": _plain(each.tag.type, each.written)}
        for each in wanted
    ]
    asked = {"url": url, "tags": tags, **(more or {})}
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe, cwd=folder)
    try:
        async with asyncio.timeout(DEADLINE_S):
            out, err = await process.communicate((json.dumps(asked) + "\n").encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    line = next((line for line in out.decode().splitlines() if line.startswith("FOUND ")), "")
    assert line, (out.decode()[-1_000:], err.decode()[-1_000:])
    found: dict[str, Any] = json.loads(line.removeprefix("FOUND "))
    return found


def differences(found: Mapping[str, Any], wanted: Sequence[Wanted], written: Mapping[str, Value]) -> list[str]:
    """What a judge found that is not as it should be. written: what arrived of its writes, by tag."""
    names = {each.tag.name for each in wanted}
    lines = [f"{name}: not browsed" for name in names ^ set(found["names"])]
    for each, value, result in zip(wanted, found["values"], found["results"], strict=True):
        name, expected = each.tag.name, _expected(each)
        for how, got in (("read", value), ("notified", found["notified"].get(name))):
            if got is None or not _is_like(got, expected):
                lines.append(f"{name}: {how}: {got} is not {expected}")
        if result.upper() != "GOOD" or written.get(name) != each.written:
            lines.append(f"{name}: written: {result}, {written.get(name)!r} is not {each.written!r}")
    return lines


def _is_like(got: dict[str, Any], expected: dict[str, Any]) -> bool:
    is_time = got["source"].startswith(expected["source"][:23])  # to the millisecond, which JavaScript has
    return is_time and all(got[key] == expected[key] for key in ("type", "value", "status"))


def _expected(wanted: Wanted) -> dict[str, Any]:
    is_bad = bool(wanted.status & 0x8000_0000)
    return {
        "type": "Null" if is_bad else TYPES[wanted.tag.type],
        "value": None if is_bad else _plain(wanted.tag.type, wanted.value),
        "status": wanted.status,
        "source": datetime.fromtimestamp(wanted.source_ns // 1_000_000 / 1_000, UTC).isoformat(timespec="milliseconds"),
    }


def _plain(type_: ValueType, value: Value) -> Any:
    """A value as judges write it in JSON."""
    if isinstance(value, bytes):
        return value.hex()
    return str(value) if type_ in {ValueType.INT64, ValueType.UINT64} else value
