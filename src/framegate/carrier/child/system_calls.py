"""Numbers of Linux system calls, for the filter in seccomp.py. Only what a driver may use is here.

Source: arch/x86/entry/syscalls/syscall_64.tbl; include/uapi/asm-generic/unistd.h (aarch64). -1: this machine has no
such call.
"""

from __future__ import annotations

AUDIT_ARCH = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}  # linux/audit.h
_COLUMN = {"x86_64": 0, "aarch64": 1}

COMPUTE = {
    "read": (0, 63), "write": (1, 64), "close": (3, 57), "fstat": (5, 80), "poll": (7, -1), "lseek": (8, 62),
    "mprotect": (10, 226), "munmap": (11, 215), "brk": (12, 214), "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "pread64": (17, 67), "pwrite64": (18, 68),
    "readv": (19, 65), "writev": (20, 66), "pipe": (22, -1), "select": (23, -1), "sched_yield": (24, 124),
    "mremap": (25, 216), "madvise": (28, 233), "dup": (32, 23), "dup2": (33, -1), "nanosleep": (35, 101),
    "getpid": (39, 172), "recvfrom": (45, 207), "recvmsg": (47, 212),
    "shutdown": (48, 210), "getsockname": (51, 204), "getpeername": (52, 205),
    "setsockopt": (54, 208), "getsockopt": (55, 209), "exit": (60, 93), "uname": (63, 160), "gettimeofday": (96, 169),
    "getrlimit": (97, 163), "getrusage": (98, 165), "sysinfo": (99, 179), "times": (100, 153), "getuid": (102, 174),
    "getgid": (104, 176), "geteuid": (107, 175), "getegid": (108, 177), "getppid": (110, 173),
    "sigaltstack": (131, 132), "arch_prctl": (158, -1), "gettid": (186, 178), "futex": (202, 98),
    "sched_getaffinity": (204, 123), "epoll_create": (213, -1), "set_tid_address": (218, 96),
    "restart_syscall": (219, 128), "clock_gettime": (228, 113), "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115), "exit_group": (231, 94), "epoll_wait": (232, -1), "epoll_ctl": (233, 21),
    "pselect6": (270, 72), "ppoll": (271, 73), "set_robust_list": (273, 99), "get_robust_list": (274, 100),
    "epoll_pwait": (281, 22), "timerfd_create": (283, 85), "timerfd_settime": (286, 86), "timerfd_gettime": (287, 87),
    "eventfd2": (290, 19), "epoll_create1": (291, 20), "dup3": (292, 24), "pipe2": (293, 59), "recvmmsg": (299, 243),
    "getcpu": (309, 168), "seccomp": (317, 277), "getrandom": (318, 278),
    "membarrier": (324, 283), "rseq": (334, 293), "epoll_pwait2": (441, 441),
}  # fmt: skip
"""Computing, waiting, and what is open already. None of these reaches another process or opens anything."""

OPEN = {
    "open": (2, -1), "stat": (4, -1), "lstat": (6, -1), "access": (21, -1), "getcwd": (79, 17), "readlink": (89, -1),
    "statfs": (137, 43), "fstatfs": (138, 44), "getdents64": (217, 61), "openat": (257, 56), "newfstatat": (262, 79),
    "readlinkat": (267, 78), "faccessat": (269, 48), "statx": (332, 291), "faccessat2": (439, 439),
}  # fmt: skip
"""Files, as far as landlock lets."""

KEEP = {
    "fsync": (74, 82), "fdatasync": (75, 83), "flock": (73, 32), "ftruncate": (77, 46), "rename": (82, -1),
    "mkdir": (83, -1), "unlink": (87, -1), "mkdirat": (258, 34), "unlinkat": (263, 35), "renameat": (264, 38),
    "renameat2": (316, 276),
}  # fmt: skip
"""Files of its own."""

NETWORK = {
    "connect": (42, 203), "accept": (43, 202), "bind": (49, 200), "listen": (50, 201),
    "accept4": (288, 242),
}  # fmt: skip

MESSAGES = {"sendmsg": (46, 211), "sendmmsg": (307, 269)}
"""Sending to an address that stands in memory, where no filter sees it."""

LOOKED_INTO = {
    "mmap": (9, 222), "ioctl": (16, 29), "socket": (41, 198), "socketpair": (53, 199), "sendto": (44, 206),
    "clone": (56, 220),
    "kill": (62, 129), "fcntl": (72, 25), "prctl": (157, 167), "tgkill": (234, 131), "prlimit64": (302, 261),
    "clone3": (435, 435),
}  # fmt: skip
"""Let, or not, by their arguments."""


def number_of(name: str, machine: str) -> int:
    """raises KeyError - no such call in these tables."""
    for table in (COMPUTE, OPEN, KEEP, NETWORK, MESSAGES, LOOKED_INTO):
        if name in table:
            return table[name][_COLUMN[machine]]
    raise KeyError(name)


def numbers_of(table: dict[str, tuple[int, int]], machine: str) -> list[int]:
    """Those that this machine has."""
    return [numbers[_COLUMN[machine]] for numbers in table.values() if numbers[_COLUMN[machine]] >= 0]
