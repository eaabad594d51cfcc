"""Which expression reads which: the order in which they run, and the circles that have none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

CIRCLE_SHOWN_MAX = 8  # tags of a circle that an error names


def levels_of(reads: Mapping[str, Sequence[str]]) -> Mapping[str, int]:
    """1 for what reads no other expression, else 1 more than the highest that it reads.

    reads    names of the tags that each tag's expression reads; those without an expression may be among them
    raises   Circle - there is no order
    """
    levels = {name: 1 for name, others in reads.items() if not others or reads.keys().isdisjoint(others)}
    for name in reads:
        if name not in levels:
            _climb(name, reads, levels)
    return levels


def circles_of(reads: Mapping[str, Sequence[str]]) -> Iterator[Circle]:
    """Every circle, each found without the tags of those before it."""
    left, levels = dict(reads), dict[str, int]()
    for name in reads:
        while name in left and name not in levels:
            try:
                _climb(name, left, levels)
            except Circle as circle:
                yield circle
                for each in circle.names:
                    del left[each]


class Circle(Exception):
    """Expressions that wait for each other; `names` in the order of reading, the first is not repeated."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(" -> ".join(names))
        self.names = tuple(names)

    @property
    def text(self) -> str:
        if len(self.names) == 1:
            return f"the expression of {self.names[0]} reads the tag itself; its own value is called value"
        shown = self.names[:CIRCLE_SHOWN_MAX]
        more = ["..."] if len(shown) < len(self.names) else []
        return f"expressions read each other in a circle: {' -> '.join((*shown, *more, self.names[0]))}"


def _climb(start: str, reads: Mapping[str, Sequence[str]], levels: dict[str, int]) -> None:
    """Depth first, without recursion: chains may be as long as the table."""
    path: dict[str, None] = {start: None}
    stack = [(start, iter(reads[start]))]
    while stack:
        name, others = stack[-1]
        for other in others:
            if other in path:
                names = list(path)
                raise Circle(names[names.index(other) :])
            if other in reads and other not in levels:
                path[other] = None
                stack.append((other, iter(reads[other])))
                break
        else:
            levels[name] = 1 + max((levels[other] for other in reads[name] if other in reads), default=0)
            del path[name]
            stack.pop()
