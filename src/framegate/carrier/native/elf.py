"""A shared library looked at as a file: may it be loaded at all? Not a byte of it is executed or mapped to be.

Class, machine and type of the file, the number that its symbol `driver_api` holds, the libraries it needs and the
symbol edge_driver_entry are read the way the dynamic loader would find them: program headers, dynamic section, hash
table. Every offset in the file is a stranger's; what points outside of it is refused.

Source: System V ABI, chapters 4 and 5; the GNU hash table as in glibc's elf/dl-lookup.c; contract/driver.h.
"""

from __future__ import annotations

import platform
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from mmap import mmap
from typing import NoReturn

from framegate.contract.errors import Misconfigured

DRIVER_API = 1
API_SYMBOL = b"driver_api"
ENTRY_SYMBOL = b"edge_driver_entry"
LIBRARIES = frozenset((
    "libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1", "libgcc_s.so.1", "libstdc++.so.6",
    "libatomic.so.1", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1", "ld-linux-armhf.so.3",
))  # fmt: skip
"""What the machine itself brings along; everything else is linked into the driver."""

SEGMENTS_MAX = 64
DYNAMIC_ENTRIES_MAX = 4096
CHAIN_MAX = 1 << 16
NAME_BYTES_MAX = 4096
_MACHINES = {3: "i386", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv64"}  # e_machine
_HOSTS = {"x86_64": 62, "aarch64": 183, "armv7l": 40, "armv8l": 40, "riscv64": 243}
_ET_DYN = 3
_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_NULL, _DT_NEEDED, _DT_HASH, _DT_STRTAB, _DT_SYMTAB = 0, 1, 4, 5, 6
_DT_STRSZ, _DT_GNU_HASH = 10, 0x6FFF_FEF5
_REDIRECTIONS = {
    15: "DT_RPATH", 29: "DT_RUNPATH", 0x7FFF_FFFD: "DT_AUXILIARY", 0x7FFF_FFFF: "DT_FILTER", 0x6FFF_FEFC: "DT_AUDIT",
    0x6FFF_FEFB: "DT_DEPAUDIT",
}  # fmt: skip
"""Dynamic entries that would have the loader take files from places of the library's choice."""
_STT_OBJECT, _STT_FUNC = 1, 2


@dataclass(frozen=True, slots=True)
class NativeFile:
    """What a driver's file says of itself."""

    machine: str
    api: int
    needed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Shape:
    """Where fields lie in a 64- or a 32-bit file."""

    header: struct.Struct  # from e_type on
    segment: struct.Struct
    segment_fields: tuple[int, int, int, int]  # p_type, p_offset, p_vaddr, p_filesz
    dynamic: struct.Struct
    symbol: struct.Struct
    symbol_fields: tuple[int, int, int, int, int]  # st_name, st_value, st_size, st_info, st_shndx
    word_bytes: int


_SHAPES = {
    2: _Shape(
        struct.Struct("<HHIQQQIHHH"), struct.Struct("<IIQQQQQQ"), (0, 2, 3, 5), struct.Struct("<qQ"),
        struct.Struct("<IBBHQQ"), (0, 4, 5, 1, 3), 8,
    ),
    1: _Shape(
        struct.Struct("<HHIIIIIHHH"), struct.Struct("<IIIIIIII"), (0, 1, 2, 4), struct.Struct("<iI"),
        struct.Struct("<IIIBBH"), (0, 1, 2, 3, 5), 4,
    ),
}  # fmt: skip


def preflight(name: str, data: bytes | mmap, host: str = "") -> NativeFile:
    """What a driver's file says of itself, once it is clear that it may be loaded here.

    name    for messages: the file's name
    host    machine as uname has it; "": this one
    raises  Misconfigured E4501 - no shared library; E4502 - for another machine; E4503 - damaged; E4504 - another API;
            E4505 - a symbol is missing; E4506 - wants files that it does not bring along
    """
    try:
        return _File(name, data).examined(host or platform.machine())
    except (struct.error, IndexError, OverflowError) as error:
        raise Misconfigured(
            f"{name}: is damaged or cut off ({error}); install the plugin again", code="E4503"
        ) from error


class _File:
    def __init__(self, name: str, data: bytes | mmap) -> None:
        self.name = name
        self.data = data
        self.loads: list[tuple[int, int, int]] = []  # offset, address, bytes

    def examined(self, host: str) -> NativeFile:
        data = self.data
        if data[:4] != b"\x7fELF":
            self._refuse("E4501", "is no ELF file; a native driver is a shared library, built with -shared")
        shape = _SHAPES.get(data[4])
        if shape is None or data[5] not in {1, 2}:
            self._refuse("E4503", "has an ELF header that cannot be; install the plugin again")
        if data[5] == 2:
            self._refuse("E4502", f"is built for a big-endian machine, this one is {host}; build it for {host}")
        type_, machine, _, _, segments_at, _, _, _, segment_bytes, segments = shape.header.unpack_from(data, 16)
        self._check_machine(machine, shape.word_bytes * 8, host)
        if type_ != _ET_DYN:
            self._refuse("E4501", "is an ELF file, but no shared library; build it with -shared")
        if segment_bytes != shape.segment.size or segments > SEGMENTS_MAX:
            self._refuse("E4503", f"has {segments} segments of {segment_bytes} bytes; install the plugin again")
        dynamic = self._dynamic(shape, segments_at, segments)
        needed = self._needed(dynamic)
        symbols = _Symbols(self, shape, dynamic)
        if symbols.find(ENTRY_SYMBOL, _STT_FUNC) is None:
            self._refuse("E4505", "has no function edge_driver_entry; export it as contract/driver.h has it")
        return NativeFile(_MACHINES[machine], self._api(symbols), needed)

    def _check_machine(self, machine: int, bits: int, host: str) -> None:
        built = _MACHINES.get(machine, f"machine {machine}")
        if machine != _HOSTS.get(host):
            self._refuse("E4502", f"is built for {built}, this machine is {host}; build it for {host}")
        if bits != (32 if host.startswith("armv") else 64):
            self._refuse("E4502", f"is a {bits}-bit library for {built}, this machine is {host}; build it for {host}")

    def _dynamic(self, shape: _Shape, segments_at: int, segments: int) -> list[tuple[int, int]]:
        """Entries of the dynamic section, tag and value; notes the loaded segments on the way."""
        found: tuple[int, int] | None = None
        kind, offset, address, size = shape.segment_fields
        for index in range(segments):
            fields = shape.segment.unpack_from(self.data, segments_at + index * shape.segment.size)
            if fields[kind] == _PT_LOAD:
                self.loads.append((fields[offset], fields[address], fields[size]))
            elif fields[kind] == _PT_DYNAMIC:
                found = fields[offset], fields[size]
        if found is None:
            self._refuse("E4501", "has no dynamic section; build it with -shared")
        entries: list[tuple[int, int]] = []
        for index in range(min(found[1] // shape.dynamic.size, DYNAMIC_ENTRIES_MAX)):
            tag, value = shape.dynamic.unpack_from(self.data, found[0] + index * shape.dynamic.size)
            if tag == _DT_NULL:
                break
            entries.append((tag, value))
        return entries

    def _needed(self, dynamic: list[tuple[int, int]]) -> tuple[str, ...]:
        for tag, _ in dynamic:
            if tag in _REDIRECTIONS:
                self._refuse("E4506", f"has a {_REDIRECTIONS[tag]} entry; build it without -rpath and the like")
        names = dict(dynamic).get(_DT_STRTAB, 0)
        needed = tuple(
            self.text(names + value).decode("utf-8", "replace") for tag, value in dynamic if tag == _DT_NEEDED
        )
        foreign = [name for name in needed if name not in LIBRARIES]
        if foreign:
            text = f"needs {', '.join(sorted(foreign)[:5])}, which a driver may not; link it in statically"
            hint = ", or build it for glibc: this one is built for musl" if "libc.so" in foreign else ""
            self._refuse("E4506", text + hint)
        return needed

    def _api(self, symbols: _Symbols) -> int:
        found = symbols.find(API_SYMBOL, _STT_OBJECT)
        if found is None or found[1] != 4:  # bytes of a uint32_t
            self._refuse("E4505", "has no `const uint32_t driver_api`; export it as contract/driver.h has it")
        api: int = struct.unpack_from("<I", self.data, self.place(found[0], 4))[0]
        if api != DRIVER_API:
            text = f"driver_api = {api}, this gateway supports {DRIVER_API}; install a version that matches"
            self._refuse("E4504", text)
        return api

    def place(self, address: int, size: int) -> int:
        """Where in the file the bytes at an address come from; raises IndexError."""
        for offset, start, length in self.loads:
            if (
                start <= address
                and address + size <= start + length
                and offset + address - start + size <= len(self.data)
            ):
                return offset + address - start
        raise IndexError(f"address {address:#x} is in no segment")

    def text(self, address: int) -> bytes:
        """A text that ends with 0; raises IndexError."""
        at = self.place(address, 1)
        end = self.data.find(b"\0", at, at + NAME_BYTES_MAX)
        if end < 0:
            raise IndexError("a name does not end")
        return bytes(self.data[at:end])

    def number(self, address: int) -> int:
        """A u32; raises IndexError."""
        return int(struct.unpack_from("<I", self.data, self.place(address, 4))[0])

    def _refuse(self, code: str, text: str) -> NoReturn:
        raise Misconfigured(f"{self.name}: {text}", code=code)


class _Symbols:
    """The symbols that a library exports, found by name as the loader finds them."""

    def __init__(self, file: _File, shape: _Shape, dynamic: list[tuple[int, int]]) -> None:
        self._file = file
        self._shape = shape
        places = dict(dynamic)
        self._names, self._table = places.get(_DT_STRTAB, 0), places.get(_DT_SYMTAB, 0)
        self._gnu, self._plain = places.get(_DT_GNU_HASH), places.get(_DT_HASH)

    def find(self, name: bytes, type_: int) -> tuple[int, int] | None:
        """Address and size of a symbol that is defined here; None: there is none of that type."""
        at_name, at_value, at_size, at_info, at_section = self._shape.symbol_fields
        for index in self._candidates(name):
            address = self._table + index * self._shape.symbol.size
            fields = self._shape.symbol.unpack_from(self._file.data, self._file.place(address, self._shape.symbol.size))
            is_ours = fields[at_section] != 0 and fields[at_info] & 15 == type_ and fields[at_info] >> 4 in {1, 2}
            if is_ours and self._file.text(self._names + fields[at_name]) == name:
                return fields[at_value], fields[at_size]
        return None

    def _candidates(self, name: bytes) -> Iterator[int]:
        if self._gnu is not None:
            return self._by_gnu_hash(self._gnu, name)
        if self._plain is not None:
            return self._by_hash(self._plain, name)
        return iter(())

    def _by_gnu_hash(self, table: int, name: bytes) -> Iterator[int]:
        number = self._file.number
        buckets, first, filters, _ = (number(table + 4 * index) for index in range(4))
        if not buckets:
            return
        chains = table + 16 + filters * self._shape.word_bytes
        wanted = 5381
        for byte in name:
            wanted = (wanted * 33 + byte) & 0xFFFF_FFFF
        index = number(chains + 4 * (wanted % buckets))
        if index < first:
            return
        chains += 4 * buckets
        for step in range(CHAIN_MAX):
            value = number(chains + 4 * (index + step - first))
            if value | 1 == wanted | 1:
                yield index + step
            if value & 1:
                return

    def _by_hash(self, table: int, name: bytes) -> Iterator[int]:
        number = self._file.number
        buckets = number(table)
        if not buckets:
            return
        wanted = 0
        for byte in name:
            wanted = (wanted << 4) + byte
            high = wanted & 0xF000_0000
            wanted = (wanted ^ high >> 24) & ~high
        index = number(table + 8 + 4 * (wanted % buckets))
        for _ in range(CHAIN_MAX):
            if index == 0:
                return
            yield index
            index = number(table + 8 + 4 * (buckets + index))
