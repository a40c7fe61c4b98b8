"""Recognise a delivered file by its bytes: its hash, its compression and its format."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

from rates_app.batches.formats.compression import plain_head, sniff_compression
from rates_app.batches.formats.containers import refuse_containers
from rates_app.batches.formats.files import CHUNK_BYTES, open_uri
from rates_app.batches.formats.registry import FORMATS, recognise
from rates_app.batches.model import Compression, Format, Unreadable

if TYPE_CHECKING:
    from collections.abc import Callable

#: Bytes at a file's beginning from which its format is recognised.
_HEAD_BYTES = 2**16


class RecognisedFile(NamedTuple):
    """A delivered file, recognised by its first bytes and not by its name."""

    uri: str
    size_bytes: int
    content_hash: bytes
    format: Format
    compression: Compression


class Inspection:
    """Recognise a file from its bytes while they are copied."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._head = b""
        self.size_bytes = 0

    def feed(self, chunk: bytes) -> None:
        """Process the next bytes."""
        self._head += chunk[: _HEAD_BYTES - len(self._head)]
        self._digest.update(chunk)
        self.size_bytes += len(chunk)

    @property
    def content_hash(self) -> bytes:
        """SHA-256 of the bytes so far."""
        return self._digest.digest()

    def source(self, uri: str) -> RecognisedFile:
        """Return the recognised file. Call this after all its bytes.

        Args:
            uri: The file's address.

        Raises:
            Unreadable: The file is empty, or cannot be a batch.
        """
        if not self._head:
            raise Unreadable("the file is empty")
        refuse_containers(self._head)
        compression = sniff_compression(self._head)
        head = plain_head(self._head, compression)
        if compression != "none":
            refuse_containers(head)
            if sniff_compression(head) != "none":
                raise Unreadable(f"the file is compressed twice: {compression} and {sniff_compression(head)}")
        file_format = recognise(head)
        return RecognisedFile(uri, self.size_bytes, self.content_hash, file_format, compression)


def inspect(uri: str, progress: Callable[[int], object] = lambda _: None) -> RecognisedFile:
    """Read a file once, to hash it and to recognise its format and compression.

    Args:
        uri: A pinned address.
        progress: Called with the number of bytes of each chunk.

    Raises:
        Unreadable: The file is empty, or cannot be a batch.
        ContentChanged: The file was replaced or removed.
        OSError: The file can't be read now.
        Unavailable: S3 can't be reached.
    """
    inspection = Inspection()
    with open_uri(uri) as file:
        while chunk := file.read(CHUNK_BYTES):
            inspection.feed(chunk)
            progress(len(chunk))
    return inspection.source(uri)


def estimate_rows(source: RecognisedFile) -> int:
    """Estimate the rows of a file that is not compressed.

    Raises:
        Unreadable: The file is gone, or cannot be a batch.
    """
    return FORMATS[source.format].estimate_rows(source.uri, source.size_bytes)
