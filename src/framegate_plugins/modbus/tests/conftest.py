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
