"""Discovery: three places, broken manifests told one by one, roles loaded late and with words."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import cast

import pytest

from framegate.contract.errors import Misconfigured
from framegate.contract.plugin import Role
from framegate.package import discover as discover_module
from framegate.package.discover import discover, load_role

GOOD = """
name = "{name}"
api = 1
version = "1.2.3"
summary = "A plugin for tests"

[driver]
entry = "{module}.driver:Driver"
schema = "driver.schema.json"
endpoint = ["tcp", "serial"]

[[protocol]]
name = "Test"
roles = ["driver"]
grade = "D"
judges = "none"
"""


def write_plugin(folder: Path, manifest: str, driver: str = "class Driver: ...\n") -> Path:
    folder.mkdir(parents=True)
    (folder / "plugin.toml").write_text(manifest)
    (folder / "driver.schema.json").write_text(json.dumps({"type": "object"}))
    (folder / "driver.py").write_text(driver)
    return folder


def test_discover_built_in_template_is_left_out() -> None:
    plugins = discover()
    assert "template" not in plugins
    assert all(manifest.folder.parent.name == "framegate_plugins" for manifest in plugins.values())


def test_discover_imports_no_plugin() -> None:
    code = (
        "import sys; from framegate.package.discover import discover; found = discover(); "
        "print([name for name in sys.modules if name.startswith('framegate_plugins')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.strip() == "[]"


def test_discover_directory_gives_manifest(tmp_path: Path) -> None:
    folder = write_plugin(tmp_path / "foo_good", GOOD.format(name="foo-good", module="foo_good"))
    write_plugin(tmp_path / "_foo_hidden", GOOD.format(name="hidden", module="x"))
    (tmp_path / "empty").mkdir()
    plugins = discover([tmp_path])
    manifest = plugins["foo-good"]
    assert manifest.folder == folder
    assert manifest.version == "1.2.3"
    assert manifest.roles["driver"].schema == {"type": "object"}
    assert manifest.roles["driver"].endpoint == ("tcp", "serial")
    assert manifest.protocols[0].grade == "D"
    assert "hidden" not in plugins
    assert not plugins.problems
    assert discover([folder])["foo-good"] == manifest, "a plugin's own folder works, too"


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (("name =", "nmae ="), "E1201", "nmae: is no key of a manifest; allowed here: name, api"),
        (("api = 1", "api = 2"), "E1202", "api = 2, this gateway speaks plugin API 1"),
        (("api = 1", 'api = "1"'), "E1201", "api: '1' is not a whole number"),
        (('name = "bad"', 'name = "Bad Name"'), "E1201", "name: 'Bad Name' is not made of"),
        (('grade = "D"', 'grade = "E"'), "E1201", "protocol[0].grade: 'E' is not one of A, B, T, D"),
        (("endpoint =", "endpont ="), "E1201", "driver.endpont: is no key of a manifest"),
        (("bad.driver:Driver", "bad.driver"), "E1201", "is not of the form package.module:Name"),
        (
            ("endpoint =", "scan_s_max = -1\nendpoint ="),
            "E1201",
            "driver.scan_s_max: -1 is no whole number from 0 to 86400",
        ),
        (
            ("[driver]", '[connector]\nentry = "a:B"\nscan_s_max = 9\n[driver]'),
            "E1201",
            "connector.scan_s_max: is no key",
        ),
        (('version = "1.2.3"\n', ""), "E1201", "version: is missing"),
        (('roles = ["driver"]', 'roles = ["bridge"]'), "E1201", "'bridge' is no role of this plugin; it has driver"),
        (("[driver]", "[driver"), "E1200", "is not TOML"),
        (("[driver]", "serial = -1\n[driver]"), "E1201", "serial: -1 is no whole number"),
        (("[driver]", "serial = 9999999999999999999999\n[driver]"), "E1201", "serial: 9999"),
        (('"tcp", "serial"', '"tcp", "\\u001b[2J"'), "E1201", "is no scheme of an endpoint"),
        (("A plugin", "A \\u001b[2J plugin"), "E1201", "summary: is not one line"),
        (("[driver]", '[files]\n"a.so" = {sha256 = "00", size = -1}\n[driver]'), "E1201", "-1 is no whole number"),
        (("[driver]", '[files]\n"../a" = {sha256 = "00", size = 1}\n[driver]'), "E1201", "no plain relative name"),
        (("[driver]", '[files]\n"driver.toml" = {sha256 = "00", size = 1}\n[driver]'), "E1201", "the manifest itself"),
        (
            (
                "[driver]",
                '[files]\nA = {sha256 = "@", size = 1}\na = {sha256 = "@", size = 1}\n[driver]'.replace("@", "0" * 64),
            ),
            "E1201",
            "differ in case",
        ),
        (("driver.schema.json", "other.json"), "E1204", "driver.schema names other.json, which cannot be read"),
        (("driver.schema.json", "../x.json"), "E1201", "is not the name of a file beside the manifest"),
    ],
)
def test_discover_broken_manifest_is_told_and_stops_no_other(
    tmp_path: Path, change: tuple[str, str], code: str, words: str
) -> None:
    text = GOOD.format(name="bad", module="bad")
    assert change[0] in text
    write_plugin(tmp_path / "bad", text.replace(*change))
    write_plugin(tmp_path / "fine", GOOD.format(name="fine", module="fine"))
    plugins = discover([tmp_path])
    assert "fine" in plugins
    (problem,) = plugins.problems
    assert problem.stable_code == code
    assert words in problem.text
    assert str(tmp_path / "bad" / "plugin.toml") in problem.text


def test_discover_driver_that_wants_to_be_read_often_says_so(tmp_path: Path) -> None:
    text = GOOD.format(name="served", module="served").replace("endpoint =", "scan_s_max = 10\nendpoint =")
    write_plugin(tmp_path / "served", text)
    assert discover([tmp_path])["served"].roles["driver"].scan_s_max == 10


def test_discover_suggests_the_key_that_was_meant(tmp_path: Path) -> None:
    write_plugin(tmp_path / "bad", GOOD.format(name="bad", module="bad").replace("summary", "sumary"))
    assert discover([tmp_path]).problems[0].text.endswith("(did you mean summary?); correct the manifest")


def test_discover_two_of_one_name_first_wins(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        write_plugin(tmp_path / folder, GOOD.format(name="same", module=folder))
    plugins = discover([tmp_path, tmp_path])
    assert plugins["same"].folder.name == "one"
    assert [problem.stable_code for problem in plugins.problems] == ["E1203", "E1203"]


def test_discover_unreadable_directory_is_told(tmp_path: Path) -> None:
    assert "cannot be read" in discover([tmp_path / "absent"]).problems[0].text


def test_discover_entry_point_is_found_without_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_plugin(tmp_path / "acme" / "foo_ep", GOOD.format(name="foo-ep", module="acme.foo_ep"))
    monkeypatch.syspath_prepend(str(tmp_path))
    points = [
        EntryPoint("foo", "acme.foo_ep", "framegate.plugins"),
        EntryPoint("gone", "no_such_package_here", "framegate.plugins"),
    ]
    monkeypatch.setattr(discover_module, "entry_points", lambda **_: points)
    plugins = discover()
    assert plugins["foo-ep"].folder == tmp_path / "acme" / "foo_ep"
    assert [problem.stable_code for problem in plugins.problems] == ["E1200"]
    assert "acme" not in sys.modules
    assert load_role(plugins["foo-ep"], "driver").__name__ == "Driver"


def test_load_role_directory_plugin_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    write_plugin(tmp_path / "foo_loaded", GOOD.format(name="foo", module="foo_loaded"))
    made = load_role(discover([tmp_path])["foo"], "driver")
    assert made.__name__ == "Driver"


@pytest.mark.parametrize(
    ("name", "source", "role", "code", "words"),
    [
        ("foo_a", "class Drive: ...\n", "driver", "E1206", "has no Driver (did you mean Drive?)"),
        ("foo_b", "import no_such_package_at_all\n", "driver", "E1207", "install no_such_package_at_all"),
        ("foo_c", "1 / 0\n", "driver", "E1206", "fails on import (ZeroDivisionError: division by zero)"),
        ("foo_d", "class Driver: ...\n", "bridge", "E1205", "has no bridge; it offers driver"),
        ("json", "class Driver: ...\n", "driver", "E1206", "there is no module json.driver"),
    ],
)
def test_load_role_trouble_is_told_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, source: str, role: str, code: str, words: str
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    write_plugin(tmp_path / name, GOOD.format(name=name, module=name), source)
    with pytest.raises(Misconfigured) as caught:
        load_role(discover([tmp_path])[name], cast(Role, role))
    assert caught.value.stable_code == code
    assert words in caught.value.text


def test_load_role_hidden_by_another_module_is_refused(tmp_path: Path) -> None:
    text = GOOD.format(name="decoder", module="x").replace("x.driver:Driver", "json.decoder:JSONDecoder")
    write_plugin(tmp_path / "decoder", text)
    with pytest.raises(Misconfigured, match="outside") as caught:
        load_role(discover([tmp_path])["decoder"], "driver")
    assert caught.value.stable_code == "E1208"
