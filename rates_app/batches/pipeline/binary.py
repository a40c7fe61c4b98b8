"""Rows as PostgreSQL's binary COPY writes and reads them, encoded by whole columns.

The form (PostgreSQL documentation, "COPY", binary format): a header, for each row the number of its fields and then
each field with its length in bytes before it, a trailer; every number big-endian. An array is its number of
dimensions, a flag for nulls, its elements' type, its length, its first index, and the elements like fields.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Integers = NDArray[np.integer[Any]]

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"

#: PostgreSQL's number of the type ``integer``.
_INTEGER_OID = 23

#: Bytes before an array's first element: five numbers.
_ARRAY_HEADER = 20

_ELEMENT = np.dtype([("length", ">i4"), ("value", ">i4")])


class Arrays(NamedTuple):
    """A column of ``integer[]``: elements, and where those of each row begin and how many they are."""

    elements: Integers
    firsts: Integers
    sizes: Integers


class Packed(NamedTuple):
    """The same as a column of ``bytea``: numbers of four bytes, the lowest first."""

    elements: Integers
    firsts: Integers
    sizes: Integers


def decode_arrays(values: Sequence[bytes]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Read arrays of 4-byte values, none of them null.

    Returns:
        The elements of all, one array after the other, and how many each has.
    """
    elements = np.frombuffer(b"".join(value[_ARRAY_HEADER:] for value in values), dtype=_ELEMENT)["value"]
    lengths = np.array([len(value) for value in values], dtype=np.int64)
    return elements.astype(np.int32), np.maximum(lengths - _ARRAY_HEADER, 0) // _ELEMENT.itemsize


def encode(columns: Sequence[Integers | Arrays | Packed]) -> bytes:
    """Write rows of ``integer`` (or ``date``, as days since 2000-01-01), ``bigint``, ``integer[]`` and ``bytea``.

    Args:
        columns: Numbers of four or eight bytes, or several numbers per row.
    """
    # A row consists of parts: those that have the same form in all rows alternate with a row's elements. Each part is
    # encoded for all rows together, and `join` copies whole parts.
    pieces: list[Iterator[bytes]] = []
    same: list[tuple[str, Integers | int]] = [(">i2", len(columns))]
    for column in columns:
        if isinstance(column, Arrays):
            lengths = _ARRAY_HEADER + _ELEMENT.itemsize * column.sizes
            same += [(">i4", value) for value in (lengths, 1, 0, _INTEGER_OID, column.sizes, 1)]
            elements = np.empty(len(column.elements), dtype=_ELEMENT)
            elements["length"], elements["value"] = 4, column.elements
        elif isinstance(column, Packed):
            elements = column.elements.astype("<i4")
            same += [(">i4", elements.itemsize * column.sizes)]
        else:
            same += [(">i4", column.itemsize), (f">i{column.itemsize}", column)]
            continue
        pieces += (_records(same, len(column.sizes)), _cut(elements, column.firsts, column.sizes))
        same = []
    if same:
        pieces.append(_records(same, len(columns[-1])))
    return b"".join((HEADER, *chain.from_iterable(zip(*pieces, strict=True)), TRAILER))


def _records(fields: Sequence[tuple[str, Integers | int]], rows: int) -> Iterator[bytes]:
    records = np.empty(rows, dtype=[(str(number), kind) for number, (kind, _) in enumerate(fields)])
    for number, (_, values) in enumerate(fields):
        records[str(number)] = values
    return _cut(records, np.arange(rows), np.ones(rows, dtype=np.int64))


def _cut(records: NDArray[Any], firsts: Integers, sizes: Integers) -> Iterator[bytes]:
    starts = firsts * records.itemsize
    ends = starts + sizes * records.itemsize
    return map(records.tobytes().__getitem__, map(slice, starts.tolist(), ends.tolist()))
