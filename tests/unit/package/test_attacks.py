"""Everything that is tried with a package: each is refused with its own code and words, and leaves nothing behind."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from framegate.contract.errors import Misconfigured
from framegate.package import publish
from framegate.package.signature import MANIFEST_TYPE, envelope_of, sign
from framegate.package.store import PluginStore
from framegate.package.verified import ARCH
from tests.unit.package.conftest import DAY_NS, NATIVE, NOW_NS, Vendor


def changed(package: Path, **files: bytes | None) -> Path:
    """A package with some files exchanged, added or (None) left out; names with _ for . are spelt in full."""
    with zipfile.ZipFile(package) as source:
        contents: dict[str, bytes] = {name: source.read(name) for name in source.namelist()}
    for name, data in files.items():
        if data is None:
            del contents[name]
        else:
            contents[name] = data
    target = package.with_name(f"changed-{package.name}")
    with zipfile.ZipFile(target, "w") as made:
        for name, data in contents.items():
            made.writestr(name, data)
    return target


@dataclass
class Scene:
    """What an attacker has: a home, a vendor whom it trusts, and one whom it does not."""

    store: PluginStore
    vendor: Vendor
    other: Vendor


Attack = Callable[[Scene], Path]


def of_another_plugin(at: Scene) -> Path:
    with zipfile.ZipFile(at.vendor.package("acme-pump", code=b"\x7fELF pump")) as source:
        manifest, signature = source.read("driver.toml"), source.read("driver.toml.sig")
    return changed(at.vendor.package(), **{"driver.toml": manifest, "driver.toml.sig": signature})


def expired(at: Scene) -> Path:
    at.store.trust.add(at.vendor.trusted(not_after=NOW_NS - DAY_NS))
    return at.vendor.package()


def beyond_kinds(at: Scene) -> Path:
    manifest = NATIVE.format(name="acme-meter", version="1.0.0", serial=0, more="")
    text = f'{manifest}\n[bridge]\nentry = "acme.bridge:Bridge"\n'
    return at.vendor.publish(at.vendor.source_of(text, {"plugin.so": b"1", "acme.py": b""}))


def signed_for_another_type(at: Scene) -> Path:
    package = at.vendor.package()
    with zipfile.ZipFile(package) as source:
        envelope = source.read("driver.toml.sig").replace(b"plugin-manifest", b"plugin-revocations")
    return changed(package, **{"driver.toml.sig": envelope})


def other_api(at: Scene) -> Path:
    folder = at.vendor.source()
    publish.list_files(folder)
    path = folder / "driver.toml"
    path.write_text(path.read_text().replace("api = 1", "api = 9"))
    return _signed_anyhow(at.vendor, folder)


def _signed_anyhow(vendor: Vendor, folder: Path) -> Path:
    """Signed and packed by somebody who does not use our tools."""
    text = (folder / "driver.toml").read_bytes()
    (folder / "driver.toml.sig").write_bytes(envelope_of(MANIFEST_TYPE, [sign(vendor.key, MANIFEST_TYPE, text)]))
    target = folder / "made.edge"
    with zipfile.ZipFile(target, "w") as made:
        for name in ("driver.toml", "driver.toml.sig", "plugin.so", "driver.schema.json"):
            made.write(folder / name, name)
    return target


def escaping(at: Scene) -> Path:
    """A manifest, signed by somebody trusted, that lists a file elsewhere."""
    folder = at.vendor.source()
    publish.list_files(folder)
    path = folder / "driver.toml"
    path.write_text(path.read_text().replace('"plugin.so" =', '"../plugin.so" ='))
    return _signed_anyhow(at.vendor, folder)


def endless(at: Scene) -> Path:
    path = at.vendor.folder.parent / "acme-meter-1.0.0.edge"
    path.symlink_to("/dev/zero")
    return path


def built_in(at: Scene) -> Path:
    at.store.trust.add(at.vendor.trusted(names=("*",)))
    return at.vendor.package("modbus")


ATTACKS: Mapping[str, tuple[Attack, str, str]] = {
    "artifact swapped": (lambda at: changed(at.vendor.package(), **{"plugin.so": b"\x7fEVL"}), "E4613", "plugin.so"),
    "artifact swapped by a longer one": (
        lambda at: changed(at.vendor.package(), **{"plugin.so": b"\x7fELF and more"}), "E4613", "plugin.so"),
    "schema swapped": (
        lambda at: changed(at.vendor.package(), **{"driver.schema.json": b'{"type": "array"}'}), "E4613", "schema"),
    "manifest edited": (lambda at: changed(at.vendor.package(), **{"driver.toml": b'name = "a"'}), "E4606", "changed"),
    "manifest and signature of another plugin": (of_another_plugin, "E4613", "plugin.so"),
    "another plugin under this name": (lambda at: at.other.package("acme-meter"), "E4607", "no key that is trusted"),
    "untrusted key": (lambda at: at.other.package("acme-else"), "E4607", "no key that is trusted"),
    "key outside its names": (lambda at: at.vendor.package("globex-meter"), "E4608", "acme-*, not globex-meter"),
    "key outside its kinds": (beyond_kinds, "E4609", "this is a bridge"),
    "extra file": (lambda at: changed(at.vendor.package(), **{"evil.py": b"import os"}), "E4614", "evil.py"),
    "missing file": (lambda at: changed(at.vendor.package(), **{"plugin.so": None}), "E4615", "plugin.so is missing"),
    "no manifest": (lambda at: changed(at.vendor.package(), **{"driver.toml": None}), "E4615", "driver.toml"),
    "no signature": (lambda at: changed(at.vendor.package(), **{"driver.toml.sig": None}), "E4604", "is not signed"),
    "no JSON as signature": (lambda at: changed(at.vendor.package(), **{"driver.toml.sig": b"{"}), "E4605", "no sig"),
    "a huge signature": (
        lambda at: changed(at.vendor.package(), **{"driver.toml.sig": b" " * 20_000}), "E4602", "16,384 are allowed"),
    "signature of another type of text": (signed_for_another_type, "E4605", "plugin-revocations"),
    "expired key": (expired, "E4610", "was trusted until"),
    "wrong arch": (lambda at: at.vendor.package(more='arch = "s390x-linux"'), "E4618", f"this machine is {ARCH}"),
    "wrong API": (other_api, "E1202", "this gateway speaks plugin API 1"),
    "a listed file elsewhere": (escaping, "E1201", "no plain relative name"),
    "name of a built-in plugin": (built_in, "E4620", "built-in"),
    "no package": (lambda at: at.vendor.source() / "plugin.so", "E4600", "too short"),
    "nothing": (lambda at: at.vendor.folder / "missing.edge", "E4600", "cannot be read"),
    "a link to a device as package": (endless, "E4602", "larger than"),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_is_refused_with_its_own_words_and_leaves_nothing(
    store: PluginStore, vendor: Vendor, other: Vendor, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    attack, code, words = ATTACKS[name]
    monkeypatch.setattr("framegate.package.archive.PACKAGE_BYTES_MAX", 4 << 20)
    package = attack(Scene(store, vendor, other))
    with pytest.raises(Misconfigured) as refused:
        store.stage(package)
    assert refused.value.stable_code == code
    assert words in refused.value.text
    assert store.active() == []
    assert list((store.folder / ".staging").iterdir()) == []
    assert list(store.folder.rglob("plugin.so")) == []


def test_truncated_package_is_refused_at_every_length(store: PluginStore, vendor: Vendor) -> None:
    whole = vendor.package().read_bytes()
    for length in range(0, len(whole), 97):
        with pytest.raises(Misconfigured, match="E4600"):
            store.stage(io.BytesIO(whole[:length]))
