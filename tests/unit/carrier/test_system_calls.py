"""The numbers of system calls, judged by the kernel's own headers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from framegate.carrier.child.system_calls import (
    COMPUTE,
    KEEP,
    LOOKED_INTO,
    MESSAGES,
    NETWORK,
    OPEN,
    number_of,
    numbers_of,
)

HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}
# The generic header names what a 32-bit machine has otherwise: __NR3264_mmap.
DEFINITION = re.compile(r"^#define __NR(?:3264)?_(\w+)\s+(\d+)$", re.MULTILINE)
RENAMED = {"newfstatat": "fstatat"}


@pytest.mark.parametrize("machine", HEADERS)
def test_numbers_are_those_of_the_kernel(machine: str) -> None:
    if not HEADERS[machine].exists():
        pytest.skip("the kernel's headers are not installed")
    known = {name: int(number) for name, number in DEFINITION.findall(HEADERS[machine].read_text())}
    for table in (COMPUTE, OPEN, KEEP, NETWORK, MESSAGES, LOOKED_INTO):
        for name in table:
            wanted = known.get(name, known.get(RENAMED.get(name, ""), -1))
            assert (name, number_of(name, machine)) == (name, wanted)


def test_numbers_of_leaves_out_what_a_machine_has_not() -> None:
    assert len(numbers_of(OPEN, "aarch64")) < len(numbers_of(OPEN, "x86_64")) == len(OPEN)
    assert -1 not in numbers_of(COMPUTE, "aarch64")
    with pytest.raises(KeyError):
        number_of("ptrace", "x86_64")
