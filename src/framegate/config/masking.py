"""Secrets that stand in a table against all advice, out of sight wherever a table is shown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

MASK = "***"
_WORDS = r"(?:password|passphrase|secret|token|private_key|credential)"
_KEY = re.compile(_WORDS, re.IGNORECASE).search
_QUOTED = r"""(?:"(?:[^"\\]|\\.)*"|'(?:[^']|'')*')"""
_BARE = r"(?:\$\{[^{}]+\}|[^\s,{}\[\]#][^,{}#\n]*)"
_PAIR = re.compile(rf"""(?P<key>["']?[\w-]*{_WORDS}[\w-]*["']?\s*:[ \t]+)(?P<value>{_QUOTED}|{_BARE})""", re.IGNORECASE)
_REFERENCE = re.compile(r"""["']?\$\{[^{}]+\}["']?""").fullmatch


def masked_text(text: str) -> str:
    """A table's text, or a part of it, with literal secrets hidden; references such as ${env:X} stay."""
    return _PAIR.sub(lambda found: found[0] if _REFERENCE(found["value"].strip()) else f"{found['key']}{MASK}", text)


def masked(value: Any) -> Any:
    """A value of a table with literal secrets hidden."""
    if isinstance(value, Mapping):
        return {
            key: MASK if _KEY(str(key)) and isinstance(item, str) and not _REFERENCE(item) else masked(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [masked(item) for item in value]
    return value
