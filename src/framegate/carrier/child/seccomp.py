"""A filter over system calls: what a driver does not need does not exist for it.

A list of what is let, so that a call of a newer kernel is refused too. A refused call fails with EPERM and the driver
lives on. Filters add up: the one that is loaded later can only take away. Memory that is shared, and so not counted
by RLIMIT_DATA, cannot be had; a signal goes to the process itself only; a clone is a thread or nothing; a socket of
its own is none of this machine's, whose services know the process by its user only: the gateway's control socket, too.

Source: Linux Documentation/userspace-api/seccomp_filter.rst; linux/filter.h, linux/seccomp.h.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Sequence

from framegate.carrier.child.system_calls import (
    AUDIT_ARCH,
    COMPUTE,
    KEEP,
    MESSAGES,
    NETWORK,
    OPEN,
    number_of,
    numbers_of,
)

_LOAD, _EQUAL, _GREATER_EQUAL, _AND, _RETURN = 0x20, 0x15, 0x35, 0x54, 0x06  # BPF_LD|W|ABS, JMP|JEQ|K, JMP|JGE|K, ...
_NUMBER_AT, _MACHINE_AT, _ARGUMENT_AT = 0, 4, 16  # struct seccomp_data
_ALLOW, _KILL, _ERROR = 0x7FFF_0000, 0x8000_0000, 0x0005_0000
_EPERM, _ENOSYS = 1, 38
_X32 = 0x4000_0000
"""Numbers from here on are another set of calls on x86_64."""
_SET_MODE_FILTER, _TSYNC = 1, 1
_CLONE_THREAD = 0x0001_0000
_MAP_TYPE, _MAP_PRIVATE = 0x0F, 0x02
_PR_SET_NAME = 15
_FCNTL = (0, 1, 2, 3, 4, 1030)  # F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC
_IOCTL = (0x5401, 0x541B, 0x5421, 0x5450, 0x5451)  # TCGETS, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX
_FAMILIES = (2, 10, 16, 29)  # AF_INET, AF_INET6, AF_NETLINK (a resolver asks which addresses there are), AF_CAN
_SOCKET_TYPE, _SOCK_STREAM = 0x0F, 1
Instruction = tuple[int, int, int, int]


class FilterStruct(ctypes.Structure):
    """struct sock_fprog"""

    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def is_known(machine: str) -> bool:
    return machine in AUDIT_ARCH


def let(machine: str, *, files: bool, keeps: bool, network: bool, messages: bool) -> None:
    """From now on, and for every thread, only what a driver needs.

    files     open files to read; keeps: also make, rename and remove them; network: also sockets of its own
    messages  sendmsg, which some event loops use. Without it, and without `network`, a line of datagrams reaches the
              device that it was made for, and no other
    raises    OSError - the kernel does not take a filter
    """
    allowed = numbers_of(COMPUTE, machine)
    tables = (files or keeps, OPEN), (keeps, KEEP), (network, NETWORK), (network or messages, MESSAGES)
    for wanted, table in tables:
        if wanted:
            allowed += numbers_of(table, machine)
    looked_into = _looked_into(machine, os.getpid(), network=network)
    program = [*_prologue(machine), *_if_equal(number_of("clone3", machine), [_error(_ENOSYS)])]
    for number, body in looked_into:
        program += _if_equal(number, body)
    for number in allowed:
        program += _if_equal(number, [(_RETURN, 0, 0, _ALLOW)])
    _load([*program, _error(_EPERM)], machine)


def deny_files(machine: str) -> None:
    """On top of `let`: nothing is opened any more. Raises OSError."""
    program = _prologue(machine)
    for number in numbers_of(OPEN, machine):
        program += _if_equal(number, [_error(_EPERM)])
    _load([*program, (_RETURN, 0, 0, _ALLOW)], machine)


def _prologue(machine: str) -> list[Instruction]:
    return [
        (_LOAD, 0, 0, _MACHINE_AT),
        (_EQUAL, 1, 0, AUDIT_ARCH[machine]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_GREATER_EQUAL, 0, 1, _X32),
        (_RETURN, 0, 0, _KILL),
    ]


def _looked_into(machine: str, pid: int, *, network: bool) -> list[tuple[int, list[Instruction]]]:
    def number(name: str) -> int:
        return number_of(name, machine)

    return [
        (number("socket"), _if_one_of(0, _FAMILIES if network else ())),
        (number("sendto"), [(_RETURN, 0, 0, _ALLOW)] if network else _if_null(4)),
        (number("socketpair"), _if_bits(1, _SOCKET_TYPE, _SOCK_STREAM)),  # one of datagrams would send to any address
        (number("mmap"), _if_bits(3, _MAP_TYPE, _MAP_PRIVATE)),
        (number("clone"), _if_bits(0, _CLONE_THREAD, _CLONE_THREAD)),
        (number("kill"), _if_one_of(0, (pid,))),
        (number("tgkill"), _if_one_of(0, (pid,))),
        (number("prctl"), _if_one_of(0, (_PR_SET_NAME,))),
        (number("fcntl"), _if_one_of(1, _FCNTL)),
        (number("ioctl"), _if_one_of(1, _IOCTL)),
        (number("prlimit64"), _if_null(2)),  # no new limit, of the gateway least of all: only asks
    ]


def _if_equal(value: int, body: list[Instruction]) -> list[Instruction]:
    """Run `body`, which returns, where the number of the call is this one."""
    return [(_EQUAL, 0, len(body), value), *body]


def _if_bits(argument: int, mask: int, value: int) -> list[Instruction]:
    return [
        (_LOAD, 0, 0, _ARGUMENT_AT + 8 * argument),
        (_AND, 0, 0, mask),
        (_EQUAL, 0, 1, value),
        (_RETURN, 0, 0, _ALLOW),
        _error(_EPERM),
    ]


def _if_one_of(argument: int, values: Sequence[int]) -> list[Instruction]:
    body: list[Instruction] = [(_LOAD, 0, 0, _ARGUMENT_AT + 8 * argument)]
    for value in values:
        body += [(_EQUAL, 0, 1, value), (_RETURN, 0, 0, _ALLOW)]
    return [*body, _error(_EPERM)]


def _if_null(argument: int) -> list[Instruction]:
    """An address is looked at in both halves: one whose lower half is 0 can be had."""
    at = _ARGUMENT_AT + 8 * argument
    return [
        (_LOAD, 0, 0, at),
        (_EQUAL, 0, 3, 0),
        (_LOAD, 0, 0, at + 4),
        (_EQUAL, 0, 1, 0),
        (_RETURN, 0, 0, _ALLOW),
        _error(_EPERM),
    ]


def _error(number: int) -> Instruction:
    return (_RETURN, 0, 0, _ERROR | number)


def _load(program: list[Instruction], machine: str) -> None:
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    libc = ctypes.CDLL(None, use_errno=True)
    filters = FilterStruct(len(program), code)
    arguments = (ctypes.c_long(_SET_MODE_FILTER), ctypes.c_long(_TSYNC), ctypes.byref(filters))
    if libc.syscall(ctypes.c_long(number_of("seccomp", machine)), *arguments) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
