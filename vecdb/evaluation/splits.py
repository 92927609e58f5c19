"""Rows into fit, validation, reference and test, whole groups at a time.

Invariant: a group's part depends on its key, the seed and the shares alone, never on which other rows there are: more
data later do not move what was kept back before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vecdb.errors import ArgumentError

__all__ = ["split"]

_SCALE = float(2**64)


def split(
    groups: Sequence[Any] | npt.NDArray[Any], shares: Mapping[str, float], *, seed: int = 0
) -> dict[str, npt.NDArray[np.int64]]:
    """Return the rows of each part.

    Parameters
    ----------
    groups : sequence, shape (n,)
        The group of each row: keys whose `str` tells them apart.
    shares : mapping of str to float
        Parts in order, and what share of the groups each is to get; positive, at most 1 together. What they leave is
        in no part.
    seed : int, default 0

    Returns
    -------
    dict of str to ndarray of int64
        Rows in ascending order; no group is in two parts.

    Raises
    ------
    ArgumentError
        The shares are not positive or more than everything.
    """
    sizes = np.array(list(shares.values()), np.float64)
    if not len(sizes) or (sizes <= 0).any() or sizes.sum() > 1.0 + 1e-9:
        raise ArgumentError(f"shares are {dict(shares)}, expected positive numbers with a sum of at most 1")
    keys = groups.tolist() if isinstance(groups, np.ndarray) else list(groups)
    places = {key: _place(key, seed) for key in set(keys)}
    drawn = np.array([places[key] for key in keys], np.float64)
    parts = np.searchsorted(np.cumsum(sizes), drawn, side="right")
    return {name: np.flatnonzero(parts == number) for number, name in enumerate(shares)}


def _place(key: Any, seed: int) -> float:
    """Return a number in [0, 1) that a key and a seed always have."""
    digest = hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") / _SCALE
