"""The C template under sanitizers: damaged plans, damaged answers, batches without room. EDGE_KIT_ROUNDS makes more."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from framegate.package.template import render, write_project
from framegate.package.toolchain import host_arch

ROUNDS = int(os.environ.get("EDGE_KIT_ROUNDS", "2000"))
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("gcc is not installed")
    folder = tmp_path_factory.mktemp("c") / "sanitized"
    write_project(folder, render("sanitized", "c", host_arch()))
    shutil.copy(Path(__file__).with_name("hostile.c"), folder)
    command = [compiler, "-std=c11", "-O1", "-g", *SANITIZERS, "-o", "host", "hostile.c", "driver.c"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    if "cannot find" in done.stderr:
        pytest.skip("gcc has no sanitizers here")
    assert done.returncode == 0, done.stderr
    return folder / "host"


@pytest.mark.parametrize("seed", [1, 2])
def test_template_in_c_takes_hostile_bytes(host: Path, seed: int) -> None:
    command = [str(host), str(ROUNDS), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[:4000]
