"""Pools of candidates with known answers, as relevance filters are fitted on and judged by.

The pool of a query are the 100 best documents by exact search. The known answer is relevant, documents of the same
source are left out, the rest counts as not relevant. Roles of queries: docs/explanation/evaluation.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tools.evaluate.corpus import F32, Corpus, Model
from vecdb.contracts import RelevanceData
from vecdb.evaluation import joined, split, top_k
from vecdb.evaluation.pools import JudgedPool
from vecdb.types import Space

__all__ = ["DEPTH", "Part", "Roles", "judged_pool", "part_of", "relevance_data", "roles_of"]

I64 = npt.NDArray[np.int64]

DEPTH = 100
SAMPLE = 2_000
_FIT, _TEST, _NONE = 2_000, (2_000, 4_000), (4_250, 4_500)


@dataclass(frozen=True, slots=True)
class Roles:
    """Numbers of queries: to fit on, to judge by (read once), and without an answer."""

    fit: I64
    test: I64
    nothing: I64


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """The pools of some queries.

    Attributes
    ----------
    queries : ndarray of float32, shape (q, d)
    found : ndarray of int64, shape (q, m)
    scores : ndarray of float32, shape (q, m)
    labels, ignore : ndarray of bool, shape (q, m)
    missed : ndarray of float32, shape (p, 2)
        Number of the query and exact score of answers that are no candidates.
    clusters : ndarray of int64, shape (q,)
        Queries whose answers have one source.
    classes : ndarray of int64, shape (q,)
        Of the answers: groups for the consistency of thresholds.
    """

    queries: F32
    found: I64
    scores: F32
    labels: npt.NDArray[np.bool_]
    ignore: npt.NDArray[np.bool_]
    missed: F32
    clusters: I64
    classes: I64

    def take(self, rows: Any) -> Part:
        """Return the pools of some of the queries, by a mask."""
        place = np.cumsum(rows) - 1
        kept = [(float(place[int(row)]), score) for row, score in self.missed.tolist() if rows[int(row)]]
        arrays = (getattr(self, name)[rows] for name in ("queries", "found", "scores", "labels", "ignore"))
        missed = np.array(kept, np.float32).reshape(-1, 2)
        return Part(*arrays, missed, self.clusters[rows], self.classes[rows])


def roles_of(corpus: Corpus) -> Roles:
    """Return who is fitted on and who is judged by; a folder without parts is split by the hash of the number."""
    answered = corpus.judged.answered
    numbers = np.arange(len(answered))
    if "test" in set(corpus.splits):
        return Roles(numbers[:_FIT], numbers[slice(*_TEST)], numbers[slice(*_NONE)])
    parts = split(numbers, {"fit": 0.6, "test": 0.4})
    fit, test = (part[answered[part]] for part in (parts["fit"], parts["test"]))
    return Roles(fit, test, numbers[:0])


def part_of(corpus: Corpus, model: Model, chosen: I64, *, depth: int = DEPTH) -> Part:
    """Return the pools of some queries of a corpus."""
    judged = corpus.judged.take(chosen)
    queries = np.ascontiguousarray(model.queries[chosen])
    found, scores = top_k(queries, model.docs, depth, "cosine")
    labels, ignore = np.zeros(found.shape, bool), np.zeros(found.shape, bool)
    sources = np.unique([f"row {row}" if each is None else str(each) for row, each in enumerate(corpus.sources)],
                        return_inverse=True)[1]  # fmt: skip
    missed = []
    for row in range(len(chosen)):
        answers = judged.rows[judged.starts[row] : judged.starts[row + 1]]
        labels[row] = np.isin(found[row], answers)
        ignore[row] = np.isin(sources[found[row]], sources[answers]) & ~labels[row]
        lost = np.setdiff1d(answers, found[row])
        missed += [(row, score) for score in (model.docs[lost] @ queries[row]).tolist()]
    first = [judged.rows[judged.starts[row]] if judged.sizes[row] else -1 for row in range(len(chosen))]
    clusters = joined([None if answer < 0 else int(sources[answer]) for answer in first])
    classes = np.array([corpus.classes[answer] if answer >= 0 else -1 for answer in first], np.int64)
    kept = np.array(missed, np.float32).reshape(-1, 2)
    return Part(queries, found, scores, labels, ignore, kept, clusters, classes)


def relevance_data(model: Model, part: Part, seed: int, *, labelled: bool = True) -> RelevanceData:
    """Return what a kind of filter is fitted on."""
    rng = np.random.default_rng(seed)
    some = np.sort(rng.choice(len(model.docs), min(SAMPLE, len(model.docs)), replace=False))
    return RelevanceData(
        Space(model.name, model.docs.shape[1], id=1),
        _lent(part.queries),
        _lent(part.scores),
        _lent(part.found.astype(np.uint64)),
        _lent(part.ignore),
        len(model.docs),
        rng,
        labels=_lent(part.labels.astype(np.int8)) if labelled else None,
        missed=_lent(part.missed),
        sample=_lent(model.docs[some]),
        groups=_lent(part.clusters),
    )


def judged_pool(part: Part) -> JudgedPool:
    """Return pools as they are measured on."""
    groups = part.classes if len(np.unique(part.classes)) > 1 else part.clusters
    return JudgedPool(part.scores, part.labels, ~part.ignore, part.clusters, groups)


def _lent(array: npt.NDArray[Any]) -> Any:
    lent = np.ascontiguousarray(array)
    lent.flags.writeable = False
    return lent
