"""The compilers that turn a driver's project into its artifact, and where they are on this machine.

A recipe is commands for one language; nothing of it runs here. Which compiler is missing is said together with how to
get it.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from framegate.contract.errors import Misconfigured
from framegate.contract.law import law_folder

WIT_WORLD = "driver"
RUST_WASM = "wasm32-wasip1"
JS_COMPONENTIZER = "componentize-qjs@0.4.5"
WASM_STACK_BYTES = 65536
"""Of C: zig's own default, 16 MiB, is what every instance would hold."""
ASK_S_MAX = 20.0
"""For a compiler that is asked what it can do."""
GLIBC = "2.28"
"""Oldest C library that a cross-built native driver runs on: Debian 10, RHEL 8."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one project is built.

    commands  run in the project's folder, one after the other; the last one writes `made`
    variables of the environment, beside those of the caller
    """

    language: str
    made: Path
    commands: Sequence[Sequence[str]]
    variables: Mapping[str, str] = field(default_factory=dict)


Chef: TypeAlias = Callable[[Path, Path, str], Recipe]
"""(project's folder, file to make, arch) -> its recipe; raises Misconfigured E4683."""


def host_arch() -> str:
    """The machine we are on, as driver.toml names it: x86_64-linux, aarch64-linux."""
    return f"{platform.machine()}-linux"


def native_recipe(folder: Path, made: Path, arch: str) -> Recipe | None:
    """For a shared library, by the source that is there; None: no source that is known."""
    return _by_source({"driver.c": _c_native, "lib.rs": _rust_native}, folder, made, arch)


def wasm_recipe(folder: Path, made: Path, arch: str) -> Recipe | None:
    """For a WASM module or component."""
    chefs = {
        "driver.c": _c_wasm,
        "lib.rs": _rust_wasm,
        "go.mod": _go_wasm,
        "driver.js": _js_wasm,
        "app.py": _python_wasm,
    }
    return _by_source(chefs, folder, made, arch)


def _by_source(chefs: Mapping[str, Chef], folder: Path, made: Path, arch: str) -> Recipe | None:
    return next((chef(folder, made, arch) for source, chef in chefs.items() if (folder / source).is_file()), None)


def _c_native(folder: Path, made: Path, arch: str) -> Recipe:
    flags = ["-std=c11", "-O2", "-Wall", "-Wextra", "-fPIC", "-shared", "-fvisibility=hidden", "-s"]
    own = shlex.split(os.environ.get("CC", ""))
    found = next((tool for tool in (*own[:1], "cc", "gcc", "clang") if shutil.which(tool)), None)
    if arch == host_arch() and found is not None:
        compiler = own if own and found == own[0] else [found]
    else:
        cpu = arch.removesuffix("-linux")
        compiler = [*_zig(f"a C compiler for {arch}"), "cc", "-target", f"{cpu}-linux-gnu.{GLIBC}"]
    return Recipe("C", made, [[*compiler, *flags, "-o", str(made), *_sources(folder, without="wasm.c")]])


def _c_wasm(folder: Path, made: Path, arch: str) -> Recipe:
    flags = ["-target", "wasm32-wasi", "-mexec-model=reactor", "-Os", "-s", "-Wall", "-Wextra"]
    flags.append(f"-Wl,-z,stack-size={WASM_STACK_BYTES}")
    return Recipe("C", made, [[*_zig("a C compiler for WASM"), "cc", *flags, "-o", str(made), *_sources(folder)]])


def _sources(folder: Path, without: str = "") -> list[str]:
    return sorted(path.name for path in folder.glob("*.c") if path.name != without)


def _zig(purpose: str) -> list[str]:
    if shutil.which("zig"):
        return ["zig"]
    if importlib.util.find_spec("ziglang") is not None:
        return [sys.executable, "-m", "ziglang"]
    raise _missing(f"{purpose}: zig", "`pip install ziglang`, or https://ziglang.org/download")


def _rust_native(folder: Path, made: Path, arch: str) -> Recipe:
    if arch != host_arch():
        hint = f"a machine that is one, or `rustup target add` and a linker for it; this one is {host_arch()}"
        raise _missing(f"Rust for {arch}", hint)
    flags = ["--edition", "2021", "--crate-type", "cdylib", "-O", "-C", "strip=symbols"]
    return Recipe("Rust", made, [[_rustc(), *flags, "-o", str(made), "lib.rs"]])


def _rust_wasm(folder: Path, made: Path, arch: str) -> Recipe:
    rustc = _rustc()
    if not _has_rust_target(rustc):
        raise _missing(f"Rust's standard library for {RUST_WASM}", f"`rustup target add {RUST_WASM}`")
    flags = ["--target", RUST_WASM, "--edition", "2021", "--crate-type", "cdylib", "-C", "opt-level=s"]
    flags += ["-C", "panic=abort", "-C", "lto=fat", "-C", "strip=symbols"]
    flags += ["-C", "link-arg=-z", "-C", f"link-arg=stack-size={WASM_STACK_BYTES}"]
    return Recipe("Rust", made, [[rustc, *flags, "-o", str(made), "lib.rs"]])


def _rustc() -> str:
    return _tool("rustc", "Rust", "https://rustup.rs, or apt install rustc")


def _has_rust_target(rustc: str) -> bool:
    command = [rustc, "--print", "target-libdir", "--target", RUST_WASM]
    found = subprocess.run(command, capture_output=True, text=True, timeout=ASK_S_MAX, check=False)
    return found.returncode == 0 and Path(found.stdout.strip()).is_dir()


def _go_wasm(folder: Path, made: Path, arch: str) -> Recipe:
    go = _tool("go", "Go 1.24 or later", "https://go.dev/dl, or apt install golang-go")
    command = [go, "build", "-trimpath", "-buildmode=c-shared", "-ldflags=-s -w", "-o", str(made), "."]
    return Recipe("Go", made, [command], {"GOOS": "wasip1", "GOARCH": "wasm", "GOTOOLCHAIN": "local"})


def _js_wasm(folder: Path, made: Path, arch: str) -> Recipe:
    npx = _tool("npx", "Node.js with npm", "https://nodejs.org, or apt install nodejs npm")
    flags = ["-w", str(law_folder() / "driver.wit"), "-n", WIT_WORLD, "-j", "driver.js", "--sync", "-o", str(made)]
    return Recipe("JavaScript", made, [[npx, "--yes", JS_COMPONENTIZER, *flags]])


def _python_wasm(folder: Path, made: Path, arch: str) -> Recipe:
    beside = Path(sys.executable).with_name("componentize-py")
    tool = (
        str(beside) if beside.is_file() else _tool("componentize-py", "componentize-py", "pip install componentize-py")
    )
    flags = ["-q", "-d", str(law_folder() / "driver.wit"), "-w", WIT_WORLD, "componentize", "app", "-o", str(made)]
    # It would bundle the packages of the environment that is active; a driver has its own modules only.
    return Recipe("Python", made, [[tool, *flags]], {"VIRTUAL_ENV": "", "PYTHONPATH": ""})


def _tool(name: str, what: str, how: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise _missing(what, how)
    return found


def _missing(what: str, how: str) -> Misconfigured:
    return Misconfigured(f"{what} is not on this machine; get it with {how}", code="E4683")
