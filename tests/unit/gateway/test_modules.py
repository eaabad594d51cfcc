"""Python code of installed plugins: versions beside each other, and only what was signed."""

from __future__ import annotations

import hashlib
import json
import pkgutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from framegate.contract.errors import Misconfigured
from framegate.contract.plugin import Manifest, PackagedFile, RoleEntry
from framegate.gateway.plugins.modules import forget_installed, load_installed, root_of

PACKAGE = {
    "acme/__init__.py": "",
    "acme/driver.py": """
from __future__ import annotations
import json
import acme.codec
import acme.codec as renamed
from acme import codec as by_from
from acme.codec import VERSION
from .codec import VERSION as relative
import acme

class Driver:
    def __init__(self, options):
        from acme.late import WORD
        import acme.inner.deep
        self.seen = [VERSION, relative, renamed.VERSION, by_from.VERSION, acme.codec.VERSION, WORD]
        self.deep = acme.inner.deep.DEEP
        self.dumped = json.dumps(options)
""",
    "acme/codec.py": "VERSION = '{version}'\n",
    "acme/late.py": "WORD = '{version}'\n",
    "acme/inner/deep.py": "DEEP = '{version}'\n",
    "acme/points.json": '{{"version": "{version}"}}',
}


def installed(folder: Path, version: str = "1.0", files: Mapping[str, str] = PACKAGE, entry: str = "") -> Manifest:
    listed = {}
    for name, text in files.items():
        data = text.replace("{version}", version).replace("{{", "{").replace("}}", "}").encode()
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
        listed[name] = PackagedFile(hashlib.sha256(data).hexdigest(), len(data))
    roles = {"driver": RoleEntry(entry or "acme.driver:Driver", {}, ())}
    return Manifest("acme", (1, 1), version, "", folder, roles, (), files=listed)  # type: ignore[arg-type]


def test_load_two_versions_each_sees_its_own_modules_and_nothing_is_left(tmp_path: Path) -> None:
    old, new = installed(tmp_path / "1", "1.0"), installed(tmp_path / "2", "2.0")
    first, second = load_installed(old, "driver"), load_installed(new, "driver")
    for cls, version in ((first, "1.0"), (second, "2.0"), (first, "1.0")):
        made: Any = cls({"a": 1})
        assert made.seen == [version] * 6
        assert made.deep == version
        assert made.dumped == '{"a": 1}'
    assert "acme" not in sys.modules
    forget_installed(old)
    forget_installed(new)
    assert not [name for name in sys.modules if name.startswith("edge_acme")]
    with pytest.raises(ModuleNotFoundError):
        __import__(root_of(old))


def test_load_same_version_again_is_the_same_class(tmp_path: Path) -> None:
    manifest = installed(tmp_path)
    assert load_installed(manifest, "driver") is load_installed(manifest, "driver")
    forget_installed(manifest)


def test_root_same_version_number_other_contents_is_another(tmp_path: Path) -> None:
    other = {**PACKAGE, "acme/codec.py": "VERSION = 'changed'\n"}
    assert root_of(installed(tmp_path / "a")) != root_of(installed(tmp_path / "b", files=other))


def test_load_flat_package_finds_its_modules(tmp_path: Path) -> None:
    files = {
        "driver.py": "import codec\nclass D:\n    def __init__(self, o): self.n = codec.N\n",
        "codec.py": "N = 7\n",
    }
    manifest = installed(tmp_path, files=files, entry="driver:D")
    made: Any = load_installed(manifest, "driver")({})
    assert made.n == 7
    forget_installed(manifest)


def test_load_data_file_is_read_as_it_was_signed(tmp_path: Path) -> None:
    manifest = installed(tmp_path)
    module = sys.modules[load_installed(manifest, "driver").__module__]
    found = pkgutil.get_data(f"{root_of(manifest)}.acme", "points.json")
    assert json.loads(found or b"") == {"version": "1.0"}
    assert module.__file__ == str(tmp_path / "acme/driver.py")
    (tmp_path / "acme/points.json").write_text("{}")
    with pytest.raises(Misconfigured, match=r"points\.json: is not the file that the signed manifest lists"):
        pkgutil.get_data(f"{root_of(manifest)}.acme", "points.json")
    (tmp_path / "acme/unlisted.json").write_text("{}")
    with pytest.raises(FileNotFoundError):
        pkgutil.get_data(f"{root_of(manifest)}.acme", "unlisted.json")
    forget_installed(manifest)


@pytest.mark.parametrize("change", ["changed", "longer", "gone"])
def test_load_file_changed_after_it_was_verified_is_refused(tmp_path: Path, change: str) -> None:
    manifest = installed(tmp_path)
    file = tmp_path / "acme/codec.py"
    data = file.read_bytes()
    file.write_bytes(data.replace(b"1.0", b"6.6") if change == "changed" else data + b"import os\n")
    if change == "gone":
        file.unlink()
    with pytest.raises(Misconfigured, match=r"acme/codec\.py: ") as caught:
        load_installed(manifest, "driver")
    assert caught.value.stable_code == ("E4615" if change == "gone" else "E4613")
    forget_installed(manifest)


def test_load_module_beside_the_package_that_nobody_signed_is_not_found(tmp_path: Path) -> None:
    manifest = installed(tmp_path, files={**PACKAGE, "acme/driver.py": "import acme.smuggled\n"})
    (tmp_path / "acme/smuggled.py").write_text("raise AssertionError\n")
    with pytest.raises(Misconfigured, match=r"needs the module acme\.smuggled") as caught:
        load_installed(manifest, "driver")
    assert caught.value.stable_code == "E4663"
    forget_installed(manifest)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 / 0\n", "fails on import (ZeroDivisionError"),
        ("import no_such_thing\n", "needs the module no_such_thing"),
        ("x = (\n", "fails on import (SyntaxError"),
        ("Driver = 3\n", "the module has no such class"),
    ],
)
def test_load_broken_code_is_told_with_its_reason(tmp_path: Path, text: str, words: str) -> None:
    manifest = installed(tmp_path, files={**PACKAGE, "acme/driver.py": text})
    with pytest.raises(Misconfigured) as caught:
        load_installed(manifest, "driver")
    assert caught.value.stable_code == "E4663"
    assert words in str(caught.value)
    forget_installed(manifest)


def test_load_modules_beside_the_manifest_are_the_package_that_its_entry_names(tmp_path: Path) -> None:
    files = {
        "driver.py": "from acme.codec import N\nfrom . import codec\nclass D:\n    n = N + codec.N\n",
        "codec.py": "N = 7\n",
    }
    manifest = installed(tmp_path, files=files, entry="acme.driver:D")
    assert load_installed(manifest, "driver").n == 14  # type: ignore[attr-defined]
    forget_installed(manifest)
