"""`edge plugin trust` and `edge plugin revoke`: whose plugins a home takes, and which ones never again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from framegate.cli import exits
from framegate.cli.moment import moment
from framegate.cli.options import HOME_DEFAULT, HomeOption, OutputOption
from framegate.cli.output import write_rows
from framegate.cli.plugin_home import PluginHome
from framegate.cli.plugin_keys import PassphraseOption, signing_key
from framegate.cli.talk import say, warn
from framegate.contract.errors import Misconfigured
from framegate.package.keys import read_public_key
from framegate.package.signature import key_id_of
from framegate.package.trust import KINDS, REVOCATION, TrustedKey

_COLUMNS = ("key_id", "owner", "names", "kinds", "not_after", "state")
_KEY_ID = re.compile(r"[0-9a-f]{16}", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)


def add(
    public_key: Annotated[Path, Parameter(help="NAME.pub of whoever is to be trusted.")],
    /,
    *,
    owner: Annotated[str, Parameter(help="Whose key it is, for people.")],
    names: Annotated[
        list[str], Parameter(name="--names", negative="", help="Names it may sign: a glob, acme-*; may be repeated.")
    ],
    kinds: Annotated[
        list[str] | None,
        Parameter(name="--kinds", negative="", help=f"What it may sign, driver if absent: {', '.join(KINDS)}; repeat."),
    ] = None,
    not_after: Annotated[str, Parameter(help="Last day on which plugins come in by it: 2027-12-31.")] = "",
    home: HomeOption = HOME_DEFAULT,
) -> int:
    """Trust a key: plugins that it has signed can be installed. Compare its id with its owner first, by telephone."""
    place = PluginHome(home)
    key = read_public_key(public_key)
    trusted = TrustedKey(key_id_of(key), key, owner, tuple(names), tuple(kinds or ("driver",)), _end_of(not_after))
    place.change(
        "plugins.trust", trusted.id, lambda approve: place.store.trust.add(trusted, approve),
        owner=owner, names=trusted.names, kinds=trusted.kinds, not_after=moment(trusted.not_after),
    )  # fmt: skip
    say(f"{trusted} may sign {', '.join(trusted.kinds)} of the names {', '.join(trusted.names)}")
    return exits.OK


def rm(
    key_id: Annotated[str, Parameter(help="As `edge plugin trust ls` shows it.")], /, *, home: HomeOption = HOME_DEFAULT
) -> int:
    """Trust a key no longer: plugins that it alone has signed are not loaded any more from the next start."""
    place = PluginHome(home)
    gone = place.change("plugins.distrust", key_id, lambda approve: place.store.trust.remove(key_id, approve))
    say(f"{gone}: trusted no longer")
    return exits.OK


def ls(*, home: HomeOption = HOME_DEFAULT, output: OutputOption = None) -> int:
    """List trusted keys and what they may sign."""
    place = PluginHome(home)
    trusted = place.store.trust.trusted()
    revoked = place.store.revoked()
    now_ns = place.clock.now_ns()
    rows = [_row(key, now_ns, is_revoked=key.id in revoked.keys) for key in trusted.keys.values()]
    write_rows(rows, _COLUMNS, output)
    for flaw in (*trusted.problems, *place.store.revocation_flaws()):
        warn(str(flaw))
    if not rows:
        say("no key is trusted, so no plugin can be installed; `edge plugin trust add` trusts one")
    return exits.OK


def revoke(
    what: Annotated[list[str], Parameter(help="Key ids (16 digits), or sha256 of packages' manifests or files.")],
    /,
    *,
    key: Annotated[Path, Parameter(help=f"A private key whose public one is trusted for the kind {REVOCATION}.")],
    passphrase_file: PassphraseOption = None,
    home: HomeOption = HOME_DEFAULT,
) -> int:
    """Refuse keys or versions for good: nothing of them is installed or loaded from the next start on."""
    place = PluginHome(home)
    keys = [word for word in what if _KEY_ID.fullmatch(word)]
    digests = [word for word in what if _DIGEST.fullmatch(word)]
    if not what or len(keys) + len(digests) != len(what):
        text = "revoke: name key ids of 16, or sha256 of 64 hexadecimal digits; `edge plugin inspect` shows them"
        raise Misconfigured(text, code="E4025")
    signing = signing_key(key, passphrase_file)
    place.change(
        "plugins.revoke", ", ".join(what)[:200], lambda approve: place.store.revoke(signing, keys, digests, approve)
    )
    say(f"revoked: {', '.join(what)}")
    return exits.OK


def _end_of(day: str) -> int:
    """The end of a day, ns UTC; 0 for none."""
    if not day:
        return 0
    try:
        end = datetime.strptime(day, "%Y-%m-%d").replace(hour=23, minute=59, second=59, tzinfo=UTC)
    except ValueError as error:
        raise Misconfigured(f'--not-after "{day:.32}": is no day; write 2027-12-31', code="E4025") from error
    return int(end.timestamp()) * 1_000_000_000


def _row(key: TrustedKey, now_ns: int, *, is_revoked: bool) -> Mapping[str, Any]:
    is_over = key.not_after and now_ns > key.not_after
    return {
        "key_id": key.id,
        "owner": key.owner,
        "names": list(key.names),
        "kinds": list(key.kinds),
        "not_after": moment(key.not_after),
        "state": "revoked" if is_revoked else "expired" if is_over else "valid",
    }
