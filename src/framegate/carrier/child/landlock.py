"""Landlock: which folders a process can reach, and that it signals nobody outside.

Files that were opened before stay open. A kernel without landlock, or with an older one, gives what it has.

Source: Linux Documentation/userspace-api/landlock.rst; linux/landlock.h.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Sequence

_CREATE, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same numbers on every machine
_VERSION_FLAG = 1
_PATH_BENEATH = 1
_EXECUTE, _READ_FILE, _READ_DIR, _IOCTL_DEV = 1 << 0, 1 << 2, 1 << 3, 1 << 15
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_ACCESS_BITS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""How many rights of access to files a version knows."""
_NETWORK_SINCE, _NETWORK = 4, 3  # bind and connect over TCP
_SCOPE_SINCE, _SCOPE = 6, 3  # abstract unix sockets, signals


def version() -> int:
    """0: this kernel has none."""
    return max(0, int(_libc().syscall(ctypes.c_long(_CREATE), None, ctypes.c_size_t(0), ctypes.c_uint(_VERSION_FLAG))))


def confine(readable: Sequence[str], writable: Sequence[str], *, network: bool) -> None:
    """Take every right to files but these; without `network` also TCP. Needs no_new_privs.

    raises OSError - not possible here
    """
    have = version()
    if not have:
        raise OSError("this kernel has no landlock")
    every = (1 << _ACCESS_BITS.get(have, max(_ACCESS_BITS.values()))) - 1
    attributes = struct.pack(
        "=QQQ", every, 0 if network or have < _NETWORK_SINCE else _NETWORK, 0 if have < _SCOPE_SINCE else _SCOPE
    )
    size = 8 if have < _NETWORK_SINCE else 16 if have < _SCOPE_SINCE else 24
    rules = _call(_CREATE, attributes[:size], ctypes.c_size_t(size), ctypes.c_uint(0))
    try:
        for paths, rights in ((readable, _READ), (writable, every & ~_EXECUTE & ~_IOCTL_DEV)):
            for path in paths:
                _add(rules, path, rights)
        _call(_RESTRICT_SELF, ctypes.c_int(rules), ctypes.c_uint(0))
    finally:
        os.close(rules)


def _add(rules: int, path: str, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not os.path.isdir(path):  # noqa: PTH112 - pathlib would be loaded for it
            rights &= _EXECUTE | _READ_FILE
        rule = struct.pack("=Qi", rights, place)
        _call(_ADD_RULE, ctypes.c_int(rules), ctypes.c_int(_PATH_BENEATH), rule, ctypes.c_uint(0))
    finally:
        os.close(place)


def _call(number: int, *arguments: object) -> int:
    result = int(_libc().syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
