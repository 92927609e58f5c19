"""The third stage of a search: hits chosen from more candidates, by feedback, spread or groups.

Everything here asks through the function that it is given, so it sees the same candidates, scores and promises as any
search: native or bridged, by scan or index, now or in the past.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vecdb.arrays import as_matrix
from vecdb.engine.exploring import mixture, mmr
from vecdb.engine.exploring.examples import vectors_of_rows
from vecdb.engine.exploring.grouping import grouped
from vecdb.engine.exploring.picking import Ask, Chosen, as_hits, joined, lean, rows_of
from vecdb.engine.exploring.rocchio import combine
from vecdb.engine.exploring.wishes import Wishes
from vecdb.engine.pairing import directed
from vecdb.engine.search import SearchRequest
from vecdb.engine.view import CollectionView
from vecdb.errors import SpaceMismatchError
from vecdb.explored import MMR, Feedback, Mixture
from vecdb.storage.format import StoredRecord
from vecdb.types import Hits, Space

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Asking:
    """How candidates are asked for: as the search was, and among native vectors alone."""

    ask: Ask
    native: Ask
    steady: bool


@dataclass(frozen=True, slots=True)
class Interests:
    """Several positive examples that are not one query, negative ones, and the weights of both."""

    positive: F32
    negative: F32
    weights: tuple[float, ...]


def answer(view: CollectionView, request: SearchRequest, wished: Wishes, asking: Asking) -> list[Hits]:
    """Return the hits of each query, after feedback."""
    if wished.group_by is not None:
        return grouped(view, request, wished.group_by, wished.per_group, asking.ask, steady=asking.steady)
    if wished.spread is not None:
        return spread(view, request, wished.spread, asking.ask)
    return asking.ask(request)


def fed_back(view: CollectionView, request: SearchRequest, feedback: Feedback, native: Ask) -> SearchRequest:
    """Return the request with its queries moved towards their best native answers.

    Raises
    ------
    SpaceMismatchError
        No vector is native to the query's space, so there is nothing to move towards.
    """
    space = request.space
    if view.entry.transforms and not view.space(space).counts.live:
        raise SpaceMismatchError(
            f"feedback averages vectors of the query's space, and {space.name!r} has none",
            hint="Search without feedback until some records are embedded by the new model.",
            query_space=space.name,
            available=[],
        )
    first = lean(request._replace(min_score=None, explain=False), feedback.documents)
    given = request.queries
    for _ in range(feedback.rounds):
        answers = native(first)
        moved = [_moved(view, space, feedback, given[row : row + 1], hits) for row, hits in enumerate(answers)]
        first = first._replace(queries=np.stack(moved))
    told = {"feedback": feedback.documents, **({"rounds": feedback.rounds} if feedback.rounds > 1 else {})}
    return request._replace(queries=first.queries, asked={**request.asked, **(told if request.explain else {})})


def _moved(view: CollectionView, space: Space, feedback: Feedback, query: F32, hits: Hits) -> F32:
    if not len(hits):
        alone: F32 = query[0]
        return alone
    vectors = vectors_of_rows(view, space, _records(view, hits))
    return combine(space.metric, [(feedback.query, query), (feedback.mean, vectors)])


def _records(view: CollectionView, hits: Hits) -> list[StoredRecord]:
    return [view.record(row) for row in rows_of(view, hits.ids).tolist()]


def spread(view: CollectionView, request: SearchRequest, rule: MMR | Mixture, ask: Ask) -> list[Hits]:
    """Return hits of each query that are unlike each other."""
    wanted = max(rule.candidates, request.k + request.offset)
    found = []
    for candidates in ask(lean(request, wanted)):
        records = _records(view, candidates)
        space = common_space(view, request.space, records)
        places = _spread(rule, candidates, vectors_of_rows(view, space, records), space, request.k + request.offset)
        chosen = candidates.columns.take(places[request.offset :])
        facts = {"diversify": type(rule).__name__.lower(), "candidates": len(candidates), "compared_in": space.name}
        found.append(as_hits(view, request, candidates, Chosen(chosen, facts)))
    return found


def blended(view: CollectionView, request: SearchRequest, rule: Mixture, interests: Interests, ask: Ask) -> Hits:
    """Return one list of the answers of each cluster of examples, in proportion to how many these are.

    The score of a hit is that of the cluster it came from.
    """
    space, wanted = request.space, request.k + request.offset
    owner = mixture.clusters(directed(interests.positive, space.metric), rule.clusters)
    sizes = np.bincount(owner)
    good, bad = interests.weights
    parts = [[(good, interests.positive[owner == c]), (-bad, interests.negative)] for c in range(len(sizes))]
    centres = np.stack([combine(space.metric, part) for part in parts])
    where = f"centre of examples in space {space.name!r}"
    queries = as_matrix(centres, space.dim, metric=space.metric, where=where)
    answers = ask(lean(request._replace(queries=queries), wanted))
    rows = [rows_of(view, hits.ids) for hits in answers]
    dealt = mixture.deal([each.tolist() for each in rows], sizes, wanted, rule.smoothing)
    starts = np.cumsum([0, *(len(each) for each in rows)])
    everything = joined([hits.columns for hits in answers])
    places = np.array([starts[number] + place for number, place in dealt], np.int64)
    order = np.lexsort((np.concatenate(rows)[places], -everything.scores[places])) if len(places) else places
    chosen = everything.take(places[order].tolist()[request.offset :])
    facts = {"diversify": "mixture", "clusters": tuple(sizes.tolist())}
    return as_hits(view, request, answers[0], Chosen(chosen, facts))


def _spread(rule: MMR | Mixture, candidates: Hits, vectors: F32, space: Space, k: int) -> list[int]:
    if isinstance(rule, MMR):
        return mmr.choose(candidates.scores, vectors, space.metric, k, rule.trade)
    rows = directed(vectors, space.metric)
    return mixture.choose(candidates.scores, rows, k, rule.clusters, rule.smoothing)


def common_space(view: CollectionView, space: Space, records: Sequence[StoredRecord]) -> Space:
    """Return a space in which every record has a vector: the query's own if it is one, else the oldest.

    Raises
    ------
    SpaceMismatchError
        There is none, so the candidates cannot be compared with each other.
    """
    for each in (space, *sorted(view.entry.given_spaces, key=lambda other: other.id)):
        if all(each.id in record.refs for record in records):
            return each
    raise SpaceMismatchError(
        f"the {len(records)} candidates have no space in common, so they cannot be compared with each other",
        hint="Search with spaces='native', or keep the old vectors until the migration is finished.",
        query_space=space.name,
        available=sorted(view.entry.spaces),
    )
