"""The control socket as a file: bound with the owner's rights only, and reachable under any path length.

A unix address holds 107 bytes. A longer path is reached through a descriptor of its folder (/proc/self/fd/N/name),
so that a home deep in the tree works like any other. Source: unix(7), proc(5).
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from framegate.contract.errors import Misconfigured

ADDRESS_BYTES_MAX = 107
BACKLOG = 16


@contextlib.contextmanager
def address_of(path: Path) -> Iterator[str]:
    """The address to bind or connect to; valid inside the block."""
    if len(os.fsencode(path)) <= ADDRESS_BYTES_MAX:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def listening_socket(path: Path) -> socket.socket:
    """A listening socket, mode 0600 from its first moment; replaces one that a dead gateway left behind.

    The caller owns the home (its lock), so a socket found there has no living owner.
    raises Misconfigured E4012 - the folder is missing or not writable, or something else lies at the path
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(path.lstat().st_mode):
                path.unlink()
        os.fchmod(listener.fileno(), 0o600)  # Linux gives the file the socket's own mode
        with address_of(path) as address:
            listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        reason = (error.strerror or str(error)).lower()
        text = f"control socket {path}: cannot be made ({reason}); make its folder writable for the gateway's user"
        raise Misconfigured(text, code="E4012") from error
    return listener
