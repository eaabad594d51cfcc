"""Starting a driver's process: a fresh interpreter with one end of a packet socket, and nothing of our environment."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from framegate.contract.errors import NotConnected
from framegate.endpoint.spawn import Process
from framegate.endpoint.spawn import spawn as spawn_program

BARE = ("-I", "-S")
"""An interpreter without anything that is installed; it starts in 20 to 30 ms."""
SOURCE = str(Path(__file__).resolve().parents[3])
BEGIN = (
    "import sys; sys.path.append(sys.argv[1]); from framegate.carrier.child.{} import main; "
    "main(int(sys.argv[2]), int(sys.argv[3]))"
)
_INHERITED = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH", "SSL_CERT_FILE")
"""All that a child is told of our environment; the rest may hold secrets."""
_SETTINGS = {
    "MALLOC_ARENA_MAX": "1",  # threads that a driver never has would have memory reserved
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}


class Spawned(NamedTuple):
    """gateway: our end of the pair, non-blocking; words: read end of its stdout and stderr."""

    process: Process
    gateway: socket.socket
    words: int


async def spawn(device: str, module: str, flags: Sequence[str]) -> Spawned:
    """Start it. module: of carrier.child; flags: of its interpreter. Raises NotConnected E4510."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    end = theirs.detach()
    command = [sys.executable, *flags, "-c", BEGIN.format(module), SOURCE, str(end), str(os.getpid())]
    try:
        process, words = await spawn_program(command, (end,), _environment(os.environ))
    except BaseException as error:
        ours.close()
        if isinstance(error, OSError):
            text = f"driver {device}: its process cannot be started ({error.strerror or error})"
            raise NotConnected(text, code="E4510") from error
        raise
    return Spawned(process, ours, words)


def _environment(ours: Mapping[str, str]) -> dict[str, str]:
    return {**{name: ours[name] for name in _INHERITED if name in ours}, **_SETTINGS}
