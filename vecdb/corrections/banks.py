"""What a row gets from the banks: a bias, or the mean and deviation of the bank's scores.

Invariant: the numbers of a row do not depend on the rows that it is computed with, nor on the machine's matrix product.
Vectors are rounded to a grid (2**-21 of the largest component for 384 columns) on which every product of two of them is
a multiple of one power of two, and every sum of products fits float64: sums are exact in whatever order they are added.
So what is computed for a new row on its own is what would have been computed for it among all the others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vecdb.corrections.kinds import Kind
from vecdb.types import Metric

__all__ = ["Banks", "Own", "columns_of", "csls_of", "directed", "image_of", "reach_of"]

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_CHUNK: Final = 512
"""Rows that are scored at once: with a bank of 2,000 a table of 8 MB."""
_SCALE_ROWS: Final = 512
_SIDES: Final = {"query": ("queries",), "gallery": ("gallery",), "dual": ("queries", "gallery")}
_NARROW: Final = 1e-6
_TINY: Final = 1e-30
_LOWEST: Final = -1e300
"""Stands for minus infinity where a number is stored."""
_NORMAL: Final = NormalDist()


@dataclass(frozen=True, slots=True, eq=False)
class Own:
    """Scores that say nothing: which row is whose answer.

    Attributes
    ----------
    members : ndarray of int64, shape (m,)
        Numbers within the bank.
    rows : ndarray of int64, shape (m,)
        The row that each of them is not asked about.
    """

    members: Integers
    rows: Integers

    @classmethod
    def none(cls) -> Own:
        """Return the empty list."""
        return cls(np.empty(0, np.int64), np.empty(0, np.int64))

    def within(self, start: int, stop: int) -> tuple[Integers, Integers]:
        """Return (row - start, member) of those in a stretch of rows."""
        here = (self.rows >= start) & (self.rows < stop)
        return self.rows[here] - start, self.members[here]


@dataclass(frozen=True, slots=True, eq=False)
class Banks:
    """What rows are compared with.

    Attributes
    ----------
    metric : {"cosine", "dot", "l2"}
        Of the space where queries and rows meet.
    queries : ndarray of float32, shape (b, d)
        The query bank: queries as rows are asked.
    gallery : ndarray of float32, shape (g, d)
        Stored rows that stand for all of them; none where the kind needs none.
    reach, reach_gallery : ndarray of float64, shapes (b,) and (g,), or (0,)
        What a row has to score to be among the best of each member (dynamic kinds only).
    """

    metric: Metric
    queries: F32
    gallery: F32
    reach: F64 = field(default_factory=lambda: np.empty(0))
    reach_gallery: F64 = field(default_factory=lambda: np.empty(0))
    _derived: dict[str, Any] = field(default_factory=dict)

    def side(self, name: str) -> tuple[F64, F64]:
        """Return one bank, "queries" or "gallery", as `_table` takes it: transposed, and squared lengths."""
        if name not in self._derived:
            rows = directed(self.queries if name == "queries" else self.gallery, self.metric)
            self._derived[name] = np.ascontiguousarray(rows.T), _squares(rows)
        found: tuple[F64, F64] = self._derived[name]
        return found

    @property
    def scale(self) -> float:
        """Deviation of the scores of the query bank's members among each other; 1 where there is none."""
        if "scale" not in self._derived:
            some = directed(self.queries[:: max(1, len(self.queries) // _SCALE_ROWS)][:_SCALE_ROWS], self.metric)
            table = _table(some, self.metric, (np.ascontiguousarray(some.T), _squares(some)))
            others = table[~np.eye(len(some), dtype=np.bool_)]
            self._derived["scale"] = float(others.std()) if len(others) and others.std() > 0.0 else 1.0
        found: float = self._derived["scale"]
        return found


def directed(rows: F32, metric: Metric) -> F64:
    """Return rows, of norm 1 under cosine, each rounded to a grid on which sums of products are exact in float64."""
    wide = rows.astype(np.float64)
    if metric == "cosine" and len(rows):
        norms = np.sqrt(np.einsum("ij,ij->i", wide, wide))[:, None]
        wide /= np.maximum(norms, _TINY)
    largest = np.abs(wide).max(axis=1, initial=0.0)
    exponents = np.frexp(np.maximum(largest, _TINY))[1] - (52 - math.ceil(math.log2(max(rows.shape[1], 2)))) // 2
    grid = np.ldexp(1.0, exponents)[:, None]
    on_grid: F64 = np.rint(wide / grid) * grid
    return on_grid


def _squares(rows: F64) -> F64:
    squares: F64 = np.einsum("ij,ij->i", rows, rows)
    return squares


def _table(rows: F64, metric: Metric, side: tuple[F64, F64]) -> F64:
    """Return the scores of directed rows, shape (n, d), with a bank, shape (n, b)."""
    turned, squares = side
    products: F64 = rows @ turned
    if metric == "l2":
        products *= -2.0
        products += _squares(rows)[:, None]
        products += squares
        np.sqrt(np.maximum(products, 0.0, out=products), out=products)
        np.negative(products, out=products)
    return products


def reach_of(banks: Banks, rows: F32, side: str, high: int, own: Own | None = None) -> F64:
    """Return what a row must score to be among the best `high` rows of each member of a bank, shape (b,).

    Parameters
    ----------
    banks : Banks
    rows : ndarray of float32, shape (n, d)
        Every stored row.
    side : {"queries", "gallery"}
    high : int
    own : Own, optional
        Scores that do not count.
    """
    own = own or Own.none()
    members = banks.side(side)[0].shape[1]
    best = np.full((high, members), -np.inf)
    for start in range(0, len(rows), _CHUNK):
        chunk = directed(rows[start : start + _CHUNK], banks.metric)
        table = _table(chunk, banks.metric, banks.side(side))
        table[own.within(start, start + len(chunk))] = -np.inf
        merged = np.concatenate([best, table])
        best = merged.max(axis=0, keepdims=True) if high == 1 else np.partition(merged, -high, axis=0)[-high:]
    reach: F64 = np.maximum(best.min(axis=0), _LOWEST)
    return reach


def columns_of(
    kind: Kind,
    params: Mapping[str, Any],
    banks: Banks,
    rows: F32,
    own: Own | None = None,
    own_gallery: Own | None = None,
) -> F32:
    """Return what is kept of each row.

    Parameters
    ----------
    kind : Kind
    params : mapping
        All of the kind's parameters.
    banks : Banks
    rows : ndarray of float32, shape (n, d)
        Stored rows.
    own, own_gallery : Own, optional
        Which row is whose answer: such a query, and a row's own copy in the gallery bank, are left out.

    Returns
    -------
    ndarray of float32, shape (n, kind.width(params, d))
        "bias": what is added to the scores of the row, and for a dynamic kind 1 where it is activated. csls: minus half
        the mean score of its nearest bank queries. inverted-softmax: minus ``log(mean(exp(beta s))) / beta`` over the
        bank. dbnorm: the same of either bank, or the mean of both. "proximity": mean and deviation of its scores with
        the query bank. "image": the row with every component normal, as `image_of` makes it of the gallery bank.
    """
    out = np.zeros((len(rows), kind.width(params, rows.shape[1])), np.float32)
    own, own_gallery = own or Own.none(), own_gallery or Own.none()
    for start in range(0, len(rows), _CHUNK):
        chunk = directed(rows[start : start + _CHUNK], banks.metric)
        out[start : start + _CHUNK] = _columns(kind, params, banks, chunk, (own, own_gallery), start)
    return out


def _columns(
    kind: Kind, params: Mapping[str, Any], banks: Banks, rows: F64, left_out: tuple[Own, Own], start: int
) -> F32:
    def scores(side: str) -> F64:
        table = _table(rows, banks.metric, banks.side(side))
        table[left_out[side == "gallery"].within(start, start + len(rows))] = -np.inf
        return table

    if kind.form == "image":
        return image_of(banks, rows, "gallery")
    if kind.name == "csls":
        return csls_of(scores("queries"), int(params["neighbours"]))
    if kind.form == "proximity":
        return _moments(scores("queries"))
    beta = 1.0 / (float(params["temperature"]) * banks.scale)
    tables = {side: scores(side) for side in _SIDES[params.get("banks", "query")]}
    bias = np.mean([_soft(table, beta) for table in tables.values()], axis=0)
    if not kind.dynamic(params):
        return np.asarray(bias, np.float32)[:, None]
    reach = {"queries": banks.reach, "gallery": banks.reach_gallery}
    found = [(table >= reach[side]).any(axis=1) for side, table in tables.items()]
    columns: F32 = np.column_stack([bias, np.any(found, axis=0)]).astype(np.float32)
    return columns


def image_of(banks: Banks, rows: F64, side: str) -> F32:
    """Return rows with each component in the place of a normal one of the same rank among those of a bank.

    Parameters
    ----------
    banks : Banks
    rows : ndarray of float64, shape (n, d)
        As `directed` returns them.
    side : {"queries", "gallery"}
        Queries are ranked among queries, stored rows among stored rows: their components are distributed differently.

    Returns
    -------
    ndarray of float32, shape (n, d)
        0 where a component is the same in the whole bank.
    """
    known = f"ranked {side}"
    if known not in banks._derived:
        ranked = np.sort(directed(banks.queries if side == "queries" else banks.gallery, banks.metric), axis=0)
        places = (np.arange(len(ranked)) + 0.5) / len(ranked)
        banks._derived[known] = ranked, np.array([_NORMAL.inv_cdf(place) for place in places.tolist()])
    ranked, normal = banks._derived[known]
    image = np.zeros(rows.shape, np.float32)
    for column in np.flatnonzero(ranked[0] < ranked[-1]).tolist():
        image[:, column] = np.interp(rows[:, column], ranked[:, column], normal)
    return image


def csls_of(table: F64, neighbours: int) -> F32:
    """Return minus half the mean of the largest scores of each row, shape (n, 1); minus infinity does not count."""
    members = table.shape[1]
    keep = min(neighbours, members)
    if not keep:
        return np.zeros((len(table), 1), np.float32)
    near = np.sort(np.partition(table, members - keep, axis=1)[:, members - keep :], axis=1)
    there = np.isfinite(near)
    means = np.where(there, near, 0.0).sum(axis=1) / np.maximum(there.sum(axis=1), 1)
    bias: F32 = (-0.5 * means).astype(np.float32)
    return bias[:, None]


def _soft(table: F64, beta: float) -> F64:
    """Return ``-log(mean(exp(beta s))) / beta`` of each row."""
    there = np.isfinite(table).sum(axis=1)
    top = table.max(axis=1, initial=-np.inf)
    top = np.where(np.isfinite(top), top, 0.0)
    total = np.exp(beta * (table - top[:, None])).sum(axis=1)
    known = np.maximum(there, 1)
    return np.where(there > 0, -(top + np.log(np.maximum(total, _TINY) / known) / beta), 0.0)


def _moments(table: F64) -> F32:
    """Return mean and deviation of each row; the deviation is never too small to divide by."""
    there = np.isfinite(table)
    known = np.maximum(there.sum(axis=1), 1)
    mean = np.where(there, table, 0.0).sum(axis=1) / known
    away = np.where(there, table - mean[:, None], 0.0)
    deviation = np.sqrt((away * away).sum(axis=1) / known)
    least = _NARROW * (1.0 + np.abs(mean))
    columns: F32 = np.column_stack([mean, np.maximum(deviation, least)]).astype(np.float32)
    return columns
