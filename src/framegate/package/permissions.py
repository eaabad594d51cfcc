"""What a plugin asks for, in words, beside what the version before it had: shown before anybody accepts it."""

from __future__ import annotations

from collections.abc import Sequence

from framegate.contract.plugin import Manifest, Permissions

_NOUNS = {"driver": "drives devices", "connector": "sends rows out", "bridge": "serves masters and SCADA systems",
          "rule": "computes rows", "simulator": "plays a device", "witness": "reads back from a remote",
          "command": "adds verbs to `edge`, which run as whoever calls them"}  # fmt: skip


def asks_of(new: Manifest, old: Manifest | None = None) -> Sequence[str]:
    """One line for each thing that it may do and the version before it could not; less is not told.

    old  None: everything beyond the least is told
    """
    had = Permissions() if old is None else old.permissions
    wants = new.permissions
    lines = []
    for role, entry in new.roles.items():
        before = None if old is None else old.roles.get(role)
        if before is None:
            lines.append(f"{role}: {_NOUNS[role]}")
        if entry.shape == "python" and (before is None or before.shape != "python"):
            lines.append(f"{role}: is Python: has all rights of the gateway, unless its row says isolation: process")
        more = sorted(set(entry.endpoint) - set(() if before is None else before.endpoint))
        if more:
            lines.append(f"{role}: uses lines of kind {', '.join(more)}")
    if wants.memory > had.memory:
        lines.append(f"memory: {_mib(wants.memory)} instead of {_mib(had.memory)}")
    if wants.network == "own" and had.network != "own":
        lines.append(
            "network: opens connections of its own, to wherever it wants, instead of using the gateway's lines"
        )
    if wants.home and not had.home:
        lines.append("files: keeps some in a folder of its own, HOME/private")
    if wants.in_process and not had.in_process:
        lines.append(
            "in_process: wants to run inside the gateway, where its crash is the gateway's; also needs drivers.yml"
        )
    return tuple(lines)


def _mib(size: int) -> str:
    return f"{size / (1 << 20):,.4g} MiB"
