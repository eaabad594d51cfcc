"""WASI preview 1, as much of it as a driver may have: time, chance, what it prints. No file, no socket, no environment.

Go's and C's runtimes import more than a driver needs; what is not here is refused before a module runs. There are no
files, so every descriptor but 1 and 2 is unknown.

Source: WASI snapshot preview 1, witx/typenames.witx and wasi_snapshot_preview1.witx.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from framegate.carrier.wasm.raw import Signature
from framegate.carrier.wasm.world import Host, Violation

MODULE = "wasi_snapshot_preview1"
SIGNATURES: Mapping[str, Signature] = {
    "args_get": Signature("ii", "i"),
    "args_sizes_get": Signature("ii", "i"),
    "clock_res_get": Signature("ii", "i"),
    "clock_time_get": Signature("iIi", "i"),
    "environ_get": Signature("ii", "i"),
    "environ_sizes_get": Signature("ii", "i"),
    "fd_close": Signature("i", "i"),
    "fd_fdstat_get": Signature("ii", "i"),
    "fd_fdstat_set_flags": Signature("ii", "i"),
    "fd_prestat_dir_name": Signature("iii", "i"),
    "fd_prestat_get": Signature("ii", "i"),
    "fd_read": Signature("iiii", "i"),
    "fd_seek": Signature("iIii", "i"),
    "fd_write": Signature("iiii", "i"),
    "poll_oneoff": Signature("iiii", "i"),
    "proc_exit": Signature("i"),
    "random_get": Signature("ii", "i"),
    "sched_yield": Signature("", "i"),
}
SUCCESS, BADF, INVAL, NOTSUP = 0, 8, 28, 58  # errno
RANDOM_BYTES_MAX = 65_536  # of one call
VECTORS_MAX = 64  # buffers of one fd_write
WRITE_BYTES_MAX = 4_096  # of what one fd_write prints; the rest is taken and thrown away
SUBSCRIPTIONS_MAX = 64  # of one poll_oneoff
_STDOUT, _STDERR = 1, 2
_REALTIME = 0  # clockid; every other clock is the monotonic one
_CLOCK = 0  # eventtype; the others wait for a descriptor
_ABSTIME = 1  # subclockflags
_SUBSCRIPTION_BYTES, _EVENT_BYTES = 48, 32
_CHARACTER_DEVICE = 2  # filetype
_INFO, _WARNING = 1, 2  # levels of Host.log


class Room(Protocol):
    """A guest's memory."""

    def read(self, place: int, size: int) -> bytes: ...
    def write(self, place: int, data: bytes) -> None: ...


class Wasi:
    """The functions of one instance; `memory` is set once it has one."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.memory: Room | None = None

    def functions(self) -> Mapping[str, Callable[..., int | None]]:
        return {name: getattr(self, f"_{name}") for name in SIGNATURES}

    @property
    def _room(self) -> Room:
        if self.memory is None:
            raise Violation("called the host while it had no memory")
        return self.memory

    def _nothing(self, count: int, size: int) -> int:
        """No argument and no variable: a count of 0, and 0 bytes."""
        self._room.write(count, bytes(4))
        self._room.write(size, bytes(4))
        return SUCCESS

    _args_sizes_get = _environ_sizes_get = _nothing

    def _no_list(self, _list: int, _buffer: int) -> int:
        return SUCCESS

    _args_get = _environ_get = _no_list

    def _clock_res_get(self, _clock: int, result: int) -> int:
        self._room.write(result, struct.pack("<Q", 1))
        return SUCCESS

    def _clock_time_get(self, clock: int, _precision: int, result: int) -> int:
        now = self._host.now_ns() if clock == _REALTIME else time.monotonic_ns()
        self._room.write(result, struct.pack("<q", now))
        return SUCCESS

    def _random_get(self, buffer: int, size: int) -> int:
        if size > RANDOM_BYTES_MAX:
            return INVAL
        self._room.write(buffer, os.urandom(size))
        return SUCCESS

    def _fd_write(self, number: int, vectors: int, count: int, result: int) -> int:
        """What a guest prints becomes log lines."""
        if number not in {_STDOUT, _STDERR}:
            return BADF
        if count > VECTORS_MAX:
            return INVAL
        text, taken = b"", 0
        for place, size in struct.iter_unpack("<II", self._room.read(vectors, 8 * count)):
            text += self._room.read(place, min(size, WRITE_BYTES_MAX - len(text)))
            taken += size
        for line in filter(None, text.split(b"\n")):
            self._host.log(_INFO if number == _STDOUT else _WARNING, line)
        self._room.write(result, struct.pack("<I", taken & 0xFFFF_FFFF))
        return SUCCESS

    def _fd_fdstat_get(self, number: int, result: int) -> int:
        if number not in {_STDOUT, _STDERR}:
            return BADF
        self._room.write(result, struct.pack("<BxHxxxxQQ", _CHARACTER_DEVICE, 0, 1 << 6, 0))  # right: fd_write
        return SUCCESS

    def _no_file(self, *_arguments: int) -> int:
        return BADF

    _fd_close = _fd_fdstat_set_flags = _fd_prestat_dir_name = _fd_prestat_get = _fd_read = _fd_seek = _no_file

    def _sched_yield(self) -> int:
        return SUCCESS

    def _proc_exit(self, code: int) -> None:
        raise Violation(f"ended itself (exit {code})")

    def _poll_oneoff(self, subscriptions: int, events: int, count: int, result: int) -> int:
        """Sleep until the first clock rings; there is no descriptor to wait for."""
        if not 0 < count <= SUBSCRIPTIONS_MAX:
            return INVAL
        asked = self._room.read(subscriptions, _SUBSCRIPTION_BYTES * count)
        waits = [
            self._wait_of(asked[at : at + _SUBSCRIPTION_BYTES]) for at in range(0, len(asked), _SUBSCRIPTION_BYTES)
        ]
        first = min(wait for wait, _, _ in waits)
        self._host.sleep(first)
        due = [(user, kind) for wait, user, kind in waits if wait <= first]
        for index, (user, kind) in enumerate(due):
            error = SUCCESS if kind == _CLOCK else NOTSUP
            self._room.write(events + _EVENT_BYTES * index, struct.pack("<QHB21x", user, error, kind))
        self._room.write(result, struct.pack("<I", len(due)))
        return SUCCESS

    def _wait_of(self, subscription: bytes) -> tuple[float, int, int]:
        """Seconds, what the guest calls it, and its kind."""
        user, kind, clock, timeout, _, flags = struct.unpack("<QB7xI4xQQH6x", subscription)
        if kind != _CLOCK:
            return 0.0, user, kind
        if flags & _ABSTIME:
            timeout -= self._host.now_ns() if clock == _REALTIME else time.monotonic_ns()
        return max(0.0, timeout / 1e9), user, kind
