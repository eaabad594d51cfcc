"""Bad rows cover exactly what was not read, in columns of the tags' own kinds."""

from __future__ import annotations

import random

import numpy as np

from framegate.contract.frame import Kind, ValueType
from framegate.contract.quality import Quality
from framegate.runtime.bad_rows import REMAINDERS_MAX, BadRows
from framegate.testing.scripted import ScriptedDriver, good_batches, scripted_tags

NOW_NS = 1_700_000_000_000_000_000


def test_all_every_kind_has_its_own_batch_and_empty_value() -> None:
    kinds = {1: Kind.FLOAT, 2: Kind.INT, 3: Kind.UINT, 4: Kind.BOOL, 5: Kind.OBJECT}
    rows = BadRows(np.array([5, 4, 3, 2, 1, 99], dtype=np.int32), kinds)
    batches = rows.all(Quality.BAD_TIMEOUT, NOW_NS)
    assert [(batch.kind, batch.tag.tolist()) for batch in batches] == [
        (Kind.FLOAT, [1, 99]),
        (Kind.INT, [2]),
        (Kind.UINT, [3]),
        (Kind.BOOL, [4]),
        (Kind.OBJECT, [5]),
    ]
    assert np.isnan(batches[0].value).all()
    assert [batch.value.tolist() for batch in batches[1:]] == [[0], [0], [False], [None]]
    assert all(batch.quality.tolist() == [Quality.BAD_TIMEOUT] for batch in batches)
    assert all(batch.source_time.tolist() == [NOW_NS] and batch.gateway_time == NOW_NS for batch in batches)
    again = rows.all(Quality.BAD_TIMEOUT, NOW_NS)
    assert all(one.tag is other.tag for one, other in zip(batches, again, strict=True))


def test_missing_any_part_covered_gives_exactly_the_rest() -> None:
    seed = 7
    print(f"seed {seed}")  # noqa: T201
    dice = random.Random(seed)
    tags = [*scripted_tags(1, 20), *scripted_tags(21, 20, ValueType.INT32)]
    driver = ScriptedDriver()
    rows = BadRows(driver.plan(tags).tag, {tag.id: tag.type.kind for tag in tags})
    for _ in range(3 * REMAINDERS_MAX):
        read = dice.sample(tags, dice.randrange(len(tags) + 1))
        covered = good_batches(driver.plan(read), NOW_NS)
        missing = rows.missing(covered, Quality.BAD_TIMEOUT, NOW_NS)
        ids = sorted(int(id_) for batch in missing for id_ in batch.tag)
        assert ids == sorted({tag.id for tag in tags} - {tag.id for tag in read})
        again = rows.missing(covered, Quality.BAD_TIMEOUT, NOW_NS)
        assert all(one.tag is other.tag for one, other in zip(missing, again, strict=True))
