"""Reading a table's bytes from its folder, with a bound, and saying why it could not be read."""

from __future__ import annotations

from pathlib import Path as FilePath

from framegate.config.explain import Finding
from framegate.config.yaml import TABLE_BYTES_MAX


def read_table(folder: FilePath, table: str) -> bytes | Finding:
    """Bytes of `folder/table.yml`, or what keeps them from being read."""
    path = folder / f"{table}.yml"
    try:
        with path.open("rb") as file:
            data = file.read(TABLE_BYTES_MAX + 1)
    except FileNotFoundError:
        where = "that folder does not exist" if not folder.is_dir() else "no such file"
        text = f"{where}: {path}; `edge init` writes sample tables"
        return Finding((), "E1101", text)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        return Finding((), "E1102", f"{path} cannot be read ({reason}); give the gateway's user the right to read it")
    if len(data) > TABLE_BYTES_MAX:
        return Finding((), "E1102", f"the file is larger than {TABLE_BYTES_MAX >> 20} MiB; no table needs that")
    return data
