"""`edge plugin new`: a project to begin with, that already works."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from framegate.cli import exits
from framegate.cli.talk import say
from framegate.package.template import Language, render, write_project
from framegate.package.toolchain import host_arch


def new(
    kind: Annotated[Literal["driver"], Parameter(help="What to make: driver.")],
    name: Annotated[str, Parameter(help="Name of the driver, as `plugin:` in drivers.yml will have it.")],
    /,
    *,
    lang: Annotated[Language, Parameter(help="Language to write it in.")] = "python",
    wasm: Annotated[
        bool, Parameter(negative="", help="For the sandbox, also where the language could be native; go and js always.")
    ] = False,
    into: Annotated[Path, Parameter(help="Folder to make the project's folder in.")] = Path(),
) -> int:
    """Write a driver's project: source, manifest, schema, test vectors, a simulated device, a README."""
    folder = into / name
    write_project(folder, render(name, lang, host_arch(), is_wasm=wasm))
    print(folder)  # noqa: T201 - the data of this verb
    program = Path(__file__).resolve().parents[3] / "edge"
    if shutil.which("edge") is None and program.is_file():
        say(f'`edge` is not on your PATH: export PATH="$PATH:{program.parent}"')
    say(f"next: cd {folder} && edge plugin build && edge plugin test; README.md tells the rest")
    return exits.OK
