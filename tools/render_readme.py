"""Fills the generated tables of the READMEs: protocols and their grades, options and tag keys of each plugin.

    python tools/render_readme.py           write
    python tools/render_readme.py --check   say what is stale, exit 1

A table stands between markers, which people put where they want it:

    <!-- table: protocols -->                    README.md of the repository
    <!-- table: options driver.schema.json -->   README.md of a plugin
    <!-- table: tag driver.schema.json -->       keys that the plugin adds to a row of variables.yml
    <!-- /table -->

Sources are plugin.toml and the schemas; what is written by hand between markers is lost.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from framegate.package.manifest import MANIFEST_NAME, read_manifest

ROOT = Path(__file__).resolve().parents[1]
PLUGINS = ROOT / "src" / "framegate_plugins"
_TABLE = re.compile(r"(<!-- table: (?P<what>[^>]+?) -->\n).*?(<!-- /table -->)", re.DOTALL)
_GRADES = "ABTD"  # from best to least


def rendered(path: Path) -> str:
    """The text a README ought to have."""
    folder = path.parent

    def table(match: re.Match[str]) -> str:
        what, _, schema = match["what"].partition(" ")
        lines = _protocols() if what == "protocols" else _keys(folder / schema, is_tag=what == "tag")
        return match[1] + "\n".join(lines) + "\n" + match[3]

    return _TABLE.sub(table, path.read_text(encoding="utf-8"))


def readmes() -> Iterator[Path]:
    """Every README that may hold a generated table."""
    yield ROOT / "README.md"
    yield from sorted(PLUGINS.glob("*/README.md"))


def _protocols() -> Iterator[str]:
    yield "| protocol | roles | grade | judged by | plugin |"
    yield "|---|---|---|---|---|"
    manifests = [read_manifest(path) for path in sorted(PLUGINS.glob(f"[!_]*/{MANIFEST_NAME}"))]
    rows = [(protocol, manifest.name) for manifest in manifests for protocol in manifest.protocols]
    for protocol, plugin in sorted(rows, key=lambda row: (_GRADES.index(row[0].grade), row[1])):
        link = f"[{plugin}](src/framegate_plugins/{plugin}/README.md)"
        roles, judges = ", ".join(protocol.roles), _cell(protocol.judges)
        yield f"| {protocol.name} | {roles} | {protocol.grade} | {judges} | {link} |"


def _keys(schema_file: Path, *, is_tag: bool) -> Iterator[str]:
    schema = json.loads(schema_file.read_text(encoding="utf-8"))
    if is_tag:
        schema = schema.get("$defs", {}).get("tag", {})
    required = schema.get("required", ())
    yield f"| {'tag key' if is_tag else 'option'} | values | default | meaning |"
    yield "|---|---|---|---|"
    for name, row in schema.get("properties", {}).items():
        default = "required" if name in required else _code(row["default"]) if "default" in row else ""
        yield f"| `{name}` | {_cell(_values(row))} | {_cell(default)} | {_cell(row.get('description', ''))} |"


def _values(row: Mapping[str, Any]) -> str:
    """Allowed values in few words."""
    if "enum" in row:
        return ", ".join(_code(value) for value in row["enum"])
    if "const" in row:
        return _code(row["const"])
    for key in ("oneOf", "anyOf"):
        if key in row:
            return " or ".join(_values(choice) for choice in row[key])
    kind = row.get("type", "any")
    text = " or ".join(kind) if isinstance(kind, list) else str(kind)
    low, high = row.get("minimum", row.get("exclusiveMinimum")), row.get("maximum", row.get("exclusiveMaximum"))
    if low is not None and high is not None:
        return f"{text}, {low} to {high}"
    if low is not None:
        return f"{text}, from {low}" if "minimum" in row else f"{text}, above {low}"
    return text if high is None else f"{text}, up to {high}"


def _code(value: object) -> str:
    is_plain = isinstance(value, str) and value
    return f"`{value if is_plain else json.dumps(value, ensure_ascii=False)}`"


def _cell(text: str) -> str:
    return text.replace("\n", " ").replace("|", "\\|")


def main(*, is_check: bool) -> int:
    """Write or compare; returns an exit code."""
    stale = [path for path in readmes() if rendered(path) != path.read_text(encoding="utf-8")]
    for path in stale:
        if is_check:
            sys.stderr.write(f"{path.relative_to(ROOT)} is stale; run python tools/render_readme.py\n")
        else:
            path.write_text(rendered(path), encoding="utf-8")
    return 1 if is_check and stale else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    sys.exit(main(is_check=parser.parse_args().check))
