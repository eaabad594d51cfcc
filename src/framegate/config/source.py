"""Reading a table's bytes from its folder, with a bound, and saying why it could not be read."""

from __future__ import annotations

import os
import stat
from pathlib import Path as FilePath

from framegate.config.explain import Finding
from framegate.config.yaml import TABLE_BYTES_MAX


def read_table(folder: FilePath, table: str) -> bytes | Finding:
    """Bytes of `folder/table.yml`, or what keeps them from being read."""
    path = folder / f"{table}.yml"
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return Finding((), "E1102", f"{path} is no regular file; put the table's text there")
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


def _without_waiting(path: str, flags: int) -> int:
    """Opening a named pipe would wait for somebody who writes to it."""
    return os.open(path, flags | os.O_NONBLOCK)
