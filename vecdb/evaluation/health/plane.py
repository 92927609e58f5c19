"""A map of vectors in two dimensions: the plane in which they vary most (principal components).

Unlike maps that are fitted to neighbourhoods, distances in it are real, only too small; how much of the variance it
shows is part of the answer. Signs are chosen so that the same vectors always give the same map.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["OTHER", "Plane", "plane"]

OTHER = "other"
"""The group of what has no label, or a rare one."""

Rows = npt.NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Plane:
    """Vectors in two dimensions.

    Attributes
    ----------
    points : tuple of (float, float)
    explained : tuple of (float, float)
        Share of the variance that each axis shows.
    groups : tuple of str
        What each point belongs to: a label, or the window of time that it came in.
    by : str
        What the groups are.
    """

    points: tuple[tuple[float, float], ...]
    explained: tuple[float, float]
    groups: tuple[str, ...] = ()
    by: str = ""


def plane(rows: Rows, groups: tuple[str, ...] = (), by: str = "") -> Plane | None:
    """Return the map of vectors, shape (n, d); None for fewer than 3, or where they do not vary.

    Memory: n times n and n times d.
    """
    if len(rows) < 3:
        return None
    away = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
    values, vectors = np.linalg.eigh(away @ away.T)
    total = float(np.einsum("ij,ij->", away, away))
    if not total > 0:
        return None
    largest, basis = np.maximum(values[:-3:-1], 0.0), vectors[:, :-3:-1]
    signs = np.where(basis[np.abs(basis).argmax(axis=0), [0, 1]] < 0, -1.0, 1.0)
    placed = basis * signs * np.sqrt(largest)
    shares = (largest / total).tolist()
    return Plane(tuple((x, y) for x, y in placed.tolist()), (shares[0], shares[1]), groups, by)
