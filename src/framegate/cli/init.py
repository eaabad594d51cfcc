"""`edge init`: commented sample tables to begin with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from framegate.cli.talk import say
from framegate.config import write_samples
from framegate.gateway.home import Home
from framegate.package.discover import discover


def init(folder: Annotated[Path, Parameter(help="The home to make.")], /) -> None:
    """Make a home folder with sample tables that pass `edge check`. Nothing that exists is overwritten."""
    home = Home(folder.resolve())
    for path in write_samples(home.config, discover()):
        print(path)  # noqa: T201 - the data of this verb
    say(f"next: edit the tables, then `edge check --home {folder}` and `edge run --home {folder}`")
