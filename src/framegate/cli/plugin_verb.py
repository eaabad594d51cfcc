"""`edge PLUGIN ...`: verbs that a plugin brings along, such as those for its certificates.

The core names no plugin: a first word that is no verb of `edge` is looked for among the plugins that declare
`[command]` (contract/plugin.py). What the plugin answers is shown as rows.
"""

from __future__ import annotations

from collections.abc import Sequence

from cyclopts import App

from framegate.cli import exits
from framegate.cli.app import VERBS
from framegate.cli.options import HOME_DEFAULT, HomeOption, OutputOption
from framegate.cli.output import write_rows
from framegate.contract.plugin import Manifest
from framegate.gateway.home import Home
from framegate.package.discover import discover, load_role


def mount_plugin(app: App, words: Sequence[str]) -> None:
    """Add the verb that these words begin with, if a plugin has it."""
    name = words[0] if words else ""
    if not name or name in VERBS or name.startswith("-"):
        return
    manifest = discover().get(name)
    if manifest is not None and "command" in manifest.roles:
        _mount(app, manifest)


def _mount(app: App, manifest: Manifest) -> None:
    def verb(*words: str, home: HomeOption = HOME_DEFAULT, output: OutputOption = None) -> int:
        run = load_role(manifest, "command")
        rows = run(words, Home(home.resolve()).private(manifest.name))
        write_rows(rows, tuple(rows[0]) if rows else (), output)
        return exits.OK

    app.command(verb, name=manifest.name, help=f"Verbs of the plugin {manifest.name}: {manifest.summary}.")
