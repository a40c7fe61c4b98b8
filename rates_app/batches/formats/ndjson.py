"""Newline-delimited JSON: one object per line."""

from __future__ import annotations

import codecs
import collections
import json
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pyarrow as pa

from rates_app.batches.formats.base import MAX_CHUNK_REJECTS, Rows, shown
from rates_app.batches.formats.layout import Layout, changes_meaning, match_columns, reading_of
from rates_app.batches.formats.lines import (
    estimate_lines,
    line_chunks,
    plan_lines,
    read_lines,
    sample_lines,
    whole_file,
)
from rates_app.batches.formats.values import read_number
from rates_app.batches.model import Reject, Unreadable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rates_app.batches.formats.base import Converter
    from rates_app.batches.formats.profile import Profile
    from rates_app.batches.model import Slice

estimate_rows = estimate_lines


def sniff(head: bytes) -> bool:
    """Recognise a file whose first character opens an object."""
    return head.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"{")


def converter(head: bytes) -> Converter | None:
    """Return None: slices can be read without a conversion."""
    del head
    return None


def check(uri: str, profile: Profile) -> Layout:
    """Find the columns among the keys of the first object; a file without any object has the columns' own names."""
    with_bom = b"".join(line_chunks(uri, sample_lines(uri, 0)))
    start = len(with_bom) - len(with_bom.removeprefix(codecs.BOM_UTF8))
    for text in with_bom[start:].split(b"\n"):
        try:
            item = orjson.loads(text)
        except orjson.JSONDecodeError:
            continue
        if isinstance(item, dict) and item:
            names = list(item)
            columns = match_columns(names, profile, "the first object")
            return Layout(
                keys=tuple(names[at] for at in columns.positions),
                currency_key=None if columns.currency is None else names[columns.currency],
                unused_keys=tuple(filter(changes_meaning, names)),
                start=start,
                reading=reading_of(profile),
                assumptions=columns.assumptions,
            )
    if _begins_with_long_object(with_bom[start:]):
        raise Unreadable("a JSON object is written over several lines: write each in one line, or an array of them")
    return Layout(start=start, reading=reading_of(profile))


def _begins_with_long_object(text: bytes) -> bool:
    """Return whether a text begins with an object that takes several lines."""
    decoded = text.decode("utf-8", "replace").lstrip()
    try:
        _, end = json.JSONDecoder().raw_decode(decoded)
    except (ValueError, RecursionError):
        return False
    return "\n" in decoded[:end]


def plan(uri: str, layout: Layout, slice_bytes: int, min_slices: int = 1) -> list[Slice]:
    """Cut the lines into byte ranges."""
    return plan_lines(uri, layout.start, slice_bytes, min_slices)


def read(uri: str, layout: Layout, slice_: Slice) -> Iterator[Rows]:
    """Parse the lines that begin in a slice."""
    return read_lines(uri, slice_, partial(ndjson_rows, layout=layout))


def read_all(uri: str, layout: Layout) -> Iterator[Rows]:
    """Parse all lines."""
    return read(uri, layout, whole_file(uri, layout.start))


def sample(uri: str, layout: Layout) -> Iterator[Rows]:
    """Parse the first lines."""
    return read(uri, layout, sample_lines(uri, layout.start))


def ndjson_rows(chunk: bytes, layout: Layout) -> Rows:
    """Parse whole lines of newline-delimited JSON objects.

    Args:
        chunk: Whole lines; the last may lack its end.
        layout: The keys of the columns.
    """
    texts = chunk.split(b"\n")
    if not texts[-1]:
        texts.pop()
    keys = layout.keys if layout.currency_key is None else (*layout.keys, layout.currency_key)
    rows: list[list[bytes | None]] = []
    lines: list[int] = []
    numbers: list[bool] = []
    rejects: list[Reject] = []
    malformed = 0
    harmless = {*keys, *layout.unused_keys}
    for line, text in enumerate(texts, start=1):
        if not text.strip():
            continue
        item = _parse(text, harmless)
        if isinstance(item, str):
            malformed += 1
            if len(rejects) < MAX_CHUNK_REJECTS:
                rejects.append(Reject(line, "row", item, shown(text)))
            continue
        rows.append([_text(item.get(key), text) for key in keys])
        numbers.append(isinstance(item.get(layout.keys[-1]), int | float))
        lines.append(line)
    columns = tuple(pa.array([row[index] for row in rows], pa.binary()) for index in range(len(keys)))
    return Rows(
        columns[: len(layout.keys)],
        np.array(lines, dtype=np.int64),
        len(texts),
        rejects,
        malformed,
        np.array(numbers, dtype=bool),
        None if layout.currency_key is None else columns[-1],
    )


def _parse(text: bytes, harmless: set[str]) -> dict[str, Any] | str:
    """Return the object of a line, or the reason why it has none.

    Args:
        text: The line.
        harmless: The keys of columns, and further keys that cannot change what these mean. New ones are added.
    """
    try:
        item = orjson.loads(text)
    except orjson.JSONDecodeError:
        return "is not JSON"
    if not isinstance(item, dict):
        return "is no JSON object"
    # Keys that repeat are lost in a dictionary. Most lines have one colon per key and need no second check.
    if text.count(b":") != len(item):
        try:
            json.loads(text, object_pairs_hook=distinct)
        except RepeatedKey as error:
            return f"has the key {shown(str(error))} twice"
        except (ValueError, RecursionError):
            return "is not JSON"
    if not item.keys() <= harmless:
        # The columns are those of the first object. A later one that adds a currency has another meaning.
        changing = [key for key in item if key not in harmless and changes_meaning(key)]
        if changing:
            return f"has the key {shown(changing[0])!r}, which the first object lacks: give every object the same keys"
        harmless.update(item)
    return item


class RepeatedKey(Exception):
    """An object has a key twice; the message is the key."""


def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object that a JSON parser has read, for its ``object_pairs_hook``.

    Raises:
        RepeatedKey: A key is in it twice.
    """
    item = dict(pairs)
    if len(item) != len(pairs):
        counts = collections.Counter(key for key, _ in pairs)
        raise RepeatedKey(counts.most_common(1)[0][0])
    return item


def _text(value: object, line: bytes) -> bytes | None:
    """Return a value as text; a number that is no price as the line has it, for the reject report."""
    if value is None:
        return None
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    text = orjson.dumps(value)
    if isinstance(value, float) and text not in line and isinstance(read_number(text), str):
        return _literal(value, line) or text
    return text


def _literal(value: float, line: bytes) -> bytes | None:
    """Find the digits that a line has for a number."""
    found: list[str] = []

    def collect(literal: str) -> float:
        if float(literal) == value:
            found.append(literal)
        return float(literal)

    json.loads(line, parse_float=collect, parse_int=collect)
    return found[0].encode() if found else None
