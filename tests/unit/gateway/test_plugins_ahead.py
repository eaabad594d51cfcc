"""Machine code of sandboxed plugins is made when a package comes in; without any a package does not come in."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from framegate.cli import exits
from framegate.cli.main import main
from framegate.config import DriverRow, load_tables
from framegate.contract.driver import BoundTag
from framegate.contract.errors import Misconfigured
from framegate.contract.frame import TagId, ValueType
from framegate.endpoint.clock import SystemClock
from framegate.gateway.apply import Applier
from framegate.gateway.binding import Factories
from framegate.gateway.home import Home
from framegate.gateway.plugins.desk import PluginDesk
from framegate.gateway.wiring import Gateway
from framegate.package import publish
from framegate.package.discover import discover
from framegate.package.signature import key_id_of
from framegate.package.store import PluginStore
from framegate.package.trust import TrustedKey
from framegate.testing.fakes import CollectingLog
from framegate.testing.stalls import Stalls

wasmtime = pytest.importorskip("wasmtime", reason="sandboxed plugins need the package wasmtime")
cache = pytest.importorskip("framegate.carrier.wasm.cache")
GUEST = Path(__file__).parents[1] / "carrier" / "wasm" / "guest.wat"
NO_MODULE = b"\0asm\1\0\0\0\1\5"
STALL_S_MAX = 0.5
"""Of the loop, on a busy machine; making machine code of this guest takes longer, with the start of the helper."""
MANIFEST = """name = "boxed"
api = 1
version = "{version}.0"
serial = {version}
summary = "made up"

[{role}]
shape = "wasm"
artifact = "plugin.wasm"
"""


class Site:
    """A running gateway that nothing is read by, and who publishes for it."""

    def __init__(self, folder: Path) -> None:
        self.home, self.log = Home(folder / "home"), CollectingLog()
        self.home.root.mkdir()
        self.store = PluginStore(self.home.plugins)
        self._folder, self._key = folder, Ed25519PrivateKey.generate()
        key = self._key.public_key()
        self.store.trust.add(TrustedKey(key_id_of(key), key, "Acme", ("boxed",), ("driver", "rule")))

    def package(self, version: int, wasm: bytes | None = None, role: str = "driver") -> Path:
        """A package; wasm: the guest of the carrier's tests, other bytes in each version, or these bytes."""
        folder = self._folder / f"boxed-{version}"
        folder.mkdir()
        (folder / "driver.toml").write_text(MANIFEST.format(version=version, role=role))
        text = GUEST.read_text().replace("no such unit", f"no such un{version:02}")
        (folder / "plugin.wasm").write_bytes(bytes(wasmtime.wat2wasm(text)) if wasm is None else wasm)
        publish.list_files(folder)
        publish.sign_folder(folder, self._key)
        return publish.pack(folder, folder)

    @property
    def kept(self) -> int:
        """Files whose machine code is at hand."""
        return len(list(self.home.plugin_cache.glob("*.cwasm")))

    def trashed(self) -> dict[str, str]:
        return {thrown.folder.name.partition("-")[0]: thrown.reason for thrown in self.store.bin.thrown("boxed")}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    cache._loaded.clear()  # of other homes of this process
    return Site(tmp_path)


@pytest.fixture
async def desk(site: Site) -> AsyncIterator[PluginDesk]:
    site.home.prepare()
    tables = {
        "endpoints": "endpoints: {}",
        "drivers": "gateway: {name: gw, tenant: t}\ndrivers: {}",
        "variables": "variables: []",
    }
    site.home.config.mkdir()
    for name, text in tables.items():
        (site.home.config / f"{name}.yml").write_text(text)
    plugins = discover([], site.store)
    gateway = Gateway(site.home, load_tables(site.home.config, plugins), plugins, site.log, SystemClock())
    await gateway.start()
    applier = Applier(gateway)
    made = PluginDesk(gateway, applier, lambda: site.store)
    yield made
    await made.close(1.0)
    await applier.close(1.0)
    await gateway.stop()


