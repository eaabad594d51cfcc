"""Where the language-neutral law lies: beside the package in a wheel, at the repository's root in a clone."""

from __future__ import annotations

from functools import cache
from pathlib import Path


@cache
def law_folder() -> Path:
    """Folder that holds frame.proto, tables/, errors.toml, telemetry.toml and vectors/."""
    installed = Path(__file__).with_name("law")
    if installed.is_dir():
        return installed
    return Path(__file__).resolve().parents[3] / "contract"


def law_text(name: str) -> str:
    """Text of one file of the law, by its path inside that folder."""
    return (law_folder() / name).read_text(encoding="utf-8")
