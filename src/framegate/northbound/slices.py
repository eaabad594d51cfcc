"""Parts of placed batches: views, never copies, with positions that stay true."""

from __future__ import annotations

from framegate.contract.frame import Batch, Placed, Position


def part(placed: Placed, start: int, stop: int) -> Placed:
    """Rows start to stop of a placed batch."""
    batch = placed.batch
    quality, time = batch.quality, batch.source_time
    return Placed(
        Position(placed.first + start),
        Batch(
            batch.tag[start:stop],
            batch.value[start:stop],
            quality if len(quality) == 1 else quality[start:stop],
            time if len(time) == 1 else time[start:stop],
            batch.gateway_time,
        ),
    )


def after(placed: Placed, position: Position) -> Placed | None:
    """The rows beyond a position, or None when there are none; the same object when all are."""
    if placed.first > position:
        return placed
    if placed.last <= position:
        return None
    return part(placed, position - placed.first + 1, placed.batch.rows)
