"""Read a delivered file as the engine does, without a database."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from rates_app.batches.formats.compression import expand
from rates_app.batches.formats.digest import MODULUS, digest
from rates_app.batches.formats.inspection import inspect
from rates_app.batches.formats.profile import Profile
from rates_app.batches.formats.registry import FORMATS
from rates_app.batches.formats.survey import SurveyRequired, survey_file, survey_sample
from rates_app.batches.formats.validate import Port, Validator
from rates_app.batches.formats.values import POSTGRES_EPOCH

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rates_app.batches.formats.layout import Layout
    from rates_app.batches.model import Reject, Slice

PORTS = [
    Port("CNGGZ", 1, "Guangzhou"),
    Port("EETLL", 2, "Tallinn"),
    Port("CNSGH", 3, "Shanghai"),
    Port("NOOSL", 4, "Oslo"),
    Port("CNNBO", 5, "Ningbo"),
]
#: Two rows as the engine reads them, and as a data frame that programs export.
FIRST = ("CNGGZ", "EETLL", date(2021, 4, 3), 124_450)
SECOND = ("CNSGH", "NOOSL", date(2021, 4, 13), 99_900)
ROWS = [FIRST, SECOND]
FRAME = pd.DataFrame(
    {
        "orig_code": ["CNGGZ", "CNSGH"],
        "dest_code": ["EETLL", "NOOSL"],
        "day": [date(2021, 4, 3), date(2021, 4, 13)],
        "price": [1244.5, 999.0],
    }
)
CODES = {port.id: port.code for port in PORTS}
LIMIT = 2**28


@dataclass(frozen=True)
class ParsedFile:
    """What a file amounts to."""

    layout: Layout
    #: Origin, destination, day and cents of each valid row, in the order of the file.
    prices: list[tuple[str, str, date, int]]
    rejects: list[Reject]
    invalid: int
    digest: int

    @property
    def assumptions(self) -> str:
        return " ".join(self.layout.assumptions)


def read_file(
    path: Path, profile: Profile | None = None, *, slice_bytes: int = 2**25, min_slices: int = 1
) -> ParsedFile:
    """Recognise, expand, survey, slice, parse and validate a file.

    Raises:
        Unreadable: The file is refused as a whole.
    """
    source = inspect(str(path))
    with TemporaryDirectory() as folder:
        uri = expand(
            str(path),
            "plain",
            compression=source.compression,
            file_format=source.format,
            folder=Path(folder),
            limit=LIMIT,
        )
        file_format = FORMATS[source.format]
        layout = survey_sample(file_format, uri, file_format.check(uri, profile or Profile()))
        try:
            return _read(source.format, uri, layout, file_format.plan(uri, layout, slice_bytes, min_slices))
        except SurveyRequired:
            layout = survey_file(file_format, uri, layout)
            return _read(source.format, uri, layout, file_format.plan(uri, layout, slice_bytes, min_slices))


def _read(name: str, uri: str, layout: Layout, slices: Iterable[Slice]) -> ParsedFile:
    validator = Validator(PORTS, frozenset({"china_main"}), layout.reading)
    prices: list[tuple[str, str, date, int]] = []
    rejects: list[Reject] = []
    invalid = total = 0
    first = layout.header_lines
    for part in slices:
        read = 0
        for rows in FORMATS[name].read(uri, layout, part):  # type: ignore[index]
            verdict = validator.validate(rows)
            columns = [column.tolist() for column in verdict.prices]
            prices += [
                (CODES[origin], CODES[destination], POSTGRES_EPOCH + timedelta(days=day), cents)
                for origin, destination, day, cents in zip(*columns, strict=True)
            ]
            rejects += [reject._replace(line=reject.line + first) for reject in (*rows.rejects, *verdict.rejects)]
            invalid += rows.malformed + verdict.invalid
            total = (total + digest(verdict.prices)) % MODULUS
            assert np.all(np.diff(rows.lines) > 0)
            read += rows.read
        first += read
    return ParsedFile(layout, prices, sorted(rejects), invalid, total)
