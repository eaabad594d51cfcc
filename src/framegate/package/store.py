"""HOME/plugins: plugins that were verified, and which version of each is active.

    .store/NAME/VERSION-SHA8/    packages, unpacked and verified; SHA8: of the manifest
    .active/NAME                 -> ../.store/NAME/VERSION-SHA8, exchanged by one rename
    .staging/                    packages that are being looked at
    .waiting/                    who brought those that wait in .store to be accepted (waiting.py)
    .trash/DATE/NAME/VERSION-SHA8, and beside it .reason: what was replaced or has failed, to be rolled back to
    trust.d/, revoked.toml, state.json      trust.py, state.py

stage() leaves a verified package beside the active version, activate() exchanges them; a power cut at any moment
leaves the one or the other active. Nothing older than what was active here comes in, unless an operator rolls back to
a version that was active before. Files are loaded through artifact() only, whose bytes are the verified ones. Gateway
and command line use this in turn, under a lock. Everything here blocks.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from framegate.contract.errors import Misconfigured
from framegate.contract.plugin import Artifact, Manifest, Role
from framegate.contract.ports import Clock
from framegate.endpoint.clock import SystemClock
from framegate.package.archive import Archive
from framegate.package.discover import is_built_in
from framegate.package.incoming import copy_package, examine, signed_manifest
from framegate.package.permissions import asks_of
from framegate.package.sealed import sealed_code, sealed_file
from framegate.package.shelf import FOLDER_MODE, Shelf, not_installed
from framegate.package.state import (
    ACTIVE_BEFORE_MAX,
    Past,
    State,
    known_revocations,
    noted_revocations,
    read_state,
    refuse_older,
    revocations,
    write_state,
)
from framegate.package.trash import Trash
from framegate.package.trust import Revocations, Trust, approved
from framegate.package.verified import Judge, Verified, as_named, compare
from framegate.package.waiting import Dropped, Notes, Staged

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

REPLACED, REMOVED = "replaced by {}", "removed by an operator"


class PluginStore:
    """The plugins of one home.

    folder  HOME/plugins
    raises  Busy E4631 - another process changes it; StoreFailed E4624 - the disk does not take a change
    """

    def __init__(self, folder: Path, clock: Clock | None = None) -> None:
        self.folder = folder
        self.trust = Trust(folder)
        self.bin = Trash(folder)
        self._clock = clock or SystemClock()
        self._shelf = Shelf(folder, self._clock)
        self._notes = Notes(folder, self._clock)

    def active(self, problems: list[Misconfigured] | None = None) -> list[Manifest]:
        """The active version of each plugin, its signature verified; what does not hold is left out.

        problems  takes one error for each that was left out
        """
        return [verified.manifest for verified in self.active_verified(problems)]

    def active_verified(self, problems: list[Misconfigured] | None = None) -> list[Verified]:
        """As active, with who signed it."""
        found: list[Verified] = []
        judge = self._judge(problems)
        for name in self.names():
            try:
                found.append(self._active(name, judge))
            except Misconfigured as error:
                if problems is not None:
                    problems.append(error)
        return found

    def names(self) -> list[str]:
        """Names of the plugins that have an active version, whether it holds or not."""
        return self._shelf.names()

    def artifact(self, manifest: Manifest, role: Role) -> Artifact:
        """What is loaded for a role, in memory and sealed: its artifact, or the modules of a Python role as one ZIP.

        raises  Misconfigured E1205 - no such role; E4613 to E4615 - a file is not what was signed
        """
        entry = manifest.roles.get(role)
        if entry is None:
            text = f"plugin {manifest.name}: has no {role}; it offers {', '.join(manifest.roles)}"
            raise Misconfigured(text, code="E1205")
        return sealed_file(manifest, entry.artifact) if entry.artifact else sealed_code(manifest)

    def code_in(self, folder: Path) -> Artifact:
        """The Python modules of the version in that folder of the store, as artifact() has them.

        raises  Misconfigured E46.. - it does not hold any more
        """
        return sealed_code(self._judge().verify_folder(folder, is_whole=False).manifest)

    def stage(self, source: Path | BinaryIO, by: str = "") -> Staged:
        """Verify a package, unpack it, and keep it beside the active version.

        source  a file, or a stream to be read to its end
        by      who brought it, noted with it, so that it waits over a restart; "": whoever asks waits for the answer
        raises  Misconfigured E46.., E12.. - it is refused, and nothing of it stays
        """
        place = source if isinstance(source, Path) else Path("uploaded package")
        with self._shelf.staging() as staging:
            with (staging / "package").open("w+b") as copy:
                copy_package(source, copy)
                archive = Archive(copy)
                verified = self._verify(archive, place)
                unpacked = staging / "files"
                unpacked.mkdir(mode=FOLDER_MODE)
                compare(archive.unpack(unpacked), verified.manifest, str(place))
            with self._changing() as state:
                refuse_older(verified.manifest, verified.sha256, state, str(place))
                self._keep(unpacked, verified, state)
                note = self._notes.write(verified, by) if by else None
        staged = self._compared(Staged(verified, None, ()))
        return staged if note is None else replace(staged, by=note.by, since_ns=note.since_ns)

    def waiting(self, dropped: list[Dropped]) -> list[Staged]:
        """What stage() has noted and nobody has accepted, every byte verified again. For the start of a gateway.

        dropped  takes what holds no more, or waited too long
        raises   Misconfigured E4623, E4626 - the state, or the revocations, cannot be believed; nothing has changed
        """
        with self._changing() as state:
            found = list(self._notes.read_back(self._judge_now(), state, self._shelf, dropped))
            self._notes.sweep(self._shelf, state)
        return [self._compared(staged) for staged in found]

    def activate(self, staged: Staged, approve: Callable[[], None] = approved) -> Manifest:
        """Make a staged version the active one; the one before goes to the trash, and can be rolled back to.

        approve  called once everything else is in order and nothing has changed; what it raises stops the change
        raises  Misconfigured E4616, E4617 - something newer came in meanwhile; E4621 - it is no longer staged;
                E46.. - it does not hold any more: its key or it was revoked, the key's date has passed
        """
        name, folder = staged.manifest.name, staged.manifest.folder
        with self._changing() as state:
            if not folder.is_dir():
                text = f"plugin {name} {staged.verified.id}: is no longer staged; install it again"
                raise Misconfigured(text, code="E4621")
            verified = as_named(self._judge_now().verify_folder(folder, is_whole=False), name, folder.name)
            refuse_older(verified.manifest, verified.sha256, state, name)
            approve()
            self._switch(verified, state)
        return verified.manifest

    def discard(self, staged: Staged) -> None:
        """Forget a staged version that was never activated."""
        with self._changing() as state:
            folder = staged.manifest.folder
            self._notes.forget(staged.manifest.name, folder.name)
            if folder.name not in self._kept(staged.manifest.name, state):
                shutil.rmtree(folder, ignore_errors=True)

    def rollback(
        self, name: str, version: str = "", reason: str = "", approve: Callable[[], None] = approved
    ) -> Manifest:
        """Go back to a version that was active before; the present one goes to the trash.

        version  "": the one before the present one, or the last one of a plugin that was removed
        reason   why the present one goes, kept beside it in the trash
        approve  as in activate
        raises   Misconfigured E4622 - there is none; E46.. - it does not hold any more, and nothing has changed
        """
        with self._changing() as state:
            verified = self._former(name, version, state)
            approve()
            verified = self._laid_beside(verified)
            self._switch(verified, state, reason)
        return verified.manifest

    def recall(self, name: str, version: str = "") -> Manifest:
        """Lay a version that rollback() may go to beside the active one, to be tried there; raises as rollback."""
        with self._changing() as state:
            return self._laid_beside(self._former(name, version, state)).manifest

    def remove(self, name: str, approve: Callable[[], None] = approved) -> None:
        """Have no version of a plugin active; what was goes to the trash.

        approve  as in activate
        raises   Misconfigured E4621 - none was
        """
        with self._changing() as state:
            active = self._shelf.active_id(name)
            if active is None:
                raise not_installed(name, "")
            approve()
            self._remember(name, active, state)
            self._shelf.unlink(name)
            self.bin.take(self._shelf.home(name, active), name, REMOVED, self._date())

    def trash(self, name: str, version: str, reason: str) -> None:
        """Take a staged version away, with a reason that is kept. The active one stays: remove() is for that.

        version  a version or an id
        raises   Misconfigured E4621 - there is none
        """
        with self._changing():
            gone = [id_ for id_ in self._shelf.stored(name) if version in {id_, id_.rpartition("-")[0]}]
            if not gone:
                raise not_installed(name, version)
            for id_ in gone:
                self._notes.forget(name, id_)
                if id_ != self._shelf.active_id(name):
                    self.bin.take(self._shelf.home(name, id_), name, reason, self._date())

    def history(self, name: str) -> list[str]:
        """Ids of versions that one can roll back to, newest first."""
        return list(self._before(name, read_state(self.folder)))

    def look(self, name: str) -> Verified:
        """The active version of a plugin, as active() has it. Raises Misconfigured as Judge.verify_folder; E4621."""
        return self._active(name, self._judge())

    def examine(self, path: Path, judge: Judge | None = None) -> Verified:
        """Verify a package, a plugin's folder, or a file beside its manifest, every byte; nothing is kept.

        judge    None: this home's, dates included
        raises   as stage, but for older versions
        """
        return examine(path, judge or self._judge_now())

    def revoked(self) -> Revocations:
        """Everything that is revoked here."""
        return known_revocations(self.folder, self.trust)[0]

    def revocation_flaws(self) -> tuple[Misconfigured, ...]:
        """Why the list of revocations cannot be believed; empty when it can."""
        return known_revocations(self.folder, self.trust)[1]

    def revoke(
        self,
        key: Ed25519PrivateKey,
        keys: Sequence[str],
        digests: Sequence[str],
        approve: Callable[[], None] = approved,
    ) -> Revocations:
        """Add to the list of revocations; raises as Trust.revoke."""
        with self._changing():
            self.trust.refuse_revoking(key)
            approve()
            new = self.trust.revoke(key, keys, digests)
            noted_revocations(self.folder, self.trust)
            return new

    def verify(self, name: str) -> Verified:
        """The active version of a plugin, every byte of it. Raises Misconfigured as Judge.verify_folder; E4621."""
        return self._active(name, self._judge(), is_whole=True)

    # -- verifying ---------------------------------------------------------------------------------------------------

    def _judge(self, problems: list[Misconfigured] | None = None) -> Judge:
        """Of what came in earlier: dates do not count, and a list that cannot be believed takes nothing back."""
        trusted = self.trust.trusted()
        revoked, flaws = known_revocations(self.folder, self.trust)
        if problems is not None:
            problems.extend((*trusted.problems, *flaws))
        return Judge(trusted, revoked)

    def _judge_now(self) -> Judge:
        """Of what comes in. Raises Misconfigured E4626 - the list of revocations cannot be believed."""
        return Judge(self.trust.trusted(), revocations(self.folder, self.trust), self._clock.now_ns())

    def _verify(self, archive: Archive, place: Path) -> Verified:
        """A package before anything of it is unpacked; its manifest with the folder that it will have."""
        found = signed_manifest(archive, place, self._judge_now())
        manifest = found.manifest
        if is_built_in(manifest.name):
            refused = f"{place}: {manifest.name} is the name of a built-in plugin; have it published under another one"
            raise Misconfigured(refused, code="E4620")
        return replace(found, manifest=replace(manifest, folder=self._shelf.home(manifest.name, found.id)))

    def _active(self, name: str, judge: Judge, *, is_whole: bool = False) -> Verified:
        id_ = self._shelf.active_id(name)
        if id_ is None:
            raise not_installed(name, "")
        return as_named(judge.verify_folder(self._shelf.home(name, id_), is_whole=is_whole), name, id_)

    def _compared(self, staged: Staged) -> Staged:
        old = self._replaced(staged.manifest.name)
        return replace(staged, replaces=old, asks=tuple(asks_of(staged.manifest, old)))

    def _replaced(self, name: str) -> Manifest | None:
        with contextlib.suppress(Misconfigured):  # there is none, or it holds no more: then nothing of it was granted
            return self._active(name, self._judge()).manifest
        return None

    def _before(self, name: str, state: State) -> dict[str, Path]:
        """Where versions lie that were active before the present one, by id, newest first."""
        past, present = state.plugins.get(name), self._shelf.active_id(name)
        found: dict[str, Path] = {}
        for id_ in reversed(past.was_active if past else ()):
            stored = self._shelf.home(name, id_)
            place = stored if stored.is_dir() else self.bin.find(name, id_)
            if place is not None and id_ != present:
                found[id_] = place
        return found

    def _former(self, name: str, version: str, state: State) -> Verified:
        """A version that was active before, every byte of it verified where it lies; raises as rollback."""
        before = self._before(name, state)
        id_ = next((id_ for id_ in before if not version or version in {id_, id_.rpartition("-")[0]}), None)
        if id_ is None:
            which = f"no version {version:.64}".rstrip()
            text = f"plugin {name:.64}: {which} was active here before and is kept; to go back there is"
            raise Misconfigured(f"{text} {', '.join(before) or 'none'}", code="E4622")
        return as_named(self._judge().verify_folder(before[id_]), name, id_)

    def _laid_beside(self, former: Verified) -> Verified:
        """Out of the trash, if it lies there."""
        folder, home = former.manifest.folder, self._shelf.home(former.manifest.name, former.id)
        if folder != home:
            self._shelf.put(folder, home)
            self.bin.forget(folder)
        return replace(former, manifest=replace(former.manifest, folder=home))

    def _kept(self, name: str, state: State) -> set[str | None]:
        """Ids of the active version, and of those that one can roll back to."""
        past = state.plugins.get(name)
        return {self._shelf.active_id(name), *(past.was_active if past else ())}

    def _keep(self, unpacked: Path, verified: Verified, state: State) -> None:
        """Put an unpacked package where it stays, in place of what was staged before and never active.

        One that is there already and holds is left alone.
        """
        name = verified.manifest.name
        for other in set(self._shelf.stored(name)) - self._kept(name, state) - {verified.id}:
            self._notes.forget(name, other)
            shutil.rmtree(self._shelf.home(name, other), ignore_errors=True)
        home = verified.manifest.folder
        if home.exists():
            with contextlib.suppress(Misconfigured):
                self._judge().verify_folder(home)
                return
            home.rename(unpacked.with_name("damaged"))
        self._shelf.put(unpacked, home)

    def _switch(self, verified: Verified, state: State, reason: str = "") -> None:
        """Make a version in the store the active one, by one rename; then remember it, then tidy up."""
        name, id_ = verified.manifest.name, verified.id
        before = self._shelf.active_id(name)
        if before is not None:
            state = self._remember(name, before, state)
        self._shelf.link(name, id_)
        past = self._remember(name, id_, state).plugins[name]
        self._notes.forget(name, id_)
        note = self._notes.of(name)
        for other in self._shelf.stored(name):
            folder = self._shelf.home(name, other)
            if other == id_ or (note is not None and note.id == other):
                continue
            if other in past.was_active:
                self.bin.take(folder, name, reason or REPLACED.format(id_), self._date())
            else:
                shutil.rmtree(folder, ignore_errors=True)

    def _remember(self, name: str, id_: str, state: State) -> State:
        """Note that a version is active; one that does not hold any more is not remembered."""
        past = state.plugins.get(name)
        try:
            found = self._judge().verify_folder(self._shelf.home(name, id_), is_whole=False)
        except Misconfigured:
            return state
        manifest = found.manifest
        was_active = (*(known for known in (past.was_active if past else ()) if known != id_), id_)[-ACTIVE_BEFORE_MAX:]
        new = Past(manifest.version, manifest.serial, found.sha256, was_active)
        if past is not None and past.rank > new.rank:
            new = replace(past, was_active=was_active)
        state = replace(state, plugins={**state.plugins, name: new})
        write_state(self.folder, state)
        return state

    @contextlib.contextmanager
    def _changing(self) -> Iterator[State]:
        """Alone with the store, and with what is remembered, revocations that were seen included."""
        with self._shelf.changing():
            yield noted_revocations(self.folder, self.trust)

    def _date(self) -> str:
        return f"{datetime.fromtimestamp(self._clock.now_ns() / 1e9, UTC):%Y-%m-%d}"
