"""Try a store in a child process before the gateway opens it: damage can make RocksDB spin in open() for ever.

The one way that is known is looked for first (logfile.py); the deadline is for those that are not.
`python -m framegate.bus.probe FOLDER [read_only]` opens, closes and says nothing, or prints RocksDB's text and ends
with 1. The child does the work of recovery too, so the gateway's own open is short.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

# RocksDB replays at most LOG_FILES_BYTES_MAX here: 5 MB/s is enough. With what follows a hang, setting the store aside
# and carrying its tables over, the gateway starts within 10 s.
PROBE_DEADLINE_S = 7.0
PROBE_BUFFER_BYTES = 8 << 20
READ_ONLY = "read_only"
PARENT = "EDGE_PARENT_PID"
PR_SET_PDEATHSIG = 1  # linux/prctl.h
HUNG = "Corruption: opening does not end"
_CHILD_DIED = "Corruption: the process that tried to open it ended with {}"


def probe(store: Path, deadline_s: float = PROBE_DEADLINE_S, *, read_only: bool = False) -> str:
    """RocksDB's text, or what happened instead of one, if the store does not open; else nothing."""
    arguments = (str(store), READ_ONLY) if read_only else (str(store),)
    done = run_child("framegate.bus.probe", *arguments, deadline_s=deadline_s)
    if done is None:
        return HUNG
    status, text = done
    if status == 0:
        return ""
    return text.strip().rpartition("\n")[2] if status == 1 and text.strip() else _CHILD_DIED.format(status)


def run_child(module: str, *arguments: str, deadline_s: float) -> tuple[int, str] | None:
    """Exit status and output of a module of this package, run by a fresh interpreter; None after the deadline."""
    package = Path(__file__).resolve().parents[2]
    path = os.pathsep.join(filter(None, (str(package), os.environ.get("PYTHONPATH", ""))))
    command = [sys.executable, "-P", "-m", module, *arguments]
    with contextlib.suppress(subprocess.TimeoutExpired):
        done = subprocess.run(
            command,
            env={**os.environ, "PYTHONPATH": path, PARENT: str(os.getpid())},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=deadline_s,
            check=False,
        )
        return done.returncode, done.stdout
    return None


def die_with_parent() -> None:
    """Called by such a child first: left behind, it would hold the store's lock against the gateway's next start."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(os.environ.get(PARENT, os.getppid())):  # it was gone before
        sys.exit(1)


def main() -> int:
    """Open and close the store named on the command line."""
    die_with_parent()
    from rocksdict import AccessType, Rdict  # noqa: PLC0415 - the parent needs none of it

    from framegate.bus.logfile import endless_records  # noqa: PLC0415 - as above
    from framegate.bus.tuning import family_options, store_options  # noqa: PLC0415 - as above

    for log in sorted(Path(sys.argv[1]).glob("*.log")):
        if any(endless_records(log.read_bytes())):
            print(f"Corruption: {log.name} holds a record of a recycled log")  # noqa: T201 - the answer of this process
            return 1
    is_read_only = sys.argv[2:] == [READ_ONLY]
    access = AccessType.read_only(False) if is_read_only else AccessType.read_write()
    try:
        with tempfile.TemporaryDirectory(prefix="edge-wal-") as scratch:
            options = store_options(PROBE_BUFFER_BYTES, create=False, log_folder=scratch if is_read_only else "")
            families = family_options(sys.argv[1], PROBE_BUFFER_BYTES, is_read_only=is_read_only)
            Rdict(sys.argv[1], options, families, access).close()
    except Exception as error:  # noqa: BLE001 - the edge of a process; rocksdict raises bare Exception
        print(" ".join(str(error).split()))  # noqa: T201 - the answer of this process
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
