"""Fixtures: a trial bench, two serial devices joined by a cable, certificates."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from framegate_plugins.modbus.trial import Trial

INSTALL_S = 60.0


@pytest.fixture
async def trial() -> AsyncIterator[Trial]:
    async with Trial() as trial:
        yield trial


@pytest.fixture
def cable(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Paths of two pseudo-terminals; what goes in at one comes out at the other."""
    socat = shutil.which("socat")
    if socat is None:
        pytest.skip("socat (Debian package socat) is not installed")
    ends = (str(tmp_path / "a"), str(tmp_path / "b"))
    process = subprocess.Popen([socat, *(f"pty,raw,echo=0,link={end}" for end in ends)])
    deadline = time.monotonic() + 5
    while not all(Path(end).exists() for end in ends):
        assert time.monotonic() < deadline, "socat makes no pseudo-terminals"
        time.sleep(0.01)
    yield ends
    process.terminate()
    process.wait()


@dataclass(frozen=True)
class Certificates:
    server: ssl.SSLContext
    ca_file: Path


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    ca = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1", "localhost").configure_cert(server)
    ca_file = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(str(ca_file))
    return Certificates(server, ca_file)


@pytest.fixture(scope="session")
def judges(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the judges that run on node, with their packages installed."""
    npm = shutil.which("npm")
    if shutil.which("node") is None or npm is None:
        pytest.skip("node and npm are not installed")
    folder = tmp_path_factory.mktemp("judges")
    for file in Path(__file__).with_name("judges").iterdir():
        shutil.copy(file, folder)
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    if done.returncode:
        pytest.skip(f"modbus-serial cannot be installed: {done.stderr[-200:]}")
    return folder
