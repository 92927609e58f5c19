"""What is ranked for what: staying, re-embedding and bridging as pairs of queries and rows that a metric compares.

Invariant: every arm is measured by the same functions, with and without the same correction of hubs; a query never
takes part in the bank that corrects its own ranking, and a bank query says nothing of its own answers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vecdb.contracts import Transform
from vecdb.engine import transformborder as border
from vecdb.evaluation import Judged, csls_bias, ranks_of
from vecdb.registry import Provided
from vecdb.types import Metric
from vecdb.upgrade.material import Material, Questions
from vecdb.upgrade.parts import Arm

__all__ = ["Setting", "Side", "bridged", "corrected_ranks", "halves_of", "plain_ranks", "reembedded", "staying"]

F32 = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_BLOCK = 8_192


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """Queries, and rows that are ranked for them.

    Attributes
    ----------
    queries : ndarray of float32, shape (q, d)
    rows : ndarray of float32, shape (n, d)
    metric : {"cosine", "dot", "l2"}
    bias : ndarray of float32, shape (n,), or None
        Part of the scores.
    """

    queries: F32
    rows: F32
    metric: Metric
    bias: F32 | None = None

    def among(self, some: Integers) -> Side:
        """Return it with some of the rows."""
        return Side(self.queries, self.rows[some], self.metric, None if self.bias is None else self.bias[some])

    def asked(self, queries: F32) -> Side:
        """Return it with other queries."""
        return Side(queries, self.rows, self.metric, self.bias)


@dataclass(frozen=True, slots=True, eq=False)
class Setting:
    """What one comparison is about: old vectors, queries, and queries that only correct.

    Attributes
    ----------
    gallery : ndarray of float32, shape (n, d)
        Old vectors.
    natives : ndarray of int64, shape (m,)
        Rows of the gallery whose new vectors are known.
    fresh : ndarray of float32, shape (m, e)
        Those.
    questions : Questions
        Judged on rows of the gallery.
    bank : Questions or None
    """

    gallery: F32
    natives: Integers
    fresh: F32
    questions: Questions
    bank: Questions | None

    @property
    def judged(self) -> Judged:
        """The answers, which every setting has."""
        assert self.questions.judged is not None
        return self.questions.judged


Ask = Callable[[Questions], "F32 | None"]
"""The queries as a side asks them; None where they are not known in its space."""


def staying(material: Material, setting: Setting) -> tuple[Side, Ask] | None:
    """Return old queries over old vectors, None without old queries."""
    old = setting.questions.old
    if old is None:
        return None
    return Side(old, setting.gallery, material.source.metric), lambda asked: asked.old


def reembedded(material: Material, setting: Setting) -> tuple[Side, Ask] | None:
    """Return new queries over the new vectors that are known, None where there are none of either."""
    new = setting.questions.new
    if new is None or not len(setting.natives):
        return None
    return Side(new, setting.fresh, material.target.metric), lambda asked: asked.new


def bridged(
    material: Material, setting: Setting, arm: Arm, provided: Provided, transform: Transform
) -> tuple[Side, Ask] | None:
    """Return new queries over old vectors, mapped one way or the other; None without new queries."""
    new = setting.questions.new
    if new is None:
        return None
    form = transform.affine()
    own = None if form is None or form.row_bias is None else form.row_bias(setting.gallery)
    if arm.role == "gallery":
        rows = _mapped(provided, transform, setting.gallery, material.target.dim)
        return Side(new, rows, material.target.metric, own), lambda asked: asked.new
    metric: Metric = "dot" if own is not None and material.source.metric == "cosine" else material.source.metric

    def ask(asked: Questions) -> F32 | None:
        return None if asked.new is None else _mapped(provided, transform, asked.new, material.source.dim)

    mapped = ask(setting.questions)
    assert mapped is not None
    return Side(mapped, setting.gallery, metric, own), ask


def _mapped(provided: Provided, transform: Transform, rows: F32, width: int) -> F32:
    made = np.empty((len(rows), width), np.float32)
    for start in range(0, len(rows), _BLOCK):
        made[start : start + _BLOCK] = border.apply(provided, transform, rows[start : start + _BLOCK], width)
    return made


# --- ranks ------------------------------------------------------------------------------------------------


def plain_ranks(side: Side, judged: Judged) -> Integers:
    """Return the rank of each judged row."""
    return ranks_of(side.queries, side.rows, judged, side.metric, bias=side.bias)


def halves_of(clusters: Integers) -> Bools:
    """Return the half that each query belongs to; clusters stay whole."""
    numbers = np.random.default_rng(len(clusters)).permutation(int(clusters.max(initial=0)) + 1)
    half: Bools = numbers[clusters] % 2 == 0
    return half


def corrected_ranks(side: Side, ask: Ask, questions: Questions, judged: Judged, bank: Questions | None) -> Integers:
    """Return the ranks when each row's scores are lowered by its nearness to queries (CSLS).

    Without a bank each half of the queries serves as the other's.
    """
    asked = None if bank is None else ask(bank)
    if bank is not None and asked is not None:
        return _with_bank(side, judged, asked, bank.judged)
    ranks = np.ones(judged.count, np.int64)
    half = halves_of(questions.clusters)
    for mine in (half, ~half):
        own = np.isin(judged.owners, np.flatnonzero(mine))
        part = side.asked(side.queries[mine])
        ranks[own] = _with_bank(part, judged.take(mine), side.queries[~mine], judged.take(~mine))
    return ranks


def _with_bank(side: Side, judged: Judged, bank: F32, own: Judged | None) -> Integers:
    known = own if own is not None and own.count and int(own.rows.max()) < len(side.rows) else None
    bias = csls_bias(bank, side.rows, side.metric, own=known)
    return plain_ranks(
        Side(side.queries, side.rows, side.metric, bias if side.bias is None else bias + side.bias), judged
    )
