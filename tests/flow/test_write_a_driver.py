"""The page docs/how-to/write-a-driver.md, walked: its blocks are run in order, and what it promises is there. So is the
README of a project.

EDGE_KIT_ALL=1 walks the page for every language that has its compiler here; else for C alone.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from framegate.package.template import render, write_project
from framegate.package.toolchain import RUST_WASM, host_arch
from framegate.testing.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "how-to" / "write-a-driver.md"
WALK_S_MAX = 400
FORMS = {
    "--lang c": "cc",
    "--lang python": "python3",
    "--lang rust": "rustc",
    "--lang go": "go",
    "--lang js": "npx",
    "--lang python --wasm": "componentize-py",
    "--lang c --wasm": "zig",
    "--lang rust --wasm": "rustc",
}
DEFAULT = ("--lang c",)
HEAD = """set -eu
trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT
"""


def script(form: str, device_port: int, metrics_port: int) -> str:
    """The page as one script: shell blocks as they are, tables written where their first line says."""
    parts = [HEAD]
    for language, text in re.findall(r"```(sh|yaml)\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL):
        if language == "sh":
            parts.append(text)
        else:
            place, _, table = text.removeprefix("# ").partition("\n")
            parts.append(f"cat > {place} <<'TABLE'\n{table}TABLE\n")
    whole = "\n".join(parts).replace("15020", str(device_port)).replace("--lang c", form)
    whole = whole.replace("edge plugin test\n", "edge plugin test --rounds 30 --seconds 2 -o jsonl >../exam.jsonl\n")
    return whole.replace("\ndrivers:\n", f"\ngateway: {{metrics: '127.0.0.1:{metrics_port}'}}\ndrivers:\n")


def has_rust_target() -> bool:
    asked = ["rustc", "--print", "target-libdir", "--target", RUST_WASM]
    found = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False)
    return found.returncode == 0 and Path(found.stdout.strip()).is_dir()


@pytest.mark.campaign
@pytest.mark.timeout(WALK_S_MAX + 20)
@pytest.mark.parametrize("form", FORMS)
def test_page_leads_from_nothing_to_values(tmp_path: Path, form: str) -> None:
    if form not in DEFAULT and os.environ.get("EDGE_KIT_ALL") != "1":
        pytest.skip("takes long; EDGE_KIT_ALL=1 walks it")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # where `edge` is
    if shutil.which(FORMS[form], path=path) is None:
        pytest.skip(f"{FORMS[form]} is not installed")
    if form == "--lang rust --wasm" and not has_rust_target():
        pytest.skip(f"rustup target add {RUST_WASM} was not run")
    rows, err, checks = walk(script(form, free_port(), free_port()), tmp_path, path)
    flows = [row for row in rows if row.get("tag") == "pump.flow"]
    assert [row["quality"] for row in flows[-1:]] == ["Good"]
    assert 0.5 <= flows[-1]["value"] <= 2.5
    assert "pump.setpoint: confirmed" in err
    assert {row["version"] for row in rows if row.get("name") == "mydriver"} >= {"0.1.0", "0.1.1"}
    assert len(checks) == 14
    assert "FAIL" not in {check["verdict"] for check in checks}


def readme_script(readme: str, device_port: int, metrics_port: int) -> str:
    """A project's README as one script, in its folder, with keys in the folder above."""
    parts = [HEAD]
    for language, text in re.findall(r"```(sh|yaml)\n(.*?)```", readme, re.DOTALL):
        if language == "sh":
            parts.append(text)
        for place, table in re.findall(r"# (\S+)\n((?:(?!# ).*\n)+)", text) if language == "yaml" else ():
            parts.append(f"cat > {place} <<'TABLE'\n{table}TABLE\n")
    whole = re.sub(" +#.*", "", "\n".join(parts)).replace("~/maker", "../maker")
    changes = {
        "simulator.py &": f"simulator.py --port {device_port} &",
        "15020": str(device_port),
        "edge plugin test\n": "edge plugin test --rounds 30 --seconds 2 -o jsonl >../exam.jsonl\n",
        ".edge --home plant": ".edge --home plant --yes",
        "\ndrivers:\n": f"\ngateway: {{metrics: '127.0.0.1:{metrics_port}'}}\ndrivers:\n",
        "edge run --home plant": "edge run --home plant &",
        "edge tags ls": "until edge tags get dev1.flow --home plant; do sleep 1; done\nedge tags ls",
        "edge plugin build && edge": "sed -i s/0.1.0/0.2.0/ driver.toml\nedge plugin build && edge",
    }
    for old, new in changes.items():
        assert old in whole, old
        whole = whole.replace(old, new)
    return f"{whole}\nuntil edge plugin ls --home plant | grep 0.2.0; do sleep 1; done\nedge tags ls --home plant\n"


@pytest.mark.campaign
@pytest.mark.timeout(WALK_S_MAX + 20)
def test_readme_of_a_project_leads_to_values_and_to_the_next_version(tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    write_project(tmp_path / "mydriver", render("mydriver", "python", host_arch()))
    readme = (tmp_path / "mydriver" / "README.md").read_text("utf-8")
    rows, _, checks = walk(readme_script(readme, free_port(), free_port()), tmp_path / "mydriver", path)
    assert {row["quality"] for row in rows if row.get("tag") == "dev1.flow"} == {"Good"}
    assert {row["version"] for row in rows if row.get("name") == "mydriver"} >= {"0.1.0", "0.2.0"}
    assert {check["verdict"] for check in checks} == {"pass", "skip"}


def walk(script: str, folder: Path, path: str) -> tuple[list[Any], str, list[Any]]:
    """Run a script that has to end well: records on stdout, what was said, and what the examiner found."""
    walking = subprocess.Popen(
        ["bash", "-c", script],
        cwd=folder,
        env={**os.environ, "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = walking.communicate(timeout=WALK_S_MAX)
    except subprocess.TimeoutExpired:
        os.killpg(walking.pid, signal.SIGTERM)
        out, err = walking.communicate(timeout=20)
    found = next((each for each in (folder / "exam.jsonl", folder.parent / "exam.jsonl") if each.exists()), None)
    told = "" if found is None else found.read_text("utf-8")
    assert walking.returncode == 0, f"{out[-2000:]}\n{err[:4000]}\n...\n{err[-4000:]}\n{told}"
    rows = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    return rows, err, [json.loads(line) for line in told.splitlines()]
