"""`edge run` in a process that tells what it holds durable, and that dies at a named place when it is told to.

    python -m framegate.cli.verify.doomed REQUEST   this process is the gateway
    python -m framegate.cli.verify.doomed           a fork of this process is one for each line of stdin

Methods of the product are wrapped here, before the ordinary `edge run` begins, so that nothing of this stands on
anybody's way in production. What it tells is in told.py. As a server it saves the start of an interpreter a thousand
times over: it imports everything once, then answers each request with the child's pid, and with its status when it
has ended.
"""

from __future__ import annotations

import asyncio
import ctypes
import functools
import gc
import inspect
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from framegate.bus.wal import Wal
from framegate.cli import service
from framegate.cli.main import main as edge
from framegate.cli.verify.places import PLACES, Place
from framegate.cli.verify.told import Told
from framegate.contract.plugin import Role
from framegate.package.discover import discover, load_role

PR_SET_PDEATHSIG = 1  # linux/prctl.h
LAG_INTERVAL_S = 0.002
_ROLES: tuple[tuple[str, Role], ...] = (("modbus", "driver"), ("mqtt", "connector"))


def arm(request: dict[str, Any]) -> None:
    """Wrap what the request asks for.

    told            path of the file for what is told
    lag             whether to measure how late the event loop wakes
    place, passes, soon_ms   index into PLACES, at which pass, and how soon after; no place: it lives on
    """
    told = Told(Path(request["told"]))
    _tell_durable(told)
    _tell_ready(told, has_lag=bool(request.get("lag")))
    if request.get("place") is not None:
        _plant(PLACES[request["place"]], _Death(told, request["passes"], request["soon_ms"]))


def _tell_durable(told: Told) -> None:
    begin = Wal.__init__

    def counted(self: Wal, *arguments: Any, **named: Any) -> None:
        begin(self, *arguments, **named)

        def moved() -> None:
            told.durable = self.durable

        told.recovered = self.durable
        self.on_durable(moved)  # the first to be told: nothing leaves before it is outside

    Wal.__init__ = counted  # type: ignore[method-assign]


def _tell_ready(told: Told, *, has_lag: bool) -> None:
    started = service._Service._log_start  # noqa: SLF001 - the moment at which `edge run` says so

    def ready(self: Any) -> None:
        started(self)
        told.ready_ns = time.monotonic_ns()
        if has_lag:
            _measure_lag(told)

    service._Service._log_start = ready  # type: ignore[method-assign]  # noqa: SLF001 - as above


def _measure_lag(told: Told) -> None:
    loop = asyncio.get_running_loop()

    def wake(due: float) -> None:
        now = loop.time()
        told.lag(max(0, int(1e6 * (now - due))))
        loop.call_later(LAG_INTERVAL_S, wake, now + LAG_INTERVAL_S)

    wake(loop.time())


class _Death:
    """Counts passes; at the last of them the process is gone."""

    def __init__(self, told: Told, passes: int, soon_ms: float) -> None:
        self._told, self._passes, self._soon_s = told, passes, soon_ms / 1e3
        self._lock = threading.Lock()  # the loop and the log's thread may pass at once

    def pass_(self, *, is_soon: bool = False) -> None:
        with self._lock:
            self._passes -= 1
            is_due = self._passes == 0
        if not is_due:
            return
        if is_soon:
            threading.Thread(target=self._die_soon, daemon=True).start()
        else:
            self._die()

    def _die_soon(self) -> None:
        time.sleep(self._soon_s)
        self._die()

    def _die(self) -> None:
        self._told.hit()
        os.kill(os.getpid(), signal.SIGKILL)


def target_of(place: Place) -> tuple[Any, str, Callable[..., Any]]:
    """The object that holds the method of a place, the method's name, and the method."""
    module, _, path = place.target.partition(":")
    owner: Any = import_module(module)
    *rest, name = path.split(".")
    for part in rest:
        owner = getattr(owner, part)
    return owner, name, getattr(owner, name)


def _plant(place: Place, death: _Death) -> None:
    owner, name, inner = target_of(place)
    if inspect.iscoroutinefunction(inner):
        wrapped: Callable[..., Any] = _around_async(place, inner, death)
    else:
        wrapped = _around(place, inner, death)
    setattr(owner, name, wrapped)


def _around(place: Place, inner: Callable[..., Any], death: _Death) -> Callable[..., Any]:
    @functools.wraps(inner)
    def wrapped(*arguments: Any, **named: Any) -> Any:
        if place.moment in {"before", "soon"}:
            death.pass_(is_soon=place.moment == "soon")
        result = inner(*arguments, **named)
        if place.moment == "after" or (place.moment == "filled" and result):
            death.pass_()
        return result

    return wrapped


def _around_async(place: Place, inner: Callable[..., Any], death: _Death) -> Callable[..., Any]:
    @functools.wraps(inner)
    async def wrapped(*arguments: Any, **named: Any) -> Any:
        if place.moment in {"before", "soon"}:
            death.pass_(is_soon=place.moment == "soon")
        result = await inner(*arguments, **named)
        if place.moment == "after":
            death.pass_()
        return result

    return wrapped


def _gateway(request: dict[str, Any]) -> int:
    arm(request)
    return edge(["run", "--home", request["home"]])


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _serve() -> None:
    plugins = discover()
    for name, role in _ROLES:
        load_role(plugins[name], role)
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            os._exit(_child(request))
        _answer({"pid": child})
        _answer({"status": os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])})


def _child(request: dict[str, Any]) -> int:
    _die_with_parent()
    os.setpgid(0, 0)  # Ctrl-C is for the campaign, which ends this one itself
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
    nothing = os.open(os.devnull, os.O_RDWR)
    for file, number in ((nothing, 0), (nothing, 1), (log, 2)):
        os.dup2(file, number)
    return _gateway(request)


def _answer(record: dict[str, Any]) -> None:
    sys.stdout.write(f"{json.dumps(record)}\n")
    sys.stdout.flush()


def main() -> int:
    """Be the gateway of the request on the command line, or serve those of stdin."""
    _die_with_parent()
    if len(sys.argv) > 1:
        return _gateway(json.loads(sys.argv[1]))
    _serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
