"""What is loaded is what was verified, whatever becomes of the files meanwhile."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from framegate.contract.errors import Misconfigured
from framegate.contract.plugin import Manifest
from framegate.package import publish, sealed
from framegate.package.discover import discover
from framegate.package.sealed import sealed_code, sealed_file
from framegate.package.store import PluginStore
from tests.unit.package.conftest import Vendor

PYTHON = """name = "{name}"
api = 1
version = "{version}"
summary = "Python for tests"

[driver]
entry = "{module}.driver:Driver"
schema = "driver.schema.json"
"""
DRIVER = b"""import json
import pkgutil
from %b import units


class Driver:
    version = "%b"
    unit = units.UNIT
    data = json.loads(pkgutil.get_data(__package__, "map.json") or b"")

    def late(self):
        from %b import late
        return late.VERSION
"""


def python_package(vendor: Vendor, module: str, version: str = "1.0.0", *, is_flat: bool = False) -> Path:
    prefix = "" if is_flat else f"{module}/"
    files = {
        "driver.py": DRIVER % (module.encode(), version.encode(), module.encode()),
        "__init__.py": b"",
        "units.py": b"UNIT = 'bar'\n",
        "late.py": b"VERSION = '%b'\n" % version.encode(),
    }
    text = PYTHON.format(name="acme-py", version=version, module=module)
    folder = vendor.source_of(text, {f"{prefix}{name}": data for name, data in files.items()})
    (folder / f"{prefix}map.json").write_text(json.dumps({"version": version}))
    if is_flat:
        publish.list_files(folder, ["map.json"])
        publish.sign_folder(folder, vendor.key)
        return publish.pack(folder, folder)
    return vendor.publish(folder)


def installed(store: PluginStore, package: Path) -> Manifest:
    return store.activate(store.stage(package))


def test_file_exchanged_after_the_check_is_never_loaded(store: PluginStore, vendor: Vendor) -> None:
    manifest = installed(store, vendor.package(code=b"\x7fELF good"))
    artifact = store.artifact(manifest, "driver")
    (manifest.folder / "plugin.so").write_bytes(b"\x7fELF evil")
    assert Path(f"/proc/self/fd/{artifact.fd}").read_bytes() == b"\x7fELF good"
    with pytest.raises(Misconfigured, match="E4613"):
        store.artifact(manifest, "driver")
    os.close(artifact.fd)


def test_file_exchanged_while_it_is_copied_is_noticed(
    store: PluginStore, vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = os.urandom(400_000)
    manifest = installed(store, vendor.package(code=code))
    monkeypatch.setattr(sealed, "CHUNK_BYTES", 100_000)
    read = os.read

    def read_and_exchange(handle: int, size: int) -> bytes:
        data = read(handle, size)
        with (manifest.folder / "plugin.so").open("r+b") as file:
            file.write(b"evil" * (len(code) // 4))
        return data

    monkeypatch.setattr(os, "read", read_and_exchange)
    with pytest.raises(Misconfigured, match="E4613"):
        sealed_file(manifest, "plugin.so")


def test_artifact_cannot_be_written_to_grown_or_mapped_for_writing(store: PluginStore, vendor: Vendor) -> None:
    artifact = store.artifact(installed(store, vendor.package()), "driver")
    for attempt in (
        lambda: os.pwrite(artifact.fd, b"evil", 0),
        lambda: os.ftruncate(artifact.fd, 0),
        lambda: os.ftruncate(artifact.fd, 100),
        lambda: os.pwrite(os.open(f"/proc/self/fd/{artifact.fd}", os.O_RDWR), b"evil", 0),
    ):
        with pytest.raises(PermissionError):
            attempt()
    os.close(artifact.fd)


@pytest.mark.parametrize("elsewhere", ["/etc/hostname", "driver.toml", "/dev/zero"])
def test_link_in_place_of_a_file_is_not_followed(store: PluginStore, vendor: Vendor, elsewhere: str) -> None:
    manifest = installed(store, vendor.package())
    (manifest.folder / "plugin.so").unlink()
    (manifest.folder / "plugin.so").symlink_to(elsewhere)
    with pytest.raises(Misconfigured, match="E4615"):
        store.artifact(manifest, "driver")


def test_refused_file_leaves_no_open_descriptor(store: PluginStore, vendor: Vendor) -> None:
    manifest = installed(store, vendor.package())
    (manifest.folder / "plugin.so").write_bytes(b"evil")
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - one more while it is listed, both times
    for _ in range(5):
        with pytest.raises(Misconfigured, match="E4613"):
            store.artifact(manifest, "driver")
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_file_that_is_not_listed_and_role_that_is_not_there_are_refused(store: PluginStore, vendor: Vendor) -> None:
    manifest = installed(store, vendor.package())
    (manifest.folder / "extra.so").write_bytes(b"evil")
    with pytest.raises(Misconfigured, match="E4614"):
        sealed_file(manifest, "extra.so")
    with pytest.raises(Misconfigured, match="E1205"):
        store.artifact(manifest, "bridge")


@pytest.mark.parametrize("is_flat", [False, True])
def test_child_imports_a_plugin_from_the_descriptor_though_its_files_are_gone(
    store: PluginStore, vendor: Vendor, is_flat: bool
) -> None:
    module = "acme_py_module"
    manifest = installed(store, python_package(vendor, module, is_flat=is_flat))
    code = store.artifact(manifest, "driver")
    shutil.rmtree(manifest.folder)
    script = (
        f"import sys; sys.path.insert(0, '/proc/self/fd/{code.fd}'); from {module}.driver import Driver; "
        "print(Driver.version, Driver.data, Driver().late())"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", script], pass_fds=[code.fd], capture_output=True, text=True, check=True, timeout=20
    )
    assert done.stdout.strip() == "1.0.0 {'version': '1.0.0'} 1.0.0"
    os.close(code.fd)


def test_python_file_exchanged_after_the_check_is_not_sealed(store: PluginStore, vendor: Vendor) -> None:
    manifest = installed(store, python_package(vendor, "acme_py_module"))
    (manifest.folder / "acme_py_module" / "units.py").write_bytes(b"UNIT = 'evi'\n")
    with pytest.raises(Misconfigured, match="E4613"):
        sealed_code(manifest)


def test_installed_plugin_with_the_name_of_another_is_a_problem(store: PluginStore, vendor: Vendor) -> None:
    installed(store, vendor.package())
    manifest = store.active()[0]
    folder = vendor.source()
    (folder / "driver.toml").rename(folder / "plugin.toml")
    plugins = discover([folder], store)
    assert plugins["acme-meter"].folder == folder, "what is being developed goes first"
    assert [problem.stable_code for problem in plugins.problems] == ["E1203"]
    assert discover(store=store)["acme-meter"] == manifest
