"""The way to wasmtime, which is an extra and takes 60 ms to import: taken when a sandbox is wanted, never before."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from framegate.carrier.wasm.world import Guest, Host
from framegate.contract.errors import Misconfigured
from framegate.contract.plugin import Artifact, Role


def machine_code(artifact: Callable[[], Artifact], folder: Path, *, may_compile: bool = True) -> Any | None:
    """See cache.machine_code. Blocks; raises Misconfigured E4540 too - wasmtime is not installed."""
    return _cache().machine_code(artifact, folder, may_compile=may_compile)


def compile_ahead(artifact: Callable[[], Artifact], folder: Path, role: Role) -> None:
    """See cache.compile_ahead. Blocks; raises as machine_code."""
    _cache().compile_ahead(artifact, folder, role)


def start(code: Any, host: Host, memory_max: int) -> Guest:
    """An instance of machine code. Raises Trapped."""
    return cast(Guest, _cache().start(code, host, memory_max))


def rule_module(artifact: Callable[[], Artifact], folder: Path, memory_max: int) -> Any:
    """See cache.rule_module. Blocks."""
    return _cache().rule_module(artifact, folder, memory_max)


def _cache() -> Any:
    try:
        return import_module("framegate.carrier.wasm.cache")
    except ImportError as error:
        text = "sandboxed plugins need the package wasmtime, which is not installed (or not made for this machine)"
        raise Misconfigured(f"{text}; run `pip install 'framegate[wasm]'`", code="E4540") from error
