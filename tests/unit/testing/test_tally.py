"""The tally of a flood: loss, repeats and order, counted from positions alone."""

from __future__ import annotations

import pytest

from framegate.testing.tally import Tally


def message(first: int, rows: int, time_ms: int = 1_700_000_000_000) -> bytes:
    frames = ",".join(f'{{"tag":"t{row}","value":{row},"ts":{time_ms + row},"qos":0}}' for row in range(rows))
    return f'{{"gateway":"gw","pos":{first},"frames":[{frames}]}}'.encode()


def tally_of(*pieces: tuple[int, int]) -> Tally:
    tally = Tally()
    for first, rows in pieces:
        tally.take(message(first, rows))
    return tally


@pytest.mark.parametrize(
    ("pieces", "through", "lost", "duplicated", "out_of_order", "largest_gap"),
    [
        ([(1, 10), (11, 10)], 20, 0, 0, 0, 0),
        ([(1, 10), (11, 10)], 25, 5, 0, 0, 5),
        ([(3, 8), (12, 9)], 20, 3, 0, 0, 2),
        ([(1, 10), (1, 10), (11, 5)], 15, 0, 10, 0, 0),
        ([(1, 10), (6, 10)], 15, 0, 5, 0, 0),
        ([(1, 5), (11, 5), (6, 5)], 15, 0, 0, 5, 0),
        ([(1, 5), (11, 5), (3, 8)], 15, 0, 3, 5, 0),
        ([], 7, 7, 0, 0, 7),
    ],
)
def test_tally_counts_what_is_missing_doubled_and_late(
    pieces: list[tuple[int, int]], through: int, lost: int, duplicated: int, out_of_order: int, largest_gap: int
) -> None:
    verdict = tally_of(*pieces).verdict(through)
    assert (verdict.lost, verdict.announced, verdict.duplicated) == (lost, 0, duplicated)
    assert (verdict.out_of_order, verdict.largest_gap) == (out_of_order, largest_gap)


def test_tally_of_a_notice_counts_its_rows_as_announced() -> None:
    tally = tally_of((1, 10), (21, 10))
    tally.take(b'{"gateway":"gw","gap":{"first":11,"last":18,"reason":"retention","detail":""},"ts":1}')
    verdict = tally.verdict(30)
    assert (verdict.lost, verdict.announced, verdict.largest_gap) == (2, 8, 2)
    assert tally.missing(30) == list(range(11, 21))


def test_tally_knows_the_newest_row_and_when_it_was_read() -> None:
    tally = Tally()
    tally.take(message(1, 40))
    assert (tally.newest, tally.newest_ms, tally.rows, tally.messages) == (40, 1_700_000_000_039, 40, 1)
    tally.take(message(1, 3, time_ms=5))
    assert (tally.newest, tally.newest_ms) == (40, 1_700_000_000_039)


def test_tally_takes_back_fill_and_live_rows_each_in_its_order() -> None:
    tally = Tally()
    for first, mark in ((1, b""), (21, b""), (11, b',"backfill":true'), (31, b""), (16, b',"backfill":true')):
        rows = 10 if not mark else 5
        frames = b",".join([b'{"tag":"t","value":1,"ts":1}'] * rows)
        tally.take(b'{"gateway":"g"%b,"pos":%d,"frames":[%b]}' % (mark, first, frames))
    assert (tally.newest, tally.backfilled, tally.missing(40)) == (40, 20, [])
    assert tally.verdict() == (0, 0, 0, 0, 0)
