"""The verbs of `edge`, by name. None of them is imported before it is called."""

from __future__ import annotations

from cyclopts import App

from framegate import __version__


def make_app() -> App:
    """All verbs, none of them imported yet."""
    app = App(
        name="edge",
        help="Framegate: every field protocol in, one canonical frame, every system out.",
        version=f"framegate {__version__}",
        help_format="plaintext",
        suppress_keyboard_interrupt=False,
    )
    app.command("framegate.cli.run:run", name="run", help="Run the gateway of a home folder.")
    app.command("framegate.cli.demo:demo", name="demo", help="Play a simulated plant through this gateway.")
    app.command("framegate.cli.check:check", name="check", help="Check the tables, offline; shows every problem.")
    app.command("framegate.cli.init:init", name="init", help="Write commented sample tables.")
    app.command("framegate.cli.top:top", name="top", help="Watch a running gateway: devices, connectors, log.")
    app.command(
        _group(
            "tags",
            "Tags of a running gateway.",
            {"ls": "List tags and values.", "get": "Show tags by name.", "watch": "Follow changes."},
        )
    )
    app.command(
        _group(
            "wal",
            "The durable log.",
            {"stat": "How full it is, who lags.", "ls": "Records and gaps.", "verify": "Read and check every record."},
        )
    )
    app.command("framegate.cli.version:version", name="version", help="Show the version.")
    return app


def _group(noun: str, help_: str, verbs: dict[str, str]) -> App:
    group = App(name=noun, help=help_)
    for verb, text in verbs.items():
        group.command(f"framegate.cli.{noun}:{verb}", name=verb, help=text)
    return group
