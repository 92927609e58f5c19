"""Records that belong together: what must not be split between fitting and judging.

Invariant: groups are numbers from 0 without gaps, in the order of their first row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["joined", "near_duplicates"]

Integers = npt.NDArray[np.int64]
Rows = npt.NDArray[np.floating]

NEAR = 0.9
"""Cosine from which two rows are one thing said twice."""
_BLOCK = 1_024


def near_duplicates(*spaces: Rows, threshold: float = NEAR) -> Integers:
    """Return groups of rows that are nearly the same in every one of the given spaces, and what these chain together.

    Rows are compared by the cosine of what is left of them without the mean of their space: in a space whose vectors
    all point one way, plain cosines call everything the same.

    Parameters
    ----------
    *spaces : ndarray, shape (n, d_i)
        The same n rows in one or more spaces.
    threshold : float, default 0.9

    Returns
    -------
    ndarray of int64, shape (n,)

    Notes
    -----
    Time grows with the square of n (20,000 rows of 384 columns: some ten seconds), memory with n.
    """
    prepared = [_directions(rows) for rows in spaces]
    count = len(prepared[0])
    parent = list(range(count))
    for start in range(0, count, _BLOCK):
        block = slice(start, min(start + _BLOCK, count))
        near = np.ones((block.stop - start, count - start), bool)
        for rows in prepared:
            near &= rows[block] @ rows[start:].T > threshold
        for one, other in zip(*np.nonzero(np.triu(near, 1)), strict=True):
            _join(parent, start + int(one), start + int(other))
    return _numbered(np.array([_root(parent, row) for row in range(count)], np.int64))


def _directions(rows: Rows) -> npt.NDArray[np.float32]:
    away = rows.astype(np.float32)
    away -= away.mean(0) if len(away) > 1 else 0.0
    directions: npt.NDArray[np.float32] = away / np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-12)
    return directions


def joined(*groupings: Sequence[Any] | npt.NDArray[Any]) -> Integers:
    """Return the finest groups that split none of the given ones: rows together in any of them are together.

    Parameters
    ----------
    *groupings : sequence, shape (n,)
        At least one; hashable keys. None as a key is a group of its own.
    """
    count = len(groupings[0])
    parent = list(range(count))
    for grouping in groupings:
        first: dict[Any, int] = {}
        for row, key in enumerate(grouping.tolist() if isinstance(grouping, np.ndarray) else grouping):
            if key is not None:
                _join(parent, first.setdefault(key, row), row)
    return _numbered(np.array([_root(parent, row) for row in range(count)], np.int64))


def _root(parent: list[int], row: int) -> int:
    while parent[row] != row:
        parent[row] = parent[parent[row]]
        row = parent[row]
    return row


def _join(parent: list[int], one: int, other: int) -> None:
    first, second = sorted((_root(parent, one), _root(parent, other)))
    parent[second] = first


def _numbered(roots: Integers) -> Integers:
    """Return groups numbered from 0; a root is the first row of its group, so that the order is that of first rows."""
    _, numbers = np.unique(roots, return_inverse=True)
    return numbers.astype(np.int64).reshape(-1)
