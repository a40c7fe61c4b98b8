"""The interfaces of deliveries: sources hand them out, each to one process at a time, until their batch has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Destination = Literal["processed", "rejected"]


class Upload(Protocol):
    """A delivery that is being received. It is invisible to every dispatcher until it is committed."""

    def write(self, chunk: bytes) -> None:
        """Append bytes."""

    def commit(self, manifest: bytes | None = None) -> None:
        """Make the complete delivery visible.

        Args:
            manifest: The content of its manifest, which is stored first.
        """

    def abort(self) -> None:
        """Remove everything that was written; after :meth:`commit`, do nothing."""


class Delivery(Protocol):
    """A file or object that this process, and no other, has claimed."""

    @property
    def address(self) -> str:
        """Its pinned address."""

    @property
    def name(self) -> str:
        """The supplier's name for it, as printable text."""

    @property
    def supplier(self) -> str:
        """The supplier."""

    @property
    def manifest(self) -> bytes | None:
        """The content of its manifest."""

    def archive(self, destination: Destination, name: str, reports: Sequence[Path]) -> None:
        """Move it to the archive, with its manifest and reports.

        Args:
            destination: Whether its batch was published.
            name: Its name in the archive. A file of this name is the same delivery, archived before.
            reports: Files to store next to it, under its name and theirs. They are stored before it is.

        Raises:
            ContentChanged: It has other content now and stays where it is; deferred, it is claimed as another delivery.
            OSError: The archive can't be written.
            Unavailable: S3 can't be reached.
        """

    def defer(self, seconds: float) -> None:
        """Return it, to be claimed again later.

        Args:
            seconds: How long this process should leave it alone.
        """


class Source(Protocol):
    """Hands out deliveries."""

    def upload(self, supplier: str, name: str) -> Upload:
        """Begin to receive a delivery.

        Args:
            supplier: The supplier.
            name: Its unique name among the incoming deliveries.
        """

    def claim(self, seconds: float) -> Delivery | None:
        """Claim the next delivery; suppliers take turns.

        Args:
            seconds: How long to wait for one.

        Raises:
            Unavailable: The queue can't be reached.
        """

    def close(self) -> None:
        """Return received deliveries that were not handed out."""