@pytest.fixture
def compilers(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Every helper that was started."""
    started: list[object] = []
    run = subprocess.run

    def counted(command: Any, *more: Any, **options: Any) -> Any:
        started.append(command)
        return run(command, *more, **options)

    monkeypatch.setattr(subprocess, "run", counted)
    return started


async def longest_stall(work: Callable[[], Any]) -> tuple[Any, float]:
    """What work came to, and for how long the loop stood still meanwhile at most, seconds."""
    loop, longest = asyncio.get_running_loop(), 0.0
    task = asyncio.ensure_future(work())
    while not task.done():
        before = loop.time()
        await asyncio.sleep(0.005)
        longest = max(longest, loop.time() - before)
    return await task, longest


async def test_staged_package_has_machine_code_before_a_device_is_planned(
    site: Site, desk: PluginDesk, compilers: list[object]
) -> None:
    with Stalls() as machine:
        staged, stall_s = await longest_stall(lambda: desk.stage(site.package(1), "anna"))
        excused_s = machine.worst()
    assert (site.kept, len(compilers)) == (1, 1)
    assert stall_s < STALL_S_MAX + excused_s
    await desk.activate(staged.name, staged.accept, "anna")
    (manifest,) = site.store.active()
    driver = Factories({"boxed": manifest}, site.home).driver(DriverRow("d", "boxed", "", {"mode": "F"}, {}, True))
    with pytest.raises(Misconfigured, match="E4546"):  # on the loop, and the guest itself was asked: its code was there
        driver.plan([BoundTag(TagId(3), "t", "3", ValueType.UINT16, "R", {})])
    assert len(compilers) == 1
    assert [values["plugin"] for _, event, values in site.log.lines if event == "plugin_compiled"] == ["boxed"]


@pytest.mark.parametrize(
    ("wasm", "why"),
    [(NO_MODULE, "E4541.*is no valid WASM"), (b"\0asm\1\0\0\0", "E4541.*exports no memory")],
)
async def test_package_that_cannot_be_compiled_is_refused_and_thrown_away(
    site: Site, desk: PluginDesk, wasm: bytes, why: str
) -> None:
    staged = await desk.stage(site.package(1), "anna")
    await desk.activate(staged.name, staged.accept, "anna")
    await desk.stage(site.package(2), "anna")  # waits
    with pytest.raises(Misconfigured, match=rf"E4634 plugin boxed 3\.0: driver: .*{why}"):
        await desk.stage(site.package(3, wasm), "anna")
    assert desk.staged() == [], "the store keeps one package of a plugin that waits, and that was the newer one"
    assert [manifest.version for manifest in site.store.active()] == ["1.0"]
    assert site.trashed().keys() == {"3.0"}
    assert "E4541" in site.trashed()["3.0"]
    assert (await desk.stage(site.package(4), "anna")).version == "4.0"


async def test_package_with_a_rule_is_compiled_as_one(site: Site, desk: PluginDesk) -> None:
    with pytest.raises(Misconfigured, match=r"E4634 plugin boxed 1\.0: rule: .*imports edge:driver/host"):
        await desk.stage(site.package(1, role="rule"), "anna")
    own = b"\0\4\3own"  # a section without meaning, so that no other test has made the same code
    wasm = bytes(wasmtime.wat2wasm(Path(__file__).with_name("total.wat").read_text())) + own
    before = site.kept
    assert (await desk.stage(site.package(2, wasm, "rule"), "anna")).version == "2.0"
    assert site.kept == before + 1


def test_installed_package_is_compiled_before_the_gateway_starts(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    home = ("--home", str(site.home.root))
    assert main(["plugin", "install", str(site.package(1)), "--yes", *home]) == exits.OK
    assert "boxed: compiled for this machine in" in capsys.readouterr().err
    assert site.kept == 1
    assert main(["plugin", "install", str(site.package(2, NO_MODULE)), "--yes", *home]) == exits.FAILED
    assert "E4634" in capsys.readouterr().err
    assert [manifest.version for manifest in site.store.active()] == ["1.0"]
    assert site.trashed().keys() == {"2.0"}
