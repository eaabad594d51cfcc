"""`edge plugin`, `edge publish` and `edge verify` on a home without a gateway: words, exit codes, what is noted."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from framegate.cli import exits
from framegate.cli.main import main
from framegate.cli.tables import UNSIGNED_FOLDERS_VARIABLE, plugins_of
from framegate.gateway.home import Home

Printed = pytest.CaptureFixture[str]
MANIFEST = """name = "acme-meter"
api = 1
version = "{version}"
summary = "A meter"

[driver]
shape = "native"
artifact = "plugin.so"
endpoint = ["tcp"]

[permissions]
network = "{network}"
"""


class Site:
    """A vendor's desk and a plant's home."""

    def __init__(self, folder: Path, printed: Printed) -> None:
        self.folder, self.home, self._printed = folder, folder / "home", printed
        self.key, self.public = folder / "acme.key", folder / "acme.pub"
        self.home.mkdir()

    def edge(self, *words: str | Path) -> int:
        return main([str(word) for word in words])

    def at_home(self, *words: str | Path) -> int:
        return self.edge(*words, "--home", self.home)

    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.said().out.splitlines()]

    def said(self) -> Any:
        return self._printed.readouterr()

    def package(self, version: str = "1.0.0", network: str = "handed") -> Path:
        source = self.folder / f"source-{version}"
        source.mkdir()
        (source / "driver.toml").write_text(MANIFEST.format(version=version, network=network))
        (source / "plugin.so").write_bytes(b"\x7fELF" + version.encode())
        (source / "driver.c").write_text("int secret;\n")
        assert self.edge("publish", source, "--sign", self.key, "--to", self.folder) == exits.OK
        return self.folder / f"acme-meter-{version}.edge"

    def trust(self, *words: str) -> int:
        return self.at_home("plugin", "trust", "add", self.public, "--owner", "Acme", "--names", "acme-*", *words)

    def actions(self) -> list[tuple[str, str]]:
        self.said()
        self.at_home("audit", "ls", "-o", "jsonl")
        return [(row["action"], row["outcome"]) for row in reversed(self.rows())]


@pytest.fixture
def site(tmp_path: Path, capsys: Printed) -> Site:
    site = Site(tmp_path, capsys)
    assert site.edge("plugin", "keygen", tmp_path / "acme") == exits.OK
    return site


def test_journey_of_a_package_from_key_to_removal(site: Site) -> None:
    first, second = site.package("1.0.0"), site.package("1.1.0", "own")
    assert site.at_home("plugin", "install", first, "--yes") == exits.FAILED
    assert "E4607" in site.said().err
    assert site.trust() == exits.OK
    assert site.at_home("plugin", "install", first, "--yes") == exits.OK
    assert "driver: uses lines of kind tcp" in site.said().err
    assert site.at_home("plugin", "install", second, "--yes") == exits.OK
    told = site.said()
    assert json.loads(told.out)["replaces"] == "1.0.0"
    assert "network: opens connections of its own" in told.err
    assert "kind tcp" not in told.err, "what it had is not asked again"
    assert site.at_home("plugin", "install", first, "--yes") == exits.FAILED
    assert "edge plugin rollback acme-meter" in site.said().err
    assert site.at_home("plugin", "rollback", "acme-meter", "--reason", "it drops values") == exits.OK
    site.said()
    assert site.at_home("plugin", "ls") == exits.OK
    (row,) = site.rows()
    assert (row["version"], row["state"], row["back_to"][0][:5]) == ("1.0.0", "ok", "1.1.0")
    assert site.at_home("plugin", "verify") == exits.OK
    assert site.at_home("plugin", "remove", "acme-meter", "--yes") == exits.OK
    assert site.at_home("plugin", "remove", "acme-meter", "--yes") == exits.FAILED
    assert site.actions() == [
        ("plugins.trust", "ok"),
        ("plugins.install", "ok"),
        ("plugins.install", "ok"),
        ("plugins.rollback", "ok"),
        ("plugins.remove", "ok"),
        ("plugins.remove", "E4621"),
    ]


@pytest.mark.parametrize(("answer", "code"), [("y\n", exits.OK), ("\n", exits.FAILED), ("no\n", exits.FAILED)])
def test_install_asks_on_a_terminal_and_takes_no_for_no(
    site: Site, monkeypatch: pytest.MonkeyPatch, answer: str, code: int
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    package = site.package()
    site.trust()
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    assert site.at_home("plugin", "install", package) == code
    site.said()
    site.at_home("plugin", "ls")
    assert len(site.rows()) == (code == exits.OK)


def test_install_without_anybody_to_ask_does_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    package = site.package()
    site.trust()
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert site.at_home("plugin", "install", package) == exits.USAGE
    assert "--yes" in site.said().err
    assert list((site.home / "plugins" / ".store").rglob("plugin.so")) == []


def test_verify_needs_no_home_with_a_key_and_tells_what_is_wrong(site: Site) -> None:
    package = site.package()
    site.said()
    assert site.edge("verify", package, "--key", site.public) == exits.OK
    assert site.rows()[0]["files"] == {"plugin.so": 9}
    folder = site.folder / "source-1.0.0"
    assert site.edge("verify", folder / "plugin.so", "--key", site.public) == exits.OK
    (folder / "plugin.so").write_bytes(b"\x7fELFevil!")
    assert site.edge("verify", folder / "plugin.so", "--key", site.public) == exits.FAILED
    assert "E4613" in site.said().err
    assert site.edge("verify", folder / "driver.c", "--key", site.public) == exits.FAILED
    assert site.at_home("verify", package) == exits.FAILED
    assert "E4607" in site.said().err
    site.trust()
    assert site.at_home("verify", package) == exits.OK
    assert not (site.home / "plugins" / ".store").exists(), "verifying installs nothing"


def test_publish_ships_what_the_manifest_names_and_no_sources_or_keys(site: Site) -> None:
    package = site.package()
    site.said()
    assert site.edge("plugin", "inspect", package, "--home", site.home) == exits.FAILED
    site.trust()
    site.said()
    assert site.at_home("plugin", "inspect", package) == exits.OK
    assert list(site.rows()[0]["files"]) == ["plugin.so"]
    again = package.read_bytes()
    assert site.edge("publish", site.folder / "source-1.0.0", "--sign", site.key, "--to", site.folder) == exits.OK
    assert package.read_bytes() == again, "the same folder gives the same bytes"


def test_publish_of_a_native_plugin_without_arch_warns(site: Site) -> None:
    site.package()
    assert 'write arch = "' in site.said().err


def test_publish_refuses_a_folder_with_a_private_key_in_it(site: Site) -> None:
    site.package()
    folder = site.folder / "source-1.0.0"
    (folder / "README.md").write_bytes(b"how to sign:\n" + site.key.read_bytes())
    site.said()
    assert site.edge("publish", folder, "--sign", site.key, "--to", site.folder) == exits.FAILED
    assert "README.md holds a private key" in site.said().err


def test_published_folder_that_changed_is_not_packed(site: Site) -> None:
    site.package()
    folder = site.folder / "source-1.0.0"
    (folder / "plugin.so").write_bytes(b"\x7fELF newer")
    assert site.edge("plugin", "pack", folder, "--to", site.folder) == exits.FAILED
    assert site.edge("plugin", "sign", folder, "--key", site.key) == exits.FAILED
    assert "E4613" in site.said().err
    assert site.edge("publish", folder, "--sign", site.key, "--to", site.folder) == exits.OK


def test_revoked_key_shows_in_lists_and_its_plugins_are_not_loaded(site: Site) -> None:
    package = site.package()
    site.trust()
    site.at_home("plugin", "install", package, "--yes")
    plant = site.folder / "plant"
    site.edge("plugin", "keygen", plant)
    site.at_home("plugin", "trust", "add", f"{plant}.pub", "--owner", "us", "--names", "*", "--kinds", "revocation")
    site.said()
    site.at_home("plugin", "trust", "ls")
    acme = next(row["key_id"] for row in site.rows() if row["owner"] == "Acme")
    assert site.at_home("plugin", "revoke", acme, "--key", site.key) == exits.MISCONFIGURED
    assert site.at_home("plugin", "revoke", "acme", "--key", f"{plant}.key") == exits.USAGE
    assert site.at_home("plugin", "revoke", acme, "--key", f"{plant}.key") == exits.OK
    site.said()
    site.at_home("plugin", "trust", "ls")
    assert {row["owner"]: row["state"] for row in site.rows()} == {"Acme": "revoked", "us": "valid"}
    assert site.at_home("plugin", "ls") == exits.FAILED
    assert "E4611" in site.said().out
    assert site.at_home("plugin", "verify") == exits.FAILED
    assert site.at_home("plugin", "trust", "rm", acme) == exits.OK
    assert site.at_home("plugin", "trust", "rm", acme) == exits.FAILED


def test_key_with_a_passphrase_comes_from_a_file_and_is_wanted(site: Site) -> None:
    secret = site.folder / "secret"
    secret.write_text("correct horse\n")
    assert site.edge("plugin", "keygen", site.folder / "locked", "--passphrase-file", secret) == exits.OK
    site.package()
    folder, key = site.folder / "source-1.0.0", site.folder / "locked.key"
    assert site.edge("plugin", "sign", folder, "--key", key) == exits.NOT_PERMITTED
    assert "wants its passphrase" in site.said().err
    assert site.edge("plugin", "sign", folder, "--key", key, "--passphrase-file", secret) == exits.OK
    assert len(json.loads((folder / "driver.toml.sig").read_text())["signatures"]) == 2
    assert site.edge("plugin", "keygen", site.folder / "locked") == exits.FAILED, "a key is never overwritten"


@pytest.mark.parametrize(
    "words",
    [("--not-after", "tomorrow"), ("--kinds", "root")],
)
def test_trust_that_makes_no_sense_is_refused(site: Site, words: tuple[str, str]) -> None:
    assert site.trust(*words) in {exits.USAGE, exits.FAILED}
    assert not (site.home / "plugins" / "trust.d").exists()


def test_unsigned_folder_is_taken_only_where_it_is_named(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = site.home / "plugins" / "drivers" / "acme_dev"
    folder.mkdir(parents=True)
    (folder / "plugin.toml").write_text(MANIFEST.format(version="0.1.0", network="handed"))
    assert "acme-meter" not in plugins_of(Home(site.home)), "not even in a folder of the home"
    monkeypatch.setenv(UNSIGNED_FOLDERS_VARIABLE, str(folder))
    assert "acme-meter" in plugins_of(Home(site.home))
    assert "not signed" in site.said().err
