"""The gateway of one home as a service: in the foreground, until SIGTERM or Ctrl-C. What `edge run` runs.

Start: tables, lock of the home, metrics address, gateway, control socket, watch over the tables, API. Stop in reverse,
within 2 s. What cannot work is told before anything is connected, with file, line and column; exit code 78 then, unless
an older configuration can stand in. Logs go to stderr.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from framegate import __version__
from framegate.access.audit import AuditLog
from framegate.cli import exits
from framegate.cli.first_start import tell_first_start
from framegate.cli.start_watch import start_watched
from framegate.cli.tables import check_with_plugins, plugins_of, read_tables
from framegate.cli.talk import complain, counted, say
from framegate.config import GatewayRow, Tables, render_problems
from framegate.config.history import History, Texts, read_texts
from framegate.contract.access import Permission
from framegate.contract.errors import Misconfigured
from framegate.contract.ports import Clock, Log
from framegate.endpoint.clock import SystemClock
from framegate.gateway.centre import centre_options, centred
from framegate.gateway.health import Health
from framegate.gateway.home import Home
from framegate.gateway.memory import be_frugal, settle
from framegate.gateway.plugins.drops import taking_drops
from framegate.gateway.reload import reloading
from framegate.gateway.wiring import Gateway
from framegate.observe.log import make_log
from framegate.ops import control, exposition
from framegate.package.discover import Plugins

if TYPE_CHECKING:
    from framegate.access.room import AccessRoom
    from framegate.config.etcd import CentreOptions

PLUGIN_STOP_S = 0.5
"""For a change of a plugin that is under way; what is not done then is undone by the next start."""
SIGNALS = (signal.SIGTERM, signal.SIGINT)


def serve(home: Path, clock: Clock | None = None, *, is_strict: bool = False, config_centre: Path | None = None) -> int:
    """Run until asked to stop; returns the exit code. Raises Misconfigured, StoreFailed for what is not in a table.

    Where the tables are wrong and an older configuration was in force here before, the gateway runs on that, says so,
    and takes the tables as soon as they are right.

    clock      the machine's, unless an experiment brings its own
    is_strict  wrong tables end the start all the same
    config_centre  file that names the etcd; absent: HOME/config-centre.yml, if it exists
    """
    be_frugal()
    place = Home(home.resolve())
    plugins = plugins_of(place)
    try:
        centre = centre_options(place, config_centre)
        _run(place, plugins, clock or SystemClock(), centre, is_strict=is_strict)
    except Misconfigured as error:
        if not error.problems:
            raise
        for line in render_problems(error.problems, place.config):
            say(line)
        found = counted(len(error.problems), "problem")
        complain(f"{found} in {place.config}; nothing was started, see also `edge check`")
        return exits.MISCONFIGURED
    return exits.OK


def _run(home: Home, plugins: Plugins, clock: Clock, centre: CentreOptions | None, *, is_strict: bool) -> None:
    """Run on the tables of the home, else on the last good generation."""
    history = History(home.history)
    if not history.is_published:
        with home.owned():
            history.finish_publishing(home.config)

    def service(texts: Texts, instead_of: Misconfigured | None = None) -> _Service:
        return _Service(home, read_tables(home, plugins, texts), texts, plugins, clock, centre, instead_of)

    try:
        _own_and_run(home, service(read_texts(home.config)))
    except Misconfigured as error:
        good = None if is_strict or not error.problems else history.current()
        if good is None:
            raise
        for line in render_problems(error.problems, home.config):
            say(line)
        found = counted(len(error.problems), "problem")
        complain(f"{home.config} has {found}; running on generation {good.number} meanwhile")
        _own_and_run(home, service(history.texts(good.number), error))


def _own_and_run(home: Home, service: _Service) -> None:
    home.prepare()
    with home.owned():
        uvloop.run(service.run())


class _Service:
    """One gateway and what others see of it, from start to stop.

    texts       the tables it starts with; let go once they are booked
    instead_of  what is wrong with those in its home, where they are others
    """

    def __init__(
        self,
        home: Home,
        tables: Tables,
        texts: Texts,
        plugins: Plugins,
        clock: Clock,
        centre: CentreOptions | None,
        instead_of: Misconfigured | None = None,
    ) -> None:
        row = tables.gateway
        self._home, self._texts, self._instead_of = home, texts, instead_of
        self._tags = len(tables.variables)
        self._plugins = plugins
        self._centre = centre
        self._log: Log = make_log(level=row.log_level, gateway=row.name)
        self._gateway = Gateway(home, tables, plugins, self._log, clock)
        self._health: Health | None = None
        self._asked_to_stop = asyncio.Event()
        if row.api is not None:
            import framegate.api.server  # noqa: F401, PLC0415 - 0.3 s: only where wanted, and not beside the first scans

    async def run(self) -> None:
        self._listen_for_signals()
        pages = await self._expose(self._gateway.tables.gateway)
        audit = AuditLog(self._home.access, self._gateway.clock, self._log)
        self._gateway.audit = audit
        room = self._open_access(self._gateway.tables.gateway, audit)
        try:
            with start_watched(self._log):
                await self._start()
            try:
                assert self._health is not None
                server = await control.serve(self._health, self._home.socket)
                self._log_start()
                async with (
                    reloading(self._health.config, self._home, self._log),
                    taking_drops(self._health.plugins, self._home, self._log, self._gateway.audit),
                    centred(self._centre, self._health, self._gateway),
                    self._api(self._health, pages, room),
                ):
                    await self._asked_to_stop.wait()
                self._log.info("gateway_stopping")
                await self._health.plugins.close(PLUGIN_STOP_S)
                self._health = None
                await server.close()
            finally:
                await self._gateway.stop()
            self._log.info("gateway_stopped")
        finally:
            if room is not None:
                await room.close()
            await audit.close()
            await pages.close()

    def _open_access(self, row: GatewayRow, audit: AuditLog) -> AccessRoom | None:
        """Who may come in; None where there is no API to come to."""
        if row.api is None:
            return None
        from framegate.access.room import open_access  # noqa: PLC0415 - as the API below

        gateway = self._gateway
        room = open_access(
            self._home.root, row.name, row.tenant, row.access.issuers, gateway.clock, self._log, audit=audit
        )
        gateway.api_may_write = lambda name, tag: room.may_still(name, Permission.TAGS_WRITE, tag)
        tell_first_start(room, self._home.root)
        return room

    async def _start(self) -> None:
        try:
            await self._gateway.start()
        except Misconfigured as error:
            tables = read_tables(self._home, self._plugins, self._texts)
            check_with_plugins(tables, self._plugins, self._home)  # the same mistake, with its line and column
            raise error from None
        health = Health(self._gateway)
        await health.config.begin(self._texts, self._instead_of)
        health.plugins.begin()
        self._texts = {}
        settle()
        self._health = health

    async def _expose(self, row: GatewayRow) -> exposition.Exposition:
        if not row.metrics:
            return exposition.Exposition(self._gateway.metrics, self._why_not_ready)
        host, _, port = row.metrics.rpartition(":")
        return await exposition.serve(self._gateway.metrics, host.strip("[]"), int(port), self._why_not_ready)

    @contextlib.asynccontextmanager
    async def _api(self, health: Health, pages: exposition.Exposition, room: AccessRoom | None) -> AsyncIterator[None]:
        """The API, where drivers.yml has a row for it."""
        row, gateway = self._gateway.tables.gateway.api, self._gateway
        if row is None or room is None:
            yield
            return
        from framegate.api.server import serve_api  # noqa: PLC0415 - as above

        server = await serve_api(
            health, gateway.desk, room, room.audit, row, self._log, gateway.metrics,
            clock=gateway.clock, base=self._home.config, ready=self._why_not_ready, scrape=pages.page,
        )  # fmt: skip
        try:
            yield
        finally:
            await server.close()

    def _why_not_ready(self) -> str:
        return "starting or stopping" if self._health is None else self._health.health().problem

    def _listen_for_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._signalled)

    def _signalled(self) -> None:
        """Stop in order; from now on a second signal ends the process as usual."""
        self._asked_to_stop.set()
        for number in SIGNALS:
            asyncio.get_running_loop().remove_signal_handler(number)

    def _log_start(self) -> None:
        self._log.info(
            "gateway_started",
            version=__version__,
            home=str(self._home.root),
            devices=len(self._gateway.tables.drivers),
            connectors=len(self._gateway.tables.connectors),
            bridges=len(self._gateway.tables.bridges),
            tags=self._tags,
            metrics=self._gateway.tables.gateway.metrics,
        )
