"""What every ranking is worth for every query in every split: the table that all estimates are made from.

Invariant: a number is written once, by the split that measured it; what a split did not judge stays NaN. A choice
among arms is made on one half of the queries and read off on the other: no query takes part in choosing what it judges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from vecdb.evaluation import Estimate, Judged, measure, predict_mean, predict_ratio
from vecdb.upgrade.findings import Worth
from vecdb.upgrade.sides import halves_of

__all__ = ["MEASURES", "Ledger"]

MEASURES = ("mrr", "recall@10", "ndcg@10", "recall@50", "recall@100", "recall@200")
Values = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(slots=True, eq=False)
class Ledger:
    """Values by what was ranked.

    Attributes
    ----------
    splits : int
    clusters : ndarray of int64, shape (q,)
        Of all queries of all splits.
    metric : str
        The one of `MEASURES` by which is chosen and compared.
    expected : int or None
        New queries that intervals are for.
    values : dict of key to ndarray of float64, shape (splits, q, 6)
    """

    splits: int
    clusters: Integers
    metric: str
    expected: int | None = None
    values: dict[Any, Values] = field(default_factory=dict)

    def write(self, key: Any, splits: slice, columns: Integers, ranks: Integers, judged: Judged) -> None:
        """Write what a ranking is worth for some queries.

        Parameters
        ----------
        key : hashable
        splits : slice
            Those it holds for: what no pair was fitted for is the same in all.
        columns : ndarray of int64
            Of the judged queries.
        ranks, judged
            As in `vecdb.evaluation.measure`.
        """
        if key not in self.values:
            self.values[key] = np.full((self.splits, len(self.clusters), len(MEASURES)), np.nan)
        found = measure(ranks, judged)
        self.values[key][splits, columns] = np.column_stack([found.of(name) for name in MEASURES])

    def of(self, key: Any, name: str | None = None) -> Values:
        """Return one measure, shape (splits, q); default: the one that is compared by."""
        return self.values[key][:, :, MEASURES.index(name or self.metric)]

    def mean(self, key: Any, name: str | None = None) -> float:
        """Return the mean over what was judged."""
        return float(np.nanmean(self.of(key, name)))

    def whole(self, keys: Sequence[Any]) -> list[Any]:
        """Return the keys that every split has measured."""
        return [key for key in keys if key in self.values and not np.isnan(self.of(key)).all(axis=1).any()]

    def best(self, keys: Sequence[Any]) -> Any:
        """Return the best key over all queries, the first of equals."""
        return max(keys, key=self.mean)

    def chosen(self, keys: Sequence[Any]) -> Values:
        """Return the values of the best key, shape (splits, q), for each half of the queries chosen on the other."""
        half = halves_of(self.clusters)
        made = np.empty((self.splits, len(self.clusters)))
        for mine in (half, ~half):
            judging = {key: self.of(key)[:, ~mine] for key in keys}
            known = {key: float(np.nanmean(values)) for key, values in judging.items() if not np.isnan(values).all()}
            best = max(known, key=known.__getitem__) if known else keys[0]
            made[:, mine] = self.of(best)[:, mine]
        return made

    def ratio(self, upper: Values, lower: Values) -> Estimate:
        """Return the ratio of two means, with its prediction interval."""
        return predict_ratio(upper, lower, self.clusters, new=self.expected)

    def estimate(self, values: Values) -> Estimate:
        """Return a mean with its prediction interval."""
        return predict_mean(values, self.clusters, new=self.expected)

    def worth(self, key: Any) -> Worth:
        """Return every measure of a key."""
        first, second, third = (self.estimate(self.of(key, name)) for name in MEASURES[:3])
        return Worth(first, second, third, tuple(self.mean(key, name) for name in MEASURES[3:]))
