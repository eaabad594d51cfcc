"""Package files from strangers: what is refused, and that nothing is ever written beside the folder (R-24)."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import shutil
import stat
import struct
import subprocess
import tarfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from framegate.contract.errors import Misconfigured
from framegate.package import archive as archive_module
from framegate.package.archive import Archive, copy_bounded
from framegate.package.names import DEPTH_MAX, clash_of, name_flaw
from framegate.package.zip_entries import ENTRIES_MAX

LINK, DEVICE, PIPE = stat.S_IFLNK | 0o777, stat.S_IFCHR | 0o600, stat.S_IFIFO | 0o600

BOMB_BYTES = 190 << 20
DEFLATED, CRC = zlib.compress(b"x" * 99)[2:-4], zlib.crc32(b"x" * 99)


def zipped(files: Mapping[str, bytes], mode: int = 0o100644, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as made:
        for name, data in files.items():
            info = zipfile.ZipInfo(name)
            info.filename = name  # as it is: ZipInfo cuts at NUL
            info.external_attr, info.compress_type = mode << 16, method
            made.writestr(info, data)
    return buffer.getvalue()


def raw(name: bytes, data: bytes = b"x", *, twice: bool = False, flags: int = 0, method: int = 0, mode: int = 0,
        size: int | None = None, crc: int | None = None, local_name: bytes | None = None, packed: int | None = None,
        front: bytes = b"", at: int = 0, between: bytes = b"", behind: bytes = b"",
        count: int | None = None) -> bytes:  # fmt: skip
    """A ZIP file made by hand, with whatever headers a test wants."""
    size = len(data) if size is None else size
    crc = zlib.crc32(data) if crc is None else crc
    packed = len(data) if packed is None else packed
    local_name = name if local_name is None else local_name
    local = struct.pack("<4s5H3I2H", b"PK\3\4", 20, flags, method, 0, 0, crc, packed, size, len(local_name), 0)
    sizes = (crc, packed, size, len(name))
    central = struct.pack("<4s6H3I5H2I", b"PK\1\2", 0x314, 20, flags, method, 0, 0, *sizes, 0, 0, 0, 0, mode << 16, at)
    body = front + local + local_name + data + between
    directory = (central + name) * (2 if twice else 1)
    many = (2 if twice else 1) if count is None else count
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, many, many, len(directory), len(body), 0)
    return body + directory + end + behind


def unpack(data: bytes, folder: Path) -> None:
    """Unpack into a fresh folder; afterwards nothing else may be in its parent."""
    target = folder / "staging"
    target.mkdir()
    try:
        Archive(io.BytesIO(data)).unpack(target)
    finally:
        assert [path.name for path in folder.iterdir()] == ["staging"]


def tarred(build: Callable[[tarfile.TarFile], None]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as made:
        build(made)
    return buffer.getvalue()


def hardlink(made: tarfile.TarFile) -> None:
    info = tarfile.TarInfo("passwd")
    info.type, info.linkname = tarfile.LNKTYPE, "../../etc/passwd"
    made.addfile(info)


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        (zipped({"../escaped": b"x"}), "E4601", "no plain relative name"),
        (zipped({"a/../../escaped": b"x"}), "E4601", "no plain relative name"),
        (zipped({"/tmp/escaped": b"x"}), "E4601", "no plain relative name"),
        (zipped({"C:/escaped": b"x"}), "E4601", "no plain relative name"),
        (zipped({"C:escaped": b"x"}), "E4601", "no plain relative name"),
        (raw(b"a\\..\\escaped"), "E4601", "no plain relative name"),
        (raw(b"plugin.so\0.txt"), "E4601", "no plain relative name"),
        (raw(b"."), "E4601", "no plain relative name"),
        (raw(b".hidden"), "E4601", "no plain relative name"),
        (raw(b""), "E4601", "no plain relative name"),
        (raw(b"a//b"), "E4601", "no plain relative name"),
        (raw("plug\u0131n".encode(), flags=1 << 11), "E4601", "ASCII"),
        (raw(b"a" * 200), "E4601", "160 characters"),
        (raw(b"a/" * 9 + b"b"), "E4601", "deeper"),
        (raw(b"a."), "E4601", "ends with a dot"),
        (raw(b"link", b"/etc/passwd", mode=LINK), "E4601", "a link, a device"),
        (raw(b"null", b"", mode=DEVICE), "E4601", "a link, a device"),
        (raw(b"pipe", b"", mode=PIPE), "E4601", "a link, a device"),
        (raw(b"folder/", b"", mode=LINK), "E4601", "a link, a device"),
        (raw(b"folder/", b"content"), "E4601", "a folder with a content"),
        (zipped({"Plugin.so": b"1", "plugin.so": b"2"}), "E4601", "differ in case only"),
        (zipped({"Lib/a.py": b"1", "lib/b.py": b"2"}), "E4601", "differ in case only"),
        (zipped({"lib": b"1", "lib/a.py": b"2"}), "E4601", "is a file, and the folder of"),
        (raw(b"twice", twice=True), "E4600", "overlap"),
        (raw(b"secret", flags=1), "E4603", "encrypted"),
        (raw(b"secret", flags=1 << 6), "E4603", "encrypted"),
        (raw(b"packed", method=14), "E4603", "method 14"),
        (zipped({"packed": b"x" * 99}, method=zipfile.ZIP_BZIP2), "E4603", "method 12"),
        (raw(b"a", local_name=b"b"), "E4600", "contradict"),
        (raw(b"a", b"xyz", size=9, packed=9), "E4600", "reaches into"),
        (raw(b"a", b"xyz", size=1), "E4600", "stored and changes its size"),
        (raw(b"a", b"xyz", crc=7), "E4600", "check sum"),
        (raw(b"a", DEFLATED, method=8, size=50, crc=0), "E4600", "longer than the 50 bytes"),
        (raw(b"a", DEFLATED, method=8, size=150, crc=0), "E4600", "not of the size"),
        (raw(b"a", DEFLATED + b"more", method=8, size=99, crc=CRC), "E4600", "does not end"),
        (raw(b"a", DEFLATED[:-2], method=8, size=99, crc=CRC), "E4600", "E4600"),
        (raw(b"a", b"\xff" * 20, method=8, size=20), "E4600", "damaged"),
        (raw(b"a", front=b"#!/bin/sh\n"), "E4600", "contradict"),
        (raw(b"a", front=b"#!/bin/sh\n", at=10), "E4600", "before its first entry"),
        (raw(b"a", between=b"#!/bin/sh\n"), "E4600", "10 bytes behind 'a'"),
        (raw(b"a", behind=b"PK"), "E4600", "cut short, or has a comment"),
        (raw(b"a", count=2), "E4600", "announces 2"),
        (raw(b"a", count=ENTRIES_MAX + 1), "E4602", "1,003 entries"),
        (raw(b"a")[:-1], "E4600", "cut short"),
        (raw(b"a")[:40], "E4600", "cut short"),
        (b"", "E4600", "too short"),
        (b"no zip at all, just text of some length", "E4600", "no ZIP file"),
        (tarred(hardlink), "E4600", "tar archive"),
        (b"\x1f\x8b" + bytes(60), "E4600", "gzip"),
    ],
)  # fmt: skip
def test_unpack_hostile_package_is_refused_and_writes_nothing_elsewhere(
    tmp_path: Path, data: bytes, code: str, words: str
) -> None:
    with pytest.raises(Misconfigured) as refused:
        unpack(data, tmp_path)
    assert refused.value.stable_code == code
    assert words in str(refused.value)


@functools.cache
def bomb() -> bytes:
    """BOMB_BYTES of zeros, deflated to 204 kB at most: a block that stands for itself, again and again."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    body = block * (BOMB_BYTES >> 20) + zlib.compressobj(9, zlib.DEFLATED, -15).flush()
    assert len(body) < 204_000
    return body


