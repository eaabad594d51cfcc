"""What a driver's process gives up before it loads the driver. Nothing of it can be had back.

Limits of memory and files, no core dumps, no new privileges, no capabilities, the first to go when the machine runs
out of memory, dead when the gateway is; then landlock (no files) and seccomp (only the system calls that a driver
needs), where the kernel has them. What it lacks is told, and the rest holds without.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from framegate.carrier.child import landlock, seccomp

FILES_MAX = 64
NICE = 5
"""Behind the gateway, where both want the processor."""
OOM_SCORE = b"900"
THREAD_STACK_BYTES = 1 << 20
"""Of a thread that a driver starts; the 8 MiB that are usual would be counted against its memory."""
_ATTRIBUTES_BYTES = 128
"""Room for a pthread_attr_t, which has 56 on x86-64 and 64 on aarch64."""
ADDRESS_BYTES_SPARE = 256 << 20
"""Address space beside the memory that is granted, where no filter keeps shared memory away."""
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS, _PR_CAPBSET_DROP = 1, 38, 24  # linux/prctl.h
_STDERR = 2
_CAPABILITIES_MAX = 64
_CAPABILITY_VERSION_3 = 0x2008_0522
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache")
_RESOLVER = ("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/services", "/etc/gai.conf")


class ParentGone(Exception):
    """The gateway ended while its child began."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What is granted.

    memory    bytes beside what the process holds already
    network   sockets of its own, but to nothing on this machine that knows a caller by its user
    home      folder of its own; "": none
    reads     folders that it reads from as long as it lives
    messages  whether it may send by sendmsg, which can name another address than that of its line
    """

    memory: int
    network: bool = False
    home: str = ""
    reads: Sequence[str] = ()
    messages: bool = False


class Confinement:
    """In two steps, since a library is opened between them.

    missing   what this machine does not offer, in words
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._machine = os.uname().machine
        self._has_filter = False
        self.missing: list[str] = []

    def begin(self) -> None:
        """Give up everything but opening what `reads` and the system's libraries hold."""
        with contextlib.suppress(OSError):  # a thread that ends with the process wants it, and may not open it then
            ctypes.CDLL("libgcc_s.so.1")
        self._limit()
        _drop_capabilities()
        limits = self._limits
        readable = [*_LIBRARIES, *limits.reads, *(_RESOLVER if limits.network else ())]
        try:
            landlock.confine(readable, [limits.home] if limits.home else [], network=limits.network)
        except OSError as error:
            self.missing.append(f"landlock ({error.strerror or error})")
        try:
            if not seccomp.is_known(self._machine):
                raise OSError(f"no table for {self._machine}")  # noqa: TRY301 - one place tells what is missing
            seccomp.let(
                self._machine, files=True, keeps=bool(limits.home), network=limits.network, messages=limits.messages
            )
            self._has_filter = True
        except OSError as error:
            self.missing.append(f"seccomp ({error.strerror or error})")
            _bound(resource.RLIMIT_AS, _mapped_bytes() + limits.memory + ADDRESS_BYTES_SPARE)

    def end(self) -> None:
        """Give up opening files, where nothing granted needs it."""
        limits = self._limits
        if self._has_filter and not (limits.home or limits.network or limits.reads):
            seccomp.deny_files(self._machine)

    def _limit(self) -> None:
        os.nice(NICE)
        _bound_stacks()
        _bound(resource.RLIMIT_CORE, 0)
        _bound(resource.RLIMIT_NOFILE, FILES_MAX)
        _bound(resource.RLIMIT_DATA, _data_bytes() + self._limits.memory)
        if not self._limits.home:
            _bound(resource.RLIMIT_FSIZE, 0)


def attend_parent(parent: int, kept: int) -> None:
    """Die with the gateway, be the first to go when memory is short, and have nothing of it open.

    kept    file descriptor of the line to it; libraries of the gateway may have left others open for its children

    raises ParentGone - it has gone already
    """
    prctl = ctypes.CDLL(None).prctl
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if os.getppid() != parent:
        raise ParentGone
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - pathlib would be loaded for it
        if int(name) > _STDERR and int(name) != kept:
            with contextlib.suppress(OSError):  # that of the listing itself
                os.close(int(name))
    with contextlib.suppress(OSError):
        score = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        try:
            os.write(score, OOM_SCORE)
        finally:
            os.close(score)


def _bound_stacks() -> None:
    libc = ctypes.CDLL(None)
    attributes = ctypes.create_string_buffer(_ATTRIBUTES_BYTES)
    with contextlib.suppress(AttributeError):  # glibc has it
        libc.pthread_attr_init(attributes)
        libc.pthread_attr_setstacksize(attributes, ctypes.c_size_t(THREAD_STACK_BYTES))
        libc.pthread_setattr_default_np(attributes)


def _drop_capabilities() -> None:
    libc = ctypes.CDLL(None)
    for capability in range(_CAPABILITIES_MAX):
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    with contextlib.suppress(AttributeError):
        libc.capset(struct.pack("=Ii", _CAPABILITY_VERSION_3, 0), bytes(24))


def _bound(what: int, limit: int) -> None:
    with contextlib.suppress(ValueError, OSError):  # a lower one was set before
        resource.setrlimit(what, (limit, limit))


def _mapped_bytes() -> int:
    return _statm()[0]


def _data_bytes() -> int:
    return _statm()[5]


def _statm() -> list[int]:
    """Bytes, as proc(5) has them in pages: all mapped, resident, shared, text, 0, data and stack."""
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - pathlib would be loaded for it
        return [int(pages) * resource.getpagesize() for pages in file.read().split()]
