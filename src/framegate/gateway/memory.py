"""How the C library keeps memory: set once, before threads start.

A gateway's big blocks (windows of messages, store buffers) come and go; left alone, glibc keeps an arena per thread
and grows the size above which blocks go back to the system, and a small box pays tens of MiB for it.
"""

from __future__ import annotations

import ctypes
import gc

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
ARENAS_MAX = 2
BIG_BLOCK_BYTES = 256 * 1024


def be_frugal() -> None:
    """Few arenas; big blocks go back to the system. A C library without mallopt keeps its own ways."""
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(_M_ARENA_MAX, ARENAS_MAX)
        library.mallopt(_M_MMAP_THRESHOLD, BIG_BLOCK_BYTES)
        library.mallopt(_M_TRIM_THRESHOLD, BIG_BLOCK_BYTES)


def settle() -> None:
    """After start: give back what loading left over, and spare the collector what stays for good."""
    gc.collect()
    gc.freeze()
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(0)
