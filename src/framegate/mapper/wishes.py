"""What a row may ask for and what not: one list of rules for `edge check` and for compiling.

Rules of one row are here; which tags an expression may read is in dependencies.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite
from typing import NamedTuple

from framegate.contract.frame import Access, Kind, ValueType
from framegate.mapper.processing import AS_READ, Processing, Span

PERIOD_S_MIN = 0.1
PERIOD_S_MAX = 86_400.0
"""Of `every` and `heartbeat`: the gateway looks at its timers ten times a second."""
_NUMBER_KINDS = frozenset((Kind.FLOAT, Kind.INT, Kind.UINT))


class Asked(NamedTuple):
    """One row of the tag table, as far as processing is concerned."""

    type: ValueType
    has_source: bool = True
    access: Access = "R"
    scale: float = 1.0
    offset: float = 0.0
    limits: Span | None = None
    processing: Processing = AS_READ


class Flaw(NamedTuple):
    """What is wrong with one key of a row."""

    key: str
    text: str


def flaws(row: Asked) -> Iterator[Flaw]:
    """Everything in a row that cannot work, whatever its expressions say."""
    if row.limits is not None:
        yield from _span("limits", row.limits)
    if row.processing is AS_READ:
        return
    yield from _unfit_steps(row)
    yield from _source_flaws(row)
    yield from _report_flaws(row)
    for key, span in (("clamp", row.processing.clamp), ("range", row.processing.range)):
        if span is not None:
            yield from _span(key, span)


def _span(key: str, span: Span) -> Iterator[Flaw]:
    if not (isfinite(span[0]) and isfinite(span[1])):
        yield Flaw(key, "both ends must be finite numbers")
    elif span[0] >= span[1]:
        yield Flaw(key, f"{span[0]:g} is not below {span[1]:g}; write [low, high]")


def _unfit_steps(row: Asked) -> Iterator[Flaw]:
    """Steps that the type of the tag cannot take."""
    wish, kind, name = row.processing, row.type.kind, row.type.value
    is_number = kind in _NUMBER_KINDS
    if wish.invert and kind is not Kind.BOOL:
        yield Flaw("invert", f"only a bool has an opposite, this tag is {name}; remove it")
    if wish.clamp and not is_number:
        yield Flaw("clamp", f"only numbers have limits, this tag is {name}; remove it")
    if wish.enum and kind is Kind.OBJECT:
        yield Flaw("enum", f"texts stand for whole numbers, this tag is {name}; remove it")
    for key, is_asked in (
        ("deadband", wish.deadband > 0 or wish.deadband_percent > 0),
        ("swinging_door", wish.swinging_door > 0),
        ("range", wish.range is not None),
    ):
        if is_asked and not is_number:
            yield Flaw(key, f"only numbers can be near to each other, this tag is {name}; remove it")
        elif is_asked and wish.enum and key != "range":
            yield Flaw(key, "the tag goes out as text, and texts are not near to each other; remove it or the enum")
    if wish.expr and row.type in {ValueType.BYTES, ValueType.JSON}:
        yield Flaw("expr", f"expressions work with numbers, texts, true and false, and this tag is {row.type.value}")


def _source_flaws(row: Asked) -> Iterator[Flaw]:
    wish = row.processing
    if not row.has_source:
        for key, is_asked in (
            ("scale", row.scale != 1),
            ("offset", row.offset != 0),
            ("invert", wish.invert),
            ("inverse", bool(wish.inverse)),
        ):
            if is_asked:
                yield Flaw(key, "the tag is calculated: write it into its expr")
        if row.access != "R":
            yield Flaw("access", "the tag is calculated; nothing can be written to it")
        return
    if wish.inverse and not wish.expr:
        yield Flaw("inverse", "there is no expr to undo; remove it")
    if wish.expr and row.access != "R" and not wish.inverse:
        yield Flaw("access", "a tag with an expr can be written only when `inverse` says how to undo it")


def _report_flaws(row: Asked) -> Iterator[Flaw]:
    wish = row.processing
    has_deadband = wish.deadband > 0 or wish.deadband_percent > 0
    if wish.when == "timer" and not wish.every:
        yield Flaw("when", "a timer needs its period: add every: 10s")
    if wish.every and wish.when != "timer":
        yield Flaw("every", "this is the period of when: timer; add that, or remove it")
    for key, period in (("every", wish.every), ("heartbeat", wish.heartbeat)):
        if period and not PERIOD_S_MIN <= period <= PERIOD_S_MAX:
            yield Flaw(key, "it is out of range; it can be 100ms to 1d")
    for key, is_asked in (("deadband", has_deadband), ("swinging_door", wish.swinging_door > 0)):
        if is_asked and wish.when != "change":
            yield Flaw(key, f"when: {wish.when} sends values whether they changed or not; remove one of the two")
    if wish.when == "timer" and wish.heartbeat:
        yield Flaw("heartbeat", "a timer is a heartbeat already; remove it")
    if has_deadband and wish.swinging_door > 0:
        yield Flaw("swinging_door", "its bound holds only for values that no deadband held back; choose one of the two")
    if wish.deadband_percent > 100:
        yield Flaw("deadband", "it is more than 100%")
