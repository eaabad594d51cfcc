"""What an encoder costs per tag, in microseconds of CPU: one JSON line.

Batches of 60 rows with one time and Good quality, as drivers hand them out; windows of 20 batches. "mixed" has a
quality and a time of its own in every row. The least of many passes is shown: the machine is shared.

    python benches/encode.py
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence

import numpy as np

from framegate.contract.frame import Batch, Placed, Position, Tag, TagId, ValueType, uniform_quality, uniform_time
from framegate.northbound.encoder import Encoder, make_encoder

ROWS = 60
BATCHES = 20


class Names:
    """A catalogue of equal tags."""

    def __init__(self, type_: ValueType) -> None:
        self.type = type_

    def intern(self, name: str, device: str, type_: ValueType, unit: str, access: str) -> TagId:
        raise AssertionError

    def tag(self, tag_id: int) -> Tag:
        return Tag(TagId(tag_id), f"line1.press{tag_id}.temperature", f"plc{tag_id // 120}", self.type, "C", "R")

    def find(self, name: str) -> Tag | None:
        return None


def window(type_: ValueType, *, mixed: bool) -> Sequence[Placed]:
    dice = np.random.default_rng(1)
    placed = []
    for place in range(BATCHES):
        tag = np.arange(place * ROWS, (place + 1) * ROWS, dtype=np.int32)
        if type_ is ValueType.INT16:
            value = dice.integers(-3000, 30000, ROWS)
        else:
            value = np.round(dice.random(ROWS) * 1000, 2)
            if type_ is ValueType.FLOAT32:
                value = value.astype(np.float32).astype(np.float64)
        now = 1_732_000_000_000_000_000 + place * 1_000_000
        quality = np.arange(ROWS, dtype=np.uint32) if mixed else uniform_quality(0)
        source = np.arange(now, now + ROWS * 1_000_000, 1_000_000) if mixed else uniform_time(now)
        placed.append(Placed(Position(1 + place * ROWS), Batch(tag, value, quality, source, now)))
    return placed


def cost_us(encoder: Encoder, placed: Sequence[Placed], passes: int) -> float:
    encoder.encode(placed)
    least = float("inf")
    for _ in range(passes):
        start = time.process_time_ns()
        encoder.encode(placed)
        least = min(least, time.process_time_ns() - start)
    return round(least / (ROWS * BATCHES) / 1000, 4)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--passes", type=int, default=1000)
    passes = parser.parse_args().passes
    figures = {}
    for encoding, template in (("json-batch", ""), ("json-batch", "{tenant}/{device}"), ("json", ""), ("protobuf", "")):
        for type_ in (ValueType.INT16, ValueType.FLOAT32, ValueType.FLOAT64):
            for mixed in (False, True):
                encoder = make_encoder(
                    encoding, tenant="gas", gateway="gw1", connector="c", template=template, catalogue=Names(type_)
                )
                label = f"{encoding}{' per device' if template else ''} {type_.value}{' mixed' if mixed else ''}"
                figures[label] = cost_us(encoder, window(type_, mixed=mixed), passes)
    print(json.dumps({"bench": "encode", "unit": "us per tag", **figures}))


if __name__ == "__main__":
    main()
