"""Expressions as integrators write them, each with numbers of its own.

A measured value walks through one to three stages, each of a kind that tables of plants hold: corrections, units,
limits, thresholds, roots of flows, status words, curves, roundings. Calculated tags are sums, differences, products,
ratios, means and comparisons of two others.
"""

from __future__ import annotations

import random

STAGES = (1, 1, 1, 1, 1, 2, 2, 2, 3, 3)
"""How many stages a value walks through, each as likely."""


def of_value(dice: random.Random) -> str:
    """An expression over `value`, finite for every value."""
    text = "value"
    for _ in range(dice.choice(STAGES)):
        text = _stage(dice, text)
    return text


def of_two(dice: random.Random, one: str, other: str) -> str:
    """An expression over two other tags."""
    a, b, k = f'tag["{one}"]', f'tag["{other}"]', f"{dice.uniform(0.1, 9):.3f}"
    return dice.choice(
        (
            f"{a} + {b} * {k}",
            f"({a} - {b}) * {k}",
            f"{a} * {b} / 1000 + {k}",
            f"{a} / max(abs({b}), {k})",
            f"({a} + {b}) / 2 - {k}",
            f"iif({a} > {b} + {k}, 1, 0)",
            f"max({a}, {b}, {k})",
        )
    )


def _stage(dice: random.Random, x: str) -> str:
    a, b, c = f"{dice.uniform(0.1, 9):.4f}", f"{dice.uniform(1, 99):.2f}", f"{dice.uniform(100, 999):.1f}"
    return dice.choice(
        (
            f"{x} * {a} + {b}",
            f"({x} - {b}) * {a}",
            f"({x}) / {a}",
            f"{b} + ({x} - {a}) * ({c} - {b}) / 27648",
            f"({x} - 32) / 1.8 + {a}",
            f"({x}) * 6.894757 - {b}",
            f"clamp({x}, -{b}, {c})",
            f"min(max({x}, -{b}), {c})",
            f"iif({x} < {b}, 0, {x})",
            f"iif({x} > {c}, {c}, iif({x} < -{b}, -{b}, {x}))",
            f"({x} > {b} and {c} or {a})",
            f"{a} * sqrt(max({x}, 0) / {b})",
            f"round(({x}) * 10) / 10 + {a}",
            f"iif(bit(abs({x}), {dice.randrange(8)}), {a}, {b})",
            f"{a} * ({x} / 1000) ^ 2 + {b}",
            f"abs({x}) * {a}",
            f"floor(({x}) / {b}) * {b}",
        )
    )
