"""Python code of installed plugins: each version in a name space of its own, loaded from the bytes that were signed.

While one version takes over from another both run, so neither may own the name `acme` in `sys.modules`. A version's
modules are imported as `edge_acme_1a2b3c4d5e6f.acme.driver`; where they import each other by their plain names, the
names in their syntax trees are told apart the same way. What is made up at run time (importlib.import_module with a
text) is not. Every file is hashed as it is read and compared with the signed manifest: what was verified is what runs.

Built-in plugins and folders under development are imported by their own names (package/discover.py).
"""

from __future__ import annotations

import ast
import hashlib
import os
import re
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import PurePosixPath
from types import ModuleType
from typing import Any

from framegate.contract.errors import Misconfigured
from framegate.contract.plugin import Manifest, Role
from framegate.package.sealed import prefix_of, sealed_file

_DIGEST_DIGITS = 12
_INIT = "__init__.py"


def load_installed(manifest: Manifest, role: Role) -> Callable[..., Any]:
    """The class or function of one role of an installed plugin.

    raises Misconfigured E1205 - no such role; E4613 - a file is not as signed; E4663 - it cannot be loaded
    """
    entry = manifest.roles.get(role)
    if entry is None:
        text = f"plugin {manifest.name}: has no {role}; it offers {', '.join(manifest.roles)}"
        raise Misconfigured(text, code="E1205")
    module_name, _, attribute = entry.entry.partition(":")
    where = f"plugin {manifest.name} {manifest.version}: {role}.entry {entry.entry}"
    root = _FINDER.know(manifest)
    try:
        found = getattr(import_module(f"{root}.{module_name}"), attribute, None)
    except Misconfigured:
        raise
    except ModuleNotFoundError as error:
        missing = (error.name or "").removeprefix(f"{root}.")
        text = f"{where}: needs the module {missing}, which neither the package holds nor is installed"
        raise Misconfigured(f"{text}; install it, or another version of the plugin", code="E4663") from error
    except Exception as error:  # the edge to foreign code: whatever it raises is told as one error
        text = f"{where}: fails on import ({type(error).__name__}: {error}); install another version of the plugin"
        raise Misconfigured(text, code="E4663") from error
    if not callable(found):
        text = f"{where}: the module has no such class; install another version of the plugin"
        raise Misconfigured(text, code="E4663")
    return found  # type: ignore[no-any-return]  # callable, and that is all a manifest can promise


def forget_installed(manifest: Manifest) -> None:
    """Let go of a version's modules; objects that still live keep what they have. Idempotent."""
    root = _FINDER.forget(manifest)
    for name in [name for name in sys.modules if name == root or name.startswith(f"{root}.")]:
        del sys.modules[name]


def root_of(manifest: Manifest) -> str:
    """Name space of a version: by its contents, so that two packages with one version number are told apart."""
    told = repr((manifest.name, manifest.version, sorted(manifest.files.items()))).encode()
    plain = re.sub(r"\W", "_", manifest.name)
    return f"edge_{plain}_{hashlib.sha256(told).hexdigest()[:_DIGEST_DIGITS]}"


class _Finder(MetaPathFinder):
    """Finds the modules of versions that are known."""

    def __init__(self) -> None:
        self._versions: dict[str, Manifest] = {}

    def know(self, manifest: Manifest) -> str:
        root = root_of(manifest)
        self._versions[root] = manifest  # its folder may have moved
        if self not in sys.meta_path:
            sys.meta_path.append(self)
        return root

    def forget(self, manifest: Manifest) -> str:
        root = root_of(manifest)
        self._versions.pop(root, None)
        return root

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        root, _, inner = fullname.partition(".")
        manifest = self._versions.get(root)
        if manifest is None:
            return None
        place, files = inner.replace(".", "/"), _modules_of(manifest)
        if not inner or any(name.startswith(f"{place}/") for name in files):
            file = files.get(f"{place}/{_INIT}", "") if inner else ""
            return _spec(fullname, manifest, file, is_package=True)
        file = files.get(f"{place}.py", "")
        return _spec(fullname, manifest, file, is_package=False) if file else None


def _modules_of(manifest: Manifest) -> dict[str, str]:
    """Files of a package by the place that their modules have; one whose modules lie flat may be one Python package."""
    prefix = prefix_of(manifest)
    return {f"{prefix}{name}": name for name in manifest.files}


def _spec(fullname: str, manifest: Manifest, file: str, *, is_package: bool) -> ModuleSpec:
    """file: "" for a folder without code"""
    origin = str(manifest.folder / file) if file else None
    return ModuleSpec(fullname, _Loader(manifest, file), origin=origin, is_package=is_package)


class _Loader(Loader):
    """Reads one module of a version, and the files beside it (pkgutil.get_data)."""

    def __init__(self, manifest: Manifest, file: str) -> None:
        self._manifest, self._file = manifest, file

    def exec_module(self, module: ModuleType) -> None:
        if not self._file:
            return
        path = str(self._manifest.folder / self._file)
        module.__file__ = path
        tree = ast.parse(self._bytes(self._file), path)
        own = {PurePosixPath(name).parts[0].removesuffix(".py") for name in _modules_of(self._manifest)}
        tree = ast.fix_missing_locations(_OwnNames(root_of(self._manifest), own).visit(tree))
        code = compile(tree, path, "exec", dont_inherit=True)
        exec(code, module.__dict__)  # noqa: S102 - this is what loading a module is

    def get_data(self, path: str) -> bytes:
        """Source: importlib.abc.ResourceLoader."""
        folder = self._manifest.folder
        name = path.removeprefix(f"{folder}/")
        if name not in self._manifest.files:
            raise FileNotFoundError(path)
        return self._bytes(name)

    def _bytes(self, name: str) -> bytes:
        """A file of the package, as it was signed; raises Misconfigured E4613, E4615."""
        artifact = sealed_file(self._manifest, name)
        try:
            return os.pread(artifact.fd, artifact.size, 0)
        finally:
            os.close(artifact.fd)


class _OwnNames(ast.NodeTransformer):
    """Imports of the package's own modules, put into its name space.

    own  first names of its modules
    """

    def __init__(self, root: str, own: set[str]) -> None:
        self._root, self._own = root, own

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST:
        if node.level == 0 and node.module and self._is_own(node.module):
            node.module = f"{self._root}.{node.module}"
        return node

    def visit_Import(self, node: ast.Import) -> list[ast.stmt]:
        return [ast.copy_location(made, node) for alias in node.names for made in self._of(alias)]

    def _of(self, alias: ast.alias) -> list[ast.stmt]:
        """`import a.b` imports a.b and binds a; `import a.b as c` binds a.b."""
        if not self._is_own(alias.name):
            return [ast.Import([alias])]
        whole = ast.Import([ast.alias(f"{self._root}.{alias.name}", alias.asname)])
        if alias.asname:
            return [whole]
        return [whole, ast.ImportFrom(self._root, [ast.alias(alias.name.partition(".")[0])], 0)]

    def _is_own(self, name: str) -> bool:
        return name.partition(".")[0] in self._own


_FINDER = _Finder()
