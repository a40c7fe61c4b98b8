"""Generate batches of any size that resemble the sample, for load tests, failure tests and demonstrations."""

from __future__ import annotations

import re
import sys
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np
import pyarrow as pa
import pyarrow.csv

from rates_app.batches.model import COLUMNS, BatchError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

#: In a checkout, next to the package; in the image, below the prefix.
SAMPLE_FOLDERS = (Path(__file__).parents[2] / "sample_data", Path(sys.prefix) / "share" / "sample_data")

#: Rows that are generated at a time.
CHUNK_ROWS = 2**19

#: Standard deviation of the logarithm of a price, relative to the sample's price.
SPREAD = 0.05

Defect = Literal["unknown-port", "region", "no-such-day", "day-form", "zero-price", "text-price", "missing", "extra"]
DEFECTS: tuple[Defect, ...] = get_args(Defect)


class NoSample(BatchError):
    """The sample for generated batches is missing."""


class Sample(NamedTuple):
    """The prices that generated batches resemble: ports by number, and a row for each price of the sample."""

    ports: pa.Array[Any]
    origins: NDArray[np.int32]
    destinations: NDArray[np.int32]
    prices: NDArray[np.int64]


class NoSuchDefect(BatchError):
    """The name or the share of a defect is invalid."""


def parse_defects(texts: Sequence[str]) -> dict[Defect, float]:
    """Read shares of defects as they are written on the command line.

    Args:
        texts: Each ``NAME=SHARE``, the share from 0 to 1.

    Raises:
        NoSuchDefect: A text has another form, or the shares add up to more than 1.
    """
    shares: dict[Defect, float] = {}
    for text in texts:
        name, _, share = text.partition("=")
        found = next((defect for defect in DEFECTS if defect == name), None)
        if found is None or not re.fullmatch(r"[01](\.\d+)?", share):
            raise NoSuchDefect(f"--defect {text}: write NAME=SHARE, a share from 0 to 1 of {', '.join(DEFECTS)}")
        shares[found] = float(share)
    if sum(shares.values()) > 1:
        raise NoSuchDefect("the shares of all defects together are more than 1")
    return shares


def sample_file() -> Path:
    """Find the sample of prices.

    Raises:
        NoSample: It is neither in the checkout nor in the image.
    """
    for folder in SAMPLE_FOLDERS:
        if (path := folder / "prices-2021-01.csv.gz").exists():
            return path
    raise NoSample(f"no sample in {' or '.join(map(str, SAMPLE_FOLDERS))}: run this in a checkout, or in the image")


def read_sample(path: Path) -> Sample:
    """Read the batch that generated batches resemble; it has no defects.

    Args:
        path: A CSV file of whole USD, compressed or not.
    """
    table = pa.csv.read_csv(path)
    both = pa.chunked_array([*table.column("orig_code").chunks, *table.column("dest_code").chunks]).combine_chunks()
    encoded: Any = both.dictionary_encode()  # the stubs mistake it for an array of its values
    numbers = encoded.indices.to_numpy()
    origins, destinations = np.split(numbers, 2)
    return Sample(encoded.dictionary, origins, destinations, table.column("price").to_numpy())


def generate(
    path: Path,
    rows: int,
    *,
    sample: Sample,
    first_day: date = date(2021, 1, 1),
    days: int = 365,
    defects: dict[Defect, float] | None = None,
    seed: int = 1,
) -> dict[Defect, int]:
    """Write a batch. Each row has the lane and about the price of a random row of the sample, on a random day.

    Memory does not depend on the number of rows.

    Args:
        path: The CSV file; a name that ends in ``.gz`` or ``.zst`` is compressed.
        rows: Number of rows.
        sample: The sample whose lanes and prices the rows resemble.
        first_day: First day with prices.
        days: Number of days with prices.
        defects: The share of rows (0 to 1) with each defect.
        seed: The same seed gives the same file.

    Returns:
        Number of rows with each defect.
    """
    random = np.random.default_rng(seed)
    done: dict[Defect, int] = dict.fromkeys(defects or {}, 0)
    with pa.output_stream(path, compression="detect") as file:
        file.write(",".join(COLUMNS).encode() + b"\n")
        for size in (min(CHUNK_ROWS, rows - start) for start in range(0, rows, CHUNK_ROWS)):
            text = _lines(random, sample, size, np.datetime64(first_day), days)
            file.write(_add_defects(random, text, defects, done) if defects else text)
    return done


def _lines(random: np.random.Generator, sample: Sample, rows: int, first_day: np.datetime64, days: int) -> bytes:
    model = random.integers(len(sample.prices), size=rows)
    prices = np.rint(sample.prices[model] * random.lognormal(0, SPREAD, rows)).astype(np.int64)
    table = pa.table(
        [
            sample.ports.take(sample.origins[model]),
            sample.ports.take(sample.destinations[model]),
            pa.array(first_day + random.integers(days, size=rows)),
            pa.array(np.maximum(prices, 1)),
        ],
        names=list(COLUMNS),
    )
    target = pa.BufferOutputStream()
    pa.csv.write_csv(table, target, pa.csv.WriteOptions(include_header=False, quoting_style="none"))
    return target.getvalue().to_pybytes()


#: The values of a row with each defect: origin, destination, day, price.
_DEFECTIVE: dict[Defect, Callable[[list[bytes]], list[bytes]]] = {
    "unknown-port": lambda v: [b"XXXXX", *v[1:]],
    "region": lambda v: [v[0], b"china_main", *v[2:]],
    "no-such-day": lambda v: [*v[:2], b"2021-02-30", v[3]],
    "day-form": lambda v: [*v[:2], b"01/02/2021", v[3]],
    "zero-price": lambda v: [*v[:3], b"0"],
    "text-price": lambda v: [*v[:3], b"n/a"],
    "missing": lambda v: v[:3],
    "extra": lambda v: [*v, b"USD"],
}


def _add_defects(
    random: np.random.Generator, text: bytes, defects: dict[Defect, float], done: dict[Defect, int]
) -> bytes:
    lines = text.splitlines()
    for line, defect in _choose(random, len(lines), defects):
        lines[line] = b",".join(_DEFECTIVE[defect](lines[line].split(b",")))
        done[defect] += 1
    return b"\n".join([*lines, b""])


def _choose(random: np.random.Generator, rows: int, defects: dict[Defect, float]) -> Iterator[tuple[int, Defect]]:
    """Pick a defect for some rows, at most one each."""
    draws = random.random(rows)
    start = 0.0
    for defect, share in defects.items():
        for line in np.flatnonzero((draws >= start) & (draws < start + share)):
            yield int(line), defect
        start += share
