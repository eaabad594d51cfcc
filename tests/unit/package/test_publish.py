"""From a folder to a package: what belongs to it, what stays at home, and that others can read it."""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from framegate.contract.errors import GatewayError, Misconfigured
from framegate.package import publish
from framegate.package.store import PluginStore
from tests.unit.package.conftest import NATIVE, Vendor

PYTHON = """name = "acme-py"
api = 1
version = "1.0.0"
summary = "Python for tests"

[driver]
entry = "acme_py.driver:Driver"
"""


def listed(folder: Path) -> list[str]:
    return list(tomllib.loads((folder / "driver.toml").read_text())["files"])


def written(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"# " + name.encode())
    return folder


def test_plugin_toml_that_has_changed_since_is_not_passed_over(tmp_path: Path) -> None:
    folder = written(tmp_path / "acme_py", "acme_py/driver.py")
    (folder / "plugin.toml").write_text(PYTHON)
    for _ in range(2):
        publish.list_files(folder)
    for text in (PYTHON.replace("1.0", "1.1"), "no toml"):
        (folder / "plugin.toml").write_text(text)
        with pytest.raises(Misconfigured, match=r"E4630 .*plugin\.toml is not what driver\.toml was made of"):
            publish.list_files(folder)


@pytest.mark.skipif(shutil.which("unzip") is None, reason="Info-ZIP's unzip is not installed")
def test_info_zip_reads_what_is_packed(vendor: Vendor, tmp_path: Path) -> None:
    package = vendor.package(code=bytes(range(256)) * 999)
    subprocess.run(["unzip", "-tq", str(package)], check=True, capture_output=True, timeout=10)
    subprocess.run(["unzip", "-q", str(package), "-d", str(tmp_path / "out")], check=True, timeout=10)
    assert (tmp_path / "out" / "plugin.so").read_bytes() == bytes(range(256)) * 999


def test_only_what_the_manifest_names_is_listed(vendor: Vendor) -> None:
    folder = vendor.source()
    written(folder, "driver.c", "acme.key", ".git/config", "build/plugin.o", "README.md", "LICENSE", "notes.txt")
    publish.list_files(folder)
    assert listed(folder) == ["LICENSE", "README.md", "driver.schema.json", "plugin.so"]
    publish.list_files(folder, ["notes.txt"])
    assert "notes.txt" in listed(folder)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (("acme_py/driver.py", "acme_py/map.json", "acme_py/deep/a.py"), None),
        (("driver.py", "codec.py"), None),
        (("acme_py.py",), None),
        (
            (
                "acme_py/driver.py",
                "acme_py/tests/test_a.py",
                "acme_py/__pycache__/driver.pyc",
                "acme_py/.env",
                "other.py",
            ),
            ["acme_py/driver.py"],
        ),
        (("driver.py", "tests/test_a.py", "data.bin"), ["driver.py"]),
    ],
)
def test_modules_of_a_python_entry_are_listed_wherever_its_package_lies(
    tmp_path: Path, files: tuple[str, ...], expected: list[str] | None
) -> None:
    folder = written(tmp_path / "source", *files)
    (folder / "plugin.toml").write_text(PYTHON)
    publish.list_files(folder)
    assert listed(folder) == (sorted(files) if expected is None else expected)
    assert (folder / "plugin.toml").read_text() == PYTHON, "driver.toml is made beside it"


def test_listing_again_replaces_the_list_and_keeps_everything_else(vendor: Vendor) -> None:
    folder = vendor.source_of(
        f"{NATIVE.format(name='acme-meter', version='1.0.0', serial=3, more='# a comment')}\n[files]\n"
        '"gone.so" = {sha256 = "00", size = 1}\n\n[permissions]\nhome = true # why not\n',
        {"plugin.so": b"1"},
    )
    publish.list_files(folder)
    text = (folder / "driver.toml").read_text()
    assert listed(folder) == ["driver.schema.json", "plugin.so"]
    assert "# a comment" in text
    assert "home = true # why not" in text
    publish.list_files(folder)
    assert (folder / "driver.toml").read_text() == text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (('version = "1.0.0"', 'version = "first"'), "not of the form"),
        (('name = "acme-meter"', 'name = "-meter"'), "no name of a package"),
        (('artifact = "plugin.so"', 'artifact = "missing.so"'), "missing.so cannot be read"),
        (('artifact = "plugin.so"', 'artifact = "plug in.so"'), "no plain relative name"),
        (("[driver]", 'files."plugin.so" = {sha256 = "00", size = 1}\n[driver]'), "files"),
    ],
)
def test_folder_that_cannot_become_a_package_is_refused_and_left_alone(
    vendor: Vendor, change: tuple[str, str], words: str
) -> None:
    folder = vendor.source()
    text = (folder / "driver.toml").read_text()
    assert change[0] in text
    (folder / "driver.toml").write_text(text.replace(*change))
    before = (folder / "driver.toml").read_bytes()
    with pytest.raises(GatewayError) as refused:
        vendor.publish(folder)
    assert words in refused.value.text
    assert (folder / "driver.toml").read_bytes() == before
    assert list(folder.glob("*.edge")) == []


def test_unsigned_or_unlisted_folder_is_not_packed(vendor: Vendor) -> None:
    folder = vendor.source()
    with pytest.raises(Misconfigured, match="E4630"):
        publish.pack(folder, folder)
    publish.list_files(folder)
    with pytest.raises(Misconfigured, match="E4604"):
        publish.pack(folder, folder)


def test_package_that_no_gateway_would_take_is_not_handed_out(vendor: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = vendor.source()
    monkeypatch.setattr("framegate.package.archive.PACKAGE_BYTES_MAX", 200)
    with pytest.raises(Misconfigured, match="E4602"):
        vendor.publish(folder)
    assert list(folder.glob("*.edge")) == []


@pytest.mark.parametrize("size", [65_537, 1 << 20])
def test_file_that_packs_like_a_bomb_is_stored_and_taken(vendor: Vendor, store: PluginStore, size: int) -> None:
    assert store.stage(vendor.package(code=bytes(size))).manifest.files["plugin.so"].size == size


def test_signature_of_older_bytes_goes_when_the_manifest_changes(
    vendor: Vendor, other: Vendor, store: PluginStore
) -> None:
    folder = vendor.source()
    other.publish(folder)
    (folder / "plugin.so").write_bytes(b"\x7fELF newer")
    package = vendor.publish(folder)
    assert store.stage(package).verified.signer.id == vendor.key_id
