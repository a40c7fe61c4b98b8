"""Rows as PostgreSQL's binary COPY writes and reads them, made of whole columns at once.

The form (PostgreSQL documentation, "COPY", binary format): a header, for each row the number of its fields and then
each field with its length in bytes before it, a trailer; every number big-endian. An array is its number of
dimensions, a flag for nulls, its elements' type, its length, its first index, and the elements like fields.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray  # noqa: TC002 - NamedTuple's fields are read when the class is made

if TYPE_CHECKING:
    from collections.abc import Sequence


HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"

#: PostgreSQL's number of the type ``integer``.
_INTEGER_OID = 23


#: Bytes before an array's first element: five numbers.
_ARRAY_HEADER = 20


class Arrays(NamedTuple):
    """A column of ``integer[]``: all elements one after the other, and how many belong to each row."""

    elements: NDArray[np.integer[Any]]
    sizes: NDArray[np.int64]


def _integers(fields: int) -> np.dtype[np.void]:
    columns = [(f"{part}{number}", ">i4") for number in range(fields) for part in ("length", "value")]
    return np.dtype([("fields", ">i2"), *columns])


def encode_integers(columns: Sequence[NDArray[np.int32]]) -> bytes:
    """Write rows of 4-byte values: integers, or dates as days since 2000-01-01."""
    rows = np.empty(len(columns[0]), dtype=_integers(len(columns)))
    rows["fields"] = len(columns)
    for number, values in enumerate(columns):
        rows[f"length{number}"] = 4
        rows[f"value{number}"] = values
    return b"".join((HEADER, rows.view(np.uint8).data, TRAILER))


def decode_array(data: bytes) -> NDArray[np.int64]:
    """Read an array of 4-byte values, none of them null."""
    elements = np.frombuffer(data, dtype=[("length", ">i4"), ("value", ">i4")], offset=_ARRAY_HEADER)
    return elements["value"].astype(np.int64)


def encode(columns: Sequence[NDArray[np.int32] | NDArray[np.int64] | Arrays]) -> bytes:
    """Write rows of ``integer`` (or ``date``), ``bigint`` and ``integer[]``, told apart by the columns' types."""
    rows = len(columns[0])
    lengths = np.full(rows, 1, dtype=np.int64)  # in words of two bytes, which all parts are whole numbers of
    for column in columns:
        lengths += 12 + 4 * column.sizes if isinstance(column, Arrays) else 2 + column.itemsize // 2
    ends = np.cumsum(lengths)
    words = np.empty(int(ends[-1]) if rows else 0, dtype=np.uint16)

    def put(at: NDArray[np.int64], values: NDArray[np.integer[Any]] | int) -> NDArray[np.int64]:
        words[at] = (np.asarray(values) >> 16) & 0xFFFF
        words[at + 1] = np.asarray(values) & 0xFFFF
        return at + 2

    at = ends - lengths
    words[at] = len(columns)
    at = at + 1
    for column in columns:
        if isinstance(column, Arrays):
            for value in (_ARRAY_HEADER + 8 * column.sizes, 1, 0, _INTEGER_OID, column.sizes, 1):
                at = put(at, value)
            firsts = np.cumsum(column.sizes) - column.sizes
            within = np.arange(len(column.elements)) - np.repeat(firsts, column.sizes)
            put(put(np.repeat(at, column.sizes) + 4 * within, 4), column.elements)
            at = at + 4 * column.sizes
        elif column.itemsize == np.dtype(np.int64).itemsize:
            at = put(put(put(at, 8), column >> 32), column)
        else:
            at = put(put(at, 4), column)
    return HEADER + words.byteswap().tobytes() + TRAILER
