"""Plain answers and hard data for the tests of exact search. Uses no path under test except the canonical scores."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from vecdb import scan_numpy
from vecdb.arrays import FLOAT16_LIMIT, FLOAT32_LIMIT
from vecdb.blocks import VectorBlocks

METRICS = ("cosine", "dot", "l2")
DTYPES = (np.float32, np.float16)
MAGNITUDES = {np.float32: (1e-44, 1e-38, 1e-30, 1e-12, 1.0, 1e6, 9e14), np.float16: (1e-7, 1e-3, 1.0, 6e4)}


def hard_rows(rng, n, d, dtype=np.float32):
    """Rows of mixed magnitude with exact duplicates, one-ulp neighbours, shared offsets and sparse components."""
    rows = rng.standard_normal((n, d))
    style = int(rng.integers(4))
    if style == 1:
        rows = rows * rng.choice(MAGNITUDES[dtype], size=(n, 1)) / 4
    elif style == 2:
        rows = rows * 1e-3 + rng.standard_normal(d)
    elif style == 3:
        rows = np.round(rows * 2) + (np.arange(d) == 0)
    limit = FLOAT16_LIMIT if dtype is np.float16 else FLOAT32_LIMIT
    with np.errstate(under="ignore"):
        rows = np.clip(rows, -limit, limit).astype(dtype)
    copies = rng.integers(0, n, size=n // 2)
    rows[rng.permutation(n)[: n // 2]] = rows[copies]
    nudged = rng.permutation(n)[: n // 4]
    rows[nudged, 0] = np.nextafter(rows[nudged, 0], dtype(np.inf))
    rows[~rows.any(axis=1), 0] = dtype(1.0)
    return np.ascontiguousarray(rows)


def cut(metric, rows, rng, most=7):
    """Blocks of random heights, an empty one among them, all read-only as a memory map is."""
    cuts = np.sort(rng.integers(0, len(rows) + 1, size=int(rng.integers(0, most))))
    matrices = [np.ascontiguousarray(part) for part in np.split(rows, cuts)]
    for matrix in matrices:
        matrix.setflags(write=False)
    blocks = VectorBlocks.from_parts(metric, rows.shape[1], matrices)
    for scale in blocks.scales:
        scale.setflags(write=False)
    return blocks


def true_top(metric, query, rows, k, allowed=None):
    """Positions and float32 scores of the true top k: (score descending, position ascending)."""
    scores = scan_numpy.canonical_scores(metric, query, rows).astype(np.float32) + np.float32(0.0)
    positions = np.arange(len(rows)) if allowed is None else np.flatnonzero(allowed)
    ranked = sorted(positions.tolist(), key=lambda p: (-float(scores[p]), p))[:k]
    return np.array(ranked, dtype=np.int64), scores[ranked]


def exact_keys(form, query, rows):
    """The key of each row as a Fraction: see vecdb/kernels/bounds.py."""
    metric = form if form in METRICS else "l2"
    scores = scan_numpy.canonical_scores(metric, query, rows).astype(np.float32)
    keys = [Fraction(float(score)) for score in scores]
    if form == "l2-direct":
        return [-(key**2) for key in keys]
    if form == "l2-expanded":
        square = sum(Fraction(float(component)) ** 2 for component in query)
        return [square - key**2 for key in keys]
    return keys


def brackets(lower, key, upper):
    """Whether lower <= key <= upper, where NaN and infinities mean that nothing is claimed."""
    below = not np.isfinite(lower) or Fraction(float(lower)) <= key
    above = not np.isfinite(upper) or key <= Fraction(float(upper))
    return below and above and lower != np.inf


def same_bits(left, right):
    """Whether two (positions, scores) answers are the same down to the last bit."""
    return (
        np.array_equal(left[0], right[0])
        and left[1].dtype == right[1].dtype == np.float32
        and left[1].tobytes() == right[1].tobytes()
    )
