"""Plugins over the API: what there is, and packages uploaded, accepted, rolled back and removed.

An uploaded package is verified and then compared with the active version. What asks nothing more comes into force at
once. What does is answered with 202, what it asks, and a digest; sent again with `?accept=` and that digest, with or
without the package, it comes into force. The digest covers all that was shown.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from framegate.api.operation import Answer, Call, NoParameters, Upload
from framegate.contract.errors import Denied, Misconfigured
from framegate.gateway.plugins.uploads import UPLOAD_BYTES_MAX
from framegate.observe.plugin_face import PluginChangeRecord, PluginFace, PluginRecord, StagedRecord

ACCEPT_CHARACTERS_MAX: Final = 64
PACKAGE_BYTES_MAX: Final = UPLOAD_BYTES_MAX


class AcceptQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was shown before."""

    accept: Annotated[
        str, Meta(max_length=ACCEPT_CHARACTERS_MAX, description="`accept` of the answer that showed what is asked.")
    ] = ""


class Plugins(msgspec.Struct, frozen=True):
    """Plugins that rows can name, and packages that wait until somebody accepts what they ask."""

    plugins: list[PluginRecord]
    staged: list[StagedRecord]


class Plugin(msgspec.Struct, frozen=True):
    """One plugin: the version in force, and the package that waits; null where there is none."""

    active: PluginRecord | None
    staged: StagedRecord | None


async def list_plugins(call: Call[NoParameters, None]) -> Answer:
    face = call.site.face.plugins
    return Answer(Plugins(list(face.plugins()), list(face.staged())))


async def read_plugin(call: Call[NoParameters, None]) -> Answer:
    face, name = call.site.face.plugins, call.path["plugin"]
    active = next((row for row in face.plugins() if row.name == name), None)
    staged = next((row for row in face.staged() if row.name == name), None)
    if active is None and staged is None:
        raise _unknown(name)
    return Answer(Plugin(active, staged))


async def install(call: Call[AcceptQuery, Upload]) -> Answer:
    face, accept = call.site.face.plugins, call.query.accept
    pieces, is_empty = await _peeked(call.body.pieces)
    if is_empty:
        staged = _accepted(face, accept)
    else:
        staged = await face.receive(pieces, call.author)
        if not call.site.access.is_valid(call.principal):  # a package may take its time to come
            raise Denied("these credentials have ended meanwhile", code="E4300")
        if staged.asks and not accept:
            return Answer(staged, 202, note={"plugin": staged.name, "version": staged.version, "asks": staged.asks})
    change = await face.activate(staged.name, accept or staged.accept, call.author)
    return _changed(change)


async def roll_back(call: Call[NoParameters, None]) -> Answer:
    return _changed(await call.site.face.plugins.roll_back(call.path["plugin"], call.author))


async def remove(call: Call[NoParameters, None]) -> Answer:
    return _changed(await call.site.face.plugins.remove(call.path["plugin"], call.author))


def audited(call: Call[AcceptQuery, Upload]) -> Mapping[str, Any]:
    """What the audit log keeps of an upload before it has come."""
    return {"accept": call.query.accept}


async def _peeked(pieces: AsyncIterator[bytes]) -> tuple[AsyncIterator[bytes], bool]:
    """The pieces again, and whether there are none."""
    first = b""
    async for piece in pieces:
        first = piece
        if first:
            break

    async def all_of_them() -> AsyncIterator[bytes]:
        yield first
        async for piece in pieces:
            yield piece

    return all_of_them(), not first


def _accepted(face: PluginFace, accept: str) -> StagedRecord:
    """What waits and is accepted by that digest."""
    staged = next((row for row in face.staged() if row.accept == accept), None)
    if staged is None:
        text = "plugins: no package came, and none waits that `accept` fits; send the package"
        raise Misconfigured(text, code="E4657")
    return staged


def _unknown(name: str) -> Misconfigured:
    return Misconfigured(f"plugin {name[:64]}: no such plugin; GET /api/v1/plugins lists them", code="E4656")


def _changed(change: PluginChangeRecord) -> Answer:
    return Answer(change, note={"plugin": change.name, "before": change.before, "version": change.version})
