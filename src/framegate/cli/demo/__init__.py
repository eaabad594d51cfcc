"""`edge demo`: a small plant on real sockets, the gateway, a broker, and a witness who counts what arrives.

plant -> registers -> two simulated PLCs -> gateway (its own process) -> uplink -> broker -> witness -> screen, verdict
"""

from __future__ import annotations

from framegate.cli.demo.command import demo

__all__ = ["demo"]
