"""The verbs of `edge`, by name. None of them is imported before it is called."""

from __future__ import annotations

from collections.abc import Mapping

from cyclopts import App

from framegate import __version__

VERBS: Mapping[str, str] = {
    "run": "Run the gateway of a home folder.",
    "demo": "Play a simulated plant through this gateway.",
    "verify-delivery": "Break things on purpose and count what became of every row.",
    "check": "Check the tables, offline; shows every problem.",
    "init": "Write commented sample tables.",
    "top": "Watch a running gateway: devices, connectors, log.",
    "tags": "Tags of a running gateway.",
    "wal": "The durable log.",
    "dlq": "Messages that a remote refused for good.",
    "cfg": "The tables' schemas.",
    "export": "Write a table as a spreadsheet, CSV or XLSX.",
    "import": "Bring tags of a spreadsheet into variables.yml.",
    "version": "Show the version.",
}
GROUPS: Mapping[str, Mapping[str, str]] = {
    "cfg": {"schema": "Show or write the JSON Schemas of the tables, for editors."},
    "tags": {"ls": "List tags and values.", "get": "Show tags by name.", "watch": "Follow changes."},
    "wal": {
        "stat": "How full it is, who lags.",
        "ls": "Records and gaps.",
        "verify": "Read and check every record.",
        "rewind": "Deliver again to a remote that has lost what it acknowledged.",
    },
    "dlq": {
        "ls": "List them, with the reason.",
        "retry": "Send them again through the running gateway.",
        "export": "Write them to a file, payloads included.",
        "drop": "Throw them away.",
    },
}
"""Verbs of two words, by the first."""
PLACES: Mapping[str, str] = {
    "verify-delivery": "framegate.cli.verify.command:verify_delivery",
    "export": "framegate.cli.sheet:export_table",
    "import": "framegate.cli.sheet:import_table",
}
"""Verbs that are no name of Python's, and where they are."""


def make_app() -> App:
    """The whole command line."""
    app = App(
        name="edge",
        help="Framegate: every field protocol in, one canonical frame, every system out.",
        version=f"framegate {__version__}",
        help_format="plaintext",
        suppress_keyboard_interrupt=False,
    )
    for verb, text in VERBS.items():
        if verb in GROUPS:
            app.command(_group(verb, text))
        else:
            app.command(PLACES.get(verb, f"framegate.cli.{verb}:{verb}"), name=verb, help=text)
    return app


def _group(noun: str, text: str) -> App:
    group = App(name=noun, help=text)
    for verb, verb_text in GROUPS[noun].items():
        group.command(f"framegate.cli.{noun}:{verb}", name=verb, help=verb_text)
    return group
