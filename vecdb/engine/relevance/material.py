"""What a filter is fitted on: the answers of a collection's own search, and what is known of them.

Invariant: candidates and their scores are what a search returns, bridging, calibration and correction included, so that
a filter is fitted on exactly what it will judge.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vecdb.contracts.relevance import RelevanceData
from vecdb.engine.pairing import directed
from vecdb.engine.relevance.border import lent
from vecdb.engine.search import alive
from vecdb.engine.view import CollectionView
from vecdb.engine.views import as_float32
from vecdb.errors import CancelledError, ParameterError
from vecdb.evaluation.groups import joined
from vecdb.storage.idkeys import id_keys
from vecdb.storage.relevance import Judgements
from vecdb.types import MAX_K, CancelCheck, HitsBatch, Id, Progress, Space

F32 = npt.NDArray[np.float32]
Ask = Callable[[F32, int], HitsBatch]

_BLOCK: Final = 128
"""Queries that are asked at once."""
_DEEP_BLOCK: Final = 8
SAMPLE: Final = 2_000
"""Vectors of random records that fits are given."""


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """Candidates of all queries, best first.

    Attributes
    ----------
    queries : ndarray of float32, shape (q, d)
    ids : list of list of ids
    scores : ndarray of float32, shape (q, m)
        -inf behind the last.
    labels : ndarray of int8, shape (q, m), or None
    ignore : ndarray of bool, shape (q, m)
    missed : ndarray of float32, shape (p, 2)
        Number of the query and score of relevant records that are no candidates.
    groups : ndarray of int64, shape (q,)
    """

    queries: F32
    ids: list[list[Id]]
    scores: F32
    labels: npt.NDArray[np.int8] | None
    ignore: npt.NDArray[np.bool_]
    missed: F32
    groups: npt.NDArray[np.int64]

    def take(self, rows: npt.NDArray[np.int64]) -> Pool:
        """Return the pool of some queries, in this order."""
        place = {int(row): number for number, row in enumerate(rows)}
        kept = [(place[int(row)], score) for row, score in self.missed.tolist() if int(row) in place]
        return Pool(
            self.queries[rows],
            [self.ids[row] for row in rows.tolist()],
            self.scores[rows],
            None if self.labels is None else self.labels[rows],
            self.ignore[rows],
            np.array(kept, np.float32).reshape(-1, 2),
            self.groups[rows],
        )


# --- judgements -------------------------------------------------------------------------------------------


def given_judgements(
    count: int, relevant: Any, ignore: Any, negatives: Any, groups: Sequence[Any] | None
) -> Judgements:
    """Return what a caller says of `count` queries, checked.

    Raises
    ------
    ParameterError
        A list has another length, or an entry is not what it should be.
    """
    found = None if relevant is None else _lists("relevant_ids", relevant, count)
    left_out = ((),) * count if ignore is None else _lists("ignore_ids", ignore, count)
    others = None if isinstance(negatives, str) and negatives == "pool" else _lists("negatives", negatives, count)
    return Judgements(found, left_out, others, _groups(count, found, groups))


def _lists(name: str, given: Any, count: int) -> tuple[tuple[Id, ...], ...]:
    if isinstance(given, (str, bytes, Mapping)) or not hasattr(given, "__len__") or len(given) != count:
        size = len(given) if hasattr(given, "__len__") else type(given).__name__
        raise ParameterError(
            f"{name} has {size} entries, expected one for each of {count} queries",
            hint="An entry is an id, a list of ids, or for relevant_ids a mapping from id to grade.",
            name=name,
            got=size,
            allowed=count,
        )
    return tuple(_ids(name, entry, place) for place, entry in enumerate(given))


def _ids(name: str, entry: Any, place: int) -> tuple[Id, ...]:
    if entry is None:
        return ()
    if isinstance(entry, Mapping):
        entry = [id for id, grade in entry.items() if _grade(f"{name}[{place}]", id, grade) > 0]
    if isinstance(entry, (str, int, np.integer)) and not isinstance(entry, bool):
        entry = [entry]
    if isinstance(entry, bytes) or not isinstance(entry, (list, tuple, set, frozenset, np.ndarray)):
        raise ParameterError(
            f"{name}[{place}] is {entry!r}, expected an id or a list of ids", name=f"{name}[{place}]", got=entry
        )
    plain = tuple(id.item() if isinstance(id, np.generic) else id for id in entry)
    id_keys(plain)
    return plain


def _grade(where: str, id: Any, grade: Any) -> float:
    """Return a grade as a number; NaN is none."""
    if not isinstance(grade, (int, float, np.number, np.bool_)) or grade != grade:
        raise ParameterError(
            f"{where} gives {id!r} the grade {grade!r}, expected a number; above 0 is relevant", name=where, got=grade
        )
    return float(grade)


def _groups(count: int, relevant: Sequence[Sequence[Id]] | None, groups: Sequence[Any] | None) -> Any:
    """Return groups as numbers: those given, and queries that have the same first answer."""
    if groups is not None:
        _refuse_groups(groups, count)
    answers = [None] * count if relevant is None else [str(each[:1]) if each else None for each in relevant]
    return joined(answers) if groups is None else joined(list(groups), answers)


def _refuse_groups(groups: Any, count: int) -> None:
    """Refuse what is not one hashable key for each query."""
    known = not isinstance(groups, (str, bytes, Mapping)) and hasattr(groups, "__len__") and hasattr(groups, "__iter__")
    if not known or len(groups) != count:
        size = len(groups) if known else type(groups).__name__
        raise ParameterError(
            f"groups has {size} entries, expected one for each of {count} queries",
            name="groups",
            got=size,
            allowed=count,
        )
    for place, key in enumerate(groups.tolist() if isinstance(groups, np.ndarray) else groups):
        try:
            hash(key)
        except TypeError:
            raise ParameterError(
                f"groups[{place}] is {key!r}, expected a number, a text, or another value that can be hashed",
                name=f"groups[{place}]",
                got=key,
            ) from None


# --- the pool ---------------------------------------------------------------------------------------------


def make_pool(
    ask: Ask, queries: F32, judged: Judgements, depth: int, live: int, progress: Progress, cancel: CancelCheck
) -> Pool:
    """Return the best `depth` candidates of each query, with what is known of them.

    Parameters
    ----------
    ask : callable
        ``ask(queries, k)`` is the search, without anything that filters.
    queries : ndarray of float32, shape (q, d)
    judged : Judgements
    depth : int
    live : int
        Records that may answer.
    progress, cancel : callable
    """
    count, width = len(queries), min(depth, max(live, 1))
    ids: list[list[Id]] = []
    scores = np.full((count, width), -np.inf, np.float32)
    for start in range(0, count, _BLOCK):
        if cancel():
            raise CancelledError("the fit of a relevance filter was cancelled")
        found = ask(queries[start : start + _BLOCK], width)
        scores[start : start + len(found)] = found.scores[:, :width]
        ids += found.ids
        progress(len(ids), count)
    labels, ignore = _labelled(ids, scores, judged)
    missed = _missed(ask, queries, ids, judged, live, cancel)
    return Pool(queries, ids, scores, labels, ignore, missed, judged.groups)


def _labelled(
    ids: list[list[Id]], scores: F32, judged: Judgements
) -> tuple[npt.NDArray[np.int8] | None, npt.NDArray[np.bool_]]:
    """Return labels (None where nothing is judged) and what is to be ignored."""
    ignore = np.isneginf(scores)
    labels = np.full(scores.shape, -1 if judged.negatives is not None else 0, np.int8)
    for row, known in enumerate(ids):
        place = {id: column for column, id in enumerate(known)}
        relevant = () if judged.relevant is None else judged.relevant[row]
        ignore[row, [place[id] for id in judged.ignore[row] if id in place and id not in relevant]] = True
        for wanted, label in ((() if judged.negatives is None else judged.negatives[row], 0), (relevant, 1)):
            labels[row, [place[id] for id in wanted if id in place]] = label
    labels[np.isneginf(scores)] = -1
    return None if judged.relevant is None else labels, ignore


def _missed(ask: Ask, queries: F32, ids: list[list[Id]], judged: Judgements, live: int, cancel: CancelCheck) -> F32:
    """Return the scores of relevant records that are no candidates, found by asking for more.

    Of one that is not among the best 10,000 no more is known than that it scores below them.
    """
    sought = {}
    for row, relevant in enumerate(judged.relevant or ()):
        left = set(relevant).difference(ids[row])
        if left:
            sought[row] = left
    rows, found = list(sought), []
    for start in range(0, len(rows), _DEEP_BLOCK):
        if cancel():
            raise CancelledError("the fit of a relevance filter was cancelled")
        some = rows[start : start + _DEEP_BLOCK]
        deep = ask(queries[some], min(MAX_K, max(live, 1)))
        for row, hits in zip(some, deep, strict=True):
            place = {id: column for column, id in enumerate(hits.ids)}
            last = float(np.nextafter(hits.scores[-1], np.float32(-np.inf))) if len(hits.ids) else 0.0
            everything = len(hits.ids) >= live
            for id in sought[row]:
                if id in place:
                    found.append((row, float(hits.scores[place[id]])))
                elif not everything:  # else it is no record that can answer
                    found.append((row, last))
    return np.array(found, np.float32).reshape(-1, 2)


# --- what a plugin is given -------------------------------------------------------------------------------


def relevance_data(
    view: CollectionView,
    space: Space,
    pool: Pool,
    *,
    scope: str,
    count: int,
    seed: int,
) -> RelevanceData:
    """Return a pool as a plugin sees it: queries of norm 1 in cosine spaces, and everything read-only."""
    vectors = (
        (lambda row: candidate_vectors(view, space, pool.ids[row], pool.scores.shape[1]))
        if scope == "vectors"
        else None
    )
    return RelevanceData(
        space=space,
        queries=lent(directed(pool.queries, space.metric)),
        scores=lent(pool.scores),
        ordinals=lent(_ordinals(view, pool)),
        ignore=lent(pool.ignore),
        count=count,
        rng=np.random.default_rng(seed),
        labels=None if pool.labels is None else lent(pool.labels),
        missed=lent(pool.missed),
        vectors=vectors,
        sample=random_rows(view, space, seed),
        groups=lent(pool.groups),
    )


def _ordinals(view: CollectionView, pool: Pool) -> npt.NDArray[np.uint64]:
    """Return the row of each candidate's record, which is never reused; 0 behind the last."""
    distinct = list({id for ids in pool.ids for id in ids})
    rows = dict(zip(distinct, view.find_all(id_keys(distinct)), strict=True))
    found = np.zeros(pool.scores.shape, np.uint64)
    for number, ids in enumerate(pool.ids):
        found[number, : len(ids)] = [rows[id] or 0 for id in ids]
    return found


