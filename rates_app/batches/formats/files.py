"""Open a batch's file. Distinguish damaged content, which its supplier has to correct, from storage errors."""

from __future__ import annotations

import io
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rates_app.batches.content import open_content
from rates_app.batches.model import Unreadable

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

#: Bytes read at a time when a file is hashed, expanded or parsed.
CHUNK_BYTES = 8 * 2**20


def open_uri(uri: str) -> pa.NativeFile:
    """Open a file for random access.

    Args:
        uri: A pinned address, or the path of a file that this service wrote.

    Raises:
        ContentChanged: The pinned content is not there any more.
        OSError: The file can't be opened now.
        Unavailable: S3 can't be reached.
    """
    return open_content(uri)


class TrackedFile(io.RawIOBase):
    """A file for Arrow's decoders that remembers its own errors.

    Arrow raises OSError for damaged content as well as for a storage that does not answer. The first is the supplier's,
    the second has to be retried.
    """

    def __init__(self, file: pa.NativeFile) -> None:
        super().__init__()
        self._file = file
        self.error: Exception | None = None

    def read(self, size: int = -1) -> bytes:
        """Read some bytes, or all."""
        try:
            return self._file.read(None if size < 0 else size)
        except Exception as error:
            self.error = error
            raise

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to a position."""
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        """Return the position."""
        return int(self._file.tell())

    def size(self) -> int:
        """Return the file's size in bytes."""
        return int(self._file.size())

    def seekable(self) -> bool:
        """Return True."""
        return True

    def readable(self) -> bool:
        """Return True."""
        return True


@contextmanager
def parsing(uri: str, damaged: str) -> Iterator[TrackedFile]:
    """Open a file for a decoder, and distinguish damaged content from a storage error.

    Args:
        uri: The file.
        damaged: What to report of damaged content. The decoder's own words may name paths and lines of its code.

    Raises:
        Unreadable: The decoder cannot read the content.
        ContentChanged: The pinned content is not there any more.
        OSError: The file can't be read now.
        Unavailable: S3 can't be reached.
    """
    with open_uri(uri) as file:
        tracked = TrackedFile(file)
        try:
            yield tracked
        except Unreadable:
            raise
        except Exception as error:  # decoders raise exceptions of many types
            if tracked.error is not None:
                raise tracked.error from error
            raise Unreadable(damaged) from error
