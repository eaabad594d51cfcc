"""Changed tables take effect while the gateway runs: from the watch over their folder to the applier."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from framegate.config.watch import Watch
from framegate.contract.ports import Log
from framegate.gateway.apply import Applier
from framegate.gateway.home import Home

STOP_S = 1.0
"""How long a change under way may take to end when the gateway stops; the stop undoes nothing that is durable."""


@contextlib.asynccontextmanager
async def reloading(applier: Applier, home: Home, log: Log) -> AsyncIterator[None]:
    """Inside, changed tables in HOME/config are taken, or wait, as `gateway: {reload: ...}` says."""
    loop = asyncio.get_running_loop()
    changed = asyncio.Event()

    async def follow() -> None:
        while True:
            await changed.wait()
            changed.clear()  # what changes from here on is another change
            await applier.take_files()

    def polling(reason: str) -> None:
        loop.call_soon_threadsafe(lambda: log.warning("config_watch_polling", reason=reason))

    def seen() -> None:
        loop.call_soon_threadsafe(changed.set)

    watch = Watch(home.config, home.rules, seen, polling)
    watch.start()
    changed.set()  # they may have changed since they were read
    follower = asyncio.create_task(follow(), name="reload")
    try:
        yield
    finally:
        await asyncio.to_thread(watch.stop)
        await applier.close(STOP_S)
        follower.cancel()
        await asyncio.wait((follower,), timeout=STOP_S)
