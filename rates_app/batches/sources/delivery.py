"""What a delivery is while it arrives and until its batch has ended, wherever it is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Destination = Literal["processed", "rejected"]

#: Supplier of a file that arrives in no supplier's folder.
LOCAL_SUPPLIER = "local"


class Upload(Protocol):
    """A delivery that is on its way in; nobody sees it before it is whole."""

    def write(self, chunk: bytes) -> None:
        """Take the next bytes."""

    def appear(self) -> None:
        """Make the delivery visible, all at once."""

    def discard(self) -> None:
        """Leave nothing of it; after :meth:`appear` it does nothing."""


class Delivery(Protocol):
    """A file that this process, and no other, has taken."""

    @property
    def uri(self) -> str:
        """Where it is."""

    @property
    def name(self) -> str:
        """What the supplier calls it."""

    @property
    def supplier(self) -> str:
        """Who delivered it."""

    def put_away(self, destination: Destination, name: str, reports: Sequence[Path]) -> None:
        """Move it to where finished deliveries are, with its reports beside it, and have done with it.

        Args:
            destination: Whether its batch was published.
            name: What to call it there.
            reports: Files to put beside it, named after it and them. They are there before it is.
        """

    def release(self) -> None:
        """Leave it where it is, to be taken again later."""


class Inbox(Protocol):
    """Hands out deliveries, each to one process at a time."""

    def upload(self, supplier: str, name: str) -> Upload:
        """Begin to take a delivery in.

        Args:
            supplier: Who delivers it.
            name: What it will appear as; no other delivery has it.
        """

    def take(self, seconds: float) -> Delivery | None:
        """Take the next delivery, waiting for one for a time."""
