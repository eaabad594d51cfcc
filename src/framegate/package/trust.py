"""Whom an operator trusts to sign plugins, and what was revoked.

    trust.d/KEYID.toml     key, owner, names = ["acme-*"], kinds = ["driver"], not_after: one key each
    revoked.toml           serial, keys, digests; signed by a key whose kinds hold "revocation": revoked.toml.sig

An empty folder trusts nobody. A key counts only while its file can be understood and nobody but its owner may write it:
the gateway's user, the owner of HOME/plugins, or root.
What a key may sign is bounded by names (globs) and kinds: every role that a plugin declares has to be among them.
`not_after` bounds when plugins come in, not how long installed ones run: a plant does not stop at a date. A revoked key
or digest does end them, from the next load.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from framegate.contract.errors import Misconfigured, StoreFailed
from framegate.contract.plugin import Manifest
from framegate.endpoint.durable import give_to_owner, read_bounded, replace_durably, sync_folder, why
from framegate.package.manifest import ROLES
from framegate.package.signature import (
    ENVELOPE_BYTES_MAX,
    MANIFEST_TYPE,
    REVOCATIONS_TYPE,
    SIGNATURES_MAX,
    Signature,
    envelope_of,
    holds,
    key_id_of,
    public_key_of,
    sign,
    signatures_in,
    text_of,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

TRUST_FOLDER, REVOKED, REVOKED_SIGNATURE = "trust.d", "revoked.toml", "revoked.toml.sig"
REVOCATION: Final = "revocation"
KINDS: Final = (*ROLES, REVOCATION)
KEYS_MAX: Final = 256
PATTERNS_MAX: Final = 64
OWNER_CHARACTERS_MAX: Final = 120
TRUST_BYTES_MAX: Final = 16 * 1024
REVOKED_BYTES_MAX: Final = 512 * 1024
REVOKED_MAX: Final = 4_096
_WRITABLE_BY_OTHERS = 0o022
_NS = 1_000_000_000
_FIELDS = {"key", "owner", "names", "kinds", "not_after"}


def approved() -> None:
    """Nobody has to be asked."""


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A key and what it may sign.

    names      globs over names of plugins
    not_after  ns UTC; 0: for ever
    """

    id: str
    key: Ed25519PublicKey
    owner: str
    names: tuple[str, ...]
    kinds: tuple[str, ...]
    not_after: int = 0

    def __str__(self) -> str:
        return f"{self.owner} ({self.id})"


@dataclass(frozen=True, slots=True)
class Revocations:
    """What nobody may use any more: keys by id, and digests (sha256) of manifests or files. serial only rises."""

    serial: int = 0
    keys: frozenset[str] = frozenset()
    digests: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Trusted:
    """Keys by id, and why other files of trust.d do not count."""

    keys: Mapping[str, TrustedKey] = field(default_factory=dict)
    problems: tuple[Misconfigured, ...] = ()


