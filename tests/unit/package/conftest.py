"""A vendor who makes packages, and a home that trusts them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from framegate.package import publish
from framegate.package.signature import key_id_of
from framegate.package.store import PluginStore
from framegate.package.trust import TrustedKey
from framegate.testing.fakes import FakeClock

DAY_NS = 86_400 * 1_000_000_000
NOW_NS = 1_795_000_000 * 1_000_000_000
CODE = b"\x7fELF"
NATIVE = """name = "{name}"
api = 1
version = "{version}"
serial = {serial}
summary = "A driver for tests"
{more}
[driver]
shape = "native"
artifact = "plugin.so"
schema = "driver.schema.json"
endpoint = ["tcp"]
"""


@dataclass
class Vendor:
    """Makes folders and packages, signed by a key of its own."""

    folder: Path
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    @property
    def key_id(self) -> str:
        return key_id_of(self.key.public_key())

    def source(
        self, name: str = "acme-meter", version: str = "1.0.0", serial: int = 0, more: str = "", code: bytes = CODE
    ) -> Path:
        """A plugin's folder, not signed."""
        return self.source_of(NATIVE.format(name=name, version=version, serial=serial, more=more), {"plugin.so": code})

    def source_of(self, manifest: str, files: Mapping[str, bytes]) -> Path:
        self.folder.mkdir(exist_ok=True)
        folder = self.folder / f"source-{len(list(self.folder.iterdir()))}"
        folder.mkdir()
        (folder / "driver.toml").write_text(manifest)
        for file, data in {"driver.schema.json": json.dumps({"type": "object"}).encode(), **files}.items():
            (folder / file).parent.mkdir(exist_ok=True)
            (folder / file).write_bytes(data)
        return folder

    def publish(self, folder: Path) -> Path:
        publish.list_files(folder)
        publish.sign_folder(folder, self.key)
        return publish.pack(folder, folder)

    def package(
        self, name: str = "acme-meter", version: str = "1.0.0", serial: int = 0, more: str = "", code: bytes = CODE
    ) -> Path:
        return self.publish(self.source(name, version, serial, more, code))

    def trusted(
        self, names: tuple[str, ...] = ("acme-*",), kinds: tuple[str, ...] = ("driver",), not_after: int = 0
    ) -> TrustedKey:
        return TrustedKey(self.key_id, self.key.public_key(), "Acme Automation", names, kinds, not_after)


class PowerCut(BaseException):
    """The process ends here."""


STEPS = ("rename", "replace", "symlink", "fsync", "mkdir", "unlink")


def _nothing(*_: object) -> None: ...


class Steps:
    """Counts what changes the disk, and ends the process at one of them: before it, as if it never came."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, self.cut_at = 0, -1
        for name in STEPS:
            real = _nothing if name == "fsync" else getattr(os, name)  # a disk that is slow to sync shows nothing here
            monkeypatch.setattr(os, name, self._counted(real))

    def _counted(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **keywords: Any) -> Any:
            self.count += 1
            if self.count == self.cut_at:
                raise PowerCut
            return real(*arguments, **keywords)

        return step


@pytest.fixture
def vendor(tmp_path: Path) -> Vendor:
    return Vendor(tmp_path / "vendor")


@pytest.fixture
def other(tmp_path: Path) -> Vendor:
    return Vendor(tmp_path / "other")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW_NS)


@pytest.fixture
def store(tmp_path: Path, vendor: Vendor, clock: FakeClock) -> PluginStore:
    """Trusts the vendor for drivers acme-*."""
    store = PluginStore(tmp_path / "home" / "plugins", clock)
    store.trust.add(vendor.trusted())
    return store
