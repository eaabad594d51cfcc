"""Which plugins there are, and how one role of one is loaded.

Manifests are found in four places, in this order: the built-in package beside the core, the entry points group
`framegate.plugins` of installed distributions, plugin directories, and the packages of a store. Nothing of a plugin is
imported to find it; `load_role` imports the one module that is needed, from the plugin's folder. A broken plugin is a
problem of its own and never hides another. How installed packages are loaded: gateway/plugins/modules.py.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from framegate.contract.errors import Misconfigured
from framegate.contract.plugin import PLUGIN_API, Manifest, Role, api_for
from framegate.package.manifest import MANIFEST_NAME, read_manifest

if TYPE_CHECKING:
    from framegate.package.store import PluginStore

BUILT_IN_PACKAGE = "framegate_plugins"
ENTRY_POINT_GROUP = "framegate.plugins"
PLUGINS_MAX = 1000  # folders looked at per place


class Plugins(dict[str, Manifest]):
    """Manifests by the name that `plugin:` uses in drivers.yml.

    problems   one error for each plugin that cannot be used; the others are not affected
    """

    def __init__(self) -> None:
        super().__init__()
        self.problems: list[Misconfigured] = []

    def add(self, manifest: Manifest) -> None:
        """Take a plugin in; the first one keeps its name."""
        taken = self.setdefault(manifest.name, manifest)
        if taken.folder.resolve() != manifest.folder.resolve():
            text = (
                f"{manifest.folder}: the name {manifest.name} belongs to the plugin in {taken.folder}; rename one, "
                "or remove one"
            )
            self.problems.append(Misconfigured(text, code="E1203"))


def discover(folders: Sequence[Path] = (), store: PluginStore | None = None) -> Plugins:
    """Every plugin, by name; what is broken is in `problems` of the result.

    folders  plugin directories: each holds one folder per plugin, or is a plugin's folder itself; nothing in them is
             signed, so that only whoever develops a plugin names them
    store    installed packages, each of them verified
    """
    plugins = Plugins()
    for folder in [*_built_in(), *_installed(plugins), *_listed(folders, plugins)]:
        try:
            manifest = read_manifest(folder / MANIFEST_NAME)
        except Misconfigured as error:
            plugins.problems.append(error)
            continue
        plugins.add(manifest)
    for manifest in [] if store is None else store.active(plugins.problems):
        plugins.add(manifest)
    return plugins


def is_built_in(name: str) -> bool:
    """Does a plugin of that name come with the gateway?"""
    return any(folder.name == name for folder in _built_in())


def load_role(manifest: Manifest, role: Role) -> Callable[..., Any]:
    """The class (driver, connector, bridge) or function (simulator) of one role; imports its module.

    raises Misconfigured E1202 - another plugin API; E1205 - no such role; E1206 - module or name missing, or broken;
           E1207 - a package it needs is not installed; E1208 - another module of that name is in the way
    """
    if api_for(manifest.api) is None:
        text = f"plugin {manifest.name}: speaks plugin API {manifest.api}, this gateway {PLUGIN_API}; install a match"
        raise Misconfigured(text, code="E1202")
    entry = manifest.roles.get(role)
    if entry is None:
        raise Misconfigured(
            f"plugin {manifest.name}: has no {role}; it offers {', '.join(manifest.roles)}", code="E1205"
        )
    module_name, _, attribute = entry.entry.partition(":")
    module = _import(manifest, role, module_name)
    found = getattr(module, attribute, None)
    if not callable(found):
        near = get_close_matches(attribute, [name for name in dir(module) if not name.startswith("_")], n=1)
        guess = f" (did you mean {near[0]}?)" if near else ""
        raise Misconfigured(
            f"{manifest.folder / MANIFEST_NAME}: {role}.entry: module {module_name} has no {attribute}{guess}; "
            "correct the entry",
            code="E1206",
        )
    return found  # type: ignore[no-any-return]  # callable, and that is all a manifest can promise


def _import(manifest: Manifest, role: Role, module_name: str) -> ModuleType:
    place = f"{manifest.folder / MANIFEST_NAME}: {role}.entry"
    top = module_name.partition(".")[0]
    if top not in sys.modules and importlib.util.find_spec(top) is None and manifest.folder.name == top:
        sys.path.append(str(manifest.folder.parent))  # last, so that a plugin directory never hides a module
        importlib.invalidate_caches()
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if module_name == missing or module_name.startswith(f"{missing}."):
            raise Misconfigured(f"{place}: there is no module {missing}; correct the entry", code="E1206") from error
        extra = f"framegate[{manifest.name}]" if top == BUILT_IN_PACKAGE else missing
        raise Misconfigured(
            f"plugin {manifest.name}: needs the package {missing}, which is not installed; install {extra}",
            code="E1207",
        ) from error
    except Exception as error:  # the edge to foreign code: whatever it raises is told as one error
        raise Misconfigured(
            f"{place}: module {module_name} fails on import ({type(error).__name__}: {error}); repair or reinstall "
            f"plugin {manifest.name}",
            code="E1206",
        ) from error
    file = getattr(module, "__file__", None)
    if file is None or not Path(file).resolve().is_relative_to(manifest.folder.resolve()):
        raise Misconfigured(
            f"{place}: module {module_name} is found at {file}, outside {manifest.folder}; rename the plugin's package",
            code="E1208",
        )
    return module


def _built_in() -> Iterator[Path]:
    spec = importlib.util.find_spec(BUILT_IN_PACKAGE)  # a namespace: its search does not run any code
    for place in [] if spec is None else spec.submodule_search_locations or []:
        yield from _folders_in(Path(place))


def _installed(plugins: Plugins) -> Iterator[Path]:
    for entry_point in entry_points(group=ENTRY_POINT_GROUP):
        folder = _folder_of(entry_point)
        if folder is not None and (folder / MANIFEST_NAME).is_file():
            yield folder
            continue
        plugins.problems.append(
            Misconfigured(
                f"entry point {entry_point.name} of {ENTRY_POINT_GROUP}: package {entry_point.value} holds no "
                f"{MANIFEST_NAME}; reinstall that distribution",
                code="E1200",
            )
        )


def _folder_of(entry_point: EntryPoint) -> Path | None:
    """Folder of the package an entry point names, found without importing its parents."""
    top, *rest = entry_point.value.partition(":")[0].strip().split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    for place in [] if spec is None else spec.submodule_search_locations or []:
        folder = Path(place).joinpath(*rest)
        if folder.is_dir():
            return folder
    return None


def _listed(folders: Sequence[Path], plugins: Plugins) -> Iterator[Path]:
    for folder in folders:
        if (folder / MANIFEST_NAME).is_file():
            yield folder
            continue
        try:
            yield from _folders_in(folder)
        except OSError as error:
            reason = error.strerror or str(error)
            text = f"plugin directory {folder}: cannot be read ({reason}); correct the path or its rights"
            plugins.problems.append(Misconfigured(text, code="E1200"))


def _folders_in(place: Path) -> Iterator[Path]:
    """Plugin folders, by name; names that begin with _ or . are not plugins (templates, caches)."""
    for folder in sorted(place.iterdir())[:PLUGINS_MAX]:
        if not folder.name.startswith(("_", ".")) and (folder / MANIFEST_NAME).is_file():
            yield folder
