"""The store against everything that is tried with packages, and against power cuts at every step."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from framegate.contract.errors import Busy, GatewayError, Misconfigured, StoreFailed
from framegate.endpoint import durable
from framegate.endpoint.durable import locked
from framegate.package import publish
from framegate.package.keys import make_key
from framegate.package.signature import key_id_of
from framegate.package.store import PluginStore
from framegate.package.trust import TrustedKey
from framegate.testing.fakes import FakeClock
from tests.unit.package.conftest import DAY_NS, NOW_NS, PowerCut, Steps, Vendor


def refusal(work: Callable[[], object]) -> GatewayError:
    with pytest.raises(GatewayError) as refused:
        work()
    return refused.value


def install(store: PluginStore, package: Path) -> str:
    return store.activate(store.stage(package)).version


def versions(store: PluginStore) -> Mapping[str, str]:
    problems: list[Misconfigured] = []
    found = {manifest.name: manifest.version for manifest in store.active(problems)}
    assert problems == []
    return found


def left(store: PluginStore) -> list[str]:
    return [path.name for path in (store.folder / ".staging").iterdir()]


def test_install_genuine_package_is_active_and_its_bytes_are_loaded(store: PluginStore, vendor: Vendor) -> None:
    staged = store.stage(vendor.package(code=b"\x7fELF of the meter"))
    assert versions(store) == {}, "staged is not active"
    assert staged.replaces is None
    manifest = store.activate(staged)
    assert versions(store) == {"acme-meter": "1.0.0"}
    artifact = store.artifact(manifest, "driver")
    assert os.pread(artifact.fd, 100, 0) == b"\x7fELF of the meter"
    os.close(artifact.fd)
    assert left(store) == []
    link = (store.folder / ".active" / "acme-meter").readlink()
    assert link == Path(f"../.store/acme-meter/{manifest.folder.name}")


def test_stage_takes_a_stream_that_cannot_be_sought(store: PluginStore, vendor: Vendor) -> None:
    class Upload(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def seek(self, *_: int) -> int:
            raise OSError("no way back")

    assert store.stage(Upload(vendor.package().read_bytes())).manifest.name == "acme-meter"


def test_older_version_is_refused_also_after_a_removal_and_rolled_back_to_by_an_operator(
    store: PluginStore, vendor: Vendor
) -> None:
    first, second = vendor.package(version="1.9.0"), vendor.package(version="1.10.0")
    assert install(store, first) == "1.9.0"
    assert install(store, second) == "1.10.0"
    assert refusal(lambda: store.stage(first)).stable_code == "E4616"
    store.remove("acme-meter")
    assert versions(store) == {}
    assert refusal(lambda: store.stage(first)).stable_code == "E4616"
    assert store.rollback("acme-meter", "1.9.0").version == "1.9.0"
    assert versions(store) == {"acme-meter": "1.9.0"}
    assert refusal(lambda: store.stage(vendor.package(version="1.9.5"))).stable_code == "E4616"
    assert install(store, second) == "1.10.0", "the highest one may come again"


def test_same_version_with_another_content_needs_a_higher_serial(store: PluginStore, vendor: Vendor) -> None:
    install(store, vendor.package(version="2.0.0", serial=3))
    again = vendor.package(version="2.0.0", serial=3, code=b"\x7fELF other")
    assert refusal(lambda: store.stage(again)).stable_code == "E4617"
    assert refusal(lambda: store.stage(vendor.package(version="2.0.0", serial=2))).stable_code == "E4616"
    assert install(store, vendor.package(version="2.0.0", serial=4, code=b"\x7fELF other")) == "2.0.0"


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("1.2.0", "1.10.0"),
        ("1.0.0-rc.1", "1.0.0"),
        ("1.0.0-rc.2", "1.0.0-rc.10"),
        ("1.0.0-1", "1.0.0-a"),
        ("1.0", "1.0.1"),
    ],
)
def test_versions_are_ordered_as_people_mean_them(store: PluginStore, vendor: Vendor, older: str, newer: str) -> None:
    install(store, vendor.package(version=newer))
    assert refusal(lambda: store.stage(vendor.package(version=older))).stable_code == "E4616"


def test_rollback_goes_only_to_what_was_active_here(store: PluginStore, vendor: Vendor) -> None:
    assert refusal(lambda: store.rollback("acme-meter")).stable_code == "E4622"
    install(store, vendor.package(version="1.0.0"))
    store.stage(vendor.package(version="1.1.0"))
    assert refusal(lambda: store.rollback("acme-meter")).stable_code == "E4622"
    assert refusal(lambda: store.rollback("acme-meter", "1.1.0")).stable_code == "E4622"
    assert refusal(lambda: store.rollback("../acme", "1.1.0")).stable_code == "E4622"


def test_rollback_verifies_every_byte_and_changes_nothing_if_it_does_not_hold(
    store: PluginStore, vendor: Vendor
) -> None:
    install(store, vendor.package(version="1.0.0"))
    install(store, vendor.package(version="1.1.0"))
    (thrown,) = store.bin.thrown("acme-meter")
    (thrown.folder / "plugin.so").write_bytes(b"\x7fEVL")
    assert refusal(lambda: store.rollback("acme-meter")).stable_code == "E4613"
    assert versions(store) == {"acme-meter": "1.1.0"}


def test_recalled_version_lies_beside_the_active_one_until_it_is_switched_to_or_thrown_away(
    store: PluginStore, vendor: Vendor
) -> None:
    install(store, vendor.package(version="1.0.0"))
    install(store, vendor.package(version="1.1.0"))
    beside = store.recall("acme-meter")
    assert store.verify("acme-meter").manifest.version == "1.1.0"
    assert store.examine(beside.folder).manifest.version == "1.0.0"
    assert store.bin.thrown("acme-meter") == []
    store.trash("acme-meter", beside.folder.name, "its devices do not answer")
    assert [one.reason for one in store.bin.thrown("acme-meter")] == ["its devices do not answer"]
    assert store.recall("acme-meter") == beside
    assert store.rollback("acme-meter", beside.folder.name, "1.1.0 drops values") == beside
    assert [one.reason for one in store.bin.thrown("acme-meter")] == ["1.1.0 drops values"]
    assert store.verify("acme-meter").manifest == beside


def test_replaced_version_lies_in_the_trash_of_its_day_with_the_reason(store: PluginStore, vendor: Vendor) -> None:
    install(store, vendor.package(version="1.0.0"))
    install(store, vendor.package(version="1.1.0"))
    assert store.rollback("acme-meter", reason="1.1.0 crashed 5 times in 60 s").version == "1.0.0"
    (thrown,) = store.bin.thrown()
    assert (thrown.name, thrown.id.partition("-")[0], thrown.date) == ("acme-meter", "1.1.0", "2026-11-18")
    assert thrown.reason == "1.1.0 crashed 5 times in 60 s"
    assert thrown.folder.is_relative_to(store.folder / ".trash" / thrown.date)
    assert store.history("acme-meter") == [thrown.id]


def test_trash_is_bounded_and_takes_failed_versions(store: PluginStore, vendor: Vendor) -> None:
    for number in range(9):
        install(store, vendor.package(version=f"1.{number}.0"))
    assert [one.id.partition("-")[0] for one in store.bin.thrown()] == ["1.7.0", "1.6.0", "1.5.0", "1.4.0", "1.3.0"]
    store.stage(vendor.package(version="1.9.0"))
    store.trash("acme-meter", "1.9.0", "it does not\nstart")
    assert store.bin.thrown()[0].reason == "it does not start"
    assert refusal(lambda: store.trash("acme-meter", "1.9.0", "again")).stable_code == "E4621"
    store.trash("acme-meter", "1.8.0", "what is active stays")
    assert versions(store) == {"acme-meter": "1.8.0"}
    store.remove("acme-meter")
    assert refusal(lambda: store.remove("acme-meter")).stable_code == "E4621"


def test_replaced_version_is_kept_although_the_clock_has_gone_back(
    store: PluginStore, vendor: Vendor, clock: FakeClock
) -> None:
    for number in range(7):
        install(store, vendor.package(version=f"1.{number}.0"))
    clock.step_ns = -NOW_NS  # a box without a battery, after a power cut
    install(store, vendor.package(version="1.7.0"))
    assert len(store.bin.thrown()) == 5
    assert store.rollback("acme-meter").version == "1.6.0"


def test_staged_versions_of_one_plugin_do_not_pile_up(store: PluginStore, vendor: Vendor) -> None:
    install(store, vendor.package(version="1.0.0"))
    first = store.stage(vendor.package(version="1.1.0"))
    second = store.stage(vendor.package(version="1.2.0"))
    assert not first.manifest.folder.exists()
    assert refusal(lambda: store.activate(first)).stable_code == "E4621"
    assert store.activate(second).version == "1.2.0"


def test_same_version_with_a_higher_serial_that_failed_leaves_the_active_one_alone(
    store: PluginStore, vendor: Vendor
) -> None:
    install(store, vendor.package(version="1.0.0", serial=1))
    store.stage(vendor.package(version="1.0.0", serial=2))
    store.trash("acme-meter", "1.0.0", "it does not start")
    assert store.look("acme-meter").manifest.serial == 1


def test_genuine_plugin_in_the_trash_of_another_one_is_not_rolled_back_to(store: PluginStore, vendor: Vendor) -> None:
    install(store, vendor.package(version="1.0.0"))
    install(store, vendor.package(version="1.1.0"))
    pump = store.stage(vendor.package("acme-pump")).manifest.folder
    (thrown,) = store.bin.thrown("acme-meter")
    shutil.rmtree(thrown.folder)
    shutil.copytree(pump, thrown.folder)
    assert refusal(lambda: store.rollback("acme-meter")).stable_code == "E4632"
    assert versions(store) == {"acme-meter": "1.1.0"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root installs for somebody else")
def test_what_root_installs_belongs_to_the_owner_of_the_home(store: PluginStore, vendor: Vendor) -> None:
    gateway = 65_534
    for path in (store.folder, store.trust.folder):
        os.chown(path, gateway, gateway)
    install(store, vendor.package(version="1.0.0"))
    install(store, vendor.package(version="1.1.0"))
    store.rollback("acme-meter")
    others = [path for path in store.folder.rglob("*") if path.lstat().st_uid != gateway and path.suffix != ".toml"]
    assert others == []


def test_what_a_dead_process_left_in_staging_goes(store: PluginStore, vendor: Vendor) -> None:
    staging = store.folder / ".staging"
    (staging / "half").mkdir(parents=True)
    (staging / "upload-x.edge").write_bytes(b"half")
    for path in staging.iterdir():
        os.utime(path, (0, 0))
    store.stage(vendor.package())
    assert left(store) == []


def test_what_another_process_tidies_up_meanwhile_is_no_trouble(
    store: PluginStore, vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = Path.iterdir

    def with_gone(folder: Path) -> list[Path]:
        return [*listed(folder), *([folder / "gone"] if folder.name == ".staging" else [])]

    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", with_gone)
        store.stage(vendor.package())
    assert left(store) == []


def test_discarded_version_is_gone_and_cannot_be_activated(store: PluginStore, vendor: Vendor) -> None:
    staged = store.stage(vendor.package())
    store.discard(staged)
    assert refusal(lambda: store.activate(staged)).stable_code == "E4621"
    staged = store.stage(vendor.package())
    store.activate(staged)
    store.discard(staged)
    assert versions(store) == {"acme-meter": "1.0.0"}, "what is active is not discarded"


def test_discarded_version_that_was_active_before_can_still_be_rolled_back_to(
    store: PluginStore, vendor: Vendor
) -> None:
    install(store, vendor.package(version="1.0.0"))
    install(store, new := vendor.package(version="1.1.0"))
    store.rollback("acme-meter")
    store.recall("acme-meter", "1.1.0")  # to be tried beside the active one, while somebody uploads it and refuses it
    store.discard(store.stage(new))
    assert store.rollback("acme-meter", "1.1.0").version == "1.1.0"


def test_activate_of_what_became_old_meanwhile_is_refused(store: PluginStore, vendor: Vendor) -> None:
    staged = store.stage(vendor.package(version="1.0.0"))
    install(PluginStore(store.folder), vendor.package(version="1.1.0"))
    assert refusal(lambda: store.activate(staged)).stable_code in {"E4616", "E4621"}
    assert versions(store) == {"acme-meter": "1.1.0"}


def test_expired_key_keeps_what_is_installed(store: PluginStore, vendor: Vendor, clock: FakeClock) -> None:
    store.trust.add(vendor.trusted(not_after=NOW_NS + DAY_NS))
    install(store, vendor.package())
    clock.step_ns = 2 * DAY_NS
    assert versions(store) == {"acme-meter": "1.0.0"}
    assert refusal(lambda: store.stage(vendor.package(version="1.1.0"))).stable_code == "E4610"


def test_distrusted_key_ends_what_is_installed(store: PluginStore, vendor: Vendor) -> None:
    install(store, vendor.package())
    store.trust.remove(vendor.key_id)
    problems: list[Misconfigured] = []
    assert store.active(problems) == []
    assert [problem.stable_code for problem in problems] == ["E4607"]


@pytest.mark.parametrize("is_first", [True, False])
def test_activate_of_what_was_revoked_distrusted_or_damaged_meanwhile_is_refused(
    store: PluginStore, vendor: Vendor, is_first: bool
) -> None:
    before: Mapping[str, str] = {}
    if not is_first:
        install(store, vendor.package(version="1.0.0"))
        before = {"acme-meter": "1.0.0"}
    staged = store.stage(vendor.package(version="1.1.0"))
    (staged.manifest.folder / "plugin.so").write_bytes(b"short")
    assert refusal(lambda: store.activate(staged)).stable_code == "E4613"
    staged = store.stage(vendor.package(version="1.2.0"))
    store.revoke(revoking(store), [], [staged.verified.sha256])
    assert refusal(lambda: store.activate(staged)).stable_code == "E4612"
    staged = store.stage(vendor.package(version="1.3.0"))
    store.trust.remove(vendor.key_id)
    assert refusal(lambda: store.activate(staged)).stable_code == "E4607"
    store.trust.add(vendor.trusted())
    assert versions(store) == before


def revoking(store: PluginStore) -> Ed25519PrivateKey:
    key = make_key()
    store.trust.add(TrustedKey(key_id_of(key.public_key()), key.public_key(), "the plant", ("*",), ("revocation",)))
    return key


def test_revoked_key_and_digests_are_neither_installed_nor_loaded(store: PluginStore, vendor: Vendor) -> None:
    key = revoking(store)
    install(store, vendor.package(version="1.0.0"))
    artifact = vendor.package(version="1.1.0", code=b"\x7fELF weak")
    sha256 = store.stage(artifact).manifest.files["plugin.so"].sha256
    store.revoke(key, [], [sha256])
    assert refusal(lambda: store.stage(artifact)).stable_code == "E4612"
    assert versions(store) == {"acme-meter": "1.0.0"}
    store.revoke(key, [], [store.look("acme-meter").sha256])
    assert refusal(lambda: store.look("acme-meter")).stable_code == "E4612"
    store.revoke(key, [vendor.key_id], [])
    assert refusal(lambda: store.stage(vendor.package(version="1.2.0"))).stable_code == "E4611"
    assert refusal(lambda: store.look("acme-meter")).stable_code == "E4611"


def test_revocation_stays_when_its_list_is_removed_damaged_or_put_back(store: PluginStore, vendor: Vendor) -> None:
    key = revoking(store)
    install(store, vendor.package())
    store.revoke(key, ["0" * 16], [])
    old = {name: (store.folder / name).read_bytes() for name in ("revoked.toml", "revoked.toml.sig")}
    store.revoke(key, [vendor.key_id], [])

    def older() -> None:
        for name, data in old.items():
            (store.folder / name).write_bytes(data)

    def unsigned() -> None:
        (store.folder / "revoked.toml").write_text("serial = 99\nkeys = []\ndigests = []\n")

    def removed() -> None:
        (store.folder / "revoked.toml").unlink()

    for attack in (older, unsigned, removed):
        attack()
        assert refusal(lambda: store.stage(vendor.package(version="1.1.0"))).stable_code == "E4626"
        assert refusal(lambda: store.look("acme-meter")).stable_code == "E4611"
        assert store.revocation_flaws()


def test_key_for_drivers_cannot_revoke(store: PluginStore, vendor: Vendor) -> None:
    assert refusal(lambda: store.revoke(vendor.key, ["0" * 16], [])).stable_code == "E4626"
    assert not (store.folder / "revoked.toml").exists()


def test_second_signer_counts_when_the_first_is_revoked(store: PluginStore, vendor: Vendor, other: Vendor) -> None:
    folder = vendor.source()
    publish.list_files(folder)
    publish.sign_folder(folder, vendor.key)
    publish.sign_folder(folder, other.key)
    package = publish.pack(folder, folder)
    store.trust.add(other.trusted())
    store.revoke(revoking(store), [vendor.key_id], [])
    assert store.stage(package).verified.signer.id == other.key_id


@pytest.mark.parametrize("target", ["/tmp", "../.store/acme-pump/1.0.0-00000000", "../../../evil", "x"])
def test_active_link_to_elsewhere_is_not_followed(store: PluginStore, vendor: Vendor, target: str) -> None:
    install(store, vendor.package())
    link = store.folder / ".active" / "acme-meter"
    link.unlink()
    link.symlink_to(target)
    problems: list[Misconfigured] = []
    assert store.active(problems) == []
    assert [problem.stable_code for problem in problems] == ["E4621"]


def test_signed_folder_under_another_name_is_refused(store: PluginStore, vendor: Vendor) -> None:
    home = store.activate(store.stage(vendor.package())).folder
    pump = store.stage(vendor.package("acme-pump")).manifest.folder
    shutil.rmtree(home)
    shutil.copytree(pump, home)
    assert refusal(lambda: store.look("acme-meter")).stable_code == "E4632"


def test_damaged_store_is_repaired_by_installing_again(store: PluginStore, vendor: Vendor) -> None:
    package = vendor.package()
    folder = store.activate(store.stage(package)).folder
    (folder / "plugin.so").write_bytes(b"")
    assert refusal(lambda: store.look("acme-meter")).stable_code == "E4613"
    install(store, package)
    assert versions(store) == {"acme-meter": "1.0.0"}


def test_unreadable_state_stops_installing_and_nothing_else(store: PluginStore, vendor: Vendor) -> None:
    install(store, vendor.package())
    (store.folder / "state.json").write_text("{")
    assert [manifest.name for manifest in store.active()] == ["acme-meter"]
    assert refusal(lambda: store.stage(vendor.package(version="1.1.0"))).stable_code == "E4623"


def test_state_of_a_newer_gateway_is_neither_guessed_at_nor_overwritten(store: PluginStore, vendor: Vendor) -> None:
    install(store, vendor.package())
    state = store.folder / "state.json"
    newer = state.read_text().replace('"format": 1', '"format": 2')
    state.write_text(newer)
    error = refusal(lambda: store.stage(vendor.package(version="1.1.0")))
    assert (error.stable_code, "its format is 2" in error.text) == ("E4623", True)
    assert state.read_text() == newer


def test_locked_store_says_to_try_again(store: PluginStore, vendor: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "LOCK_S_MAX", 0.02)
    with locked(store.folder / ".lock"):
        error = refusal(lambda: store.stage(vendor.package()))
    assert isinstance(error, Busy)
    assert error.stable_code == "E4631"


POWER_CUTS = int(os.environ.get("EDGE_POWER_CUTS", "9"))
"""Of each change; 0: at every step."""


def _copied(template: PluginStore, folder: Path, clock: FakeClock) -> PluginStore:
    shutil.copytree(template.folder, folder, symlinks=True)
    return PluginStore(folder, clock)


def _chosen(steps: int) -> list[int]:
    """Evenly spaced steps, the first and the last among them."""
    cuts = min(POWER_CUTS or steps, steps)
    return sorted({1 + round(number * (steps - 1) / (cuts - 1)) for number in range(cuts)})


@pytest.mark.parametrize("work", ["upgrade", "rollback", "tried rollback", "remove"])
def test_power_cut_at_any_step_leaves_one_version_active_and_the_way_on_open(
    tmp_path: Path, vendor: Vendor, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, work: str
) -> None:
    first, second, third = (vendor.package(version=version) for version in ("1.0.0", "1.1.0", "1.2.0"))
    template = PluginStore(tmp_path / "template", clock)
    template.trust.add(vendor.trusted())
    install(template, first)
    if "rollback" in work:
        install(template, second)
    steps = Steps(monkeypatch)
    before: str | None = "1.1.0" if "rollback" in work else "1.0.0"
    allowed = {before, {"upgrade": "1.1.0", "remove": None}.get(work, "1.0.0")}
    done: Mapping[str, Callable[[PluginStore], object]] = {
        "upgrade": lambda store: install(store, second),
        "rollback": lambda store: store.rollback("acme-meter"),
        "tried rollback": lambda store: store.rollback("acme-meter", store.recall("acme-meter").folder.name),
        "remove": lambda store: store.remove("acme-meter"),
    }
    seen: set[str | None] = set()
    whole = _copied(template, tmp_path / "whole", clock)
    steps.count = 0
    done[work](whole)
    for cut_at in _chosen(steps.count):
        folder = tmp_path / f"cut{cut_at}"
        store = _copied(template, folder, clock)
        steps.count, steps.cut_at = 0, cut_at
        try:
            with pytest.raises(PowerCut):
                done[work](store)
        finally:
            steps.cut_at = -1
        after = PluginStore(folder, clock)
        now = versions(after).get("acme-meter")
        assert now in allowed, cut_at
        seen.add(now)
        assert install(after, third) == "1.2.0"
        assert after.rollback("acme-meter", now or "1.0.0").version == (now or "1.0.0"), cut_at
    assert seen == allowed


def test_full_disk_changes_nothing_and_says_so(
    store: PluginStore, vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(store, vendor.package())
    package = vendor.package(version="1.1.0")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    error = refusal(lambda: store.stage(package))
    assert isinstance(error, StoreFailed)
    assert (error.stable_code, "no space left" in error.text.lower()) == ("E4624", True)
    monkeypatch.undo()
    assert versions(store) == {"acme-meter": "1.0.0"}


def test_installations_at_the_same_time_leave_the_highest_version(
    store: PluginStore, vendor: Vendor, clock: FakeClock
) -> None:
    packages = [vendor.package(version=f"1.{number}.0") for number in range(6)]

    def attempt(package: Path) -> str:
        outcome = ""
        for _ in range(20):
            try:
                return install(PluginStore(store.folder, clock), package)
            except Misconfigured as error:
                outcome = error.stable_code
            if outcome != "E4621":  # what another one has overtaken is to be installed again
                break
        return outcome

    with ThreadPoolExecutor(3) as pool:
        outcomes = list(pool.map(attempt, packages))
    assert outcomes[-1] == "1.5.0"
    assert {outcome for outcome in outcomes if outcome[0] == "E"} <= {"E4616"}
    assert versions(store) == {"acme-meter": "1.5.0"}
    assert store.verify("acme-meter").manifest.version == "1.5.0"
    assert left(store) == []