def random_rows(view: CollectionView, space: Space, seed: int) -> F32 | None:
    """Return vectors of random records, read-only, of norm 1 in a cosine space; None where there are none."""
    space_view = view.space(space)
    allowed = alive(view, space_view)
    if not allowed.count:
        return None
    positions = np.arange(len(space_view), dtype=np.int64) if allowed.mask is None else np.flatnonzero(allowed.mask)
    if len(positions) > SAMPLE:
        positions = np.sort(np.random.default_rng([seed, 1]).choice(positions, SAMPLE, replace=False))
    space_view.verify_positions(view.tx, positions)
    rows: F32 = lent(directed(np.array(as_float32(space_view.gather(view.tx, positions)), np.float32), space.metric))
    return rows


def candidate_vectors(view: CollectionView, space: Space, ids: Sequence[Id], width: int) -> F32:
    """Return the candidates' vectors in a space, shape (width, dim); zeros where a record has none, and behind."""
    found = np.zeros((width, space.dim), np.float32)
    keys = id_keys(list(ids))
    for place, (row, key) in enumerate(zip(view.find_all(keys), keys, strict=True)):
        vector = None if row is None else view.vector(view.record(row, key), space)
        if vector is not None:
            found[place] = directed(np.asarray(as_float32(vector[None])), space.metric)[0]
    rows: F32 = lent(found)
    return rows
