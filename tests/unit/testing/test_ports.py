"""Ports that are handed out: free, each once, and out of the way of outgoing connections."""

from __future__ import annotations

import socket
from pathlib import Path

from framegate.testing import ports

HANDED = 500


def test_ports_are_free_and_each_is_handed_out_once() -> None:
    handed = [ports.free_port() for _ in range(HANDED)]
    assert len(set(handed)) == HANDED
    for port in handed[:20]:
        with socket.socket() as server:
            server.bind(("127.0.0.1", port))


def test_no_outgoing_connection_takes_one() -> None:
    lowest, _ = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split())
    assert lowest >= ports.LAST


def test_taken_port_is_passed_over() -> None:
    taken = ports.free_port() + 1
    with socket.create_server(("127.0.0.1", taken)):
        assert ports.free_port() != taken
