"""A driver with the Go runtime in it: its file, then threads, collection and signals under all the limits."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from framegate.testing.fakes import rows_in
from tests.unit.carrier.native.conftest import LAW, tag

if TYPE_CHECKING:
    from tests.unit.carrier.native.conftest import Stage

MAIN = f"""package main

// #cgo CFLAGS: -I{LAW}
import "C"
import "runtime"

//export GoValue
func GoValue(value C.longlong) C.longlong {{
	done := make(chan C.longlong)
	go func() {{ _ = make([]byte, 100000); done <- value + 1 }}()
	runtime.GC()
	return <-done
}}

func main() {{}}
"""


@pytest.fixture
def go_library(tmp_path: Path) -> Path:
    """The driver of ramp.c, whose values come from Go."""
    head, include, rest = Path(__file__).with_name("ramp.c").read_text().partition('#include "driver.h"')
    rest = rest.replace("tag->id * d->polls;", "(uint64_t)GoValue((long long)(tag->id * d->polls));")
    (tmp_path / "ramp.c").write_text(f"{head}{include}\nextern long long GoValue(long long);{rest}")
    (tmp_path / "main.go").write_text(MAIN)
    (tmp_path / "go.mod").write_text("module probe\n\ngo 1.21\n")
    command = ["go", "build", "-buildmode=c-shared", "-ldflags=-s -w", "-o", "plugin.so", "."]
    subprocess.run(command, cwd=tmp_path, check=True)
    return tmp_path / "plugin.so"


@pytest.mark.campaign
@pytest.mark.skipif(shutil.which("go") is None, reason="go is not installed")
async def test_go_library_runs_confined(stage: Stage, go_library: Path) -> None:
    stage.path = go_library
    driver = await stage.opened()
    plan = driver.plan([tag(number) for number in range(1, 21)])
    for polls in range(1, 4):
        batches = await driver.read(plan)
        assert [row[1] for batch in batches for row in rows_in(batch)] == [n * polls + 1.0 for n in range(1, 21)]
