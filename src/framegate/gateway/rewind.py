"""An operator's rewind: a connector delivers again what the durable log still holds.

A remote may acknowledge rows and then lose them; the gateway cannot know, and its cursor stays where it is (O1, O8).
An operator who knows sets it back. The connector stands still meanwhile, and goes on as after a restart: with a fresh
instance, and a fresh session where its protocol has one. Who asked is kept in the log itself (bus/rewinds.py).
"""

from __future__ import annotations

from framegate.bus.opening import STORE
from framegate.bus.rewinds import Rewind
from framegate.bus.store import StoreOptions, open_store
from framegate.contract.errors import StoreFailed
from framegate.contract.frame import Position
from framegate.contract.ports import Log
from framegate.endpoint.clock import SystemClock
from framegate.gateway.home import Home
from framegate.gateway.wiring import Gateway
from framegate.observe.face import RewindRecord
from framegate.observe.metrics import Metrics

_KEEP_ALL = StoreOptions(
    retention_bytes=1 << 62, retention_age_s=float(1 << 40), keep_acked_bytes=1 << 62, keep_acked_s=float(1 << 40)
)
"""Nothing is deleted while a stopped gateway's log is open for a rewind: its limits stand in tables not read here."""


class Rewinder:
    """Rewinds connectors of a running gateway, one at a time."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def rewind(self, connector: str, first: Position | None, since_ns: int, by: str) -> RewindRecord:
        """Set a cursor back, durably; delivery has begun anew on return. See bus/store.py for what is asked.

        raises  Misconfigured E4030 - it cannot be done as asked; StoreFailed - the disk does not take it
        """
        store = self._gateway.store
        async with self._gateway.turn:
            store.plan_rewind(connector, first, since_ns, by)  # what cannot be done stops nothing
            async with self._gateway.standing_still(connector):
                # Again: more was acknowledged before the connector stood still.
                rewind = store.plan_rewind(connector, first, since_ns, by)
                await store.rewind(rewind)
        return _record(rewind)


async def rewind_stopped(
    home: Home, connector: str, first: Position | None, since_ns: int, by: str, log: Log
) -> RewindRecord:
    """Set a cursor back in the log of a gateway that does not run.

    raises  Misconfigured E4003 - it runs; E4030; StoreFailed E3009 - no log is here, and others
    """
    if not (home.data / STORE).is_dir():
        raise StoreFailed(f"data folder {home.data}: no durable log is here; check --home", code="E3009")
    home.prepare()
    with home.owned():
        store = await open_store(home.data, _KEEP_ALL, SystemClock(), log, Metrics())
        try:
            rewind = store.plan_rewind(connector, first, since_ns, by)
            await store.rewind(rewind)
        finally:
            await store.close()
    return _record(rewind)


def _record(rewind: Rewind) -> RewindRecord:
    return RewindRecord(
        connector=rewind.connector,
        before=rewind.before,
        after=rewind.after,
        rows=rewind.rows,
        by=rewind.by,
        time_ns=rewind.time,
    )
