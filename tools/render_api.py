"""Writes what is made of the API's table of operations: contract/openapi.json, and the table in docs/reference/api.md.

    python tools/render_api.py           write
    python tools/render_api.py --check   say what is stale, exit 1

The table stands between <!-- table: operations --> and <!-- /table -->.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from framegate.api.openapi import document_bytes
from framegate.api.operations import OPERATIONS

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "contract" / "openapi.json"
PAGE = ROOT / "docs" / "reference" / "api.md"
_TABLE = re.compile(r"(?<=<!-- table: operations -->\n).*?(?=<!-- /table -->)", re.DOTALL)


def table() -> str:
    """One line for each operation."""
    lines = ["| operation | permission | what it does |", "|---|---|---|"]
    for one in OPERATIONS:
        permission = "" if one.permission is None else f"`{one.permission.value}`"
        lines.append(f"| `{one.method} {one.full_path}` | {permission} | {one.summary} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write, or check; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file is stale")
    is_check = parser.parse_args().check
    page = PAGE.read_text("utf-8")
    wanted = {DOCUMENT: document_bytes(), PAGE: _TABLE.sub(lambda _: table(), page).encode()}
    stale = [path for path, data in wanted.items() if not path.exists() or path.read_bytes() != data]
    for path in stale:
        if is_check:
            print(f"{path.relative_to(ROOT)} is stale; run python tools/render_api.py", file=sys.stderr)  # noqa: T201
        else:
            path.write_bytes(wanted[path])
    return 1 if stale and is_check else 0


if __name__ == "__main__":
    sys.exit(main())
