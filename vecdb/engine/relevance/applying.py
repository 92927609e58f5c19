"""Judging the hits of a search: the last stage, after bridging, correction, diversification and grouping.

Invariant: a filter only takes away. What it judges are the hits that the search would return without it, in their
order; those below its threshold go, and are counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vecdb.contracts.relevance import RelevanceCapabilities
from vecdb.engine.pairing import directed
from vecdb.engine.relevance import border
from vecdb.engine.relevance.basis import basis_of, mismatch, native_basis
from vecdb.engine.relevance.material import candidate_vectors
from vecdb.engine.relevance.stored import LoadedFilter, find_filter, load_filter, stale
from vecdb.engine.search import SearchRequest
from vecdb.engine.view import CollectionView
from vecdb.registry import PluginRegistry
from vecdb.storage.relevance import Basis
from vecdb.storage.snapshot import find_space
from vecdb.types import Hits, Id, Space

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """How a search is done, as far as it decides what its scores mean.

    Attributes
    ----------
    others : sequence of str
        Further spaces that the query is given in.
    spaces : str, sequence of str or None
        Whose vectors may answer, as `Collection.search` is given it.
    calibration : str or None
    native : bool
        Hits are scored again by native vectors.
    correction : int
        Set of the score correction, 0 for none.
    allow_stale : bool
    asked : SearchRequest or None
        What was asked for, where `widened` made more of it.
    """

    others: Sequence[str] = ()
    spaces: Any = None
    calibration: str | None = None
    native: bool = False
    correction: int = 0
    allow_stale: bool = False
    asked: SearchRequest | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Judge:
    """A filter that may judge the answers of one search.

    Attributes
    ----------
    loaded : LoadedFilter
    space : Space
        Of the queries.
    queries : ndarray of float32, shape (q, d)
    count : int
        Vectors that are searched.
    window : slice
        What of the hits is returned.
    least : float32
        Hits that score less are not.
    """

    loaded: LoadedFilter
    space: Space
    queries: F32
    count: int
    window: slice
    least: np.float32

    @property
    def _looks(self) -> bool:
        return bool(self.loaded.provided.thing.capabilities.scope == "vectors")

    def __call__(self, hits: Sequence[Hits], opened: Callable[[], Any]) -> list[Hits]:
        """Return the hits that are kept.

        Parameters
        ----------
        hits : sequence of Hits
            One for each query.
        opened : callable
            Opens the state that was searched, for filters that look at vectors.
        """
        width = max((len(each) for each in hits), default=0)
        scores = np.full((len(hits), width), -np.inf, np.float32)
        orders = [np.argsort(-each.scores, kind="stable") for each in hits]  # hits may be diversified, or in groups
        for row, (each, order) in enumerate(zip(hits, orders, strict=True)):
            scores[row, : len(each)] = each.scores[order]
        ids = [[each.ids[place] for place in order.tolist()] for each, order in zip(hits, orders, strict=True)]
        vectors = self._vectors(ids, width, opened) if self._looks else None
        said = border.judge(self.loaded.provided, self.loaded.filter, scores, self.queries, vectors, self.count)
        own = [
            said[row, : len(each)][np.argsort(order)]
            for row, (each, order) in enumerate(zip(hits, orders, strict=True))
        ]
        return [self._kept(each, relevance) for each, relevance in zip(hits, own, strict=True)]

    def _kept(self, hits: Hits, said: F32) -> Hits:
        asked = np.flatnonzero(hits.scores >= self.least)[self.window]
        kept = asked[said[asked] >= np.float32(self.loaded.filter.threshold)]
        return hits.judged(said, kept.tolist(), len(asked) - len(kept))

    def _vectors(self, ids: Sequence[Sequence[Id]], width: int, opened: Callable[[], Any]) -> F32:
        with opened() as view:
            found = [candidate_vectors(view, self.space, each, width) for each in ids]
        return np.stack(found) if found else np.zeros((0, width, self.space.dim), np.float32)


def judge_for(view: CollectionView, request: SearchRequest, name: str, asked: Asked, registry: PluginRegistry) -> Judge:
    """Return the filter of this name, ready to judge the answers of a search.

    Raises
    ------
    UnknownNameError
        There is none.
    StaleError
        It was fitted for other scores, and stale filters are not allowed.
    PluginMissingError, CorruptionError
    """
    entry = find_filter(view.entry, name)
    loaded = load_filter(view.snapshot, view.entry, entry, registry)
    reason = _unsuited(view, request.space, loaded, asked, registry)
    if reason is not None and not asked.allow_stale:
        raise stale(entry, reason)
    if request.space.dim != entry.width and loaded.provided.thing.capabilities.scope != "score":
        raise stale(entry, f"queries of space {request.space.name!r} have another width")  # it cannot read them at all
    queries = np.array(directed(request.queries, request.space.metric))
    window, least = slice(None), -np.inf
    if asked.asked is not None and loaded.provided.thing.capabilities.depth:
        window = slice(asked.asked.offset, asked.asked.offset + asked.asked.k)
        least = -np.inf if asked.asked.min_score is None else asked.asked.min_score
    return Judge(loaded, request.space, queries, _searched(view, request), window, np.float32(least))


def widened(view: CollectionView, request: SearchRequest, name: str, registry: PluginRegistry) -> SearchRequest:
    """Return a search for as many hits as the filter of this name wants to be shown; errors as of `judge_for`."""
    loaded = load_filter(view.snapshot, view.entry, find_filter(view.entry, name), registry)
    depth = loaded.provided.thing.capabilities.depth
    return request._replace(k=max(request.offset + request.k, depth), offset=0, min_score=None) if depth else request


def _unsuited(
    view: CollectionView, space: Space, loaded: LoadedFilter, asked: Asked, registry: PluginRegistry
) -> str | None:
    """Return why the scores of a search are not those that the filter was fitted on; None if they are."""
    entry = loaded.entry
    if space.id != entry.space:
        return f"it was fitted for queries of space {loaded.space.name!r}, and this one is of {space.name!r}"
    if asked.correction != entry.correction:
        told = {
            0: "without a correction",
            **{each.set: f"with correction {each.name!r}" for each in view.entry.corrections},
        }
        fitted, found = (
            told.get(number, "with a correction that was dropped") for number in (entry.correction, asked.correction)
        )
        return f"it was fitted on scores {fitted}, and these are {found}"
    able: RelevanceCapabilities = loaded.provided.thing.capabilities
    found_basis = _basis(view, space, asked, registry)
    if len(found_basis) > 1 and asked.calibration is not None:
        return f"it was fitted on scores that were merged as usual, not by calibration {asked.calibration!r}"
    return mismatch(view.entry, space, entry.basis, found_basis, able)


def _basis(view: CollectionView, space: Space, asked: Asked, registry: PluginRegistry) -> Basis:
    bridged = asked.others or view.entry.transforms or asked.spaces is not None
    if asked.native or asked.spaces == "native" or not bridged:
        return native_basis(space)
    others = [find_space(view.entry, name) for name in asked.others]
    among = None if asked.spaces is None or isinstance(asked.spaces, str) else frozenset(asked.spaces)
    return basis_of(view, space, registry, others=others, among=among)


def _searched(view: CollectionView, request: SearchRequest) -> int:
    """Return how many records may answer: those that satisfy the condition, else all that live."""
    return view.live if request.condition is None else len(view.select(request.condition).rows)
