"""Answering a query: which rows may be returned, the scan over them, and hits made of the best.

The scan (vecdb/exact.py) names the best positions with canonical scores; everything here is about one seq: the dead,
the unborn and those that `where` excludes are masked out before, so nothing has to be filtered from a result and there
are never fewer hits than matches.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vecdb import exact
from vecdb.engine.names import check_count, check_number
from vecdb.engine.scanorder import scan_order, verify
from vecdb.engine.view import CollectionView
from vecdb.errors import CancelledError, ParameterError
from vecdb.lazy import LazyModule
from vecdb.storage.spaces import SpaceView
from vecdb.types import MAX_K, CancelCheck, Hit, Hits, Plan, Space

if TYPE_CHECKING:
    from vecdb.engine import indexed, parts
    from vecdb.engine.where import Condition
    from vecdb.registry import PluginRegistry
else:  # where there is no index, nothing of indexes is needed
    indexed = LazyModule("vecdb.engine.indexed")
    parts = LazyModule("vecdb.engine.parts")

Bools = npt.NDArray[np.bool_]
Warner = Callable[[npt.NDArray[np.float32]], list[str | None]]


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """A search whose arguments are settled."""

    space: Space
    queries: npt.NDArray[np.float32]
    k: int
    condition: Condition | None = None
    offset: int = 0
    min_score: float | None = None
    include: frozenset[str] = frozenset({"metadata", "text"})
    deadline: float | None = None
    cancel: CancelCheck | None = None
    explain: bool = False
    without_row: int | None = None
    """The record a search starts from (`like=`); it is not its own answer."""
    asked: dict[str, Any] = field(default_factory=dict)
    exact: bool = False
    effort: int | None = None


@dataclass(frozen=True, slots=True)
class _Allowed:
    """Positions that may be returned: a mask (None: all), how many, and what `where` had to decode."""

    mask: Bools | None
    count: int
    decoded: tuple[str, ...] = ()


def search(
    view: CollectionView, request: SearchRequest, warn: Warner, registry: Callable[[], PluginRegistry]
) -> list[Hits]:
    """Return the hits of each query; the registry is asked for where the collection has indexes."""
    began = time.perf_counter()
    space_view = view.space(request.space)
    allowed = _allowed(view, space_view, request)
    blocks = scan_order(view, space_view)
    wanted = min(request.k + request.offset, max(1, allowed.count))
    indexes = view.entry.indexes and not request.exact
    usable = parts.choose(view, request.space, registry()) if indexes else None
    if usable is not None and usable.parts and allowed.count:
        question = indexed.Question(
            view,
            space_view,
            blocks,
            request.queries,
            wanted,
            allowed.mask,
            allowed.count,
            request.effort,
            _stopper(request),
        )
        answers, account = indexed.search(question, usable.parts)
        facts: Mapping[str, Any] = account.facts()
    else:
        verify(view, space_view, allowed.mask, allowed.count)
        answers, scan = exact.search(blocks, request.queries, wanted, allowed=allowed.mask, stop=_stopper(request))
        facts = {"method": "exact scan", **asdict(scan)}
    _check_cancelled(request)
    notes = () if usable is None else usable.notes
    plan = _plan(request, view, allowed, {**facts, "notes": notes}, began) if request.explain else None
    reason = None if facts["complete"] else f"the time-out was reached after {facts['rows_scanned']} row scores"
    found = [_trim(request, positions, scores) for positions, scores in answers]
    rows = space_view.rows_at(view.tx, np.concatenate([positions for positions, _ in found])).tolist()
    maker = _HitMaker(view, request)
    warnings = [() if text is None else (text,) for text in warn(request.queries)]
    return [
        Hits(hits, seq=view.seq, complete=reason is None, reason=reason, plan=plan, warnings=said)
        for hits, said in zip(maker.lists(rows, [scores for _, scores in found]), warnings, strict=True)
    ]


def _allowed(view: CollectionView, space_view: SpaceView, request: SearchRequest) -> _Allowed:
    hidden = view.hidden(space_view)
    mask = None if hidden is None else ~hidden
    decoded: tuple[str, ...] = ()
    if request.condition is not None:
        selection = view.select(request.condition)
        decoded = selection.decoded
        chosen = _positions_with(view, space_view, selection.rows)
        mask = chosen if mask is None else mask & chosen
    if request.without_row is not None:
        mask = np.ones(len(space_view), np.bool_) if mask is None else mask.copy() if mask is hidden else mask
        mask &= space_view.rows(view.tx) != np.uint64(request.without_row)
    return _Allowed(mask, len(space_view) if mask is None else int(np.count_nonzero(mask)), decoded)


def _positions_with(view: CollectionView, space_view: SpaceView, rows: npt.NDArray[np.uint64]) -> Bools:
    """Return which positions belong to one of `rows` (ascending)."""
    owners = space_view.rows(view.tx)
    if not len(rows):
        return np.zeros(len(owners), np.bool_)
    last = max(int(rows[-1]), int(owners.max(initial=0)))
    if last <= 16 * len(owners) + (1 << 20):  # a mask over rows is quicker while rows are not very sparse
        wanted = np.zeros(last + 1, np.bool_)
        wanted[rows] = True
        return wanted[owners]
    places = np.minimum(np.searchsorted(rows, owners), len(rows) - 1)
    found: Bools = rows[places] == owners
    return found


def _stopper(request: SearchRequest) -> Callable[[], bool] | None:
    deadline, cancel = request.deadline, request.cancel
    if deadline is None and cancel is None:
        return None
    return lambda: (deadline is not None and time.monotonic() > deadline) or (cancel is not None and bool(cancel()))


def _check_cancelled(request: SearchRequest) -> None:
    if request.cancel is not None and request.cancel():
        raise CancelledError("the search was cancelled")


def _plan(
    request: SearchRequest, view: CollectionView, allowed: _Allowed, facts: Mapping[str, Any], began: float
) -> Plan:
    return Plan(
        {
            "method": facts["method"],
            "space": request.space.name,
            "seq": view.seq,
            "allowed": allowed.count,
            "where_decoded": allowed.decoded,
            **{name: value for name, value in facts.items() if value is not None and value != ()},
            **request.asked,
            "seconds": time.perf_counter() - began,
        }
    )


def _trim(
    request: SearchRequest, positions: npt.NDArray[np.int64], scores: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Cut an answer to the hits that were asked for."""
    if request.min_score is not None:
        keep = scores >= np.float32(request.min_score)
        positions, scores = positions[keep], scores[keep]
    part = slice(request.offset, request.offset + request.k)
    return positions[part], scores[part]


