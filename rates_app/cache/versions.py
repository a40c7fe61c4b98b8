"""Which version of the data an answer depends on."""

from __future__ import annotations

from dataclasses import dataclass

#: Pairs of locations share this many slots (the SQL function ``lane_slot``).
SLOTS = 8192

#: The slot that stands for the tree of locations.
LOCATIONS_SLOT = -1


@dataclass(frozen=True, slots=True)
class Versions:
    """Which generation changed each lane last, as of a generation."""

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

    def of(self, slot: int | None) -> int:
        """Return the version of a slot; of the whole when it is None."""
        if slot is None:
            return self.generation
        return max(self.slots.get(slot, 0), self.slots.get(LOCATIONS_SLOT, 0))