def test_unpack_bomb_of_200_mb_in_200_kb_is_refused_before_it_grows(tmp_path: Path) -> None:
    data = zipped({"bomb": bytes(20 << 20)})
    assert len(data) < 64 << 10
    with pytest.raises(Misconfigured, match=r"E4602 .*100 times"):
        unpack(data, tmp_path)
    body = bomb()
    with pytest.raises(Misconfigured, match=r"E4602 .*unpacks to 199,229,440"):
        unpack(raw(b"bomb", body, method=8, size=BOMB_BYTES), tmp_path / "staging")
    assert list((tmp_path / "staging").rglob("bomb")) == []


def test_unpack_bomb_that_lies_about_its_size_stops_at_what_it_said(tmp_path: Path) -> None:
    body = bomb()
    tracemalloc.start()
    with pytest.raises(Misconfigured, match="longer than the 1,000 bytes"):
        unpack(raw(b"bomb", body, method=8, size=1_000), tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20, "pieces, never the whole"


def test_unpack_bomb_within_a_bomb_stays_packed(tmp_path: Path) -> None:
    inner = zipped({"bomb": bytes(30 << 20)})
    unpack(zipped({"inner.zip": inner}, method=zipfile.ZIP_STORED), tmp_path)
    assert [path.name for path in (tmp_path / "staging").iterdir()] == ["inner.zip"]


def test_too_many_files_are_refused_without_reading_them() -> None:
    with pytest.raises(Misconfigured, match="E4602"):
        Archive(io.BytesIO(zipped({f"f{number}": b"" for number in range(ENTRIES_MAX + 1)})))
    assert len(Archive(io.BytesIO(zipped({f"f{number}": b"" for number in range(ENTRIES_MAX)}))).sizes) == ENTRIES_MAX


def test_unpack_writes_plain_files_of_our_mode_whatever_the_entry_says(tmp_path: Path) -> None:
    (tmp_path / "staging").mkdir()
    written = Archive(io.BytesIO(zipped({"lib/a.py": b"print()\n"}, mode=0o104777))).unpack(tmp_path / "staging")
    file = tmp_path / "staging" / "lib" / "a.py"
    assert stat.S_IMODE(file.stat().st_mode) == archive_module.FILE_MODE
    assert written["lib/a.py"].size == len(file.read_bytes())


def test_unpack_never_follows_a_link_that_waits_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "staging").mkdir()
    (tmp_path / "staging" / "a").symlink_to(tmp_path / "victim")
    with pytest.raises(Exception, match="E4624"):
        Archive(io.BytesIO(zipped({"a": b"x"}))).unpack(tmp_path / "staging")
    assert not (tmp_path / "victim").exists()


