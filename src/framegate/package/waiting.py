"""HOME/plugins/.waiting: who brought the packages that wait beside the active versions, and when.

    .waiting/NAME.json     id of the version, who, when

The package itself lies in .store, verified and unpacked; its note is written after it and goes before it, so that a
power cut leaves a folder without a note, never the other way round. Such a folder is swept once it is a day old: a
younger one may be somebody's who is being asked right now. Nothing here is believed when it is read back: the package
is verified to its last byte, and what holds no more goes. The store's lock is held by whoever calls.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

import orjson

from framegate.contract.errors import Misconfigured
from framegate.contract.plugin import Manifest
from framegate.contract.ports import Clock
from framegate.endpoint.durable import give_to_owner, read_bounded, replace_durably, sync_folder
from framegate.package.names import is_id, is_plugin_name
from framegate.package.shelf import LEFT_S_MAX, STORE, Shelf
from framegate.package.state import State, refuse_older
from framegate.package.verified import Judge, Verified, as_named

FOLDER: Final = ".waiting"
PACKAGES_MAX: Final = 8
"""That wait at once, one of each plugin."""
BYTES_MAX: Final = 256 << 20
"""Of all of them, unpacked."""
WAIT_S_MAX: Final = 30 * 86_400.0
NOTE_BYTES_MAX: Final = 4_096
BY_CHARACTERS_MAX: Final = 256
_FILES_MAX: Final = 1_000
_SUFFIX: Final = ".json"


class Note(NamedTuple):
    """One package that waits. id: of its version; since_ns: ns UTC"""

    name: str
    id: str
    by: str
    since_ns: int


@dataclass(frozen=True, slots=True)
class Staged:
    """A package that holds and waits beside the active version.

    replaces  the active version, if there is one
    asks      what it may do and that one could not, one line each
    by        who brought it; "": whoever staged it waits for the answer
    since_ns  when, ns UTC
    """

    verified: Verified
    replaces: Manifest | None
    asks: tuple[str, ...]
    by: str = ""
    since_ns: int = 0

    @property
    def manifest(self) -> Manifest:
        return self.verified.manifest


class Dropped(NamedTuple):
    """A package that waited and does so no more."""

    name: str
    reason: Misconfigured


class Notes:
    """The notes of one home. Raises OSError."""

    def __init__(self, plugins: Path, clock: Clock) -> None:
        self.folder = plugins / FOLDER
        self._clock = clock

    def of(self, name: str) -> Note | None:
        """What is noted of a plugin's package; None: nothing that makes sense."""
        return _note(self._file(name)) if is_plugin_name(name) else None

    def write(self, verified: Verified, by: str) -> Note:
        """Note that a package waits; who brought the same one first stays noted."""
        name = verified.manifest.name
        before = self.of(name)
        if before is not None and before.id == verified.id:
            return before
        note = Note(name, verified.id, by[:BY_CHARACTERS_MAX], self._clock.now_ns())
        if not self.folder.is_dir():
            self.folder.mkdir(mode=0o750)
            give_to_owner(self.folder)
            sync_folder(self.folder.parent)
        replace_durably(self._file(name), orjson.dumps({"id": note.id, "by": note.by, "since_ns": note.since_ns}))
        give_to_owner(self._file(name))
        return note

    def forget(self, name: str, id_: str) -> None:
        """That version waits no more; another one of its plugin may."""
        note = self.of(name)
        if note is not None and note.id == id_:
            self._file(name).unlink()
            sync_folder(self.folder)

    def read_back(self, judge: Judge, state: State, shelf: Shelf, dropped: list[Dropped]) -> Iterator[Staged]:
        """What waits, the longest first, each byte verified again.

        dropped  takes what holds no more; its note is gone then
        """
        found, size = 0, 0
        if not self.folder.is_dir():
            return
        for note in sorted(self._sound(), key=lambda note: note.since_ns):
            if shelf.active_id(note.name) == note.id:  # the power was cut right after it had become active
                self.forget(note.name, note.id)
                continue
            try:
                staged = self._verified(note, judge, state, shelf)
                size += bytes_of(staged.manifest)
                if found == PACKAGES_MAX or size > BYTES_MAX:
                    raise too_much(note.name)
            except Misconfigured as error:
                self.forget(note.name, note.id)
                dropped.append(Dropped(note.name, error))
            else:
                found += 1
                yield staged

    def sweep(self, shelf: Shelf, state: State) -> None:
        """Delete versions in the store that nobody knows, a day after they came."""
        now_s, folder = self._clock.now_ns() / 1e9, shelf.folder / STORE
        names = [path.name for path in islice(folder.iterdir(), _FILES_MAX)] if folder.is_dir() else ()
        for name in filter(is_plugin_name, names):
            past, note = state.plugins.get(name), self.of(name)
            known = {shelf.active_id(name), note and note.id, *(past.was_active if past else ())}
            for id_ in set(shelf.stored(name)) - known:
                left = shelf.home(name, id_)
                if abs(now_s - left.stat(follow_symlinks=False).st_mtime) > LEFT_S_MAX:
                    shutil.rmtree(left, ignore_errors=True)

    def _verified(self, note: Note, judge: Judge, state: State, shelf: Shelf) -> Staged:
        waited_s = (self._clock.now_ns() - note.since_ns) / 1e9
        if waited_s > WAIT_S_MAX:
            raise too_old(note.name)
        folder = shelf.home(note.name, note.id)
        found = as_named(judge.verify_folder(folder), note.name, note.id)
        refuse_older(found.manifest, found.sha256, state, str(folder))
        return Staged(found, None, (), note.by, min(note.since_ns, self._clock.now_ns()))

    def _sound(self) -> Sequence[Note]:
        """Every note that makes sense; whatever else lies there is deleted."""
        notes = []
        for path in list(islice(self.folder.iterdir(), _FILES_MAX)):
            note = _note(path)
            if note is not None:
                notes.append(note)
            elif path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()
        return notes

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}{_SUFFIX}"


def bytes_of(manifest: Manifest) -> int:
    """Of all files of a package, unpacked."""
    return sum(file.size for file in manifest.files.values())


def too_much(name: str) -> Misconfigured:
    text = f"plugin {name}: {PACKAGES_MAX} packages and {BYTES_MAX >> 20} MiB wait at most; accept or remove some, then"
    return Misconfigured(f"{text} bring it again", code="E4641")


def too_old(name: str) -> Misconfigured:
    text = f"plugin {name}: nobody has accepted the package that waits for {WAIT_S_MAX / 86_400:.0f} days; bring it"
    return Misconfigured(f"{text} again if it is still wanted", code="E4642")


def _note(path: Path) -> Note | None:
    name = path.name.removesuffix(_SUFFIX)
    try:
        raw = orjson.loads(read_bounded(path, NOTE_BYTES_MAX))
        note = Note(name, raw["id"], raw["by"], raw["since_ns"])
        is_sound = is_plugin_name(name) and path.suffix == _SUFFIX and is_id(note.id) and type(note.since_ns) is int
        is_person = 0 < len(note.by) <= BY_CHARACTERS_MAX and note.by.isprintable()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return note if is_sound and is_person else None
