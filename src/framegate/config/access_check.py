"""Federated issuers as the access layer judges them: key files that can be used, each issuer once."""

from __future__ import annotations

from pathlib import Path

from framegate.access.issuer import read_keys
from framegate.config.problems import Problems
from framegate.config.rows import AccessRow
from framegate.contract.errors import Misconfigured


def check_access(row: AccessRow, base: Path, problems: Problems) -> None:
    """Gather everything wrong with rows that passed their schema. `base` is the folder that relative paths begin at."""
    place = ("gateway", "access", "issuers")
    seen: dict[str, int] = {}
    for index, issuer in enumerate(row.issuers):
        first = seen.setdefault(issuer.issuer, index)
        if first != index:
            text = f'"{issuer.issuer}" stands here again; give one row the keys of both (first at {{other}})'
            other = ("drivers", (*place, first, "issuer"))
            problems.add("drivers", (*place, index, "issuer"), "E4309", text, other=other)
        try:
            read_keys(base / issuer.keys, issuer.algorithms)
        except Misconfigured as error:
            problems.add("drivers", (*place, index, "keys"), error.stable_code, error.text)
