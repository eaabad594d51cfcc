"""`edge run`: the gateway of one home, in the foreground, until SIGTERM or Ctrl-C."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from framegate.cli.options import HOME_DEFAULT, CentreOption, HomeOption
from framegate.cli.service import serve


def run(
    *,
    home: HomeOption = HOME_DEFAULT,
    strict: Annotated[
        bool, Parameter(negative=(), help="End with code 78 where the tables are wrong, also if older ones would work.")
    ] = False,
    config_centre: CentreOption = None,
) -> int:
    """Run the gateway of a home until it is asked to stop. A second Ctrl-C ends it at once; the log survives that."""
    return serve(home, is_strict=strict, config_centre=config_centre)
