"""HOME/plugins/state.json: what was installed here before, so that nothing older comes in by itself.

It outlives the plugins it tells of: a plugin that was removed comes back in no older version. A file that cannot be
understood stops installing and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import orjson

from framegate.contract.errors import Misconfigured
from framegate.contract.plugin import Manifest
from framegate.endpoint.durable import give_to_owner, read_bounded, replace_durably, why
from framegate.package.names import Rank, is_id, is_plugin_name, rank_of
from framegate.package.trust import REVOKED, Revocations, Trust

FILE: Final = "state.json"
FORMAT: Final = 1
BYTES_MAX: Final = 4 << 20
PLUGINS_MAX: Final = 1_000
ACTIVE_BEFORE_MAX: Final = 32
"""Versions that are remembered for each plugin."""


@dataclass(frozen=True, slots=True)
class Past:
    """One plugin's.

    version, serial, sha256  the highest that was active; sha256 of its manifest
    was_active               ids of versions that were active, the newest last
    """

    version: str
    serial: int
    sha256: str
    was_active: tuple[str, ...] = ()

    @property
    def rank(self) -> tuple[Rank | None, int]:
        return rank_of(self.version), self.serial


@dataclass(frozen=True, slots=True)
class State:
    """revoked: what the newest believable list of revocations said; it stays revoked, whatever becomes of the list"""

    plugins: Mapping[str, Past] = field(default_factory=dict)
    revoked: Revocations = field(default_factory=Revocations)


def read_state(folder: Path) -> State:
    """The state in HOME/plugins. Raises Misconfigured E4623 - it cannot be read."""
    path = folder / FILE
    try:
        raw = orjson.loads(read_bounded(path, BYTES_MAX))
        _check_format(raw["format"])
        plugins = {name: _past(name, row) for name, row in raw["plugins"].items()}
        revoked = raw["revoked"]
        return State(plugins, Revocations(revoked["serial"], *(frozenset(revoked[key]) for key in ("keys", "digests"))))
    except FileNotFoundError:
        return State()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        text = f"{path}: cannot be read ({why(error)}); nothing can be installed. Bring it back, or begin anew without"
        raise Misconfigured(text, code="E4623") from error


def write_state(folder: Path, state: State) -> None:
    """Replace the state, durably; raises OSError."""
    plugins = {
        name: {"version": past.version, "serial": past.serial, "sha256": past.sha256, "was_active": past.was_active}
        for name, past in state.plugins.items()
    }
    revoked = state.revoked
    lists = {"serial": revoked.serial, "keys": sorted(revoked.keys), "digests": sorted(revoked.digests)}
    record = {"format": FORMAT, "revoked": lists, "plugins": plugins}
    replace_durably(folder / FILE, orjson.dumps(record, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    give_to_owner(folder / FILE)


def refuse_older(manifest: Manifest, sha256: str, state: State, place: str) -> None:
    """Nothing comes in below the highest version that was active here.

    sha256  of the manifest
    raises  Misconfigured E4616 - it is older; E4617 - another package of the same version; E4602 - too many plugins
    """
    past = state.plugins.get(manifest.name)
    if past is None:
        if len(state.plugins) >= PLUGINS_MAX:
            raise Misconfigured(
                f"{place}: {PLUGINS_MAX:,} plugins were installed here, which is the most", code="E4602"
            )
        return
    mine = rank_of(manifest.version), manifest.serial
    what = f"{place}: {manifest.name} {manifest.version} (serial {manifest.serial})"
    was = f"{past.version} (serial {past.serial}), which was active here"
    if mine < past.rank:
        text = f"{what} is older than {was}; `edge plugin rollback {manifest.name}` goes back to what ran before"
        raise Misconfigured(text, code="E4616")
    if mine == past.rank and sha256 != past.sha256:
        text = (
            f"{what} is another package of the same version as {was}; have it published with a higher version or serial"
        )
        raise Misconfigured(text, code="E4617")


def revocations(folder: Path, trust: Trust) -> Revocations:
    """Everything that was ever revoked here.

    raises  Misconfigured E4626 - the list cannot be believed, or an older one was put back; E4623 - the state
    """
    known, listed = read_state(folder).revoked, trust.revocations()
    if listed.serial < known.serial:
        text = (
            f"{folder / REVOKED}: is missing, or older than the one that was here (serial {listed.serial}, was "
            f"{known.serial}); bring that back"
        )
        raise Misconfigured(text, code="E4626")
    return Revocations(listed.serial, known.keys | listed.keys, known.digests | listed.digests)


def known_revocations(folder: Path, trust: Trust) -> tuple[Revocations, tuple[Misconfigured, ...]]:
    """As revocations; where the list cannot be believed, what is remembered of it, and why."""
    try:
        return revocations(folder, trust), ()
    except Misconfigured as error:
        try:
            return read_state(folder).revoked, (error,)
        except Misconfigured:
            return Revocations(), (error,)


def noted_revocations(folder: Path, trust: Trust) -> State:
    """The state, with what is revoked now remembered in it; raises Misconfigured E4623, OSError."""
    state = read_state(folder)
    revoked, flaws = known_revocations(folder, trust)
    if not flaws and revoked != state.revoked:
        state = replace(state, revoked=revoked)
        write_state(folder, state)
    return state


def _check_format(format_: object) -> None:
    if format_ != FORMAT:
        raise ValueError(f"its format is {format_!r:.20}, this gateway knows {FORMAT}")


def _past(name: str, row: Any) -> Past:
    past = Past(row["version"], row["serial"], row["sha256"], tuple(row["was_active"]))
    is_sound = is_plugin_name(name) and rank_of(past.version) is not None and type(past.serial) is int
    if not is_sound or not isinstance(past.sha256, str) or not all(map(is_id, past.was_active)):
        raise ValueError(f"what it says of {name!r:.80} makes no sense")
    return past
