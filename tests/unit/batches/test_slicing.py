"""Wherever a file is cut, every line is in exactly one slice."""

from __future__ import annotations

import gzip
import hashlib
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rates_app.batches.formats import base, csv, files, ndjson
from rates_app.batches.formats.inspection import Inspection
from rates_app.batches.formats.layout import Layout
from rates_app.batches.formats.lines import line_chunks
from rates_app.batches.formats.registry import FORMATS
from rates_app.batches.model import Format, Slice, Unreadable

HEADER = b"orig_code,dest_code,day,price\n"
LAYOUT = Layout(start=len(HEADER))
lines = st.lists(st.one_of(st.integers(0, 6), st.integers(0, 90)), max_size=40)


def content(lengths: list[int], end: bytes, *, last_end: bool) -> bytes:
    """Lines of given lengths, each with another number."""
    texts = [f"{number:02}".encode().ljust(length, b"x") + end for number, length in enumerate(lengths)]
    whole = b"".join(texts)
    return whole if last_end else whole.removesuffix(end)


def read(path: Path, slices: list[Slice]) -> list[list[bytes]]:
    return [[line for chunk in line_chunks(str(path), part) for line in chunk.splitlines()] for part in slices]


@given(
    lines,
    st.tuples(st.integers(1, 200), st.integers(1, 64)),
    st.sampled_from([b"\n", b"\r\n"]),
    st.booleans(),
    st.sampled_from(["csv", "ndjson"]),
)
def test_every_line_is_in_exactly_one_slice(
    lengths: list[int], sizes: tuple[int, int], end: bytes, last_end: bool, kind: Format
) -> None:
    slice_bytes, chunk = sizes
    body = content(lengths, end, last_end=last_end)
    with TemporaryDirectory() as folder, patch.object(files, "CHUNK_BYTES", chunk):
        path = Path(folder) / "batch"
        path.write_bytes((HEADER if kind == "csv" else b"") + body)
        layout = LAYOUT if kind == "csv" else Layout()
        slices = FORMATS[kind].plan(str(path), layout, slice_bytes)
        found = read(path, slices)
    assert [part.number for part in slices] == list(range(len(slices)))
    assert [line for part in found for line in part] == body.splitlines()
    # A slice owns the lines that begin in it, so work is shared out evenly and never more than a line over.
    first = len(HEADER) if kind == "csv" else 0
    begins = [first + sum(map(len, body.splitlines(keepends=True)[:n])) for n in range(len(body.splitlines()))]
    owners = [sum(part.start <= begin < part.stop for part in slices) for begin in begins]
    assert owners == [1] * len(begins)
    assert [len(part) for part in found] == [sum(p.start <= b < p.stop for b in begins) for p in slices]


@given(st.integers(1, 5000), st.integers(1, 10), st.integers(1, 50))
def test_a_plan_is_bounded_and_without_gaps(rows: int, slice_bytes: int, most: int) -> None:
    with TemporaryDirectory() as folder, patch.object(base, "MAX_SLICES", most):
        path = Path(folder) / "batch.csv"
        path.write_bytes(HEADER + b"1\n" * rows)
        slices = csv.plan(str(path), LAYOUT, slice_bytes)
    assert len(slices) <= most
    assert slices[0].start == len(HEADER)
    assert slices[-1].stop == len(HEADER) + 2 * rows
    assert all(before.stop == after.start for before, after in pairwise(slices))


@pytest.mark.parametrize(("mib", "slices"), [(1, 1), (4, 1), (10, 3), (48, 8), (400, 13)])
def test_a_small_file_is_cut_for_every_worker_but_not_into_crumbs(tmp_path: Path, mib: int, slices: int) -> None:
    path = tmp_path / "batch"
    with path.open("wb") as file:
        file.truncate(mib * 2**20)  # a hole: nothing is read of it
    assert len(ndjson.plan(str(path), Layout(), 32 * 2**20, min_slices=8)) == slices


@pytest.mark.parametrize("at", [0, 1, 50, 99])
def test_a_line_without_end_is_refused_by_whichever_slice_meets_it(tmp_path: Path, at: int) -> None:
    path = tmp_path / "batch"
    with patch.object(base, "MAX_LINE_BYTES", 100), patch.object(files, "CHUNK_BYTES", 64):
        path.write_bytes(b"a\n" * at + b"x" * 1000 + b"\n" + b"a\n" * 100)
        with pytest.raises(Unreadable, match="a line of more than 100 bytes"):
            read(path, ndjson.plan(str(path), Layout(), 150))


@pytest.mark.parametrize("step", [1, 3, 1000])
@pytest.mark.parametrize(
    ("content", "form", "compression"),
    [
        (HEADER + b"a,b,c,1\n" * 100, "csv", "none"),
        (b'\xef\xbb\xbf \n{"day":1}\n' * 50, "ndjson", "none"),
        (gzip.compress(b'{"day":1}\n' * 50, mtime=0), "ndjson", "gzip"),
        (gzip.compress(HEADER, mtime=0), "csv", "gzip"),
        (b"PAR1" + bytes(100), "parquet", "none"),
    ],
)
def test_a_file_is_recognised_by_its_bytes_however_they_arrive(
    content: bytes, form: str, compression: str, step: int
) -> None:
    inspection = Inspection()
    for start in range(0, len(content), step):
        inspection.feed(content[start : start + step])
    found = inspection.source("name")
    assert (found.format, found.compression, found.size_bytes) == (form, compression, len(content))
    assert found.content_hash == hashlib.sha256(content).digest()
