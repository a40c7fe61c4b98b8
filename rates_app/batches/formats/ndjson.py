"""Newline-delimited JSON: an object a line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import orjson
import pyarrow as pa

from rates_app.batches.formats.base import Rows, shown
from rates_app.batches.formats.lines import estimate_lines, plan_lines, read_lines
from rates_app.batches.model import COLUMNS, Reject

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rates_app.batches.model import Slice

HEADER_LINES = 0

_UTF8_BOM = b"\xef\xbb\xbf"

estimate_rows = estimate_lines


def sniff(head: bytes) -> bool:
    """Recognise a file whose first character opens an object."""
    return head.removeprefix(_UTF8_BOM).lstrip().startswith(b"{")


def check(uri: str) -> None:
    """Check nothing: every line names its own columns."""


def plan(uri: str, slice_bytes: int, parts: int = 1) -> list[Slice]:
    """Cut the lines into byte ranges."""
    return plan_lines(uri, 0, slice_bytes, parts)


def read(uri: str, part: Slice) -> Iterator[Rows]:
    """Parse the lines that begin in a slice."""
    return read_lines(uri, part, ndjson_rows)


def ndjson_rows(chunk: bytes) -> Rows:
    """Parse whole lines of newline-delimited JSON objects with exactly the columns as keys."""
    texts = chunk.removeprefix(_UTF8_BOM).split(b"\n")
    if not texts[-1]:
        texts.pop()
    rows: list[list[bytes | None]] = []
    lines: list[int] = []
    rejects: list[Reject] = []
    for line, text in enumerate(texts, start=1):
        if not text.strip():
            continue
        try:
            item = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            rejects.append(Reject(line, "row", f"is not JSON: {error}", shown(text)))
            continue
        if not isinstance(item, dict) or not item.keys() <= set(COLUMNS):
            rejects.append(Reject(line, "row", f"is no object with only the keys {', '.join(COLUMNS)}", shown(text)))
            continue
        rows.append([_json_text(item.get(name)) for name in COLUMNS])
        lines.append(line)
    columns = tuple(pa.array([row[index] for row in rows], pa.binary()) for index in range(len(COLUMNS)))
    return Rows(columns, np.array(lines, dtype=np.int64), len(texts), rejects)


def _json_text(value: object) -> bytes | None:
    if value is None or isinstance(value, str):
        return value.encode() if value is not None else None
    return orjson.dumps(value)
