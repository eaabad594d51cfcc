"""Native drivers for tests: compiled once, opened over fake lines."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import uvloop

from framegate.carrier.native import NativeDriver
from framegate.contract.command import Write, WriteResult
from framegate.contract.driver import BoundTag, DriverContext
from framegate.contract.frame import TagId, ValueType
from framegate.contract.plugin import Artifact, Isolation, Manifest, Permissions, RoleEntry
from framegate.endpoint.clock import SystemClock
from framegate.testing.fakes import CollectingLog, FakeLines

GCC = shutil.which("gcc")
LAW = Path(__file__).resolve().parents[4] / "contract"


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The gateway's loop, which starts processes in its own way."""
    return {"uvloop": uvloop.new_event_loop}


def build(source: Path | str, target: Path, *flags: str) -> Path:
    """A shared library; skips the test where there is no compiler."""
    if GCC is None:
        pytest.skip("gcc is not installed")
    command = [GCC, "-O2", "-Wall", "-fPIC", "-shared", "-fvisibility=hidden", "-s", f"-I{LAW}", "-o", str(target)]
    if isinstance(source, Path):
        subprocess.run([*command, str(source), *flags], check=True)
    else:
        subprocess.run([*command, "-xc", "-", "-xnone", *flags], input=source.encode(), check=True)
    return target


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(Path(__file__).with_name("ramp.c"), tmp_path_factory.mktemp("native") / "plugin.so")


def tag(number: int, type_: ValueType = ValueType.FLOAT64, address: str = "here", access: Any = "RW") -> BoundTag:
    return BoundTag(TagId(number), f"t{number}", address, type_, access, {})


def manifest(permissions: Permissions | None = None) -> Manifest:
    roles = {"driver": RoleEntry("", {}, (), "native", "plugin.so")}
    return Manifest("ramp", (1, 1), "1.0", "", Path(), roles, (), permissions=permissions or Permissions())  # type: ignore[arg-type]  # a literal


def artifact(path: Path) -> Artifact:
    data = path.read_bytes()
    fd = os.memfd_create(path.name)
    os.write(fd, data)
    return Artifact(path.name, fd, hashlib.sha256(data).hexdigest(), len(data))


async def childless() -> None:
    """Until every process that was started here has been taken leave of; a busy machine needs a moment for that."""
    me = psutil.Process()
    async with asyncio.timeout(10):
        while me.children():  # noqa: ASYNC110 - nothing tells of it here
            await asyncio.sleep(0.01)


@dataclass
class Stage:
    """Makes drivers, and closes them."""

    path: Path
    lines: FakeLines = field(default_factory=FakeLines)
    log: CollectingLog = field(default_factory=CollectingLog)
    drivers: list[NativeDriver] = field(default_factory=list)
    home: Path | None = None

    def driver(
        self,
        options: Mapping[str, Any] | None = None,
        permissions: Permissions | None = None,
        isolation: Isolation = "process",
    ) -> NativeDriver:
        opens = lambda: artifact(self.path)  # noqa: E731 - one line says it
        driver = NativeDriver(manifest(permissions), options or {}, opens, isolation=isolation)
        self.drivers.append(driver)
        return driver

    @property
    def context(self) -> DriverContext:
        endpoint = "plc" if self.lines.answers else ""
        return DriverContext("meter1", endpoint, self.lines, SystemClock(), self.log, self.home)

    async def opened(self, options: Mapping[str, Any] | None = None, **more: Any) -> NativeDriver:
        driver = self.driver(options, **more)
        await driver.open(self.context)
        return driver


@pytest.fixture
async def stage(library: Path) -> AsyncIterator[Stage]:
    stage = Stage(library)
    yield stage
    for driver in stage.drivers:
        await driver.close()
    await childless()


async def told(driver: NativeDriver, tags: Sequence[BoundTag], **values: Any) -> list[WriteResult]:
    """Write to tags by name."""
    by_name = {each.name: each for each in tags}
    return list(await driver.write([Write(by_name[name].id, value) for name, value in values.items()]))


Told = Callable[..., Any]


@pytest.fixture
def tell() -> Told:
    return told
