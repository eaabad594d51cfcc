"""What a guest says against its options or tags, as errors of the gateway. It is a stranger's text: cut short."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from framegate.contract.driver import BoundTag
from framegate.contract.errors import Misconfigured, TagProblem

TEXT_CHARACTERS_MAX = 300
PROBLEMS_MAX = 1000


def options_refused(text: str) -> Misconfigured:
    return Misconfigured(f"options: {_cut(text)}; correct drivers.yml", code="E4545")


def misconfigured_by(refusal: str, tags: Sequence[BoundTag]) -> Misconfigured:
    """E4546 with a problem per tag where the guest named them: [{"tag": id, "key": "address", "text": why}]."""
    names = {int(tag.id): tag.name for tag in tags}
    problems = []
    for entry in _list(refusal)[:PROBLEMS_MAX]:
        name = names.get(entry["tag"]) if isinstance(entry, dict) and isinstance(entry.get("tag"), int) else None
        if name is not None:
            key, text = str(entry.get("key", "address")), str(entry.get("text", "cannot be read"))
            problems.append(TagProblem(name, _cut(key), "E4546", _cut(text)))
    if not problems:
        return Misconfigured(f"the driver cannot read these tags: {_cut(refusal)}", code="E4546")
    return Misconfigured(f"{len(problems)} tags cannot be read", code="E4546", tag_problems=problems)


def _list(text: str) -> list[Any]:
    try:
        found = orjson.loads(text)
    except ValueError:
        return []
    return found if isinstance(found, list) else []


def _cut(text: str) -> str:
    return " ".join(text.split())[:TEXT_CHARACTERS_MAX]
