"""Versions of the data, for cache keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

#: Pairs of locations share this many slots (the SQL function ``lane_slot``).
SLOTS = 8192

#: The slot of the tree of locations.
LOCATIONS_SLOT = -1


class Stamp(NamedTuple):
    """A generation within its epoch: the version of a cache entry.

    After a restore, generations are used a second time. Stamps of different epochs are never equal, and have no order.
    """

    epoch: str
    generation: int

    def includes(self, other: Stamp) -> bool:
        """Return whether data of this stamp includes all changes up to another stamp."""
        return self.epoch == other.epoch and self.generation >= other.generation


#: The stamp of answers that depend on no data.
CONSTANT = Stamp("", 0)


@dataclass(frozen=True, slots=True)
class Versions:
    """The last generation that changed each slot, as of a generation."""

    epoch: str
    generation: int
    #: When the generation began, as seconds since 1970.
    published: float
    slots: dict[int, int]
    ids: dict[str, int]

    def slot(self, origin: str, destination: str) -> int:
        """Find a lane's slot, as the SQL function ``lane_slot`` does."""
        if (first := self.ids.get(origin)) is None or (second := self.ids.get(destination)) is None:
            return LOCATIONS_SLOT
        return (first * 7919 + second) % SLOTS

    def of(self, slot: int | None) -> Stamp:
        """Return the version of a slot; of all data if it is None."""
        if slot is None:
            return Stamp(self.epoch, self.generation)
        return Stamp(self.epoch, max(self.slots.get(slot, 0), self.slots.get(LOCATIONS_SLOT, 0)))
