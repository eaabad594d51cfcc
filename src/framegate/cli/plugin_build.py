"""`edge plugin build`: from source to the file that a gateway loads."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from framegate.cli import exits
from framegate.cli.options import OutputOption
from framegate.cli.output import write_record
from framegate.cli.talk import say
from framegate.package import build as building


def build(
    folder: Annotated[Path, Parameter(help="The driver's folder.")] = Path(),
    /,
    *,
    output: OutputOption = None,
) -> int:
    """Build a driver's project with the compiler of its language."""
    built = building.build(folder, say)
    if built.artifact is None:
        say(f"{built.manifest.name} is Python: nothing to build; next: edge plugin test")
        return exits.OK
    content = built.artifact.read_bytes()
    record = {
        "artifact": str(built.artifact),
        "language": built.language,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "seconds": round(built.seconds, 1),
    }
    write_record(record, output)
    return exits.OK
