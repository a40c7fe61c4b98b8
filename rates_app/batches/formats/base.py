"""The interface of a file format, and the rows that every format yields."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from rates_app.batches.formats.layout import Layout
    from rates_app.batches.formats.profile import Profile
    from rates_app.batches.model import Reject, Slice

    #: Reads a local file and writes the plain one, of at most a number of bytes.
    Converter = Callable[[Path, Path, int], None]

#: A line with more bytes is refused, so that a file without line ends cannot fill the memory.
MAX_LINE_BYTES = 2**20

#: Maximum number of slices per batch, so that its ledger and its partition stay small.
MAX_SLICES = 512

#: Characters of a value in a reject report. The rest is cut off.
MAX_SHOWN_CHARACTERS = 200


#: Lines or rows that a parser returns at a time, however short they are. Chunks of whole megabytes have fewer.
MAX_CHUNK_ROWS = 2**19

#: Rejects that a chunk lists. Further ones are counted, so that a chunk of invalid rows cannot fill the memory.
MAX_CHUNK_REJECTS = 50_000

#: Bytes from which a sample of the rows is taken.
SAMPLE_BYTES = 2**18


class Rows(NamedTuple):
    """Rows of well-formed text: each column's bytes, in the order of COLUMNS, and the line of each row."""

    columns: tuple[pa.Array[Any], ...]
    lines: NDArray[np.int64]
    #: Lines read, malformed and empty ones included.
    read: int
    #: Lines that have no columns, at most :data:`MAX_CHUNK_REJECTS` of them.
    rejects: list[Reject]
    #: Number of lines that have no columns.
    malformed: int = 0
    #: Whether each price was delivered as a number, and not as text; None if all are text.
    numbers: NDArray[np.bool_] | None = None
    #: The currency of each price, if the file states it.
    currency: pa.Array[Any] | None = None


class FileFormat(Protocol):
    """A file format of batches. Each has a module with these functions, listed in ``registry.py``."""

    def sniff(self, head: bytes) -> bool:
        """Return whether a plain file that begins with these bytes has this format."""

    def converter(self, head: bytes) -> Converter | None:
        """Return what makes a file of this format readable in slices, or None if it is.

        Args:
            head: The first bytes of the file.
        """

    def check(self, uri: str, profile: Profile) -> Layout:
        """Find the columns of a file, before any row of it is staged.

        Raises:
            Unreadable: The file cannot be a batch.
        """

    def plan(self, uri: str, layout: Layout, slice_bytes: int, min_slices: int = 1) -> list[Slice]:
        """Cut a plain file into slices of about equal size.

        Args:
            uri: The plain file.
            layout: What :meth:`check` has found.
            slice_bytes: The size to aim for. Slices of a huge file are larger, to stay under :data:`MAX_SLICES`.
            min_slices: Minimum number of slices to aim for. A small file has smaller slices to reach it, down to a
                minimum size.

        Returns:
            At least one slice, in the order of the file.

        Raises:
            Unreadable: The file cannot be a batch.
        """

    def read(self, uri: str, layout: Layout, slice_: Slice) -> Iterator[Rows]:
        """Parse a slice chunk by chunk, so that memory does not depend on the slice's size.

        Yields:
            Rows whose lines are counted from the slice's first line, which is 1.

        Raises:
            Unreadable: The rest of the slice cannot be parsed.
        """

    def read_all(self, uri: str, layout: Layout) -> Iterator[Rows]:
        """Parse the whole file as one slice."""

    def sample(self, uri: str, layout: Layout) -> Iterator[Rows]:
        """Parse the first rows of the file."""

    def estimate_rows(self, uri: str, size_bytes: int) -> int:
        """Estimate the number of rows without reading all of the file; 0 if it has to be converted first.

        Raises:
            Unreadable: The file cannot be a batch.
        """


def shown(value: bytes | str | None) -> str | None:
    """Return a value as text for a reject report: printable characters only, cut to :data:`MAX_SHOWN_CHARACTERS`."""
    if value is None:
        return None
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:MAX_SHOWN_CHARACTERS])


def shift(rejects: Iterable[Reject], by: int) -> list[Reject]:
    """Convert line numbers within a chunk into line numbers within its slice."""
    return [reject._replace(line=reject.line + by) for reject in rejects]
