"""Where modules of rules come from: a file in HOME/rules, or an installed plugin with the role `rule`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from framegate.contract.errors import Misconfigured
from framegate.contract.plugin import Artifact, Manifest
from framegate.gateway.home import Home
from framegate.gateway.plugins.carriers import artifact_of
from framegate.mapper.rules.rule import MakeModule, RowModule
from framegate.package.sealed import sealed_bytes

MODULE_BYTES_MAX = 16 << 20


def maker_of_modules(home: Home, plugins: Mapping[str, Manifest]) -> MakeModule:
    """Makes modules; compiling one that is new blocks. plugins: that rows can name, in the versions that are meant."""

    def make(source: Mapping[str, str], memory_max: int) -> RowModule:
        def artifact() -> Artifact:
            if "plugin" in source:
                return artifact_of(_manifest(source["plugin"], plugins), "rule", home)
            return _file(home, source["file"])

        try:
            load: Any = import_module("framegate.carrier.wasm.load")
            module: RowModule = load.rule_module(artifact, home.plugin_cache, memory_max)
        except Misconfigured as error:
            raise Misconfigured(error.text, code="E4560") from error
        return module

    return make


def _manifest(name: str, plugins: Mapping[str, Manifest]) -> Manifest:
    manifest = plugins.get(name)
    if manifest is None:
        raise Misconfigured(f"no plugin {name} is installed; `edge plugin ls` lists them", code="E4560")
    if "rule" not in manifest.roles:
        raise Misconfigured(f"plugin {name} has no rule; it has {', '.join(manifest.roles)}", code="E4560")
    return manifest


def _file(home: Home, name: str) -> Artifact:
    path = home.rules / name
    try:
        if path.stat().st_size > MODULE_BYTES_MAX:
            raise Misconfigured(f"{path}: longer than {MODULE_BYTES_MAX >> 20} MiB", code="E4560")
        return sealed_bytes(path.name, path.read_bytes())
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        text = f"{path} cannot be read ({reason}); put the module there, or correct `file`"
        raise Misconfigured(text, code="E4560") from error
