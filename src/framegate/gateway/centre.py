"""A gateway's tie to its config centre, where config-centre.yml names one; without it nothing of this is loaded."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from framegate.gateway.health import Health
from framegate.gateway.home import Home
from framegate.gateway.wiring import Gateway

if TYPE_CHECKING:
    from framegate.config.etcd import CentreOptions


def centre_options(home: Home, file: Path | None) -> CentreOptions | None:
    """Where the config centre is: what a file says, HOME/config-centre.yml if none is named; None: there is no centre.

    raises  Misconfigured E1181 - the named file does not exist; E1170 - with every problem of the file
    """
    if file is None and not home.centre_file.exists():
        return None
    from framegate.config.etcd import read_options  # noqa: PLC0415 - 0.3 s and an HTTP client, for those who have one

    return read_options(home.centre_file if file is None else file.resolve())


@contextlib.asynccontextmanager
async def centred(options: CentreOptions | None, health: Health, gateway: Gateway) -> AsyncIterator[None]:
    """Inside, the gateway runs what the head of its config centre names."""
    if options is None:
        yield
        return
    from framegate.config.etcd import following  # noqa: PLC0415 - as above

    async with following(
        options,
        health.config,
        health.config.running(),
        clock=gateway.clock,
        dice=Random(),  # noqa: S311 - jitter, not secrets
        log=gateway.log,
        metrics=gateway.metrics,
    ) as follower:
        health.centre_problem = lambda: follower.problem
        yield
