"""The helper that makes machine code of a sandboxed plugin: `python -m framegate.carrier.wasm.compiler IN OUT`.

IN and OUT are inherited file descriptors: the module or component, and where its machine code goes. Compiling holds
hundreds of megabytes and all cores; here it has limits of its own, and what a hostile module does to the compiler it
does to this process. Started by cache.py, and by nobody else. Exit 3: the module is refused; stderr says why.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys

MEMORY_BYTES_MAX = 1536 << 20
CPU_S_MAX = 600
REFUSED = 3
NICE = 10
PR_SET_PDEATHSIG = 1  # linux/prctl.h
COMPONENT = b"\x0d\0\x01\0"
"""Bytes 4 to 8 of a component; those of a core module are 01 00 00 00."""
_HEAD_BYTES = 8


def main(source: int, target: int) -> int:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    with contextlib.suppress(OSError):
        os.nice(NICE)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S_MAX, CPU_S_MAX))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    import wasmtime.component  # noqa: PLC0415 - below the limits

    from framegate.carrier.wasm.engine import engine  # noqa: PLC0415 - as above

    wasm = _read(source)
    kind = wasmtime.component.Component if is_component(wasm) else wasmtime.Module
    try:
        code = kind(engine(), wasm).serialize()
    except wasmtime.WasmtimeError as error:
        sys.stderr.write(str(error))
        return REFUSED
    left = memoryview(code)
    while left:
        left = left[os.write(target, left) :]
    return 0


def is_component(wasm: bytes) -> bool:
    return wasm[4:_HEAD_BYTES] == COMPONENT


def _read(number: int) -> bytes:
    size = os.fstat(number).st_size
    parts, place = [], 0
    while place < size and (part := os.pread(number, size - place, place)):
        parts.append(part)
        place += len(part)
    return b"".join(parts)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