class _HitMaker:
    """Makes hits of rows and scores; without `include`, a record that answers several queries is read once."""

    def __init__(self, view: CollectionView, request: SearchRequest) -> None:
        self._view = view
        self._request = request
        self._known: dict[int, tuple[Any, ...]] = {}

    def lists(self, rows: Sequence[int], scores: Sequence[npt.NDArray[np.float32]]) -> Iterator[list[Hit]]:
        """Yield the hits of each query; `rows` are those of all queries in turn."""
        owners = iter(rows)
        for each in scores:
            yield [self._hit(next(owners), score) for score in each.tolist()]

    def _hit(self, row: int, score: float) -> Hit:
        found = self._known.get(row) or self._read(row)
        if not self._request.include:
            self._known[row] = found
        id, metadata, text, vectors = found
        space = self._request.space
        return Hit(
            id, score, distance_of(space.metric, score), metadata, text, space.name, "native", None, score, vectors
        )

    def _read(self, row: int) -> tuple[Any, ...]:
        """Return id, metadata, text and vectors of a record, as far as they were asked for."""
        include, space = self._request.include, self._request.space
        if not include:
            return self._view.id(row), None, None, None
        stored = self._view.record(row)
        metadata, text = stored.content() if include & {"metadata", "text"} else (None, None)
        vectors = None
        if "vectors" in include:
            vector = self._view.vector(stored, space)
            vectors = {} if vector is None else {space.name: vector}
        return stored.id, metadata if "metadata" in include else None, text if "text" in include else None, vectors


def distance_of(metric: str, score: float) -> float:
    """Return the distance (lower is better) that belongs to a score."""
    return float(np.float32(1.0) - np.float32(score)) if metric == "cosine" else 0.0 - score


def check_k(k: object, *, allow_large: bool) -> int:
    """Return `k` if it is a usable number of hits."""
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise ParameterError(f"k is {k!r}, expected an int of at least 1", name="k", got=k, allowed=f"1 to {MAX_K}")
    if k > MAX_K and not allow_large:
        raise ParameterError(
            f"k is {k}, expected at most {MAX_K}",
            hint="Pass allow_large=True if you mean it.",
            name="k",
            got=k,
            allowed=f"1 to {MAX_K}",
        )
    return int(k)


INCLUDABLE = ("metadata", "text", "vectors")


def check_include(include: Sequence[str]) -> frozenset[str]:
    """Return what hits should carry."""
    wanted = [include] if isinstance(include, str) or not isinstance(include, Iterable) else list(include)
    unknown = [part for part in wanted if part not in INCLUDABLE]
    if unknown:
        raise ParameterError(
            f"include holds {unknown}, expected some of {INCLUDABLE}", name="include", got=wanted, allowed=INCLUDABLE
        )
    return frozenset(wanted)


def check_tuning(
    recall: float | None, effort: int | None, timeout: float | None, min_score: float | None = None
) -> None:
    """Refuse impossible wishes for speed, recall or scores."""
    if min_score is not None:
        check_number("min_score", min_score, -math.inf)
    if recall is not None:
        check_number("recall", recall, 1e-9, 1.0)
    if effort is not None:
        check_count("effort", effort, 1)
    if timeout is not None:
        check_number("timeout", timeout, 0)
