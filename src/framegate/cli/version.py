"""`edge version`: what runs, in any form of output."""

from __future__ import annotations

from framegate.cli.facts import version_facts
from framegate.cli.options import OutputOption
from framegate.cli.output import write_record


def version(*, output: OutputOption = None) -> None:
    """Show the version, the Python that runs it, and the machine."""
    write_record(version_facts(), output)
