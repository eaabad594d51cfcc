"""Drivers and rules in a sandbox: WebAssembly under wasmtime, which is imported when the first one is opened."""

from framegate.carrier.wasm.driver import WasmDriver

__all__ = ["WasmDriver"]
