"""Digest prices so that two files with the same rows have the same digest, however they are written or cut.

A row's 64-bit hash is made of its ids and numbers; the digest is the sum of all hashes. So neither the order of rows
nor the borders of slices matter. It finds files that were delivered twice; it is no protection against a supplier who
constructs a collision, which would only refuse the supplier's own batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rates_app.batches.formats.validate import Prices

#: Digests are added modulo this.
MODULUS = 2**64

#: Odd constants with well-mixed bits: the golden ratio, and those of the finaliser of SplitMix64.
_FACTORS = np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0xD6E8FEB86659FD93], dtype=np.uint64)
_SHIFT = np.uint64(32)

#: Rows hashed at a time: few enough to stay in a core's cache, which is several times as fast.
_BLOCK_ROWS = 2**15


def digest(prices: Prices) -> int:
    """Return the digest of some rows, from 0 to :data:`MODULUS` - 1; that of no rows is 0."""
    total = 0
    for start in range(0, len(prices.cents), _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        hashes = _pairs(prices.origin_ids[block], prices.destination_ids[block])
        hashes *= _FACTORS[0]
        hashes ^= hashes >> _SHIFT
        hashes += _pairs(prices.days[block], prices.cents[block])
        for factor in _FACTORS[1:]:
            hashes *= factor
            hashes ^= hashes >> _SHIFT
        total += int(hashes.sum(dtype=np.uint64))
    return total % MODULUS


def _pairs(first: NDArray[np.int32], second: NDArray[np.int32]) -> NDArray[np.uint64]:
    """Pack two columns of 32-bit numbers into one of 64 bits."""
    packed = np.empty((len(first), 2), dtype=np.uint32)
    packed[:, 0], packed[:, 1] = first.view(np.uint32), second.view(np.uint32)
    return packed.view(np.uint64).reshape(-1)
