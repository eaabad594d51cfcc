"""Bridges of a gateway: what each shows, how it is started, and which door its writes go through."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase

from framegate.bridge.wire import Start
from framegate.config import BridgeRow, Tables
from framegate.config.shown import bridge_tags
from framegate.contract.bridge import ServerTls
from framegate.contract.command import Asker
from framegate.contract.plugin import Manifest
from framegate.contract.ports import Catalogue
from framegate.endpoint.endpoint import Endpoint
from framegate.gateway.home import Home


def start_of(
    row: BridgeRow, tables: Tables, catalogue: Catalogue, endpoint: Endpoint | None, manifest: Manifest, home: Home
) -> Start:
    """What the process of a bridge is told first. tables: with their tag rows."""

    def id_of(name: str) -> int:
        tag = catalogue.find(name)
        assert tag is not None, name
        return tag.id

    return Start(
        entry=manifest.roles["bridge"].entry,
        folder=str(manifest.folder if manifest.files else manifest.folder.parent),
        options=dict(row.options),
        name=row.name,
        gateway=tables.gateway.name,
        url=str(endpoint.url) if endpoint else "",
        tls=None if endpoint is None else _tls(endpoint),
        base=str(home.config),
        home=str(home.bridge(row.plugin, row.name)),
        tags=bridge_tags(row, tables.variables, id_of),
        may_write=bool(row.commands),
        memory_max=row.memory_max,
        sealed=bool(manifest.files),
    )


def asker_of_bridge(name: str, row: Callable[[], BridgeRow | None]) -> Asker:
    """Who a bridge is to the desk: origin "bridge:NAME", and the tags that its row allows at the moment of asking."""

    def may(tag: str) -> bool:
        now = row()
        return now is not None and now.enabled and any(fnmatchcase(tag, glob) for glob in now.commands)

    return Asker(f"bridge:{name}", may)


def _tls(endpoint: Endpoint) -> ServerTls | None:
    options = endpoint.tls
    if options is None or options.cert is None:
        return None
    return ServerTls(
        cert=str(options.cert),
        key=str(options.key or options.cert),
        ca=str(options.ca or ""),
        key_password=options.key_password or "",
        minimum=options.minimum.value,
    )
