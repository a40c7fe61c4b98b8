"""The file formats that batches may have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rates_app.batches.formats import csv, excel, json_array, ndjson, parquet

if TYPE_CHECKING:
    from rates_app.batches.formats.base import FileFormat
    from rates_app.batches.model import Format

#: In the order in which they are tried: CSV takes what no other format recognises.
FORMATS: dict[Format, FileFormat] = {
    "parquet": parquet,
    "excel": excel,
    "json": json_array,
    "ndjson": ndjson,
    "csv": csv,
}


def recognise(head: bytes) -> Format:
    """Return the format of a plain file that begins with these bytes."""
    return next(name for name, file_format in FORMATS.items() if file_format.sniff(head))


def is_workbook(head: bytes) -> bool:
    """Return whether a zip file is a workbook."""
    return excel.sniff(head)
