"""What the mapper costs per tag, in microseconds of CPU: one JSON line.

10,000 tags of 40 devices at 200 ms are 50,000 tags/s: a pass is 40 batches of 250 rows of int16, as a driver hands them
out, and every value is new in every pass. `--rows 125` makes them 80 devices: smaller batches cost more per tag.
A pass of every case stands beside a pass of a bare loop, which does no more than value * a + b by numpy for each of the
same batches: machines differ, and so does one machine from minute to minute, ratios differ less. The median and the
least of many passes are shown, and the median of the ratios.

    python -m benches.mapping [--only mix] [--rows 250]

Cases: plain asks for nothing; linear is scale and offset; one_shape, 10,000 expressions that differ in their numbers;
shapes, in their numbers and among 50 shapes; mix, what integrators write (benches/formulas.py), all different, one tag
in six calculated from two others; arithmetic, each of random shape out of + - *; distinct, of random shape with calls
of functions; inputs, every second reads another tag of its device; reports, a deadband; door, the swinging door.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from benches.formulas import of_two, of_value
from framegate.contract.frame import Batch, TagId, ValueType, uniform_quality, uniform_time
from framegate.mapper.mapping import MappingRow, compile_mapping
from framegate.mapper.processing import Processing

TAGS = 10_000
ROWS = 250
STEP_NS = 1_000_000_000
START_NS = 1_732_000_000_000_000_000


WARM_PASSES = 3
CALCULATED_SHARE = 6  # in case mix: one tag in so many is calculated


def formula(dice: random.Random, depth: int) -> str:
    """A formula of random shape that is finite for every value."""
    if depth == 0:
        return dice.choice(("value", f"{dice.uniform(0.1, 9):.4f}"))
    left, right = formula(dice, depth - 1), formula(dice, depth - 1)
    return dice.choice(
        (
            f"({left} {dice.choice('+-*')} {right})",
            f"{left} / (1 + abs({right}))",
            f"{dice.choice(('min', 'max'))}({left}, {right})",
            f"iif({left} > {right}, {left}, {dice.uniform(0, 9):.3f})",
            f"{dice.choice(('floor', 'abs', 'ceil', 'round'))}({left})",
        )
    )


def sums(dice: random.Random, depth: int) -> str:
    """A formula of random shape out of + - * alone."""
    if depth == 0:
        return dice.choice(("value", f"{dice.uniform(0.1, 9):.4f}"))
    return f"({sums(dice, depth - 1)} {dice.choice('+-*')} {sums(dice, depth - 1)})"


def expression_rows(case: str) -> Iterator[Processing]:
    dice = random.Random(7)
    shapes = [formula(dice, 2) for _ in range(50)]
    for number in range(TAGS):
        a, b = dice.uniform(0.1, 9), dice.uniform(-9, 9)
        if case == "one_shape":
            text = f"value * {a:.4f} + {b:.4f}"
        elif case == "shapes":
            text = f"{shapes[number % 50]} + {a:.4f} * value"
        elif case == "arithmetic":
            text = f"{sums(dice, 2)} * value + {sums(dice, 1)}"
        elif case == "inputs":
            text = f'value * {a:.4f} + tag["tag{number // 2 * 2}"]'
        else:
            text = f"{formula(dice, 2)} * {a:.4f} + {b:.4f}"
        yield Processing(expr=text) if case != "inputs" or number % 2 == 1 else Processing()


def rows_of(case: str, device_tags: int = ROWS) -> list[MappingRow]:
    if case == "plain":
        return []
    if case == "linear":
        return [MappingRow(TagId(tag), 0.1, -40.0, ValueType.INT16) for tag in range(TAGS)]
    if case in {"reports", "door"}:
        reports = Processing(when="change", deadband=900.0)
        wish = reports if case == "reports" else Processing(when="change", swinging_door=900.0)
        return [MappingRow(TagId(tag), type=ValueType.INT16, processing=wish) for tag in range(TAGS)]
    if case == "mix":
        return mix_rows(device_tags)
    return [
        MappingRow(TagId(tag), type=ValueType.INT16, processing=wish, name=f"tag{tag}")
        for tag, wish in enumerate(expression_rows(case))
    ]


def measured(device_tags: int) -> int:
    return device_tags - device_tags // CALCULATED_SHARE


def mix_rows(device_tags: int) -> list[MappingRow]:
    """Tags of devices: measured ones with an expression each, then those calculated from two of them."""
    dice = random.Random(7)
    rows = []
    for tag in range(TAGS):
        device, place = divmod(tag, device_tags)
        own = [f"tag{device * device_tags + other}" for other in dice.sample(range(measured(device_tags)), 2)]
        has_source = place < measured(device_tags)
        text = of_value(dice) if has_source else of_two(dice, *own)
        wish = Processing(expr=text)
        rows.append(MappingRow(TagId(tag), 1.0, 0.0, ValueType.FLOAT64, None, wish, f"tag{tag}", has_source))
    return rows


def passes_of(count: int, rows: int = ROWS, device_tags: int = ROWS) -> Iterator[Sequence[Batch]]:
    """Batches of the first `rows` tags of each device; the arrays of tags are the same in every pass."""
    dice = np.random.default_rng(1)
    tags = [np.arange(first, first + rows, dtype=np.int32) for first in range(0, TAGS, device_tags)]
    for number in range(count):
        now = START_NS + number * STEP_NS
        quality, times = uniform_quality(0), uniform_time(now)
        yield [Batch(tag, dice.integers(-1000, 1000, rows), quality, times, now) for tag in tags]


def bare(batch: Batch) -> Sequence[Batch]:
    value = batch.value.astype(np.float64) * 0.1 - 40.0
    return (Batch(batch.tag, value, batch.quality, batch.source_time, batch.gateway_time),)


def pass_us(mapping: Callable[[Batch], Sequence[Batch]], batches: Sequence[Batch]) -> float:
    start = time.process_time_ns()
    for batch in batches:
        mapping(batch)
    return (time.process_time_ns() - start) / TAGS / 1000


def figures_of(case: str, passes: int, device_tags: int) -> dict[str, float]:
    rows = rows_of(case, device_tags)
    rows_in = measured(device_tags) if case == "mix" else device_tags
    start = time.process_time_ns()
    mapping = compile_mapping(rows)
    compiled = time.process_time_ns()
    given = passes_of(passes, rows_in, device_tags)
    for batch in next(given):
        mapping(batch)
    learned = time.process_time_ns()
    costs, floors = [], []
    for batches in given:
        floors.append(pass_us(bare, batches))
        costs.append(pass_us(mapping, batches))
    ratios = [cost / floor for cost, floor in zip(costs, floors, strict=True)]
    return {
        "us_per_tag": round(statistics.median(costs[WARM_PASSES:]), 4),
        "least": round(min(costs[WARM_PASSES:]), 4),
        "of_bare": round(statistics.median(ratios[WARM_PASSES:]), 2),
        "bare_us": round(statistics.median(floors[WARM_PASSES:]), 4),
        "compile_ms": round((compiled - start) / 1e6, 1),
        "first_pass_ms": round((learned - compiled) / 1e6, 1),
    }


CASES = ("plain", "linear", "one_shape", "shapes", "mix", "arithmetic", "distinct", "inputs", "reports", "door")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--passes", type=int, default=100)
    parser.add_argument("--only", default="")
    parser.add_argument("--rows", type=int, default=ROWS)
    a = parser.parse_args()
    found = {case: figures_of(case, a.passes, a.rows) for case in CASES if case.startswith(a.only)}
    print(json.dumps({"bench": "mapping", "tags": TAGS, "rows": a.rows, "unit": "CPU us per tag", **found}))


if __name__ == "__main__":
    main()
