"""`./edge` and `.ci/run`: shells that read them, folders and links they are called through, first starts."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STAMPED = ("pyproject.toml", "requirements.lock", "requirements-dev.lock")


@pytest.mark.parametrize(("shell", "script"), [("sh", "edge"), ("dash", "edge"), ("bash", "edge"), ("bash", ".ci/run")])
def test_script_is_read_by_the_shell(shell: str, script: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    done = subprocess.run([shell, "-n", str(ROOT / script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert os.access(ROOT / script, os.X_OK)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder with a blank in its name, and a .venv whose Python only tells how it was called."""
    clone = tmp_path / "a clone"
    (clone / ".venv" / "bin").mkdir(parents=True)
    for name in (*STAMPED, "edge"):
        shutil.copy(ROOT / name, clone / name)
    python = clone / ".venv" / "bin" / "python"
    python.write_text('#!/bin/sh\npwd -P\nfor word in "$@"; do echo "<$word>"; done\n')
    python.chmod(0o755)
    (clone / "tools").mkdir()
    (clone / "tools" / "setup_venv.py").write_text("import sys; sys.exit(f'setup {sys.argv[1:]}')\n")
    for purpose, names in (("run", STAMPED[:2]), ("test", STAMPED)):
        sums = subprocess.run(["cksum", *names], cwd=clone, capture_output=True, text=True, check=True).stdout.rstrip()
        (clone / ".venv" / f"edge-{purpose}").write_text(f"{clone.resolve()} {sums}")
    return clone


def call(script: Path | str, *words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [script, *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **environment},
    )


def test_edge_passes_words_on_untouched_from_anywhere(clone: Path, tmp_path: Path) -> None:
    done = call(clone / "edge", "tags", "ls", "a b", "", "*", cwd=tmp_path)
    assert done.stdout.splitlines() == [
        str(tmp_path.resolve()), "<-m>", "<framegate>", "<tags>", "<ls>", "<a b>", "<>", "<*>",
    ]  # fmt: skip
    assert done.stderr == ""


def test_edge_through_links_finds_its_folder(clone: Path, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "edge").symlink_to(clone / "edge")
    (tmp_path / "bin" / "e").symlink_to("edge")
    assert "<framegate>" in call(tmp_path / "bin" / "e", "version", cwd=tmp_path).stdout
    assert "<framegate>" in call("./e", "version", cwd=tmp_path / "bin").stdout


def test_edge_test_runs_pytest_in_the_root(clone: Path, tmp_path: Path) -> None:
    done = call(clone / "edge", "test", "-k", "a or b", cwd=tmp_path)
    assert done.stdout.splitlines() == [str(clone.resolve()), "<-m>", "<pytest>", "<-k>", "<a or b>"]


@pytest.mark.parametrize("name", ["pyproject.toml", "requirements.lock"])
def test_edge_after_a_change_of_what_is_wanted_sets_up_anew(clone: Path, name: str) -> None:
    with (clone / name).open("a") as file:
        file.write("# changed\n")
    done = call(clone / "edge", "version", cwd=clone)
    assert done.returncode != 0
    assert done.stdout == ""
    assert done.stderr.startswith("setup ['run', ")


def test_edge_in_a_moved_folder_sets_up_anew(clone: Path, tmp_path: Path) -> None:
    moved = clone.rename(tmp_path / "elsewhere")
    assert call(moved / "edge", "version", cwd=tmp_path).stderr.startswith("setup ['run', ")


def test_edge_without_a_fit_python_says_what_to_do(clone: Path) -> None:
    (clone / ".venv" / "edge-run").unlink()
    done = call(clone / "edge", "version", cwd=clone, EDGE_PYTHON="/bin/false")
    assert (done.returncode, done.stdout) == (69, "")
    assert "EDGE_PYTHON=/bin/false is no Python 3.11 or later" in done.stderr
    (clone / "tools-only").mkdir()
    for tool in ("sh", "cksum", "cat"):
        (clone / "tools-only" / tool).symlink_to(str(shutil.which(tool)))
    done = call(clone / "edge", "version", cwd=clone, PATH=str(clone / "tools-only"))
    assert done.returncode == 69
    assert "no Python 3.11 or later was found; install one" in done.stderr


@pytest.mark.parametrize(
    ("tests", "demo", "last_line", "code"),
    [
        ("echo '....'; echo '41 passed, 2 skipped in 3.21s'", "exit 0", "41 passed, 2 skipped in 3.21s", 0),
        ("echo '1 failed, 40 passed in 3.21s'; exit 1", "exit 0", "1 failed, 40 passed in 3.21s", 1),
        ("echo '41 passed in 3.21s'", "echo '{}'; exit 1", "41 passed, 1 failed", 1),
        ("echo '2 failed, 39 passed in 3.21s'; exit 1", "exit 1", "39 passed, 3 failed", 1),
        ("exit 4", "exit 0", "0 passed, 1 failed (the tests ended with status 4)", 4),
    ],
)
def test_ci_run_ends_with_the_closing_line(tmp_path: Path, tests: str, demo: str, last_line: str, code: int) -> None:
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci" / "run")
    programs = {
        "edge": f"#!/bin/sh\nif [ $1 = test ]; then {tests}; else {demo}; fi\n",
        "bin/id": "#!/bin/sh\necho 1000\n",
    }
    for name, text in programs.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    done = call(tmp_path / ".ci" / "run", cwd=tmp_path, PATH=f"{tmp_path}/bin:{os.environ['PATH']}")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (code, last_line)


@pytest.mark.campaign
@pytest.mark.timeout(900)
def test_fresh_clone_survives_a_kill_and_two_starts_at_once(tmp_path: Path) -> None:
    clone = tmp_path / "fresh clone"
    ignore = shutil.ignore_patterns(".venv", ".git", "__pycache__", ".*_cache", ".hypothesis", "node_modules")
    shutil.copytree(ROOT, clone, ignore=ignore)
    first = subprocess.Popen([clone / "edge", "version"], cwd=tmp_path, start_new_session=True, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not (clone / ".venv" / "lib").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    both = [
        subprocess.Popen([clone / "edge", "version"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    for process in both:
        out, err = process.communicate(timeout=600)
        assert process.returncode == 0, err.decode()
        assert b"framegate" in out
    began = time.monotonic()
    again = subprocess.run([clone / "edge", "version"], capture_output=True, text=True, check=True)
    assert again.stderr == ""
    assert time.monotonic() - began < 20, "it was installed anew"
