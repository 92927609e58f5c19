"""Which rows answer which query: judgements in one flat form.

Invariant: `starts` has one entry more than there are queries, and the rows of query i stand between its entry and the
next, each once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vecdb.errors import ArgumentError

__all__ = ["Judged"]

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """The rows that answer each query, with grades.

    Attributes
    ----------
    starts : ndarray of int64, shape (q + 1,)
    rows : ndarray of int64, shape (m,)
        Numbers of rows of a gallery.
    grades : ndarray of float64, shape (m,)
        Above 0, higher is better.
    """

    starts: Integers
    rows: Integers
    grades: npt.NDArray[np.float64]

    @property
    def queries(self) -> int:
        """How many queries there are."""
        return len(self.starts) - 1

    @property
    def count(self) -> int:
        """How many judgements there are."""
        return len(self.rows)

    @property
    def sizes(self) -> Integers:
        """How many rows answer each query."""
        return np.diff(self.starts)

    @property
    def owners(self) -> Integers:
        """The query of each judgement."""
        return np.repeat(np.arange(self.queries), self.sizes)

    @property
    def answered(self) -> npt.NDArray[np.bool_]:
        """Whether a query has any answer."""
        return self.sizes > 0

    def take(self, queries: npt.NDArray[Any]) -> Judged:
        """Return the judgements of some queries, in the order given (numbers, or a mask)."""
        numbers = np.flatnonzero(queries) if np.asarray(queries).dtype == np.bool_ else np.asarray(queries, np.int64)
        sizes = self.sizes[numbers]
        starts = np.concatenate([[0], np.cumsum(sizes)])
        within = np.arange(starts[-1]) - np.repeat(starts[:-1], sizes)
        places = np.repeat(self.starts[numbers], sizes) + within
        return Judged(starts, self.rows[places], self.grades[places])

    def among(self, rows: npt.NDArray[np.int64], count: int) -> Judged:
        """Return the judgements within a gallery of some `rows` of one that has `count`; others are dropped."""
        place = np.full(count, -1, np.int64)
        place[rows] = np.arange(len(rows))
        there = place[self.rows] >= 0
        sizes = np.bincount(self.owners[there], minlength=self.queries)
        starts = np.concatenate([[0], np.cumsum(sizes)])
        return Judged(starts, place[self.rows[there]], self.grades[there])

    @classmethod
    def of(cls, relevant: Sequence[Any]) -> Judged:
        """Return the judgements of a list with one entry for each query.

        Parameters
        ----------
        relevant : sequence
            Of each query: the number of the row that answers it (negative: none), or several, or a mapping from row to
            grade; grades of 0 and below are no answers.

        Raises
        ------
        ArgumentError
            An entry is none of these.
        """
        graded = [_graded(entry, place) for place, entry in enumerate(relevant)]
        starts = np.concatenate([[0], np.cumsum([len(each) for each in graded], dtype=np.int64)]).astype(np.int64)
        rows = np.array([row for each in graded for row in each], np.int64)
        return cls(starts, rows, np.array([grade for each in graded for grade in each.values()], np.float64))


def _graded(entry: Any, place: int) -> dict[int, float]:
    try:
        if isinstance(entry, Mapping):
            return {int(row): float(grade) for row, grade in entry.items() if grade > 0}
        several = [entry] if np.ndim(entry) == 0 else entry
        return {int(row): 1.0 for row in several if int(row) >= 0}
    except (TypeError, ValueError) as error:
        raise ArgumentError(
            f"relevant[{place}] is {entry!r}, expected the number of a row, several, or a mapping from row to grade",
            hint="A query without an answer has an empty list.",
        ) from error
