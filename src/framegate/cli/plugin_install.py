"""`edge plugin install`, `rollback` and `remove`: which version of a plugin is active in a home.

A package is verified before anybody is asked, and a person hears what it wants before it gets it. Where a gateway runs
in the home, it makes the change, and its devices go on with the other version; else the files change, for its next
start.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from framegate.cli import exits
from framegate.cli.options import HOME_DEFAULT, HomeOption
from framegate.cli.output import write_record
from framegate.cli.plugin_home import PluginHome, agrees, running_gateway
from framegate.cli.tables import read_tables
from framegate.cli.talk import patience, say
from framegate.contract.errors import Misconfigured
from framegate.contract.plugin import Manifest
from framegate.gateway.plugins.ahead import compile_ahead, sandboxed
from framegate.gateway.plugins.records import refuse_used
from framegate.observe.plugin_face import PluginChangeRecord, StagedRecord
from framegate.ops.client import ControlClient
from framegate.package.discover import discover

YesOption = Annotated[bool, Parameter(name=["--yes", "-y"], negative="", help="Do it without asking.")]
NameArgument = Annotated[str, Parameter(help="The plugin's name, as `edge plugin ls` shows it.")]


def install(
    package: Annotated[Path, Parameter(help="NAME-VERSION.edge, as `edge publish` writes it.")],
    /,
    *,
    yes: YesOption = False,
    home: HomeOption = HOME_DEFAULT,
) -> int:
    """Verify a package, show what it wants, and make it the active version of its plugin."""
    place = PluginHome(home)
    gateway = running_gateway(place.home)
    if gateway is None:
        _install_files(place, package, yes=yes)
        return exits.OK
    with gateway:
        with patience(f"{package.name}: is verified, and compiled for this machine where it runs in a sandbox"):
            staged = gateway.plugin_stage(package)
        try:
            _accept_staged(staged, yes=yes)
        except (Misconfigured, KeyboardInterrupt):
            _decline(gateway, staged)
            raise
        _tell(gateway.plugin_activate(staged.name, staged.accept))
    return exits.OK


def accept(name: NameArgument, /, *, yes: YesOption = False, home: HomeOption = HOME_DEFAULT) -> int:
    """Accept what a package asks for that waits in the running gateway, such as one that was dropped or uploaded."""
    place = PluginHome(home)
    with ControlClient(place.home.socket) as gateway:
        staged = next((one for one in gateway.plugin_ls()[1] if one.name == name), None)
        if staged is None:
            text = f"plugin {name:.64}: no package of it waits; `edge plugin ls` lists what does"
            raise Misconfigured(text, code="E4621")
        _accept_staged(staged, yes=yes)
        _tell(gateway.plugin_activate(name, staged.accept))
    return exits.OK


def rollback(
    name: NameArgument,
    version: Annotated[str, Parameter(help="A version that was active before; the last one if absent.")] = "",
    /,
    *,
    reason: Annotated[str, Parameter(help="Why; kept beside the version that goes.")] = "",
    home: HomeOption = HOME_DEFAULT,
) -> int:
    """Go back to a version that was active before. The present one is kept, so that this can be taken back, too."""
    place = PluginHome(home)
    gateway = running_gateway(place.home)
    if gateway is None:
        manifest = place.change(
            "plugins.rollback",
            name,
            lambda approve: place.store.rollback(name, version, reason, approve),
            version=version,
            reason=reason,
        )
        say(f"{name} {manifest.version} is active again; a gateway takes it up when it starts")
        return exits.OK
    with gateway:
        _tell(gateway.plugin_rollback(name, version, reason))
    return exits.OK


def remove(name: NameArgument, /, *, yes: YesOption = False, home: HomeOption = HOME_DEFAULT) -> int:
    """Have a plugin no longer; its last version is kept, and `edge plugin rollback` brings it back.

    Where a package of it waits in the running gateway, that goes, and the active version stays.
    """
    place = PluginHome(home)
    if not agrees(f"remove {name}?", yes=yes):
        return exits.FAILED
    gateway = running_gateway(place.home)
    if gateway is None:
        _refuse_used(name, place)
        place.change("plugins.remove", name, lambda approve: place.store.remove(name, approve))
    else:
        with gateway:
            change = gateway.plugin_remove(name)
        if change.version == change.before:
            stays = f"; {name} {change.version} stays active" if change.version else ""
            say(f"{name}: the package that waited is gone{stays}")
            return exits.OK
    say(f"{name}: removed; `edge plugin rollback {name}` brings it back")
    return exits.OK


def _refuse_used(name: str, place: PluginHome) -> None:
    """Raises Misconfigured E4659 - rows use it. Tables that cannot be read, perhaps for its sake, hold nothing back."""
    try:
        tables = read_tables(place.home, discover((), place.store))
    except Misconfigured:
        return
    refuse_used(name, tables)


def _install_files(place: PluginHome, package: Path, *, yes: bool) -> None:
    staged = place.store.stage(package)
    manifest, old, signer = staged.manifest, staged.replaces, staged.verified.signer
    _show(
        manifest.name, manifest.version, "" if old is None else old.version, manifest.summary, staged.asks,
        signed_by=str(signer), sha256=staged.verified.sha256,
    )  # fmt: skip
    try:
        _accept(manifest.name, manifest.version, yes=yes)
    except Misconfigured:
        place.store.discard(staged)
        raise

    def activate(approve: Callable[[], None]) -> Manifest:
        _compile(place, manifest)
        return place.store.activate(staged, approve)

    place.change(
        "plugins.install", manifest.name, activate,
        version=manifest.version, serial=manifest.serial, sha256=staged.verified.sha256, signer=signer.id,
        asks=staged.asks,
    )  # fmt: skip
    say(f"{manifest.name} {manifest.version} is active; a gateway takes it up when it starts")


def _compile(place: PluginHome, manifest: Manifest) -> None:
    """Machine code for the gateway's next start; raises Misconfigured E4634, the version in the trash."""
    if not sandboxed(manifest):
        return
    if place.home.plugins.stat().st_uid != os.geteuid():  # machine code is run by nobody but who made it
        say(f"{manifest.name}: is compiled when the gateway starts, by its user, which takes a moment")
        return
    try:
        with patience(f"{manifest.name}: is compiled for this machine"):
            took_s = compile_ahead(manifest, place.home)
    except Misconfigured as error:
        place.store.trash(manifest.name, manifest.folder.name, str(error))
        raise
    say(f"{manifest.name}: compiled for this machine in {took_s:.1f} s")


