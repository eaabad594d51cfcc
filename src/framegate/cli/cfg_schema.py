"""`edge cfg`: the tables as other programs want them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from framegate.cli import exits
from framegate.cli.options import HOME_DEFAULT, HomeOption
from framegate.cli.tables import plugins_of
from framegate.config import merge_schemas
from framegate.config.schema import TABLES, Language, Table, schema_text
from framegate.contract.errors import Misconfigured
from framegate.gateway.home import Home


def schema(
    table: Annotated[Table | None, Parameter(help="Which table; all of them with --out.")] = None,
    /,
    *,
    lang: Annotated[Language, Parameter(help="Language of the descriptions.")] = "en",
    out: Annotated[Path | None, Parameter(help="Folder for TABLE.schema.json; older ones are replaced.")] = None,
    home: HomeOption = HOME_DEFAULT,
) -> int:
    """Show the JSON Schema of a table, or write those of all tables; keys of the plugins are part of them.

    `edge init` writes them to config/schemas, where the first line of each sample table leads editors.
    """
    merged = merge_schemas(plugins_of(Home(home.resolve())), lang)
    chosen = TABLES if table is None else (table,)
    if out is None:
        if table is None:
            raise Misconfigured(f"cfg schema: name a table ({', '.join(TABLES)}), or a folder with --out", code="E4025")
        print(schema_text(merged[table]), end="")  # noqa: T201 - the data of this verb
        return exits.OK
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name in chosen:
            path = out / f"{name}.schema.json"
            path.write_text(schema_text(merged[name]), encoding="utf-8")
            print(path)  # noqa: T201 - the data of this verb
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        text = f"{out}: cannot be written ({reason}); name a folder that you may write to"
        raise Misconfigured(text, code="E1144") from error
    return exits.OK
