"""The best of a scan put in order by codes of several bits, compiled.

Ladder: `refine_codes` (kernel) <- `refined` (entry). What is stored: `vecdb.indexes.fine`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import types

from vecdb.kernels import reference
from vecdb.kernels._intrinsics import bytes_at, floats_at, prefetch, words_at
from vecdb.kernels._jit import helper, kernel, read, write
from vecdb.kernels._lookup import score_key, score_of, select, sort_down
from vecdb.kernels.code_queries import Ready

__all__ = ["refine_codes", "refined"]

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

_AHEAD = 4


@helper
def _part(codes: Bytes, shift: int, mask: int, query: F32) -> np.float32:
    """Return the product of one code of each byte with as many components."""
    total = np.float32(0.0)
    down, low = np.uint8(shift), np.uint8(mask)
    for place in range(query.shape[0]):
        total += np.float32((codes[place] >> down) & low) * query[place]
    return np.float32(total)


@helper
def _ask_for(address: int, size: int) -> None:
    for line in range(0, size, 64):
        prefetch(address + line)


@kernel(
    (
        read(types.float32, 2),
        read(types.float32),
        read(types.float32, 2),
        read(types.int64),
        types.int64,
        types.int64,
        read(types.int64, 2),
        write(types.uint64),
        write(types.int64, 2),
        write(types.float32, 2),
    ),
    twin=reference.refine_codes,
)
def refine_codes(
    queries: F32,
    bends: F32,
    bases: F32,
    table: I64,
    shift: int,
    bits: int,
    nominated: I64,
    keys: npt.NDArray[np.uint64],
    positions: I64,
    scores: F32,
) -> None:
    """Write the m best of the nominated rows of each query: positions (q, m) and scores (q, m), padded.

    queries (q, D), rotated; bends (q,); bases (q, cells); table (pieces,), addresses of pieces of ``2**shift`` rows of
    D * bits / 8 + 16 bytes; nominated (q, c), -1 behind the last; scratch keys (c,). The caller has proven all lengths,
    and that the rows are sound.
    """
    size, width = queries.shape[1] * bits // 8, nominated.shape[1]
    inside, full = (1 << shift) - 1, np.float32((1 << bits) - 1)
    for number in range(queries.shape[0]):
        query, bend, base = queries[number], bends[number], bases[number]
        total, held = np.float32(0.0), 0
        for place in range(query.shape[0]):
            total += query[place]
        for place in range(width):
            ahead = nominated[number, min(place + _AHEAD, width - 1)]
            if ahead >= 0:
                _ask_for(table[ahead >> shift] + (ahead & inside) * (size + 16), size + 16)
            row = nominated[number, place]
            if row < 0:
                break
            address = table[row >> shift] + (row & inside) * (size + 16)
            codes, product = bytes_at(address, size), np.float32(0.0)
            for turn in range(8 // bits):
                product += _part(codes, bits * turn, (1 << bits) - 1, query[turn * size : (turn + 1) * size])
            factors, cell = floats_at(address + size, 2), words_at(address + size + 8, 1)[0]
            known = base[cell] if 0 <= cell < base.shape[0] else np.float32(-np.inf)
            score = known + bend * factors[1] + factors[0] * (np.float32(2.0) * product - full * total)
            keys[held] = score_key(score if score == score else np.float32(-np.inf), int(row))
            held += 1
        if held > positions.shape[1]:
            select(keys, held, positions.shape[1])
            held = positions.shape[1]
        sort_down(keys, held)
        for place in range(positions.shape[1]):
            real = place < held
            positions[number, place] = 0xFFFFFFFF - np.int64(keys[place] & np.uint64(0xFFFFFFFF)) if real else -1
            scores[number, place] = score_of(keys[place]) if real else np.float32(-np.inf)


def refined(ready: Ready, table: I64, shift: int, bits: int, nominated: I64, most: int) -> tuple[I64, F32]:
    """Return positions and scores of the `most` best of the nominated rows; arrays as in `refine_codes`."""
    positions = np.empty((len(nominated), most), np.int64)
    scores = np.empty((len(nominated), most), np.float32)
    keys = np.empty(nominated.shape[1], np.uint64)
    refine_codes(*ready[:3], table, shift, bits, nominated, keys, positions, scores)
    return positions, scores
