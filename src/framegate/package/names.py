"""Names of files in a package, and of its versions: what may become part of a path here.

Allowed is what is listed, so that no trick with separators, drives, NUL, case or look-alike letters needs a name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TypeAlias

PACKAGE_SUFFIX = ".edge"
NAME_CHARACTERS_MAX = 160
DEPTH_MAX = 8
"""Folders around a file."""
PLUGIN_NAME_CHARACTERS_MAX = 64
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.+-]*"
_NAME = re.compile(rf"{_PART}(?:/{_PART})*", re.ASCII)
_PLUGIN = re.compile(r"[a-z0-9][a-z0-9_-]*", re.ASCII)
_VERSION = re.compile(r"(\d{1,9}(?:\.\d{1,9}){0,3})(?:-([0-9A-Za-z.]{1,32}))?", re.ASCII)
_ID = re.compile(rf"{_VERSION.pattern}-[0-9a-f]{{8}}", re.ASCII)


def name_flaw(name: str) -> str:
    """Why a file of a package may not have this name; "" when it may."""
    if len(name) > NAME_CHARACTERS_MAX:
        return f"has more than {NAME_CHARACTERS_MAX} characters"
    if not _NAME.fullmatch(name):
        return "is no plain relative name of letters, digits, _ . + - and /"
    if name.count("/") > DEPTH_MAX or any(part.endswith(".") for part in name.split("/")):
        return f"lies deeper than {DEPTH_MAX} folders, or ends with a dot"
    return ""


def clash_of(names: Iterable[str]) -> str:
    """What two of these names would share on some file system; "" when nothing."""
    seen: dict[str, str] = {}
    for name in names:
        key = name.casefold()
        if key in seen:
            return f"{seen[key]!r} and {name!r} are one file, or differ in case only"
        seen[key] = name
    for name in seen.values():
        for end in (at for at, letter in enumerate(name) if letter == "/"):
            if name[:end].casefold() in seen:
                return f"{seen[name[:end].casefold()]!r} is a file, and the folder of {name!r}"
    folders: dict[str, str] = {}
    for folder in sorted({name[:at] for name in seen.values() for at, letter in enumerate(name) if letter == "/"}):
        if folders.setdefault(folder.casefold(), folder) != folder:
            return f"folders {folders[folder.casefold()]!r} and {folder!r} differ in case only"
    return ""


def is_plugin_name(name: str) -> bool:
    """May this be the name of an installed plugin, and so of a folder?"""
    return len(name) <= PLUGIN_NAME_CHARACTERS_MAX and _PLUGIN.fullmatch(name) is not None


def is_id(text: str) -> bool:
    """Is this VERSION-SHA8, the name of a version's folder?"""
    return _ID.fullmatch(text) is not None


Rank: TypeAlias = tuple[tuple[int, ...], bool, tuple[tuple[int, int, str], ...]]
"""A version as it is ordered: four numbers, is it a release, and else the parts of its stage, numbers before words."""


def rank_of(version: str) -> Rank | None:
    """Where a version stands, as by Semantic Versioning 2.0, clause 11: 1.2.0-rc.1 before 1.2.0; None: it is none."""
    found = _VERSION.fullmatch(version)
    if found is None:
        return None
    numbers = [int(part) for part in found[1].split(".")]
    stage = tuple(_stage(part) for part in found[2].split(".")) if found[2] else ()
    return (*numbers, *[0] * (4 - len(numbers))), not stage, stage


def _stage(part: str) -> tuple[int, int, str]:
    return (0, int(part), "") if part.isdigit() else (1, 0, part)
