"""Values of another kind than their tags want: what came, and what was wanted, noted once for each plan.

Such a row is BadTypeMismatch and says no more; this is for whoever wrote the driver, or gave its tags their types.
Nothing here is called where every value fits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from framegate.contract.driver import BoundTag
from framegate.contract.frame import ValueType
from framegate.contract.ports import Log

TAGS_NAMED_MAX = 5


class Mismatches:
    """Of one plan. Each pair of what came and a type of tag is noted once, so there are few.

    wanted  what a tag of that type takes, in words of the driver's contract
    news    what was noted and not told yet: what came, the tags' type, their names
    """

    def __init__(self, wanted: Callable[[ValueType], str]) -> None:
        self._wanted = wanted
        self._known: set[tuple[str, ValueType]] = set()
        self.news: list[tuple[str, ValueType, Sequence[str]]] = []

    def note(self, tags: Sequence[BoundTag], emitted: str) -> None:
        """Rows of these tags came as `emitted`, which none of them takes."""
        for type_ in {tag.type for tag in tags}:
            if (emitted, type_) not in self._known:
                self._known.add((emitted, type_))
                self.news.append((emitted, type_, [tag.name for tag in tags if tag.type is type_]))

    def tell(self, log: Log, driver_id: str) -> None:
        """What was noted since the last time."""
        news, self.news = self.news, []
        for emitted, type_, names in news:
            more = f" and {len(names) - TAGS_NAMED_MAX} more" if len(names) > TAGS_NAMED_MAX else ""
            log.error(
                "driver_kind_mismatch",
                driver_id=driver_id,
                tags=", ".join(names[:TAGS_NAMED_MAX]) + more,
                type=type_.value,
                emitted=emitted,
                wanted=self._wanted(type_),
            )
