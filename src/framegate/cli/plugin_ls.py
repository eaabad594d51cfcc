"""`edge plugin ls` and `inspect`, and verifying: what is installed, and what a package is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from framegate.cli import exits
from framegate.cli.moment import moment
from framegate.cli.options import HOME_DEFAULT, HomeOption, OutputOption
from framegate.cli.output import write_record, write_rows
from framegate.cli.plugin_home import PluginHome, running_gateway
from framegate.cli.talk import complain, say, warn
from framegate.contract.errors import Misconfigured
from framegate.package.discover import discover
from framegate.package.keys import read_public_key
from framegate.package.permissions import asks_of
from framegate.package.signature import key_id_of
from framegate.package.store import PluginStore
from framegate.package.trust import KINDS, Revocations, Trusted, TrustedKey
from framegate.package.verified import Judge, Verified

OK, WAITS = "ok", "waits"
_COLUMNS = ("name", "version", "serial", "roles", "signed_by", "back_to", "state")


def ls(*, home: HomeOption = HOME_DEFAULT, output: OutputOption = None) -> int:
    """List installed plugins: version, signer, versions to go back to. Exit code 1 when one does not hold."""
    place = PluginHome(home)
    store = place.store
    rows = [*_rows(store), *_waiting(place)]
    write_rows(rows, _COLUMNS, output)
    if not rows:
        say(f"no plugins are installed beside the {len(discover()):,} that come with the gateway")
    for flaw in (*store.trust.trusted().problems, *store.revocation_flaws()):
        warn(str(flaw))
    return exits.FAILED if any(row["state"] not in {OK, WAITS} for row in rows) else exits.OK


def inspect(
    what: Annotated[str, Parameter(help="A package, a plugin's folder, or the name of an installed plugin.")],
    /,
    *,
    home: HomeOption = HOME_DEFAULT,
    output: OutputOption = None,
) -> int:
    """Show what a plugin is and asks for. Only what is signed by somebody trusted is shown."""
    store = PluginHome(home).store
    found = store.verify(what) if what in store.names() else store.examine(Path(what))
    write_record(_record(found), output)
    return exits.OK


def verify(
    file: Annotated[Path, Parameter(help="A package, a plugin's folder, or a file beside its driver.toml.")],
    /,
    *,
    key: Annotated[Path | None, Parameter(help="Trust just this public key, in place of the home's keys.")] = None,
    home: HomeOption = HOME_DEFAULT,
    output: OutputOption = None,
) -> int:
    """Verify signature and every byte of a plugin; nothing is installed. Exit code 1 when it does not hold."""
    judge = None
    if key is not None:
        public = read_public_key(key)
        id_ = key_id_of(public)
        judge = Judge(Trusted({id_: TrustedKey(id_, public, str(key), ("*",), KINDS)}), Revocations())
    store = PluginStore(home.resolve() / "plugins") if judge else PluginHome(home).store
    found = store.examine(file, judge)
    write_record(_record(found), output)
    say(f"{found.manifest.name} {found.manifest.version} holds: signed by {found.signer}")
    return exits.OK


def verify_installed(*, home: HomeOption = HOME_DEFAULT) -> int:
    """Verify every byte of every installed plugin. Exit code 1 when one does not hold."""
    store = PluginHome(home).store
    code = exits.OK
    for name in store.names():
        try:
            found = store.verify(name)
        except Misconfigured as error:
            complain(str(error))
            code = exits.FAILED
            continue
        say(f"{name} {found.manifest.version} holds: {len(found.manifest.files):,} files, signed by {found.signer}")
    return code


def _rows(store: PluginStore) -> Iterator[Mapping[str, Any]]:
    for name in store.names():
        try:
            found = store.look(name)
        except Misconfigured as error:
            yield {**dict.fromkeys(_COLUMNS), "name": name, "back_to": store.history(name), "state": str(error)}
            continue
        manifest = found.manifest
        yield {
            "name": name,
            "version": manifest.version,
            "serial": manifest.serial,
            "roles": list(manifest.roles),
            "signed_by": str(found.signer),
            "back_to": store.history(name),
            "state": OK,
        }


def _waiting(place: PluginHome) -> Iterator[Mapping[str, Any]]:
    """Packages that a running gateway has verified and nobody has accepted yet."""
    gateway = running_gateway(place.home)
    if gateway is None:
        return
    with gateway:
        for staged in gateway.plugin_ls()[1]:
            since = f"waits since {moment(staged.since_ns)}, brought by {staged.by}"
            say(f"{staged.name} {staged.version} {since}; `edge plugin accept {staged.name}`, or `remove` it")
            known = {"name": staged.name, "version": staged.version, "serial": staged.serial, "state": WAITS}
            yield {**dict.fromkeys(_COLUMNS), **known}


def _record(found: Verified) -> Mapping[str, Any]:
    manifest = found.manifest
    return {
        "name": manifest.name,
        "version": manifest.version,
        "serial": manifest.serial,
        "summary": manifest.summary,
        "arch": manifest.arch or "any",
        "roles": {role: entry.shape for role, entry in manifest.roles.items()},
        "asks": list(asks_of(manifest)),
        "files": {name: file.size for name, file in manifest.files.items()},
        "signed_by": str(found.signer),
        "sha256": found.sha256,
    }
