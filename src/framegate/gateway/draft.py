"""A catalogue for tables that are not in force yet: it gives ids without touching the real one.

Tables are bound in a thread while the loop works on; the catalogue belongs to the loop. What a draft wants is entered
there in pieces, once it is certain that the new tables can work.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from framegate.bus.catalogue import DurableCatalogue
from framegate.contract.errors import Busy, Misconfigured
from framegate.contract.frame import Tag, TagId, ValueType

ENTRIES_PER_TURN = 2_000
"""Entries made in one turn of the loop, about 2 ms."""
IDS_MAX = 2_000_000


@dataclass(slots=True)
class DraftCatalogue:
    """Satisfies contract.ports.Catalogue. New names get the ids that the real catalogue will give next.

    next_id  the id that the real catalogue gives next
    """

    real: DurableCatalogue
    next_id: int
    _new: dict[str, TagId] = field(default_factory=dict)
    _wanted: dict[str, Tag] = field(default_factory=dict)

    def intern(self, name: str, device: str, type_: ValueType, unit: str, access: str) -> TagId:
        """Raises Misconfigured E4035 when there are no ids left."""
        same = self.real.known(name, device, type_, unit, access)
        if same is not None:
            return same
        other = self.real.find(name)
        tag_id = self._new.setdefault(name, TagId(self.next_id + len(self._new))) if other is None else other.id
        if tag_id > IDS_MAX:
            text = f"catalogue: {IDS_MAX:,} names of tags were ever given, and {name} is one more; start with a new log"
            raise Misconfigured(text, code="E4035")
        self._wanted[name] = Tag(tag_id, name, device, type_, unit, access)  # type: ignore[arg-type]  # of a tag row
        return tag_id

    def tag(self, tag_id: int) -> Tag:
        return self.real.tag(tag_id)

    def find(self, name: str) -> Tag | None:
        return self._wanted.get(name) or self.real.find(name)

    @property
    def is_empty(self) -> bool:
        """Nothing is said here that the real catalogue does not know."""
        return not self._wanted

    async def enter(self) -> None:
        """Enter new names and changed attributes, on the loop; raises Busy E4036 when ids were given meanwhile."""
        for count, tag in enumerate(self._wanted.values(), 1):
            given = self.real.intern(tag.name, tag.device, tag.type, tag.unit, tag.access)
            if given != tag.id:
                text = f"tag {tag.name}: another change named tags at the same time; apply this one again"
                raise Busy(text, wait_s=0.1, code="E4036")
            if count % ENTRIES_PER_TURN == 0:
                await asyncio.sleep(0)
