"""Cut text files into byte ranges, and read the lines that begin in one. Shared by the formats that have lines."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from rates_app.batches.formats import base, files
from rates_app.batches.formats.base import Rows, shift
from rates_app.batches.formats.files import open_uri
from rates_app.batches.model import Slice, Unreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: No file is cut smaller than this just to occupy more workers.
MIN_SLICE_BYTES = 4 * 2**20


def plan_lines(uri: str, first: int, slice_bytes: int, min_slices: int, stop: int | None = None) -> list[Slice]:
    """Cut a text file into byte ranges, as :meth:`rates_app.batches.formats.base.FileFormat.plan` describes.

    Args:
        uri: The plain file.
        first: The byte at which the rows begin.
        slice_bytes: The size to aim for.
        min_slices: Minimum number of slices to aim for.
        stop: The byte at which the rows end, if that is not the end of the file.
    """
    size = whole_file(uri, 0, stop).stop
    first = min(size, first)
    wanted = min(slice_bytes, max(MIN_SLICE_BYTES, -(-(size - first) // min_slices)))
    step = max(wanted, -(-(size - first) // base.MAX_SLICES))
    cuts = [*range(first, size, step), size] if size > first else [first, first]
    return [Slice(number, *span) for number, span in enumerate(pairwise(cuts))]


def estimate_lines(uri: str, size_bytes: int) -> int:
    """Estimate the number of lines of a text file from its size and its first lines."""
    with open_uri(uri) as file:
        head = file.read(base.MAX_LINE_BYTES)
    return size_bytes * max(1, head.count(b"\n")) // max(1, len(head))


def whole_file(uri: str, start: int, stop: int | None = None) -> Slice:
    """Return all lines of a file as one slice.

    Args:
        uri: The plain file.
        start: The byte at which the rows begin.
        stop: The byte at which they end, if that is not the end of the file.
    """
    if stop is None:
        with open_uri(uri) as file:
            stop = file.size()
    return Slice(0, start, max(start, stop))


def sample_lines(uri: str, start: int, stop: int | None = None) -> Slice:
    """Return the first lines of a file as a slice."""
    slice_ = whole_file(uri, start, stop)
    return slice_._replace(stop=min(slice_.stop, start + base.SAMPLE_BYTES))


def read_lines(uri: str, slice_: Slice, parse: Callable[[bytes], Rows]) -> Iterator[Rows]:
    """Parse the lines that begin in a slice, a chunk at a time.

    Args:
        uri: The plain file.
        slice_: The slice.
        parse: Parses whole lines, counted from 1.
    """
    lines = 0
    for text in line_chunks(uri, slice_):
        for chunk in _bounded(text):
            rows = parse(chunk)
            np.add(rows.lines, lines, out=rows.lines)
            yield rows._replace(rejects=shift(rows.rejects, lines))
            lines += rows.read


def _bounded(text: bytes) -> Iterator[bytes]:
    """Cut whole lines where there are more than :data:`MAX_CHUNK_ROWS` of them: short lines take most memory parsed."""
    if len(text) <= base.MAX_CHUNK_ROWS:
        yield text
        return
    is_end = np.frombuffer(text, dtype=np.uint8) == ord("\n")
    if np.count_nonzero(is_end) <= base.MAX_CHUNK_ROWS:
        yield text
        return
    ends = np.flatnonzero(is_end)
    cuts = [0, *(ends[base.MAX_CHUNK_ROWS - 1 :: base.MAX_CHUNK_ROWS] + 1).tolist(), len(text)]
    yield from (text[start:stop] for start, stop in pairwise(cuts) if start < stop)


def line_chunks(uri: str, slice_: Slice) -> Iterator[bytes]:
    """Read the lines that begin in a slice, a few megabytes of whole lines at a time.

    Raises:
        Unreadable: A line is longer than :data:`MAX_LINE_BYTES`.
    """
    with open_uri(uri) as file:
        chunk = b""
        if slice_.number == 0:
            begins = file.seek(slice_.start)
        else:
            # The line that crosses the slice's start belongs to the slice before. Starting one byte early distinguishes
            # a line that begins exactly at the start from one that crosses it.
            file.seek(slice_.start - 1)
            chunk = file.read(base.MAX_LINE_BYTES)
            skipped = chunk.find(b"\n") + 1
            if not skipped and len(chunk) == base.MAX_LINE_BYTES:
                raise Unreadable(f"the file has a line of more than {base.MAX_LINE_BYTES} bytes at byte {slice_.start}")
            if not skipped:
                return  # no line begins in this slice
            begins = slice_.start - 1 + skipped
            chunk = chunk[skipped:]
        rest = b""  # the line that begins at `begins`, as far as it was read
        while begins < slice_.stop:
            position = begins + len(rest)
            # A sample is small: read no more than its end, and the line that crosses it.
            chunk = chunk or file.read(min(files.CHUNK_BYTES, max(slice_.stop - position, 0) + base.MAX_LINE_BYTES))
            if not chunk:
                yield rest  # the file's last line has no end
                return
            # The last line to take is the one that holds the byte before `stop`.
            beyond = max(slice_.stop - 1 - position, 0)
            end = (chunk.find(b"\n", beyond) if beyond < len(chunk) else -1) + 1 or chunk.rfind(b"\n") + 1
            line = position + end if end else begins
            if line < slice_.stop and position + len(chunk) - line > base.MAX_LINE_BYTES:
                raise Unreadable(f"the file has a line of more than {base.MAX_LINE_BYTES} bytes near byte {line}")
            if end:
                yield b"".join((rest, memoryview(chunk)[:end]))  # chunks are large: each is copied once
                begins, rest = line, chunk[end:]
            else:
                rest += chunk
            chunk = b""