class Trust:
    """The trust of one home; read from its files each time it is asked, so that a change holds at once. Blocking.

    folder  HOME/plugins
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / TRUST_FOLDER
        self._revoked, self._revoked_signature = folder / REVOKED, folder / REVOKED_SIGNATURE

    def trusted(self) -> Trusted:
        """Every key that counts."""
        keys: dict[str, TrustedKey] = {}
        problems: list[Misconfigured] = []
        for path in sorted(self.folder.glob("*.toml"))[:KEYS_MAX]:
            try:
                keys[path.stem] = _trusted_key(path)
            except (OSError, ValueError, KeyError, TypeError) as error:
                reason = f"{error} is missing" if isinstance(error, KeyError) else why(error)
                problems.append(Misconfigured(f"{path}: does not count ({reason}); correct or remove it", code="E4625"))
        return Trusted(keys, tuple(problems))

    def add(self, key: TrustedKey, approve: Callable[[], None] = approved) -> Path:
        """Trust a key, or change what it may sign; returns its file.

        approve  called once everything else is in order; what it raises stops the change
        raises  Misconfigured E4625 - it makes no sense; StoreFailed E4624
        """
        flaw = _flaw(key.owner, key.names, key.kinds)
        if flaw:
            raise Misconfigured(f"key {key.id}: {flaw}", code="E4625")
        known = self.trusted().keys
        if key.id not in known and len(known) >= KEYS_MAX:
            raise Misconfigured(f"{self.folder}: holds {KEYS_MAX} keys; remove those nobody uses", code="E4625")
        approve()
        lines = [
            f'key = "{text_of(key.key)}"',
            f"owner = {_toml_text(key.owner)}",
            f"names = [{', '.join(map(_toml_text, key.names))}]",
            f"kinds = [{', '.join(map(_toml_text, key.kinds))}]",
        ]
        if key.not_after:
            lines.append(f"not_after = {datetime.fromtimestamp(key.not_after // _NS, UTC):%Y-%m-%dT%H:%M:%SZ}")
        path = self.folder / f"{key.id}.toml"
        try:
            if not self.folder.exists():
                self.folder.mkdir(mode=0o750, parents=True)
                give_to_owner(self.folder)
            replace_durably(path, ("\n".join(lines) + "\n").encode(), 0o640)
            give_to_owner(path)
        except OSError as error:
            raise _unwritable(path, error) from error
        return path

    def remove(self, key_id: str, approve: Callable[[], None] = approved) -> TrustedKey:
        """Trust a key no longer; `approve` as in add.

        raises  Misconfigured E4629 - it is not trusted; StoreFailed E4624
        """
        known = self.trusted().keys.get(key_id)
        if known is None:
            raise Misconfigured(f"key {key_id:.32}: is not trusted; `edge plugin trust ls` lists keys", code="E4629")
        path = self.folder / f"{key_id}.toml"
        approve()
        try:
            path.unlink()
            sync_folder(self.folder)
        except OSError as error:
            raise _unwritable(path, error) from error
        return known

    def revocations(self) -> Revocations:
        """What was revoked; nothing where there is no list.

        raises  Misconfigured E4605, E4626 - the list cannot be read, or nobody trusted has signed it
        """
        place = str(self._revoked)
        try:
            if not self._revoked.exists():
                return Revocations()
            text = read_bounded(self._revoked, REVOKED_BYTES_MAX)
            signatures = self._signatures()
        except (OSError, ValueError) as error:
            raise _no_list(place, why(error)) from error
        keys = self.trusted().keys
        signers = [
            key
            for one in signatures
            if (key := keys.get(one.key_id)) is not None and holds(one, key.key, REVOCATIONS_TYPE, text)
        ]
        if not any(REVOCATION in key.kinds for key in signers):
            raise _no_list(place, f"no key that is trusted for the kind {REVOCATION} has signed it")
        try:
            return _revocations(tomllib.loads(text.decode()))
        except (ValueError, KeyError, TypeError) as error:
            raise _no_list(place, why(error)) from error

    def _signatures(self) -> list[Signature]:
        """Those beside the list; none where there is no list yet. Raises OSError, ValueError, Misconfigured E4605."""
        if not self._revoked_signature.exists():
            return []
        envelope = read_bounded(self._revoked_signature, ENVELOPE_BYTES_MAX)
        return signatures_in(envelope, REVOCATIONS_TYPE, str(self._revoked_signature))

    def refuse_revoking(self, key: Ed25519PrivateKey) -> None:
        """Raises Misconfigured E4626 where a key may not revoke."""
        signer = self.trusted().keys.get(key_id_of(key.public_key()))
        if signer is None or REVOCATION not in signer.kinds:
            text = f"key {key_id_of(key.public_key())}: may not revoke; trust it for the kind {REVOCATION} first"
            raise Misconfigured(text, code="E4626")

    def revoke(self, key: Ed25519PrivateKey, keys: Sequence[str], digests: Sequence[str]) -> Revocations:
        """Add to the list and sign it anew.

        raises  Misconfigured E4626 - the list as it is cannot be believed; or that key may not sign it; StoreFailed
        """
        self.refuse_revoking(key)
        old = self.revocations()
        new = Revocations(old.serial + 1, old.keys | set(keys), old.digests | set(digests))
        if len(new.keys) + len(new.digests) > REVOKED_MAX:
            raise Misconfigured(f"{self._revoked}: holds {REVOKED_MAX} entries at most", code="E4626")
        lines = [f"serial = {new.serial}", _toml_list("keys", new.keys), _toml_list("digests", new.digests)]
        text = ("\n".join(lines) + "\n").encode()
        signature = sign(key, REVOCATIONS_TYPE, text)
        both = [signature, *self._signatures()][:SIGNATURES_MAX]  # at each moment the list that is there is signed
        try:
            replace_durably(self._revoked_signature, envelope_of(REVOCATIONS_TYPE, both), 0o640)
            replace_durably(self._revoked, text, 0o640)
            replace_durably(self._revoked_signature, envelope_of(REVOCATIONS_TYPE, [signature]), 0o640)
            give_to_owner(self._revoked)
            give_to_owner(self._revoked_signature)
        except OSError as error:
            raise _unwritable(self._revoked, error) from error
        return new


def signers_of(
    envelope: bytes, payload: bytes, place: str, trusted: Trusted, revoked: Revocations
) -> Sequence[TrustedKey]:
    """Trusted keys that have signed exactly this manifest; one at least.

    raises  Misconfigured E4605 - no signature; E4606 - another text was signed; E4607 - no key is trusted; E4611
    """
    signatures = signatures_in(envelope, MANIFEST_TYPE, f"{place}: its signature")
    ids = ", ".join(ascii(one.key_id) for one in signatures) or "none that is known here"
    if any(one.key_id in revoked.keys for one in signatures):
        signatures = [one for one in signatures if one.key_id not in revoked.keys]
        if not signatures:
            text = f"{place}: signed by a key that was revoked ({ids}); ask its owner for a package with another key"
            raise Misconfigured(text, code="E4611")
    known = [(one, key) for one in signatures if (key := trusted.keys.get(one.key_id)) is not None]
    if not known:
        flaws = "".join(f"; {flaw.text}" for flaw in trusted.problems[:3])
        text = f"{place}: signed by no key that is trusted here ({ids}); `edge plugin trust add` trusts one{flaws}"
        raise Misconfigured(text, code="E4607")
    signers = [key for one, key in known if holds(one, key.key, MANIFEST_TYPE, payload)]
    if not signers:
        text = f"{place}: its signature is not one of this manifest; somebody changed it, do not use it"
        raise Misconfigured(text, code="E4606")
    return signers


def permitted(manifest: Manifest, signers: Sequence[TrustedKey], place: str, now_ns: int | None) -> TrustedKey:
    """The first signer that may sign this plugin.

    now_ns  None: it came in earlier, and the date does not count any more
    raises  Misconfigured E4608 - another name; E4609 - a role beyond its kinds; E4610 - expired
    """
    refusals: list[Misconfigured] = []
    for key in signers:
        refusal = _refusal(manifest, key, place, now_ns)
        if refusal is None:
            return key
        refusals.append(refusal)
    raise refusals[0]


def _refusal(manifest: Manifest, key: TrustedKey, place: str, now_ns: int | None) -> Misconfigured | None:
    if not any(fnmatchcase(manifest.name, pattern) for pattern in key.names):
        text = f"{place}: key of {key} may sign {', '.join(key.names)}, not {manifest.name}; ask its owner"
        return Misconfigured(text, code="E4608")
    beyond = [role for role in manifest.roles if role not in key.kinds]
    if beyond:
        text = f"{place}: key of {key} may sign a {', '.join(key.kinds)}, this is a {', '.join(beyond)}; ask its owner"
        return Misconfigured(text, code="E4609")
    if now_ns is not None and key.not_after and now_ns > key.not_after:
        until = datetime.fromtimestamp(key.not_after // _NS, UTC)
        text = f"{place}: key of {key} was trusted until {until:%Y-%m-%d}; ask its owner for a package with a newer key"
        return Misconfigured(text, code="E4610")
    return None


def _trusted_key(path: Path) -> TrustedKey:
    state, folder = path.stat(), path.parent.stat()
    if state.st_mode & _WRITABLE_BY_OTHERS:
        raise ValueError("others may write it; look who did, then chmod 640")
    owners = {0, os.geteuid(), path.parent.parent.stat().st_uid}
    if folder.st_mode & _WRITABLE_BY_OTHERS or folder.st_uid not in owners or state.st_uid not in {0, folder.st_uid}:
        raise ValueError("others may have put it there: whose is it, and may only its owner write to the folder")
    raw: Mapping[str, Any] = tomllib.loads(read_bounded(path, TRUST_BYTES_MAX).decode())
    if set(raw) - _FIELDS:
        raise ValueError(f"{', '.join(sorted(set(raw) - _FIELDS))} is no key of it")
    key = public_key_of(raw["key"])
    names, kinds = _words(raw["names"]), _words(raw["kinds"])
    flaw = _flaw(raw["owner"], names, kinds)
    if flaw:
        raise ValueError(flaw)
    if path.stem != key_id_of(key):
        raise ValueError(f"its name is not that of its key, {key_id_of(key)}")
    end = raw.get("not_after")
    if end is not None and (not isinstance(end, datetime) or end.tzinfo is None):
        raise ValueError("not_after is no time with a zone, such as 2027-11-26T00:00:00Z")
    return TrustedKey(path.stem, key, raw["owner"], names, kinds, 0 if end is None else int(end.timestamp()) * _NS)


def _flaw(owner: object, names: Sequence[str], kinds: Sequence[str]) -> str:
    if not isinstance(owner, str) or not 1 <= len(owner) <= OWNER_CHARACTERS_MAX or not owner.isprintable():
        return f"owner has 1 to {OWNER_CHARACTERS_MAX} printable characters"
    if not 1 <= len(names) <= PATTERNS_MAX:
        return f"names has 1 to {PATTERNS_MAX} globs over names of plugins, such as acme-*"
    if not kinds or not set(kinds) <= set(KINDS):
        return f"kinds is made of {', '.join(KINDS)}"
    return ""


def _revocations(raw: Mapping[str, Any]) -> Revocations:
    serial = raw["serial"]
    if type(serial) is not int or serial < 1:
        raise ValueError("serial is no whole number from 1 on")
    return Revocations(serial, frozenset(_words(raw["keys"])), frozenset(_words(raw["digests"])))


def _words(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise ValueError(f"{value!r:.80} is no list of text")
    return tuple(value)


def _toml_text(text: str) -> str:
    """A basic string; JSON's escapes are among TOML's, for what is printable."""
    return json.dumps(text, ensure_ascii=False)


def _toml_list(key: str, words: Iterable[str]) -> str:
    return f"{key} = [\n{''.join(f'  {_toml_text(word)},{chr(10)}' for word in sorted(words))}]"


def _unwritable(path: Path, error: OSError) -> StoreFailed:
    text = f"{path}: cannot be written ({why(error)}); nothing was changed, correct space or rights"
    return StoreFailed(text, code="E4624")


def _no_list(place: str, reason: str) -> Misconfigured:
    text = f"{place}: cannot be believed ({reason}); bring back the list and its signature"
    return Misconfigured(text, code="E4626")
