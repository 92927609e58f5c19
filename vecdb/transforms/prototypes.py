"""Prototypes of old vectors: the mean of each class, or of each cell where there are no labels.

A new vector that is nearest to its own class's prototype is found among old vectors of that class: the cross-entropy
over prototypes is the labelled part of backward-compatible training (BCT, CVPR 2020, section 3; BT2, ICCV 2023,
section 3).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vecdb.contracts import FitData
from vecdb.transforms.distill import Centres
from vecdb.transforms.judge import similarities
from vecdb.transforms.listwise import Asked, Bank, Lesson, labelled
from vecdb.transforms.pairs import Rows32

__all__ = ["cell_lesson", "cells_of", "class_lesson"]

Integers = npt.NDArray[np.int64]

_FEWEST = 2
_ROUNDS = 12


def class_lesson(upgrade: FitData, centres: Centres) -> Lesson | None:
    """Return the lesson of the known labels, None where fewer than two classes are known.

    Parameters
    ----------
    upgrade : FitData
        Of the role "query", from new columns to old ones.
    centres : Centres
    """
    if upgrade.labels is None:
        return None
    known = upgrade.labels >= 0
    names, places = np.unique(upgrade.labels[known], return_inverse=True)
    if len(names) < _FEWEST:
        return None
    return _lesson(upgrade.source[known], upgrade.target[known], places.astype(np.int64), centres)


def cell_lesson(upgrade: FitData, centres: Centres, cells: int) -> Lesson:
    """Return the lesson of at most so many k-means cells of the old vectors."""
    places = cells_of(upgrade.target, cells, upgrade.rng)
    return _lesson(upgrade.source, upgrade.target, places, centres)


def _lesson(new: Rows32, old: Rows32, places: Integers, centres: Centres) -> Lesson:
    prototypes = means_of(old, places) - centres.after.astype(np.float32)
    bank = Bank(prototypes, None, prototypes, np.zeros(len(prototypes), np.float32))
    return labelled(Asked(new, old, centres.before.astype(np.float32), 0, places), bank)


def means_of(rows: Rows32, places: Integers) -> Rows32:
    """Return the mean of the rows of each place, 0 to the largest one; every place has rows."""
    sums = np.zeros((int(places.max()) + 1, rows.shape[1]))
    np.add.at(sums, places, rows)
    means: Rows32 = (sums / np.bincount(places)[:, None]).astype(np.float32)
    return means


def cells_of(rows: Rows32, cells: int, rng: np.random.Generator) -> Integers:
    """Return the cell of each row after some rounds of Lloyd's algorithm (1982), numbered without gaps.

    Parameters
    ----------
    rows : ndarray of float32, shape (n, d)
    cells : int
        At most; cells that lose all their rows are given up.
    rng : numpy.random.Generator
    """
    centres = rows[np.sort(rng.choice(len(rows), min(cells, len(rows)), replace=False))]
    places = np.zeros(len(rows), np.int64)
    for _ in range(_ROUNDS):
        nearest = similarities(rows, centres, "l2").argmax(1)
        places = np.unique(nearest, return_inverse=True)[1].astype(np.int64)
        centres = means_of(rows, places)
    return places
