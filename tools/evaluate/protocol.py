"""Who is fitted on and who is asked: pairs by group, queries by number, nothing twice.

Document pairs are drawn by the hash of their group (the source, joined with near-duplicates among the drawn), into
those that are fitted on and those that are kept back. Queries: the first 800 of the training part are fitted on (or all
of them, if asked for), the test part is only judged. A folder without parts is split by the hash of the query's number.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tools.evaluate.corpus import F32, Corpus, Model
from vecdb.contracts import FitData, Pairs
from vecdb.evaluation import Judged, joined, near_duplicates, split
from vecdb.types import Space

__all__ = ["Draw", "Queries", "draw", "fit_data", "judged_of", "queries_of"]

I64 = npt.NDArray[np.int64]

FIT_QUERIES = 800
_KEPT = 1_500
_OTHERS = 8_000
_SHARES = {"fit": 0.7, "validation": 0.3}


@dataclass(frozen=True, slots=True)
class Queries:
    """Numbers of queries: those to fit on, those to judge, and the clusters of the latter."""

    fit: I64
    test: I64
    clusters: I64


@dataclass(frozen=True, slots=True)
class Draw:
    """Rows of documents: those fitted on, those kept back, and others of which no vector of the new model is known."""

    fit: I64
    kept: I64
    others: I64


def queries_of(corpus: Corpus, *, everything: bool = False) -> Queries:
    """Return the queries of each part.

    Parameters
    ----------
    corpus : Corpus
    everything : bool, default False
        Fit on all training queries instead of the first 800.
    """
    answered = corpus.judged.answered
    names = np.array(corpus.splits)
    if "test" in set(corpus.splits):
        fit = np.flatnonzero(names == "train")
        test = np.flatnonzero((names == "test") & answered)
    else:
        parts = split(np.arange(len(names)), {"fit": 0.3, "test": 0.7})
        fit, test = parts["fit"], parts["test"][answered[parts["test"]]]
    return Queries(fit if everything else fit[:FIT_QUERIES], test, _clusters(corpus, test))


def _clusters(corpus: Corpus, test: I64) -> I64:
    """Return the cluster of each test query: those whose first answers have one source belong together."""
    judged = corpus.judged
    first = judged.rows[np.minimum(judged.starts[test], max(judged.count - 1, 0))]
    return joined(first, [corpus.sources[row] for row in first])


def draw(corpus: Corpus, one: Model, other: Model, pairs: int, seed: int) -> Draw:
    """Return which documents are fitted on and which are kept back.

    Parameters
    ----------
    corpus : Corpus
    one, other : Model
    pairs : int
        To fit on, at most.
    seed : int
    """
    keys = [f"row {row}" if source is None else source for row, source in enumerate(corpus.sources)]
    parts = split(keys, _SHARES, seed=seed)
    rng = np.random.default_rng(seed)
    fit, kept = (
        np.sort(rng.choice(part, min(most, len(part)), replace=False))
        for part, most in ((parts["fit"], pairs), (parts["validation"], min(_KEPT, pairs)))
    )
    rows = np.concatenate([fit, kept])
    groups = near_duplicates(one.docs[rows], other.docs[rows])
    apart = ~np.isin(groups[len(fit) :], groups[: len(fit)])
    left = np.setdiff1d(np.arange(len(keys)), rows)
    return Draw(fit, kept[apart], np.sort(rng.choice(left, min(_OTHERS, len(left)), replace=False)))


def fit_data(
    corpus: Corpus, models: tuple[Model, Model], role: str, drawn: Draw, asked: Queries, seed: int, *, labels: bool
) -> FitData:
    """Return what a kind is fitted on, for an upgrade from the first model to the second.

    Parameters
    ----------
    corpus : Corpus
    models : tuple of Model
        The old one and the new one.
    role : {"query", "gallery"}
    drawn : Draw
    asked : Queries
    seed : int
    labels : bool
        Whether the classes of the documents are told.
    """
    old, new = models
    source, target = (new, old) if role == "query" else (old, new)
    data = FitData(
        Space(source.name, source.docs.shape[1], id=1),
        Space(target.name, target.docs.shape[1], id=2),
        _lent(source.docs[drawn.fit]),
        _lent(target.docs[drawn.fit]),
        role,  # type: ignore[arg-type]  # one of two words
        np.random.default_rng(seed),
        queries=_lent(new.queries[asked.fit]),
        queries_across=_lent(old.queries[asked.fit]),
        stored=_lent(old.docs[drawn.others]),
        validation=Pairs(_lent(source.docs[drawn.kept]), _lent(target.docs[drawn.kept])),
    )
    return replace(data, labels=np.ascontiguousarray(corpus.classes[drawn.fit])) if labels else data


def _lent(rows: F32) -> F32:
    lent = np.ascontiguousarray(rows)
    lent.flags.writeable = False
    return lent


def judged_of(corpus: Corpus, asked: Queries) -> Judged:
    """Return the judgements of the test queries."""
    return corpus.judged.take(asked.test)
