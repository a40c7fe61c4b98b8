"""Whatever bytes arrive, a parser refuses the file or reads it, and never yields a price that was not delivered.

Files of every format have random mutations (``tests/mutations.py``), and an oracle reads them, too. The seed is fixed,
so that a failure can be repeated; ``-m demonstration`` reads a hundred thousand.
"""

from __future__ import annotations

import gzip
import random
import re
from datetime import date
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rates_app.batches.formats import base, excel
from rates_app.batches.formats.compression import expand
from rates_app.batches.model import COLUMNS, Unreadable
from tests.mutations import certain_rows, delivery, mutate, random_rows
from tests.reading import read_file

if TYPE_CHECKING:
    from pathlib import Path

SEED = 20_260_101


def run(times: int, seed: int, folder: Path) -> int:
    """Read mutated files.

    Returns:
        How many of them had exactly the prices that the oracle reads; the others were refused, or the oracle can't
        read them.
    """
    dice = random.Random(seed)
    path = folder / "delivery"
    agreed = 0
    for number in range(times):
        content = delivery(dice)
        path.write_bytes(content)
        try:
            found = read_file(path)
        except Unreadable as error:
            if not str(error) or str(folder) in str(error):
                raise
            continue
        except Exception as error:  # the message has what repeats the fault
            raise AssertionError(f"seed {seed}, file {number}: {content!r}") from error
        for reject in found.rejects:
            assert reject.value is None or reject.value.isprintable()
        for _, _, day, cents in found.prices:
            assert 0 < cents <= 100_000_000
            assert date(1970, 1, 1) <= day <= date(2099, 12, 31)
        expected = certain_rows(content)
        if expected is not None and not found.invalid:
            assert sorted(found.prices) == expected, f"seed {seed}, file {number}: {content!r}"
            agreed += 1
    return agreed


def test_damaged_files_are_read_or_refused(tmp_path: Path) -> None:
    assert 50 < run(400, SEED, tmp_path) < 400


@pytest.mark.demonstration
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("part", range(10))
def test_a_hundred_thousand_damaged_files_are_read_or_refused(part: int, tmp_path: Path) -> None:
    assert 1_000 < run(10_000, SEED + part, tmp_path) < 10_000


def test_a_row_without_mutation_keeps_its_price(tmp_path: Path) -> None:
    """Mutate one line of a text file: every other line is read as it was, or the file is refused."""
    dice = random.Random(SEED)
    path = tmp_path / "delivery"
    for _ in range(200):
        rows = random_rows(dice)
        lines = [f"{o},{d},{day},{cents // 100}.{cents % 100:02}".encode() for o, d, day, cents in rows]
        at = dice.randrange(len(lines))
        mutated = mutate(dice, lines[at]).replace(b"\n", b"")
        path.write_bytes(b"\n".join([",".join(COLUMNS).encode(), *lines[:at], mutated, *lines[at + 1 :], b""]))
        try:
            found = read_file(path)
        except Unreadable as error:
            if not re.search("ambiguous|two ways|NUL", str(error)):
                raise
            continue
        del rows[at]
        remaining = list(found.prices)
        for row in rows:
            remaining.remove(row)
        assert len(remaining) <= 1


def test_memory_of_hostile_chunks_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "delivery"
    path.write_bytes(b"{}\n" * (base.MAX_CHUNK_ROWS + 10))
    found = read_file(path)
    assert found.invalid == base.MAX_CHUNK_ROWS + 10
    # Two chunks, each with a bounded list of rejects.
    assert len(found.rejects) == base.MAX_CHUNK_REJECTS + 40


@pytest.mark.parametrize("store_schema", [True, False])
def test_a_long_value_in_every_row_of_parquet_takes_no_memory(tmp_path: Path, store_schema: bool) -> None:
    path = tmp_path / "delivery"
    column = pa.DictionaryArray.from_arrays(np.zeros(50_000, dtype=np.int32), pa.array(["x" * 100_000]))
    pq.write_table(pa.table(dict.fromkeys(COLUMNS, column)), path, store_schema=store_schema)
    default = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(default)
    pa.set_memory_pool(pool)
    try:
        found = read_file(path)
    finally:
        pa.set_memory_pool(default)
    assert found.invalid == 50_000
    assert max(len(reject.value or "") for reject in found.rejects) == base.MAX_SHOWN_CHARACTERS
    # Decoded, the values would have twenty gigabytes.
    assert (pool.max_memory() or 0) < 2**28


def test_a_workbook_with_cells_in_opposite_corners_is_refused(tmp_path: Path) -> None:
    import openpyxl  # noqa: PLC0415 - here only

    workbook = openpyxl.Workbook()
    sheet = workbook.worksheets[0]
    sheet["A1"], sheet["XFD1048576"] = "orig_code", "price"
    path = tmp_path / "delivery"
    workbook.save(path)
    assert excel.sniff(path.read_bytes()[:1000])
    with pytest.raises(Unreadable, match="too large"):
        read_file(path)


def test_a_file_that_expands_too_far_is_refused_and_removed(tmp_path: Path) -> None:
    path, folder = tmp_path / "delivery", tmp_path / "expanded"
    path.write_bytes(gzip.compress(bytes(2**22)))
    with pytest.raises(Unreadable, match="expands to more than 1048576 bytes: deliver it in parts"):
        expand(str(path), "plain", compression="gzip", file_format="csv", folder=folder, limit=2**20)
    assert list(folder.iterdir()) == []
