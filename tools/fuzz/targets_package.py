"""Packages of plugins: the file as a whole, a signature, a manifest that somebody trusted has signed."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Hashable, Sequence
from pathlib import Path

from framegate.contract.errors import Misconfigured
from framegate.package.archive import Archive
from framegate.package.manifest import manifest_of
from framegate.package.signature import MANIFEST_TYPE, Signature, envelope_of, signatures_in
from tools.fuzz.target import Target

_READ_BYTES_MAX = 1 << 20
_PATH = Path("acme-1.0.0.edge") / "driver.toml"
_MANIFEST = b"""name = "acme-meter"
api = {min = 1, max = 2}
version = "1.2.3-rc.1"
serial = 7
arch = "x86_64-linux"
summary = "A meter"

[driver]
shape = "native"
artifact = "plugin.so"
schema = "driver.schema.json"
endpoint = ["tcp"]

[permissions]
memory = 67108864
network = "own"

[files]
"plugin.so" = {sha256 = "%s", size = 14336}
""" % (b"ab" * 32)
WORDS: Sequence[bytes] = (
    b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", b"PK\x06\x07", b"../", b"/", b"\\", b"\0", b"\xff\xff",
    b"\xff\xff\xff\xff", b"[files]\n", b'"keyid": ', b"ed25519", b"= {", b"}",
)  # fmt: skip


def _package(case: bytes) -> Hashable:
    """Every name may be used, and no file is larger than it says."""
    archive = Archive(io.BytesIO(case))
    for name, size in archive.sizes.items():
        assert (Path("/base") / name).is_relative_to("/base")
        assert ".." not in name.split("/")
        assert len(archive.read(name, _READ_BYTES_MAX)) == size
    return tuple(archive.sizes)[:3]


def _packages() -> list[bytes]:
    seeds = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", method) as made:
            made.writestr("driver.toml", b"name = 'x'\n")
            made.writestr("lib/a.py", b"x = 1\n" * 5)
        seeds.append(buffer.getvalue())
    return seeds


def _signature(case: bytes) -> Hashable:
    found = signatures_in(case, MANIFEST_TYPE, "here")
    return len(found), {len(one.value) for one in found} == {64}


def _manifest(case: bytes) -> Hashable:
    def read(name: str, bytes_max: int) -> bytes:
        assert "/" not in name
        return b'{"type": "object"}'

    manifest = manifest_of(case, _PATH, read)
    return tuple(manifest.roles), len(manifest.files), manifest.permissions.network


_ENVELOPES = [envelope_of(MANIFEST_TYPE, [Signature("0123456789abcdef", bytes(64))] * count) for count in (1, 2)]
TARGETS: Sequence[Target] = (
    # Inflated in pieces of 256 KiB.
    Target("package", _package, (Misconfigured,), _packages, size=400, floor=4 << 20),
    Target("plugin-signature", _signature, (Misconfigured,), lambda: _ENVELOPES, size=400),
    Target("plugin-manifest", _manifest, (Misconfigured,), lambda: [_MANIFEST], size=600),
)
