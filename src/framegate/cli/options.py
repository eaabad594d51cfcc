"""Options that several verbs share: which home, which form of output."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

from cyclopts import Parameter

from framegate.cli.output import Format

HOME_DEFAULT = Path("/opt/edge")

HomeOption: TypeAlias = Annotated[
    Path,
    Parameter(name="--home", env_var="EDGE_HOME", help="The gateway's folder, with config, data and run."),
]
CentreOption: TypeAlias = Annotated[
    Path | None,
    Parameter(
        name="--config-centre",
        env_var="EDGE_CONFIG_CENTRE",
        help="File that names the etcd; HOME/config-centre.yml if absent.",
    ),
]
OutputOption: TypeAlias = Annotated[
    Format | None,
    Parameter(name=["--output", "-o"], help="Form of the data; table on a terminal, else jsonl."),
]
