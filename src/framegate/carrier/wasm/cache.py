"""Machine code of sandboxed plugins: made once per file by a helper process, kept, and shared by every driver of it.

    folder/KEY.cwasm     machine code;  KEY is a digest of the plugin's file, wasmtime's version and the configuration
    folder/KEY.sha256    digest of the machine code: a file that rotted on its disk is made again, never run

What lies here is run, so the folder is the gateway's alone (0700); what runs is a copy in memory that was checked.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import stat
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import wasmtime
import wasmtime.component

from framegate.carrier.wasm import component, module, rule
from framegate.carrier.wasm.compiler import CPU_S_MAX, REFUSED, is_component
from framegate.carrier.wasm.engine import CONFIGURATION, engine
from framegate.carrier.wasm.world import Guest, Host
from framegate.contract.errors import GatewayError, Misconfigured
from framegate.contract.plugin import Artifact, Role

WASM_BYTES_MAX = 64 << 20
COMPILE_S_MAX = CPU_S_MAX
FILES_MAX = 64
"""Kept; the ones that were used least lately go first."""
MESSAGE_CHARACTERS_MAX = 400
COPY_BYTES = 1 << 20
MAKING = ".making"
MODULE = "framegate.carrier.wasm.compiler"
_MAGIC = b"\0asm"
_lock = threading.Lock()
_key_locks: dict[str, threading.Lock] = {}
_loaded: weakref.WeakValueDictionary[str, Code] = weakref.WeakValueDictionary()


class Code:
    """A module or component, ready to be instantiated."""

    def __init__(self, made: wasmtime.Module | wasmtime.component.Component) -> None:
        self.made = made


def driver_problem(made: wasmtime.Module | wasmtime.component.Component) -> str | None:
    """Why a file is no driver; None: it is one."""
    return module.problem_of(made) if isinstance(made, wasmtime.Module) else component.problem_of(made)


def machine_code(
    artifact: Callable[[], Artifact],
    folder: Path,
    *,
    may_compile: bool = True,
    problem_of: Callable[[Any], str | None] = driver_problem,
) -> Code | None:
    """The code of a file, compiled where it was not yet; None: it was not, and may not be.

    raises  Misconfigured E4541 - the file is not what was wanted; E4542 - it cannot be compiled or kept
    """
    with contextlib.ExitStack() as stack:
        file = artifact()
        stack.callback(os.close, file.fd)
        key = key_of(file.sha256)
        with _lock:
            key_lock = _key_locks.setdefault(key, threading.Lock())
        with key_lock:
            code = _loaded.get(key) or _load(key, folder, file)
            if code is None and may_compile:
                _compile(key, folder, file)
                code = _load(key, folder, file)
        if code is None:
            if may_compile:
                raise Misconfigured(f"{file.name}: its machine code cannot be loaded", code="E4542")
            return None
        _loaded[key] = code
        problem = problem_of(code.made)
        if problem is not None:
            raise Misconfigured(f"{file.name}: {problem}", code="E4541")
        return code


def compile_ahead(artifact: Callable[[], Artifact], folder: Path, role: Role) -> None:
    """Make and keep the machine code of a plugin's file before anybody waits for it. Raises as machine_code."""
    machine_code(artifact, folder, problem_of=rule.problem_of if role == "rule" else driver_problem)


def start(code: Code, host: Host, memory_max: int) -> Guest:
    """An instance; its start function has run. Raises Trapped.

    memory_max  bytes
    """
    made = code.made
    if isinstance(made, wasmtime.Module):
        return module.CoreGuest(made, host, memory_max)
    return component.ComponentGuest(made, host, memory_max)


def rule_module(artifact: Callable[[], Artifact], folder: Path, memory_max: int) -> rule.RuleModule:
    """A module of a rule, started. Raises Misconfigured E4541, E4542.

    memory_max  bytes
    """
    code = machine_code(artifact, folder, problem_of=rule.problem_of)
    assert code is not None, "it may be compiled"
    assert isinstance(code.made, wasmtime.Module), "problem_of has looked at it"
    try:
        return rule.RuleModule(code.made, memory_max)
    except GatewayError as error:
        raise Misconfigured(error.text, code="E4541") from error


