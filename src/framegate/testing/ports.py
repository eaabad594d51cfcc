"""Ports for servers that are told where to listen, so that several runs on one machine do not meet."""

from __future__ import annotations

import itertools
import os
import socket

FIRST, LAST = 10_000, 32_000
"""Below the ports that Linux gives to outgoing connections (32768 on): none of those takes one in between."""
_GOLDEN = 0.618_033_988_749_895
"""Processes whose pids follow each other begin far apart in the range, since each goes on from where it began."""

_next = itertools.count(int(os.getpid() * _GOLDEN % 1 * (LAST - FIRST)))


def free_port() -> int:
    """A TCP port on loopback that was free a moment ago, and that this process was not given before.

    Raises OSError when no port of the range is free.
    """
    for _ in range(FIRST, LAST):
        port = FIRST + next(_next) % (LAST - FIRST)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise OSError(f"no TCP port from {FIRST} to {LAST - 1} is free on 127.0.0.1")


def free_url() -> str:
    """An address on loopback at which a server may stop and listen again."""
    return f"tcp://127.0.0.1:{free_port()}"
