"""Metrics for Prometheus, and the probes /livez and /readyz, over HTTP on one small port.

    exposition = await serve(metrics, "127.0.0.1", 9100, ready)

The numbers are copied on the loop (microseconds); making text of them is work for the thread `edge-metrics`, so a
scrape of ten thousand series does not hold up a scan. Alive means: the loop turns. Ready means: rows are taken and
kept; a silent device does not make a gateway unready.
"""

from __future__ import annotations

import asyncio
import errno
import platform
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from framegate import __version__
from framegate.contract.errors import Misconfigured
from framegate.observe.metrics import Metrics
from framegate.ops.http import HttpServer, Response
from framegate.ops.port_holder import holder_of
from framegate.ops.snapshot import Snapshot, snapshot_of

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_INDEX = b"Framegate: /metrics /livez /readyz\n"


async def serve(metrics: Metrics, host: str, port: int, ready: Callable[[], str]) -> Exposition:
    """Listen on an address; port 0 takes a free one, see `Exposition.port`.

    ready   why the gateway cannot take and keep rows now, "" when it can
    raises  Misconfigured E4017 - the port is taken; E4018 - the address is not of this machine, or not allowed
    """
    exposition = Exposition(metrics, ready)
    try:
        await exposition.start(host, port)
    except OSError as error:
        exposition.release()
        raise _refusal(host, port, error) from error
    return exposition


class Exposition:
    """The listening server and its rendering thread."""

    def __init__(self, metrics: Metrics, ready: Callable[[], str]) -> None:
        self._metrics = metrics
        self._ready = ready
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="edge-metrics")
        self._server = HttpServer(self._answer)
        metrics.gauge("edge_build_info", version=__version__, python=platform.python_version()).value = 1

    @property
    def port(self) -> int:
        return self._server.port

    async def start(self, host: str, port: int) -> None:
        await self._server.start(host, port)

    async def close(self) -> None:
        """Cut every client and end the thread. Idempotent."""
        await self._server.close()
        self.release()

    def release(self) -> None:
        """Give the thread back; what it renders right now is thrown away."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def page(self) -> bytes:
        """The page for Prometheus, as it is now."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, _render, snapshot_of(self._metrics))

    async def _answer(self, path: str) -> Response:
        match path:
            case "/metrics":
                return Response(200, await self.page(), CONTENT_TYPE)
            case "/livez":
                return Response(200, b"alive\n")
            case "/readyz":
                reason = self._ready()
                return Response(503, f"{reason}\n".encode()) if reason else Response(200, b"ready\n")
            case "/":
                return Response(200, _INDEX)
            case _:
                return Response(404, b"not here; " + _INDEX)


def _render(snapshot: Snapshot) -> bytes:
    from framegate.ops.text_format import render  # noqa: PLC0415 - 70 ms that a start need not pay

    return render(snapshot)


def _refusal(host: str, port: int, error: OSError) -> Misconfigured:
    where = f"metrics address {host}:{port}"
    step = "set `metrics` in the gateway section of drivers.yml to a free host:port, or to '' for none"
    if error.errno == errno.EADDRINUSE:
        holder = holder_of(port) or "another program, perhaps a second gateway or node_exporter"
        return Misconfigured(f"{where}: the port is taken by {holder}; {step}", code="E4017")
    reason = (error.strerror or str(error)).lower()
    return Misconfigured(f"{where}: cannot be listened on ({reason}); {step}", code="E4018")