def key_of(sha256: str) -> str:
    """Of the machine code of a file with this digest."""
    text = f"{sha256} {version('wasmtime')} {CONFIGURATION} {platform.machine()}"
    return hashlib.sha256(text.encode()).hexdigest()


def _load(key: str, folder: Path, file: Artifact) -> Code | None:
    """What was kept; None: nothing, or nothing of use."""
    path = folder / f"{key}.cwasm"
    try:
        owner = folder.stat()
        if owner.st_uid != os.geteuid() or stat.S_IMODE(owner.st_mode) & 0o077:
            raise Misconfigured(f"{folder}: others may write here; run `chmod 700`", code="E4542")
        with _sealed(path) as (number, digest):
            if digest != path.with_suffix(".sha256").read_text(encoding="ascii"):
                return None
            os.utime(path)
            kind = wasmtime.component.Component if is_component(os.pread(file.fd, 8, 0)) else wasmtime.Module
            return Code(kind.deserialize_file(engine(), f"/proc/self/fd/{number}"))
    except (OSError, wasmtime.WasmtimeError):  # the latter: made by another processor
        return None


@contextlib.contextmanager
def _sealed(path: Path) -> Iterator[tuple[int, str]]:
    """A copy that cannot change any more, and its digest: what was looked at is what is run."""
    number = os.memfd_create(path.name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        digest = hashlib.sha256()
        with path.open("rb") as kept:
            while part := kept.read(COPY_BYTES):
                digest.update(part)
                os.write(number, part)
        fcntl.fcntl(number, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
        yield number, digest.hexdigest()
    finally:
        os.close(number)


def _compile(key: str, folder: Path, file: Artifact) -> None:
    if file.size > WASM_BYTES_MAX:
        raise Misconfigured(f"{file.name}: longer than {WASM_BYTES_MAX >> 20} MiB", code="E4541")
    if os.pread(file.fd, 4, 0) != _MAGIC:
        raise Misconfigured(f"{file.name}: is no WASM file; build it anew", code="E4541")
    path = folder / f"{key}.cwasm"
    making = path.with_suffix(f".{os.getpid()}{MAKING}")  # a gateway and a command line may make the same at once
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        making.unlink(missing_ok=True)
        with os.fdopen(os.open(making, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w+b") as target:
            _run_helper(file, target.fileno())
            os.fsync(target.fileno())
            target.seek(0)
            digest = hashlib.file_digest(target, "sha256").hexdigest()
        path.with_suffix(".sha256").write_text(digest, encoding="ascii")
        making.replace(path)
        with contextlib.suppress(OSError):  # somebody else may tidy up as well
            _prune(folder)
    except OSError as error:
        reason = error.strerror or str(error)
        raise Misconfigured(f"{folder}: machine code cannot be kept here ({reason})", code="E4542") from error
    finally:
        with contextlib.suppress(OSError):
            making.unlink(missing_ok=True)


def _run_helper(file: Artifact, target: int) -> None:
    package = Path(__file__).resolve().parents[3]
    try:
        done = subprocess.run(
            (sys.executable, "-P", "-m", MODULE, str(file.fd), str(target)),
            pass_fds=(file.fd, target),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(package), *sys.path)))},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=COMPILE_S_MAX,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        text = f"{file.name}: was not compiled within {COMPILE_S_MAX} s; make it smaller"
        raise Misconfigured(text, code="E4542") from error
    if done.returncode == REFUSED:
        said = " ".join(done.stderr.decode("utf-8", "replace").split())[:MESSAGE_CHARACTERS_MAX]
        raise Misconfigured(f"{file.name}: is no valid WASM: {said}", code="E4541")
    if done.returncode:
        how = f"ended by signal {-done.returncode}" if done.returncode < 0 else f"ended ({done.returncode})"
        said = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2][:MESSAGE_CHARACTERS_MAX]
        raise Misconfigured(f"{file.name}: the compiler {how}; {said}", code="E4542")


def _prune(folder: Path) -> None:
    kept = sorted(folder.glob("*.cwasm"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in kept[FILES_MAX:]:
        path.unlink(missing_ok=True)
        path.with_suffix(".sha256").unlink(missing_ok=True)
    for left in folder.glob(f"*{MAKING}"):  # by a process that was killed
        if time.time() - left.stat().st_mtime > COMPILE_S_MAX:
            left.unlink(missing_ok=True)
