"""Makes or renews the private .venv of this folder, for `./edge`. Runs on a bare Python 3.11: standard library only.

    setup_venv.py run|test STAMP

The stamp is written last, so a run that was interrupted is simply done again; the kernel holds the lock that keeps two
starts apart, so a killed one never blocks the next. A .venv that somebody else made is used when it works, one that
an interrupted run left half made is thrown away. Only the .venv is written to, never a user's or a system's packages.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
UNFINISHED = VENV / "edge-unfinished"
LOCKS = {"run": ("requirements.lock",), "test": ("requirements.lock", "requirements-dev.lock")}
FAILED = 1
TRY_AGAIN = 75

# pip settings that would lead out of the .venv, and Python settings that would lead into another one.
_FOREIGN = (
    "PIP_PREFIX", "PIP_PYTHON", "PIP_REQUIRE_VIRTUALENV", "PIP_ROOT", "PIP_TARGET", "PYTHONHOME", "PYTHONPATH",
)  # fmt: skip
_WORKS = "import sys; sys.exit(sys.version_info < (3, 11) or sys.prefix == sys.base_prefix)"


def main(purpose: str, stamp: str) -> int:
    """Bring the .venv up to a stamp; returns an exit code."""
    folder = os.open(ROOT, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("another start prepares .venv; waiting for it")
        fcntl.flock(folder, fcntl.LOCK_EX)
    try:
        if _stamp_of(purpose) != stamp:
            _prepare(purpose, stamp)
    except subprocess.CalledProcessError as error:
        return _refuse(error)
    except OSError as error:
        say(f"{error.filename or VENV}: {error.strerror}; .venv cannot be made")
        return FAILED
    return 0


def say(text: str) -> None:
    """A line of progress; `./edge` sends it to stderr."""
    sys.stdout.write(f"edge: {text}\n")
    sys.stdout.flush()


def _prepare(purpose: str, stamp: str) -> None:
    environment = _environment()
    if UNFINISHED.exists() or not _works(environment):
        say(f"making .venv with Python {sys.version.split()[0]}; this happens once and takes a minute or two")
        if VENV.is_symlink() or VENV.is_file():
            VENV.unlink()
        shutil.rmtree(VENV, ignore_errors=True)
        _make(environment)
    else:
        say("bringing .venv up to date")
    for name in LOCKS:
        (VENV / f"edge-{name}").unlink(missing_ok=True)
    pip = _pip(environment)
    for lock in LOCKS[purpose]:
        _run([*pip, "install", "--require-hashes", "--prefer-binary", "-r", str(ROOT / lock)], environment)
    _run([*pip, "install", "--no-deps", "--no-build-isolation", "--no-index", "-e", str(ROOT)], environment)
    UNFINISHED.unlink(missing_ok=True)
    (VENV / f"edge-{purpose}").write_text(stamp, encoding="utf-8")
    if purpose == "test":  # it holds all that a run needs; a run's stamp lacks the last line, of requirements-dev.lock
        (VENV / "edge-run").write_text(stamp.rpartition("\n")[0], encoding="utf-8")


def _stamp_of(purpose: str) -> str:
    try:
        return (VENV / f"edge-{purpose}").read_text(encoding="utf-8")
    except OSError:
        return ""


def _environment() -> Mapping[str, str]:
    environment = {key: value for key, value in os.environ.items() if key not in _FOREIGN}
    return environment | {"PIP_USER": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", "PIP_QUIET": "1"}


def _works(environment: Mapping[str, str]) -> bool:
    try:
        return subprocess.run([PYTHON, "-c", _WORKS], env=environment, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _make(environment: Mapping[str, str]) -> None:
    """An empty .venv, marked as unfinished from its first moment; without pip where Python came without ensurepip."""
    VENV.mkdir()
    UNFINISHED.touch()
    made = subprocess.run(
        [sys.executable, "-m", "venv", VENV], env=environment, capture_output=True, text=True, check=False
    )
    if made.returncode != 0:
        _run([sys.executable, "-m", "venv", "--without-pip", str(VENV)], environment)


def _pip(environment: Mapping[str, str]) -> list[str]:
    """A pip that installs into the .venv: its own, or else that of the Python which runs this."""
    own = [str(PYTHON), "-m", "pip"]
    if _succeeds([*own, "--version"], environment) or _succeeds([str(PYTHON), "-m", "ensurepip"], environment):
        return own
    outer = [sys.executable, "-m", "pip", "--python", str(PYTHON)]
    if _succeeds([*outer, "--version"], environment):
        return outer
    say("this Python has neither venv nor pip; install them (Debian: apt install python3-venv)")
    raise subprocess.CalledProcessError(FAILED, own)


def _succeeds(command: list[str], environment: Mapping[str, str]) -> bool:
    return subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0


def _run(command: list[str], environment: Mapping[str, str]) -> None:
    subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, check=True)


def _refuse(error: subprocess.CalledProcessError) -> int:
    say(f"this step failed: {' '.join(map(str, error.cmd))}")
    say(
        "see the lines above; without a network, point pip at a mirror or a folder of wheels (PIP_FIND_LINKS, pip.conf)"
    )
    return TRY_AGAIN


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
