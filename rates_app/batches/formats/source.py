"""The file of a batch: what it is, whose content it has, and how it is cut into slices.

Files are local paths or any address that Arrow's file systems know (``s3://bucket/key``); all reading goes through
Arrow, so an executor in a cluster reads its slice of an object as a worker reads its part of a file.
"""

from __future__ import annotations

import hashlib
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq

from rates_app.batches.model import Compression, Format, Slice, Unreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

#: Bytes that are read at a time when a file is hashed, expanded or parsed.
CHUNK = 8 * 2**20

#: A line longer than this is no price: it refuses the file instead of filling the memory.
LONGEST_LINE = 2**20

#: A batch has at most this many slices, whatever its size, so that its ledger and its partition stay small.
MOST_SLICES = 512

#: No file is cut smaller than this just to occupy more workers.
SMALL_SLICE = 4 * 2**20

#: Bytes at a file's beginning that tell what it is; of a compressed one, its plain beginning.
_HEAD = 2**16
_PLAIN_HEAD = 16

_MAGIC: dict[bytes, Compression] = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_UTF8_BOM = b"\xef\xbb\xbf"
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")


class Source(NamedTuple):
    """A delivered file, told by its first bytes and not by its name."""

    uri: str
    size_bytes: int
    content_hash: bytes
    format: Format
    compression: Compression


def open_uri(uri: str) -> pa.NativeFile:
    """Open a file for random access.

    Raises:
        Unreadable: There is no such file, or it may not be read.
    """
    try:
        if "://" in uri:
            filesystem, path = pa.fs.FileSystem.from_uri(uri)
            return filesystem.open_input_file(path)
        return pa.OSFile(uri, "rb")
    except (OSError, pa.ArrowInvalid) as error:
        raise Unreadable(f"{uri} cannot be read: {error}") from error


class Inspection:
    """Tells what a file is while its bytes pass by."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._head = b""
        self.size_bytes = 0

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes; the first of them tell format and compression."""
        self._head += chunk[: _HEAD - len(self._head)]
        self._digest.update(chunk)
        self.size_bytes += len(chunk)

    @property
    def content_hash(self) -> bytes:
        """SHA-256 of what has passed."""
        return self._digest.digest()

    def source(self, uri: str) -> Source:
        """Say what it was.

        Args:
            uri: Where the file is, or what to call it in an error.

        Raises:
            Unreadable: It was empty, or no text that could be a batch.
        """
        head = self._head
        if not head:
            raise Unreadable(f"{uri} is empty")
        compression: Compression = next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), "none")
        if compression != "none":
            try:
                head = next(_plain_chunks(uri, pa.BufferReader(head), compression, _PLAIN_HEAD), b"")
            except Unreadable:
                head = b""  # `expand` will say so again, when there is a batch to be refused for it
        if head.startswith(_UTF16_BOMS):
            raise Unreadable(f"{uri} is UTF-16: save it as UTF-8")
        kind: Format = "csv"
        if head.startswith(b"PAR1"):
            if compression != "none":
                raise Unreadable(f"{uri} is Parquet inside {compression}: deliver it as it is, it compresses itself")
            kind = "parquet"
        elif head.removeprefix(_UTF8_BOM).lstrip().startswith(b"{"):
            kind = "ndjson"
        return Source(uri, self.size_bytes, self.content_hash, kind, compression)


def inspect(uri: str, progress: Callable[[int], object] = lambda _: None) -> Source:
    """Read a file once: hash its bytes and tell its format and compression.

    Args:
        uri: A path or an address that Arrow knows.
        progress: Told the number of bytes read, chunk by chunk.

    Raises:
        Unreadable: The file is missing, empty, or no text that could be a batch.
    """
    inspection = Inspection()
    with open_uri(uri) as file:
        while chunk := file.read(CHUNK):
            inspection.feed(chunk)
            progress(len(chunk))
    return inspection.source(uri)


def estimate_rows(source: Source) -> int:
    """Guess a plain file's rows from its size and its first lines; Parquet says them itself.

    Raises:
        Unreadable: The file is gone, or a Parquet file without its end.
    """
    with open_uri(source.uri) as file:
        if source.format == "parquet":
            return int(_parquet(source.uri, file).metadata.num_rows)
        head = file.read(LONGEST_LINE)
    return source.size_bytes * max(1, head.count(b"\n")) // max(1, len(head))


def _plain_chunks(uri: str, file: pa.NativeFile, compression: Compression, size: int = CHUNK) -> Iterator[bytes]:
    try:
        with pa.CompressedInputStream(file, compression) as stream:  # type: ignore[arg-type]  # "none" never comes here
            while chunk := stream.read(size):
                yield chunk
    except OSError as error:
        raise Unreadable(f"{uri} is damaged {compression} or cut short: {error}") from error


