"""Search as an application sees it: `Collection.search`.

Arguments are settled here; candidates are found by vecdb/engine/search.py and vecdb/engine/bridge.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import numpy.typing as npt

from vecdb.engine import queries, reading, search
from vecdb.engine.search import SearchRequest
from vecdb.kernels import loader
from vecdb.lazy import LazyModule
from vecdb.storage.state import CollectionEntry
from vecdb.types import CancelCheck, Hits, HitsBatch, Id, Space, Where

if TYPE_CHECKING:
    from vecdb.database import Database
    from vecdb.engine import lanes
    from vecdb.engine.bridge import asking as bridging
    from vecdb.engine.bridge.calibration import Calibration
    from vecdb.engine.bridge.twostage import Candidates, Made, Rerank
    from vecdb.engine.corrections import searching as correcting
    from vecdb.engine.exploring import door as exploring
    from vecdb.engine.guard import Warner
    from vecdb.engine.relevance import applying
    from vecdb.engine.view import CollectionView
    from vecdb.explored import MMR, Feedback, Mixture
else:  # what a first search does without
    applying = LazyModule("vecdb.engine.relevance.applying")
    bridging = LazyModule("vecdb.engine.bridge.asking")
    exploring = LazyModule("vecdb.engine.exploring.door")
    lanes = LazyModule("vecdb.engine.lanes")
    correcting = LazyModule("vecdb.engine.corrections.searching")

__all__ = ["Searching"]

Encoder = Callable[[list[str]], Any]


class Searching:
    """The part of `Collection` that answers queries."""

    if TYPE_CHECKING:
        _database: Database
        _number: int

        @property
        def _key(self) -> tuple[int, str]: ...
        def _entry(self) -> CollectionEntry: ...
        def _write_back(self, space: Space, made: Made) -> None: ...
        def _view(self, as_of: int | str | None = None) -> reading.OpenView: ...

    def search(
        self,
        q: Any = None,
        k: int = 10,
        *,
        space: str | None = None,
        where: Where | None = None,
        like: Id | Sequence[Id] | None = None,
        positive: Sequence[Any] | None = None,
        negative: Sequence[Any] | None = None,
        weights: tuple[float, float, float] | None = None,
        feedback: bool | int | Feedback | None = None,
        diversify: Literal["mmr", "mixture"] | MMR | Mixture | None = None,
        group_by: str | None = None,
        per_group: int | None = None,
        exact: bool = False,
        recall: float | None = None,
        effort: int | None = None,
        offset: int = 0,
        min_score: float | None = None,
        as_of: int | str | None = None,
        include: Sequence[str] = ("metadata", "text"),
        timeout: float | None = None,
        cancel: CancelCheck | None = None,
        explain: bool = False,
        allow_large: bool = False,
        spaces: Literal["native", "reachable", "all"] | Sequence[str] | None = None,
        calibration: Calibration | None = None,
        prior: float = 0.0,
        rerank: Literal["native"] | None = None,
        encode: Encoder | None = None,
        candidates: int | None = None,
        writeback: bool = False,
        relevance: str | None = None,
        allow_stale: bool = False,
        correction: str | None = None,
    ) -> Any:
        """Return the records whose vectors are nearest to a query, best first.

        Parameters
        ----------
        q : array_like of shape (dim,) or (n, dim), str, list of str, or mapping
            One query or several. Text needs a space with an encoder. A mapping names the space: ``{"minilm": q}``; with
            several it is the same query in each, vectors are compared with the one of their own space, and the scale is
            that of `space`, or of the space named last.
        k : int, default 10
            1 to 10,000 (more with ``allow_large=True``).
        space : str, optional
            May be left out where the collection has exactly one.
        where : mapping, optional
            Condition on metadata, applied before ranking: there are never fewer hits than matches.
        like : str or int, or a list of them, optional
            Instead of `q`: search from this record's own vector; the record itself is not returned. A list asks one
            query for each record; for one query made of several, see `positive`.
        positive, negative : sequence of ids or vectors, optional
            Examples that answers should be like, and unlike: beside a query or instead of it. They make one query,
            ``(a q + b mean(positive) - c mean(negative)) / (a + b - c)``, after Rocchio (1971); the records are not
            returned.
        weights : tuple of (a, b, c), default (1.0, 0.75, 0.15)
            Of the query, the positive and the negative examples; what is not given does not count.
        feedback : bool, int or Feedback, optional
            Search twice: the best hits of the first, 5 or so many, are taken for relevant and move the query.
        diversify : {"mmr", "mixture"}, MMR or Mixture, optional
            Choose hits that are unlike each other from more candidates. Those of "mmr" are in the order in which they
            were chosen.
        group_by : str, optional
            Dotted path of a metadata field: `k` and `offset` count groups of equal values, ``hits.groups`` says which.
            Records without the field, and those where it is null, are one group.
        per_group : int, default 1
            Hits of each group, 1 to 1,000; a group may have fewer.
        exact : bool, default False
            Scan, whatever indexes there are.
        recall : float in (0, 1], optional
            Share of the true neighbours to be found, on average over queries: an index is asked with the smallest
            effort that was measured to reach it, and what was not measured is scanned. 1.0 is the same as `exact`.
        effort : int, optional
            Candidates that an index examines; it goes before `recall`. Without an index every search is exact.
        offset : int, default 0
            Skip so many of the best.
        min_score : float, optional
            Drop hits that score less.
        as_of : int or str, optional
            A seq or tag: search that state.
        include : sequence of {"metadata", "text", "vectors"}, default ("metadata", "text")
        timeout : float, optional
            Seconds; the hits are then the best found so far, with ``complete=False``.
        cancel : callable, optional
            Asked while scanning; a true answer raises `CancelledError`.
        explain : bool, default False
            Fill in ``hits.plan``.
        allow_large : bool, default False
        spaces : {"native", "reachable", "all"} or sequence of str, optional
            Whose vectors may answer. Default and "reachable": those of the query's space, and through stored transforms
            those of other spaces where a record has none in it; what no transform reaches is said in ``hits.complete``.
            "native": the query's own space alone. "all", or names of spaces: raise if some cannot be reached. The name
            of a joint space stands for the two that it is made of, and lets its index find candidates.
        calibration : {"reference", "lists", "tail", "affine", "isotonic", "rrf", "ranks", "none"}, optional
            How scores of different spaces are brought on one scale; default: what was found best when the transform was
            stored, else "lists" (docs/explanation/bridging.md).
        prior : float, default 0
            Added to the calibrated scores of vectors that need no transform.
        rerank : {"native"}, optional
            Answer in two stages: the best `candidates` of all spaces are compared again by vectors of the query's own
            space. Records that have none are embedded for the occasion; one without a text keeps its bridged score.
        encode : callable, optional
            ``list[str] -> array`` for the texts of those records; default: the space's encoder (`set_encoder`).
        candidates : int, default 100
        writeback : bool, default False
            Store the vectors that were made, in one commit after the search, unless their records changed meanwhile.
        relevance : str, optional
            Name of a stored relevance filter (`fit_relevance`): it judges the hits, those below its threshold are
            dropped, and ``hits.dropped`` counts them. No hit at all is an ordinary answer.
        allow_stale : bool, default False
            Let a filter judge scores that it was not fitted on.
        correction : str, optional
            Name of a stored correction (`fit_correction`): hits are ordered by corrected scores, `raw_score` is the
            score without, `distance` the distance; `min_score` is compared with the corrected score.

        Returns
        -------
        Hits or HitsBatch
            `Hits` for one query, `HitsBatch` for several. Scores are float32 of a float64 sum in fixed order, the same
            bits on every path; equal scores are ordered by age, the older vector first.

        Raises
        ------
        DimensionError, DTypeError, NonFiniteError, ZeroVectorError
            The query does not fit the space.
        SpaceMismatchError
            No space was named and there are several, or none; or nothing leads from the query's space to any vector.
        StaleError
            The relevance filter was fitted on other scores: before an upgrade, say.
        RecordMissingError, VectorMissingError
            `like` names no record, or one without a vector in the space.
        UnknownNameError, StateError
            There is no such correction, or it cannot be combined with vectors of several spaces.
        """
        explores = (positive, negative, weights, feedback, diversify, group_by, per_group)
        rest = (like, min_score, as_of, timeout, cancel, calibration, rerank, encode, candidates, relevance, correction)
        wished = None
        if type(q) is np.ndarray and spaces is None and explain is allow_large is writeback is False:
            if loader.loaded() and lanes.are_usual(offset, prior, rest, explores):
                wished = lanes.wish(self._number, (space, k, exact, recall, effort, include), where)
            if wished is not None and (short := self._short(wished, q)) is not None:
                return short
        wanted, offset = search.check_window(k, offset, allow_large=allow_large)
        search.check_tuning(recall, effort, timeout, min_score)
        condition = queries.condition(where)
        others: Mapping[str, Any] = {}
        if not isinstance(q, np.ndarray) and isinstance(q, Mapping):  # the second question is the slow one
            space, q, others = queries.named(q, space)
        deadline = None if timeout is None else time.monotonic() + timeout
        is_explored = any(wish is not None for wish in explores) or not (like is None or isinstance(like, (str, int)))
        explored = exploring.wishes(*explores) if is_explored else None
        twice = self._twice(rerank, encode, candidates, writeback)
        encoded = self._encoded(q, space) if queries.is_text(q) else q
        with reading.OpenView(self._database._read(), self._key, as_of) as view:
            named = queries.choose_space(view.entry, space)
            if explored is None:
                asked_for = queries.settle(view, named, encoded, cast("Id | None", like), text=isinstance(q, str))
            else:
                start = exploring.start(view, named, encoded, like, explored, text=isinstance(q, str))
                exploring.refuse_mixtures(start, others, twice, relevance or correction)
                asked_for = start.asked[0]
            chosen = asked_for.space
            known_as = None if condition is None or where is None else queries.known_as(where)
            request = SearchRequest(
                chosen, asked_for.matrix, wanted, condition, offset, min_score, search.check_include(include),
                deadline, cancel, explain, asked_for.row, queries.wishes(recall, effort, exact) if explain else {},
                exact or recall == 1.0, effort, recall, self._database._settings.threads, known_as=known_as,
            )  # fmt: skip
            request = request if correction is None else correcting.settled(view, request, correction, twice or others)
            note = self._database._settings.recorder.note
            if like is None and (explored is None or explored.starts_from_query):
                note(chosen.id, asked_for.matrix)
            asked, request = request, self._wider(view, request, relevance, explored)
            warn = self._database._guard.warner(view.snapshot, self._number, chosen)
            ways = spaces, calibration, prior
            if twice is not None:
                first = bridging.candidates(
                    view, request, others, bridging.wishes(*ways), twice, self._database._registry, note
                )
            elif explored is not None:
                hits, request = exploring.answer(view, request, start, partial(self._ask, view, others), ways)
            else:
                hits = self._hits(view, request, others, ways, warn)
                if wished is not None and asked_for.single:
                    self._remember(view, wished, request, warn)
            meant = others, spaces, calibration, twice is not None, allow_stale, None if explored else asked
            judge = None if relevance is None else self._judge(view, request, relevance, meant)
        if twice is not None:
            hits = self._second_stage(chosen, first, twice, warn)
        hits = hits if judge is None else judge(hits, partial(self._view, as_of))
        if asked_for.single:
            return hits[0]
        wide = wanted if explored is None else wanted * explored.per_group
        return HitsBatch(hits, k=wide, seq=view.seq, plan=hits[0].plan if hits else None)

    def _encoded(self, texts: Any, space: str | None) -> Any:
        return queries.encode(texts, queries.choose_space(self._entry(), space), self._database._encoders)

    def _twice(self, rerank: Any, encode: Encoder | None, candidates: int | None, writeback: bool) -> Rerank | None:
        """Return how to answer in two stages, None where nothing of that was asked for."""
        if rerank is None and encode is None and candidates is None and not writeback:
            return None
        return bridging.rerank_wishes(rerank, encode, candidates, writeback, self._database._writable)

    def _wider(
        self, view: CollectionView, request: SearchRequest, relevance: str | None, explored: object
    ) -> SearchRequest:
        if relevance is None or explored is not None:
            return request
        return applying.widened(view, request, relevance, self._database._registry)

    def _judge(self, view: CollectionView, request: SearchRequest, name: str, meant: tuple[Any, ...]) -> applying.Judge:
        others, spaces, calibration, native, allow_stale, asked = meant
        corrected = 0 if request.correction is None else request.correction.loaded.entry.set
        wish = applying.Asked(list(others), spaces, calibration, native, corrected, allow_stale, asked)
        return applying.judge_for(view, request, name, wish, self._database._registry)

    def _second_stage(self, space: Space, first: Candidates, twice: Rerank, warn: Warner | None) -> list[Hits]:
        hits, made = bridging.second_stage(first, twice, self._database._encoders.get(space.id), warn)
        if twice.writeback and made.ids:
            self._write_back(space, made)
        return hits

    def _ask(
        self, view: CollectionView, others: Mapping[str, Any], ways: tuple[Any, Any, float], request: SearchRequest
    ) -> list[Hits]:
        """Answer one of the questions that a search consists of."""
        warn = self._database._guard.warner(view.snapshot, self._number, request.space)
        return self._hits(view, request, others, ways, warn)

    def _hits(
        self,
        view: CollectionView,
        request: SearchRequest,
        others: Mapping[str, Any],
        ways: tuple[Any, Any, float],
        warn: Warner | None,
    ) -> list[Hits]:
        """Return the hits of each query, of one space or of several."""
        search.check_cancel(request.cancel)
        if ways[1] is not None or ways[2]:
            bridging.wishes(*ways)  # refuses what cannot be, whether or not anything is bridged
        if not others and (ways[0] == "native" or (ways[0] is None and not view.entry.transforms)):
            return search.search(view, request, warn, lambda: self._database._registry)
        note = self._database._settings.recorder.note
        hits = bridging.ask(view, request, others, bridging.wishes(*ways), warn, lambda: self._database._registry, note)
        if self._number in self._database._traffic:
            self._database._traffic[self._number].note(hits)
        return hits

    def _remember(self, view: CollectionView, wished: lanes.Wish, request: SearchRequest, warn: Warner | None) -> None:
        guard, registry = self._database._guard, self._database._registry
        lanes.keep(view, guard, wished, request, warn=warn, registry=registry)

    def _short(self, wished: lanes.Wish, query: npt.NDArray[Any]) -> Hits | None:
        with self._database._read() as snapshot:
            hits = lanes.answer(snapshot, self._database._guard, wished, query, self._database._settings.recorder.note)
        if hits is not None and self._number in self._database._traffic:
            self._database._traffic[self._number].note([hits])
        return hits