def _show(name: str, version: str, replaces: str, summary: str, asks: Sequence[str], **more: str) -> None:
    write_record({"name": name, "version": version, "replaces": replaces or None, "summary": summary, **more}, None)
    say("it asks for:" if asks else "it asks for nothing that the version before it did not have")
    for line in asks:
        say(f"  {line}")


def _decline(gateway: ControlClient, staged: StagedRecord) -> None:
    """What somebody else has accepted while we were asked waits no more, and is not ours to take away."""
    if any(waiting.accept == staged.accept for waiting in gateway.plugin_ls()[1]):
        gateway.plugin_remove(staged.name)


def _accept_staged(staged: StagedRecord, *, yes: bool) -> None:
    _show(staged.name, staged.version, staged.replaces, staged.summary, staged.asks)
    _accept(staged.name, staged.version, yes=yes)


def _accept(name: str, version: str, *, yes: bool) -> None:
    """Raises Misconfigured E4633 - a person said no; E4025 - nobody is there."""
    if not agrees(f"install {name} {version}?", yes=yes):
        raise Misconfigured(f"{name} {version}: was not accepted; nothing was installed", code="E4633")


def _tell(change: PluginChangeRecord) -> None:
    users = ", ".join((*change.devices, *change.connectors, *change.bridges, *change.rules)) or "nothing that runs"
    say(f"{change.name} {change.version} is active and used by {users}; longest gap {change.gap_ms:.3g} ms")
