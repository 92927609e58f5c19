"""How many rows a scan of codes has to nominate, measured on the vectors themselves while they are encoded.

Some vectors are asked for their neighbours: the true ten come from exact products, the estimated ranks of these ten
from the codes. The default effort of an index is the number of nominated rows that holds the wanted share of them;
tight clusters, where estimates differ by less than their error, need more of it than spread vectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from vecdb.indexes.codes import CodeBook, Prepared, Sketch, prepare_queries, rotated_queries, unit_rows
from vecdb.indexes.fine import fine_slopes, levels, points

__all__ = ["CodeGauge", "kept_of"]

F32 = npt.NDArray[np.float32]

ASKED: Final = 64
NEIGHBOURS: Final = 10
MOST: Final = 2_048
WANTED: Final = 0.99
LEAST: Final = 48
KEPT: Final = 0.998


@dataclass(slots=True)
class _Best:
    """The best of what one pass has seen: exact scores, their estimates, and the best estimates."""

    exact: F32
    estimates: F32
    top: F32


class CodeGauge:
    """Measures the effort that some of the encoded vectors need.

    Parameters
    ----------
    book : CodeBook
    asked : ndarray of float32, shape (q, dim)
        Vectors of the index, asked for their neighbours.
    places : ndarray of int64, shape (q,)
        Their positions: a vector is not its own neighbour.
    bits : int
        Of the codes whose estimates are looked at.
    """

    def __init__(self, book: CodeBook, asked: F32, places: npt.NDArray[np.int64], bits: int = 1) -> None:
        self._book = book
        self._bits = bits
        self._rows = unit_rows(asked) if book.metric == "cosine" else asked
        self._places = places
        self._asked: Prepared = prepare_queries(book, self._rows)
        self._turned = rotated_queries(book, self._asked.turned)
        count = len(asked)
        self._best = _Best(
            np.full((count, NEIGHBOURS), -np.inf, np.float32),
            np.full((count, NEIGHBOURS), -np.inf, np.float32),
            np.full((count, 0), -np.inf, np.float32),
        )

    def see(self, first: int, rows: F32, made: Sketch) -> None:
        """Take in rows, float32 (n, dim), that begin at position `first`, and what was made of them."""
        exact = self._exact(rows)
        estimates = self._estimates(made)
        inside = np.flatnonzero((self._places >= first) & (self._places < first + len(rows)))
        exact[inside, self._places[inside] - first] = -np.inf
        estimates[inside, self._places[inside] - first] = -np.inf
        best = self._best
        both = np.concatenate([best.exact, exact], axis=1)
        chosen = np.argpartition(-both, NEIGHBOURS - 1, axis=1)[:, :NEIGHBOURS]
        best.exact = np.take_along_axis(both, chosen, axis=1)
        best.estimates = np.take_along_axis(np.concatenate([best.estimates, estimates], axis=1), chosen, axis=1)
        top = np.concatenate([best.top, estimates], axis=1)
        best.top = -np.partition(-top, MOST - 1, axis=1)[:, :MOST] if top.shape[1] > MOST else top

    def _exact(self, rows: F32) -> F32:
        if self._book.metric == "cosine":
            rows = unit_rows(rows)
        scores: F32 = self._rows @ rows.T
        if self._book.metric == "l2":
            scores = 2 * scores - np.einsum("ij,ij->i", rows, rows)
        return scores

    def _estimates(self, made: Sketch) -> F32:
        offsets, slopes = made.factors
        if self._bits == 1:
            rounded = np.where(made.turned > 0, np.float32(1), np.float32(-1))
        else:
            rounded = points(levels(made.turned, self._bits), self._bits)
            slopes = fine_slopes(self._book, made.turned, rounded)
        sums = self._turned @ rounded.T
        estimates: F32 = self._asked.bases[:, made.cells] + self._asked.bends[:, None] * offsets + slopes * sums
        return estimates

    def effort(self) -> int:
        """Return how many rows must be nominated to hold the wanted share of the true neighbours."""
        return int(min(MOST, max(LEAST, self._needed(WANTED))))

    def kept(self) -> int:
        """Return how many rows must be scored exactly to hold nearly all of the true ten: at least these ten."""
        return int(min(MOST, max(NEIGHBOURS, self._needed(KEPT))))

    def _needed(self, share: float) -> int:
        top = np.sort(self._best.top, axis=1)[:, ::-1]
        ranks = np.concatenate(
            [
                np.searchsorted(-best, -estimates[exact > -np.inf], side="right")
                for best, estimates, exact in zip(top, self._best.estimates, self._best.exact, strict=True)
            ]
        )
        return int(np.quantile(ranks, share, method="higher")) if len(ranks) else 0


def kept_of(kept: int, k: int, most: int) -> int:
    """Return how many of `most` selected rows are scored exactly for `k` neighbours; more for more effort."""
    return min(most, max(k, -(-kept * k // NEIGHBOURS), most // 8))
