"""The judged candidates of a fit as flat arrays, and the threshold that suits them; what all kinds share.

Invariant: what is ignored, not judged, or behind the last candidate is nowhere in the flat arrays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from vecdb.contracts.params import Param
from vecdb.contracts.relevance import RelevanceData
from vecdb.errors import CancelledError, FitError, NonFiniteError
from vecdb.evaluation.relevance import Curve

__all__ = ["DEPTH", "KEEP", "Judged", "Keep", "checked", "chosen_threshold", "in_order", "judged_of", "keep_of"]

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

LEAST: Final = 2
"""Relevant candidates, and others, that any fit needs."""
_TINY: Final = float(np.finfo(np.float32).tiny)

KEEP: Final = {
    "by": Param(
        "str",
        "f1",
        "What the threshold is chosen by: the best F1 on the pool, or the highest one with this recall, or the lowest "
        "one with this precision.",
        choices=("f1", "recall", "precision"),
    ),
    "level": Param("float", 0.95, "The recall or precision that is wanted.", 0.0, 1.0),
}
DEPTH: Final = Param(
    "int", 10, "Best candidates of each query that probabilities are fitted on: as many as searches ask for.", 1
)


class Keep(NamedTuple):
    """How a threshold is chosen: `KEEP` as values."""

    by: str
    level: float


def keep_of(params: Any) -> Keep:
    """Return how the parameters of a kind say that a threshold is chosen."""
    return Keep(params["by"], params["level"])


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """Candidates that were judged.

    Attributes
    ----------
    rows, places : ndarray of int64, shape (n,)
        Where they stand in the pool: number of the query, and column.
    scores : ndarray of float64, shape (n,)
    labels : ndarray of bool, shape (n,)
    """

    rows: Integers
    places: Integers
    scores: F64
    labels: npt.NDArray[np.bool_]

    def take(self, some: npt.NDArray[Any]) -> Judged:
        """Return some of them, by places or a mask."""
        return Judged(self.rows[some], self.places[some], self.scores[some], self.labels[some])

    def of_queries(self, chosen: npt.NDArray[np.bool_]) -> Judged:
        """Return those of some queries, given as a mask."""
        return self.take(chosen[self.rows])


def checked(data: RelevanceData) -> RelevanceData:
    """Return the data if it can be fitted on at all.

    Raises
    ------
    CancelledError, NonFiniteError
    """
    if data.cancel():
        raise CancelledError("the fit of a relevance filter was cancelled")
    bad = np.isnan(data.scores) | np.isposinf(data.scores)
    if bad.any():
        row, column = (int(each[0]) for each in np.nonzero(bad))
        raise NonFiniteError(
            f"the score of candidate {column} of query {row} is {data.scores[row, column]}",
            row=row,
            column=column,
            where="scores",
        )
    return data


def judged_of(data: RelevanceData, *, depth: int | None = None) -> Judged:
    """Return the judged candidates of the pool, or of the first `depth` places of it.

    Raises
    ------
    FitError
        Too few are relevant, or too few are not.
    """
    if data.labels is None:
        raise _too_few(0, "no candidate is judged")
    used = ~data.ignore & (data.labels >= 0) & np.isfinite(data.scores)
    if depth is not None:
        used[:, depth:] = False
    rows, places = np.nonzero(used)
    found = Judged(
        rows.astype(np.int64), places.astype(np.int64), data.scores[used].astype(np.float64), data.labels[used] == 1
    )
    yes = int(np.count_nonzero(found.labels))
    if min(yes, len(rows) - yes) < LEAST:
        raise _too_few(min(yes, len(rows) - yes), f"{yes} of {len(rows)} judged candidates are relevant")
    return found


def _too_few(count: int, what: str) -> FitError:
    return FitError(
        f"a relevance filter needs at least {LEAST} relevant candidates and {LEAST} others: {what}",
        hint="Give more queries with their answers, or a deeper pool.",
        pairs=count,
        needed=LEAST,
    )


def chosen_threshold(relevance: F32, labels: npt.NDArray[np.bool_], keep: Keep) -> float:
    """Return the threshold that was asked for: a value that some candidate has, above 0 and at most 1.

    Parameters
    ----------
    relevance : ndarray of float32, shape (n,)
        Of judged candidates, as the filter says it.
    labels : ndarray of bool, shape (n,)
    keep : Keep
        With ties the higher threshold is taken; where no threshold has the precision, the one with the most.
    """
    curve = Curve(relevance, labels)
    if keep.by == "recall":
        return _inside(curve.at_recall(keep.level)[1])
    passed, found = curve.counts()
    precision, recall = found / passed, found / found[-1]
    if keep.by == "precision":
        enough = np.flatnonzero(precision >= keep.level)
        place = int(enough[-1]) if len(enough) else int(precision.argmax())
    else:
        place = int((2 * precision * recall / np.maximum(precision + recall, 1e-12)).argmax())
    return _inside(float(curve.thresholds[place]))


def _inside(value: float) -> float:
    return min(max(value, _TINY), 1.0)


def in_order(data: RelevanceData, *shares: float) -> list[npt.NDArray[np.bool_]]:
    """Return masks of queries for parts of these shares, groups whole, in the order in which groups first appear.

    The engine has shuffled groups; whoever gives queries in an order of their own decides which are in which part.
    """
    count = len(data.queries)
    groups = np.arange(count) if data.groups is None else data.groups
    _, first, numbers, sizes = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first, kind="stable")] = np.arange(len(first))
    ordered = np.empty(len(first), np.int64)
    ordered[rank] = sizes
    before = (np.cumsum(ordered) - ordered)[rank][numbers.reshape(-1)]  # queries of groups that come before one's own
    edges = np.cumsum(shares) / sum(shares) * count
    part = np.minimum(np.searchsorted(edges, before, side="right"), len(shares) - 1)
    return [part == number for number in range(len(shares))]
