"""Whom a home trusts: files that count, and those that do not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from framegate.contract.errors import Misconfigured
from framegate.package.keys import make_key
from framegate.package.signature import key_id_of, text_of
from framegate.package.trust import KEYS_MAX, Trust, TrustedKey
from tests.unit.package.conftest import DAY_NS, NOW_NS, Vendor


def test_empty_folder_trusts_nobody(tmp_path: Path) -> None:
    assert Trust(tmp_path).trusted().keys == {}


def test_added_key_is_read_back_whole_and_removed_for_good(tmp_path: Path, vendor: Vendor) -> None:
    trust = Trust(tmp_path)
    owner = 'Acme "Automation" \\ Ü'
    key = TrustedKey(
        vendor.key_id, vendor.key.public_key(), owner, ("acme-*", "x"), ("driver", "rule"), NOW_NS + DAY_NS
    )
    trust.add(key)
    found = trust.trusted().keys[vendor.key_id]
    assert (found.owner, found.names, found.kinds, found.not_after) == (owner, key.names, key.kinds, key.not_after)
    assert text_of(found.key) == text_of(key.key)
    assert trust.remove(vendor.key_id).id == vendor.key_id
    assert trust.trusted().keys == {}
    with pytest.raises(Misconfigured, match="E4629"):
        trust.remove(vendor.key_id)
    with pytest.raises(Misconfigured, match="E4629"):
        trust.remove("../../etc/passwd")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("key =", "kee =", "kee is no key of it"),
        ('names = ["acme-*"]', "names = []", "names has 1 to"),
        ('names = ["acme-*"]', 'names = "acme-*"', "no list of text"),
        ('names = ["acme-*"]\n', "", "'names' is missing"),
        ('kinds = ["driver"]', 'kinds = ["root"]', "kinds is made of"),
        ('owner = "Acme Automation"', "owner = 7", "owner has"),
        ('key = "', 'key = "%', "no base64"),
        ("owner", "not_after = 2026-01-01\nowner", "no time with a zone"),
        ("owner", "owner\x00", ""),
    ],
)
def test_file_that_makes_no_sense_does_not_count_and_is_told(
    tmp_path: Path, vendor: Vendor, other: Vendor, old: str, new: str, words: str
) -> None:
    trust = Trust(tmp_path)
    path = trust.add(vendor.trusted())
    trust.add(other.trusted())
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    trusted = trust.trusted()
    assert list(trusted.keys) == [other.key_id]
    (problem,) = trusted.problems
    assert problem.stable_code == "E4625"
    assert words in problem.text
    assert str(path) in problem.text


def test_file_under_another_name_or_that_others_may_write_does_not_count(tmp_path: Path, vendor: Vendor) -> None:
    trust = Trust(tmp_path)
    path = trust.add(vendor.trusted())
    path.chmod(0o666)
    assert "others may write it" in trust.trusted().problems[0].text
    path.chmod(0o640)
    trust.folder.chmod(0o777)
    assert "others may have put it there" in trust.trusted().problems[0].text
    trust.folder.chmod(0o750)
    if os.geteuid() == 0:
        os.chown(path, 65_534, 65_534)
        assert "others may have put it there" in trust.trusted().problems[0].text
        os.chown(path, 0, 0)
        for one in (path, trust.folder):  # a folder of somebody who may write HOME/plugins only
            os.chown(one, 65_534, 65_534)
        assert "others may have put it there" in trust.trusted().problems[0].text
        for one in (path, trust.folder):
            os.chown(one, 0, 0)
    assert list(trust.trusted().keys) == [vendor.key_id]
    path.rename(path.with_name(f"{'0' * 16}.toml"))
    assert trust.trusted().keys == {}
    assert "not that of its key" in trust.trusted().problems[0].text


def test_key_that_may_sign_nothing_is_not_added(tmp_path: Path, vendor: Vendor) -> None:
    trust = Trust(tmp_path)
    for names, kinds in (((), ("driver",)), (("*",), ()), (("*",), ("everything",))):
        with pytest.raises(Misconfigured, match="E4625"):
            trust.add(vendor.trusted(names, kinds))
    assert not trust.folder.exists()


def test_trust_is_bounded(tmp_path: Path, vendor: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("framegate.package.trust.KEYS_MAX", 3)
    trust = Trust(tmp_path)
    for _ in range(3):
        key = make_key().public_key()
        trust.add(TrustedKey(key_id_of(key), key, "someone", ("*",), ("driver",)))
    with pytest.raises(Misconfigured, match="holds 3 keys"):
        trust.add(vendor.trusted())
    assert KEYS_MAX >= 100