def expand(uri: str, content_hash: bytes, compression: Compression, folder: Path, limit: int) -> str:
    """Make a compressed file plain, once: neither gzip nor zstd can be read from the middle.

    Args:
        uri: The delivered file.
        content_hash: Its SHA-256, which the plain file is named by.
        compression: How it is compressed.
        folder: Where the plain file is kept until the batch has ended.
        limit: Bytes that it may grow to, so that a small file cannot fill the disk.

    Returns:
        The plain file's path; the delivered one's own address when that is plain already.

    Raises:
        Unreadable: The file is damaged or cut short, or grows over the limit.
        OSError: The disk is full; the part that was written is removed.
    """
    if compression == "none":
        return uri
    folder.mkdir(parents=True, exist_ok=True)
    plain = folder / content_hash.hex()
    if plain.exists():
        return str(plain)
    partial = plain.with_suffix(".partial")
    try:
        with open_uri(uri) as file, partial.open("wb") as target:
            for chunk in _plain_chunks(uri, file, compression):
                target.write(chunk)
                if target.tell() > limit:
                    raise Unreadable(f"{uri} expands to more than {limit} bytes: deliver it in parts")
        partial.rename(plain)
    finally:
        partial.unlink(missing_ok=True)
    return str(plain)


def header(uri: str) -> tuple[bytes, int]:
    """Read the first line of a CSV file.

    Returns:
        The line without its end and without a byte order mark, and the offset at which the rows begin.

    Raises:
        Unreadable: The first line has no end within reason.
    """
    with open_uri(uri) as file:
        head = file.read(LONGEST_LINE)
        end = head.find(b"\n")
        if end < 0 and len(head) == LONGEST_LINE:
            raise Unreadable(f"{uri} has no line end in its first {LONGEST_LINE} bytes: it is no CSV file")
    line = head if end < 0 else head[:end]
    return line.removeprefix(_UTF8_BOM).rstrip(b"\r"), len(head) if end < 0 else end + 1


def plan(uri: str, kind: Format, slice_bytes: int, parts: int = 1) -> list[Slice]:
    """Cut a plain file into slices of about equal size.

    Args:
        uri: The plain file.
        kind: Its format.
        slice_bytes: The size to aim for; slices of a huge file are larger, to stay under :data:`MOST_SLICES`.
        parts: How many slices there should be at least; those of a small file become smaller for it, but not tiny.

    Returns:
        At least one slice, in the order of the file.

    Raises:
        Unreadable: It is a Parquet file whose footer cannot be read.
    """
    if kind == "parquet":
        with open_uri(uri) as file:
            groups = _parquet(uri, file).metadata.num_row_groups
        step = max(1, -(-groups // MOST_SLICES))
        cuts = [*range(0, groups, step), groups] if groups else [0, 0]
    else:
        with open_uri(uri) as file:
            size = file.size()
        first = min(size, header(uri)[1]) if kind == "csv" else 0
        wanted = min(slice_bytes, max(SMALL_SLICE, -(-(size - first) // parts)))
        step = max(wanted, -(-(size - first) // MOST_SLICES))
        cuts = [*range(first, size, step), size] if size > first else [first, first]
    return [Slice(number, *span) for number, span in enumerate(pairwise(cuts))]


def line_chunks(uri: str, part: Slice) -> Iterator[bytes]:
    """Read the lines that begin in a slice, a few megabytes of whole lines at a time.

    Raises:
        Unreadable: A line is longer than :data:`LONGEST_LINE`.
    """
    with open_uri(uri) as file:
        if part.number == 0:
            file.seek(part.start)
            rest = b""
        else:
            # The line that crosses the slice's start belongs to the slice before. Starting one byte early tells
            # a line that begins exactly at the start from one that crosses it.
            file.seek(part.start - 1)
            rest = file.read(LONGEST_LINE)
            skipped = rest.find(b"\n") + 1
            if not skipped and len(rest) == LONGEST_LINE:
                raise Unreadable(f"{uri} has a line of more than {LONGEST_LINE} bytes at byte {part.start}")
            if not skipped or part.start - 1 + skipped >= part.stop:
                return  # no line begins in this slice
            rest = rest[skipped:]
        while True:
            position = file.tell()  # where the text in `rest` ends
            if position - len(rest) >= part.stop:
                return
            chunk = file.read(CHUNK)
            text = rest + chunk
            begins = position - len(rest)
            # The last line to take is the one that holds the byte before `stop`.
            if begins + len(text) >= part.stop:
                end = text.find(b"\n", part.stop - 1 - begins)
                if end >= 0:
                    yield text[: end + 1]
                    return
            if not chunk:
                yield text  # the file's last line has no end
                return
            end = text.rfind(b"\n") + 1
            if len(text) - end > LONGEST_LINE:
                raise Unreadable(f"{uri} has a line of more than {LONGEST_LINE} bytes near byte {begins + end}")
            if end:
                yield text[:end]
            rest = text[end:]


def row_groups(uri: str, part: Slice, columns: tuple[str, ...]) -> Iterator[pa.RecordBatch]:
    """Read the columns of a slice of a Parquet file, some thousands of rows at a time.

    Raises:
        Unreadable: The file is damaged or its columns are not those of a batch.
    """
    with open_uri(uri) as file:
        parquet = _parquet(uri, file)
        if sorted(parquet.schema_arrow.names) != sorted(columns):
            found = ", ".join(parquet.schema_arrow.names)
            raise Unreadable(f"{uri} has the columns {found}: needed are exactly {', '.join(columns)}")
        try:
            yield from parquet.iter_batches(
                batch_size=2**18, row_groups=list(range(part.start, part.stop)), columns=list(columns)
            )
        except (OSError, pa.ArrowException) as error:
            raise Unreadable(f"{uri} is a damaged Parquet file: {error}") from error


def _parquet(uri: str, file: pa.NativeFile) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file)
    except (OSError, pa.ArrowException) as error:
        raise Unreadable(f"{uri} is a damaged Parquet file or cut short: {error}") from error
