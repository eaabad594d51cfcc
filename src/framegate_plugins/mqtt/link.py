"""Link: the present connection, as far as a session needs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from framegate_plugins.mqtt.publish import PublishWriter


@dataclass(frozen=True, slots=True)
class Link:
    """One connection.

    inflight_max  messages under way at most: the smaller of our bound and the broker's Receive Maximum
    """

    writer: PublishWriter
    write: Callable[[bytes], None]
    write_pending: Callable[[], int]
    inflight_max: int

    @property
    def qos(self) -> int:
        return self.writer.style.qos
