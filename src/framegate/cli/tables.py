"""Tables of a home, read and checked: the one walk that `edge check` and `edge run` share.

A table's mistakes are told line by line, with file, line and column; what only a plugin's code can judge included.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from framegate.cli.talk import warn
from framegate.config import Tables, check_plugins, lint_tables, load_tables
from framegate.config.history import Texts
from framegate.contract.errors import Misconfigured, Problem
from framegate.gateway.binding import Factories
from framegate.gateway.home import Home
from framegate.gateway.rules import check_rules
from framegate.observe.log import make_log
from framegate.package.discover import Plugins, discover
from framegate.package.shelf import ACTIVE

if TYPE_CHECKING:
    from framegate.package.store import PluginStore

UNSIGNED_FOLDERS_VARIABLE = "EDGE_UNSIGNED_PLUGINS"
"""Folders of plugins that are being developed, separated by colons; whoever names them trusts what is in them."""


def plugins_of(home: Home) -> Plugins:
    """Built-in plugins and those of the home; broken ones are warned about and left out."""
    unsigned = [Path(name) for name in os.environ.get(UNSIGNED_FOLDERS_VARIABLE, "").split(":") if name]
    for folder in unsigned:
        warn(f"plugins in {folder} are not signed, and trusted because {UNSIGNED_FOLDERS_VARIABLE} names it")
    plugins = discover(unsigned, _store_of(home))
    for problem in plugins.problems:
        warn(str(problem))
    return plugins


def _store_of(home: Home) -> PluginStore | None:
    """Installed plugins; None where there are none, as the library for signatures costs 50 ms and some MiB."""
    if not (home.plugins / ACTIVE).is_dir():
        return None
    from framegate.package.store import PluginStore  # noqa: PLC0415

    return PluginStore(home.plugins)


def read_tables(home: Home, plugins: Plugins, texts: Texts | None = None) -> Tables:
    """The tables by themselves, of the home's files or of these texts; raises Misconfigured with every problem."""
    return load_tables(home.config, plugins, texts)


def check_with_plugins(tables: Tables, plugins: Plugins, home: Home) -> None:
    """What plugins and kinds of rules say to their rows; raises Misconfigured with every problem."""
    factories = Factories(plugins, home)
    check_plugins(tables, factories.driver, factories.connector, factories.bridge)
    check_rules(tables.rules, tables.variables, home, plugins, make_log(level="error"))


def all_problems(home: Home, plugins: Plugins) -> tuple[Tables | None, Sequence[Problem]]:
    """Tables when they can work, and everything that is wrong with them; warnings are in the tables."""
    try:
        tables = read_tables(home, plugins)
        check_with_plugins(tables, plugins, home)
        linted = lint_tables(tables, Factories(plugins, home).driver, home.config)
    except Misconfigured as error:
        if not error.problems:
            raise
        return None, error.problems
    return replace(tables, warnings=(*tables.warnings, *linted)), ()
