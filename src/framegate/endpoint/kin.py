"""Lines as the code of one plugin version sees them.

A shared line carries a session, an object of whoever leased the line first. Another plugin, or another version of the
same one, cannot work with it: while both run, each has lines of its own.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from framegate.contract.ports import Credentials, Lease, S
from framegate.endpoint.pool import EndpointPool


class KinLines:
    """The pool for one kin; satisfies contract.ports.Lines.

    kin  plugin and version, e.g. "modbus 0.1.0"
    """

    __slots__ = ("_kin", "_pool")

    def __init__(self, pool: EndpointPool, kin: str) -> None:
        self._pool = pool
        self._kin = kin

    async def acquire(self, endpoint: str, make_session: Callable[[], S], *, is_shared: bool = True) -> Lease[S]:
        return await self._pool.acquire(endpoint, make_session, is_shared=is_shared, kin=self._kin)

    def credentials(self, endpoint: str) -> Credentials | None:
        return self._pool.credentials(endpoint)

    async def hand_over(self, endpoint: str) -> socket.socket:
        return await self._pool.hand_over(endpoint)
