from __future__ import annotations

import contextlib
import platform
import struct
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framegate.carrier.native import preflight
from framegate.contract.errors import Misconfigured
from tests.unit.carrier.native.conftest import build

EXPORT = '__attribute__((visibility("default")))'
GOOD = f"#include <stdint.h>\n{EXPORT} {{api}}\n{EXPORT} {{entry}}\n"
API = "const uint32_t driver_api = 1;"
ENTRY = "void* edge_driver_entry(uint32_t api) {return 0;}"
HOST = platform.machine()


def refusal(data: bytes, host: str = "") -> tuple[str, str]:
    with pytest.raises(Misconfigured) as caught:
        preflight("plugin.so", data, host)
    return caught.value.stable_code, caught.value.text


@pytest.fixture(scope="session")
def good(library: Path) -> bytes:
    return library.read_bytes()


def test_preflight_of_a_good_file_tells_machine_api_and_needs(good: bytes) -> None:
    file = preflight("plugin.so", good)
    assert (file.machine, file.api, file.needed) == (HOST, 1, ("libc.so.6",))


@pytest.mark.parametrize("style", ["gnu", "sysv", "both"])
def test_preflight_finds_symbols_by_either_hash_table(tmp_path: Path, style: str) -> None:
    others = "".join(f"EXPORT int f{number}(void) {{return {number};}}\n" for number in range(50))
    export = f"#define EXPORT {EXPORT}\n"
    path = build(export + GOOD.format(api=API, entry=ENTRY) + others, tmp_path / "p.so", f"-Wl,--hash-style={style}")
    assert preflight("p.so", path.read_bytes()).api == 1


@pytest.mark.parametrize(
    ("api", "entry", "code", "words"),
    [
        ("const uint32_t driver_api = 2;", ENTRY, "E4504", "driver_api = 2, this gateway supports 1"),
        ("int other;", ENTRY, "E4505", "driver_api"),
        (API, "int other2;", "E4505", "edge_driver_entry"),
        ("const uint64_t driver_api = 1;", ENTRY, "E4505", "uint32_t"),
        ("uint32_t driver_api(void) {return 1;}", ENTRY, "E4505", "driver_api"),
        ("uint32_t driver_api;", ENTRY, "E4503", "segment"),  # in memory only, not in the file
    ],
)
def test_preflight_refuses_other_apis_and_missing_symbols(
    tmp_path: Path, api: str, entry: str, code: str, words: str
) -> None:
    found = refusal(build(GOOD.format(api=api, entry=entry), tmp_path / "p.so").read_bytes())
    assert (found[0], words in found[1]) == (code, True), found


def test_preflight_refuses_foreign_libraries_and_search_paths(tmp_path: Path) -> None:
    source = GOOD.format(api=API, entry=ENTRY)
    helper = build("int help(void) {return 1;}", tmp_path / "libhelper.so")
    linked = build(source, tmp_path / "p.so", "-Wl,--no-as-needed", str(helper))
    code, words = refusal(linked.read_bytes())
    assert (code, "libhelper.so" in words) == ("E4506", True)
    code, words = refusal(build(source, tmp_path / "q.so", "-Wl,-rpath,/tmp").read_bytes())
    assert (code, "-rpath" in words) == ("E4506", True)


def test_preflight_refuses_what_is_no_shared_library(good: bytes) -> None:
    assert refusal(b"")[0] == "E4501"
    assert refusal(b"#!/bin/sh\nrm -rf /\n")[0] == "E4501"
    assert refusal(Path(sys.executable).resolve().read_bytes()[:4096])[0] in {"E4501", "E4503", "E4505", "E4506"}


def test_preflight_refuses_other_machines(good: bytes) -> None:
    other = "aarch64" if HOST == "x86_64" else "x86_64"
    assert refusal(good, other)[0] == "E4502"
    foreign = bytearray(good)
    foreign[18:20] = struct.pack("<H", 40)  # e_machine: arm
    assert "built for arm" in refusal(bytes(foreign))[1]
    foreign = bytearray(good)
    foreign[5] = 2  # big-endian
    assert "big-endian" in refusal(bytes(foreign))[1]
    foreign = bytearray(good)
    foreign[4] = 1  # 32-bit
    assert refusal(bytes(foreign))[0] in {"E4502", "E4503"}


def test_preflight_cut_anywhere_raises_misconfigured_only(good: bytes) -> None:
    for size in [*range(0, 1024, 7), *range(1024, len(good), 211)]:
        with contextlib.suppress(Misconfigured):  # what lies behind is not needed once all is found
            preflight("plugin.so", good[:size])


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_preflight_of_damaged_files_raises_misconfigured_only(good: bytes, data: st.DataObject) -> None:
    damaged = bytearray(good)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, min(len(damaged) - 9, 4096)))
        size = data.draw(st.sampled_from((1, 2, 4, 8)))
        value = data.draw(st.sampled_from((0, 1, 0x7F, 0xFF, 0x8000, 0xFFFF_FFFF, 2**63, 2**64 - 1)))
        damaged[at : at + size] = (value & (1 << 8 * size) - 1).to_bytes(size, "little")
    with contextlib.suppress(Misconfigured):
        preflight("plugin.so", bytes(damaged))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=600))
def test_preflight_of_any_bytes_raises_misconfigured_only(data: bytes) -> None:
    for beginning in (b"", b"\x7fELF\x02\x01\x01"):
        with pytest.raises(Misconfigured):
            preflight("plugin.so", beginning + data)
