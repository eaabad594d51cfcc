"""Begin: where an outbox reads on when it starts - at its cursor, or where its options ask for without one."""

from __future__ import annotations

from framegate.contract.errors import GatewayError
from framegate.contract.frame import Gap, Position
from framegate.contract.owed import Owed
from framegate.contract.ports import Cursors, FrameSource, Log
from framegate.northbound.options import Start


def owed_at_start(connector: str, cursors: Cursors, source: FrameSource, start: Start, log: Log) -> Owed:
    """What the connector is owed; a start without a cursor is kept as one at once.

    From then on the connector is owed every row: what goes before it was delivered is announced to it.
    """
    position, durable = cursors.load(connector), source.durable
    if position is None:
        position = durable if start is Start.NEWEST else _before_oldest(source)
        cursors.commit(connector, position)
    owed = cursors.load_owed(connector) or Owed(position)
    if owed.live > durable:
        log.error("outbox_cursor_ahead", connector=connector, position=owed.live, durable=durable)
        return Owed(min(position, durable))
    return owed


def _before_oldest(source: FrameSource) -> Position:
    """Last position before the oldest row kept: nothing before it is missing to a new connector."""
    position = Position(0)
    try:
        for item in source.read(position, 1):
            if not isinstance(item, Gap):
                return Position(max(position, item.first - 1))
            position = item.last
    except GatewayError:  # the log cannot be read now: too much is announced rather than too little
        return Position(0)
    return position