def test_copy_of_an_endless_stream_ends(tmp_path: Path) -> None:
    with (
        Path("/dev/zero").open("rb") as endless,
        (tmp_path / "copy").open("w+b") as target,
        pytest.raises(Misconfigured, match="E4602"),
    ):
        copy_bounded(endless, target, 1 << 20)
    assert (tmp_path / "copy").stat().st_size <= 1 << 20


@pytest.mark.skipif(shutil.which("zip") is None, reason="Info-ZIP's zip is not installed")
@pytest.mark.parametrize("level", ["-0", "-9"])
def test_packages_of_info_zip_are_read(tmp_path: Path, level: str) -> None:
    source = tmp_path / "source"
    (source / "lib").mkdir(parents=True)
    for name, data in (("driver.toml", b"name"), ("lib/a.py", b"x = 1\n" * 2_000), ("lib/empty", b"")):
        (source / name).write_bytes(data)
    subprocess.run(["zip", "-q", "-r", level, "../made.zip", "."], cwd=source, check=True, timeout=10)
    target = tmp_path / "target"
    target.mkdir()
    with (tmp_path / "made.zip").open("rb") as file:
        written = Archive(file).unpack(target)
    assert set(written) == {"driver.toml", "lib/a.py", "lib/empty"}
    assert (target / "lib/a.py").read_bytes() == b"x = 1\n" * 2_000


def test_unpack_syncs_every_folder_on_the_way_to_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(archive_module, "sync_folder", synced.append)
    Archive(io.BytesIO(zipped({"acme/maps/eu/a.json": b"{}", "driver.toml": b""}))).unpack(tmp_path)
    names = sorted(path.relative_to(tmp_path).as_posix() for path in synced)
    assert names == [".", "acme", "acme/maps", "acme/maps/eu"]


NAMES = st.from_regex(r"[a-z]{1,4}(/[a-z]{1,4}){0,2}", fullmatch=True)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(NAMES, st.binary(max_size=300), max_size=6), st.sampled_from([0, 8]))
def test_what_zipfile_writes_is_read_as_it_was(files: dict[str, bytes], method: int) -> None:
    assume(not clash_of(files))
    made = Archive(io.BytesIO(zipped(files, method=method)))
    assert {name: made.read(name, 300) for name in made.sizes} == files


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 400), st.binary(min_size=1, max_size=4))
def test_damaged_package_is_read_right_or_refused(at: int, with_: bytes) -> None:
    files = {"driver.toml": b"name = 'x'\n" * 9, "plugin.so": b"\x7fELF" * 9}
    data = bytearray(zipped(files))
    data[at : at + len(with_)] = with_
    with contextlib.suppress(Misconfigured):
        made = Archive(io.BytesIO(bytes(data)))
        for name in made.sizes:
            assert made.read(name, 1 << 20) in files.values(), "a check sum of 32 bits stands before it"


def test_name_may_lie_in_as_many_folders_as_its_flaw_says() -> None:
    assert not name_flaw("f/" * DEPTH_MAX + "file")
    assert f"deeper than {DEPTH_MAX} folders" in name_flaw("f/" * (DEPTH_MAX + 1) + "file")


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=30))
def test_name_that_passes_stays_below_its_folder(name: str) -> None:
    if not name_flaw(name):
        base = Path("/base")
        assert (base / name).is_relative_to(base)
        assert os.path.normpath(base / name) == str(base / name)
        assert name.isascii()
        assert "\0" not in name
