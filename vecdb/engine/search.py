"""Answering a query: which rows may be returned, the scan over them, and hits made of the best.

The scan (vecdb/exact.py) names the best positions with canonical scores; everything here is about one seq: the dead,
the unborn and those that `where` excludes are masked out before, so nothing has to be filtered from a result and there
are never fewer hits than matches.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vecdb import exact
from vecdb.engine.names import check_count, check_number
from vecdb.engine.scanning import scan
from vecdb.engine.scanorder import scan_order, verify
from vecdb.engine.view import CollectionView, Selection
from vecdb.errors import CancelledError, ParameterError
from vecdb.lazy import LazyModule
from vecdb.storage.spaces import SpaceView
from vecdb.types import MAX_K, CancelCheck, HitColumns, Hits, Plan, Space

if TYPE_CHECKING:
    from vecdb.engine import indexed, parts, remembering, routes
    from vecdb.engine.corrections.searching import Corrector
    from vecdb.engine.guard import Warner
    from vecdb.engine.where import Condition
    from vecdb.registry import PluginRegistry
    from vecdb.storage.format import StoredRecord
else:  # where there is no index, nothing of indexes is needed
    indexed = LazyModule("vecdb.engine.indexed")
    parts = LazyModule("vecdb.engine.parts")
    remembering = LazyModule("vecdb.engine.remembering")
    routes = LazyModule("vecdb.engine.routes")

Bools = npt.NDArray[np.bool_]


class SearchRequest(NamedTuple):
    """A search whose arguments are settled; a tuple, because every search makes one."""

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
    asked: Mapping[str, Any] = MappingProxyType({})
    exact: bool = False
    effort: int | None = None
    recall: float | None = None
    threads: int = 1
    allowed: Allowed | None = None
    """Which vectors may answer, where that is settled before."""
    selection: Selection | None = None
    """Which records may answer, where that is settled before; in the place of `condition`."""
    origin: str = "native"
    known_as: str | None = None
    """What the condition is remembered by."""
    correction: Corrector | None = None
    """By which scores are corrected before they are compared."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """Positions that may be returned: a mask (None: all), how many, and what `where` had to decode.

    `parts` is there where the mask is remembered: what indexes make of it, remembered with it.
    """

    mask: Bools | None
    count: int
    decoded: tuple[str, ...] = ()
    parts: dict[int, Any] | None = None


def search(
    view: CollectionView, request: SearchRequest, warn: Warner | None, registry: Callable[[], PluginRegistry]
) -> list[Hits]:
    """Return the hits of each query; the registry is asked for where the collection has indexes."""
    began = time.perf_counter()
    space_view = view.space(request.space)
    allowed = allowed_for(view, space_view, request) if request.allowed is None else request.allowed
    ask: Any = find if request.correction is None else request.correction.find
    answers, cost, notes = ask(view, space_view, request, allowed, request.k + request.offset, registry)
    check_cancelled(request)
    reason, plan = None, None
    if cost is not None:
        plan = _plan(request, view, allowed, {**cost.facts(), "notes": notes}, began) if request.explain else None
        reason = None if cost.complete else f"the time-out was reached after {cost.rows_scanned} row scores"
    found = [_trim(request, *answer) for answer in answers]
    found_columns = columns(view, space_view, request, found)
    said = None if warn is None else Warnings(warn, request.queries)
    return [
        Hits(
            hits,
            seq=view.seq,
            complete=reason is None,
            reason=reason,
            plan=plan,
            warnings=() if said is None else partial(said.of, place),
        )
        for place, hits in enumerate(found_columns)
    ]


def find(
    view: CollectionView,
    space_view: SpaceView,
    request: SearchRequest,
    allowed: Allowed,
    wanted: int,
    registry: Callable[[], PluginRegistry],
) -> tuple[list[exact.Found], indexed.Account | exact.ScanFacts | None, tuple[str, ...]]:
    """Return the best `wanted` positions of each query, what that cost (None: nothing is to be told), and notes."""
    blocks = scan_order(view, space_view)
    wanted = min(wanted, max(1, allowed.count))
    indexes = view.entry.indexes and not request.exact
    usable = parts.choose(view, request.space, registry()) if indexes else None
    notes = () if usable is None else usable.notes
    threads = 1 if request.cancel is not None else request.threads  # the caller's function is asked by its own thread
    if usable is None or not usable.parts or not allowed.count:
        verify(view, space_view, allowed.mask, allowed.count)
        found, facts = scan(
            blocks,
            request.queries,
            wanted,
            allowed=allowed.mask,
            matches=allowed.count,
            stop=stopper(request),
            threads=threads,
        )
        return found, facts, notes
    question = question_of(view, space_view, request, allowed, wanted)
    answers, cost = _by_index(question, usable, request)
    return answers, cost, notes if cost is None else (*notes, *cost.notes)


def question_of(
    view: CollectionView, space_view: SpaceView, request: SearchRequest, allowed: Allowed, wanted: int
) -> indexed.Question:
    """Return what the parts of an index are asked."""
    return indexed.Question(
        view,
        space_view,
        scan_order(view, space_view),
        request.queries,
        wanted,
        allowed.mask,
        allowed.count,
        request.effort,
        stopper(request),
        request.recall,
        1 if request.cancel is not None else request.threads,
        allowed.parts,
    )


def _by_index(
    question: indexed.Question, usable: parts.Usable, request: SearchRequest
) -> tuple[list[exact.Found], indexed.Account | None]:
    """Ask an index, the short way if there is one for this question: nothing is to be told of that."""
    if question.alive is not None and len(request.queries) == 1 and not request.explain and question.stop is None:
        asked = (question.k, request.effort, request.recall)
        route = routes.find_route(question, usable, question.alive, asked=asked)
        found = None if route is None else route.answer(question.view, question.space_view, request.queries)
        if found is not None:
            return [found], None
    return indexed.search(question, usable)


class Warnings:
    """What is said of the queries of one call, found when the warnings of the first are looked at.

    A pure function of the queries and the space's profile, so it may wait; most callers never look.
    """

    __slots__ = ("_found", "_queries", "_warn")

    def __init__(self, warn: Warner, queries: npt.NDArray[np.float32]) -> None:
        self._warn = warn
        self._queries = queries.copy()  # they may be the caller's own
        self._found: list[str | None] | None = None

    def of(self, place: int) -> tuple[str, ...]:
        """Return the warnings of one query."""
        if self._found is None:
            self._found = self._warn(self._queries)
        said = self._found[place]
        return () if said is None else (said,)


def allowed_for(view: CollectionView, space_view: SpaceView, request: SearchRequest) -> Allowed:
    """Return which positions may be answers of a search."""
    if request.known_as is None or request.without_row is not None or view.is_past:
        return _find_allowed(view, space_view, request)
    find = partial(_find_allowed, view, space_view, request)
    return remembering.selected(view.snapshot.state, request.space.id, request.known_as, find)


def _find_allowed(view: CollectionView, space_view: SpaceView, request: SearchRequest) -> Allowed:
    allowed = alive(view, space_view)
    mask, decoded = allowed.mask, allowed.decoded
    selection = selected(view, request)
    if selection is not None:
        decoded = selection.decoded
        chosen = positions_with(view, space_view, selection.rows)
        mask = chosen if mask is None else mask & chosen
    if request.without_row is not None:
        others = space_view.rows(view.tx) != np.uint64(request.without_row)
        mask = others if mask is None else mask & others
    if mask is None or mask is allowed.mask:
        return allowed
    parts: dict[int, Any] | None = None if request.known_as is None or request.without_row is not None else {}
    return Allowed(mask, int(np.count_nonzero(mask)), decoded, parts)


def selected(view: CollectionView, request: SearchRequest) -> Selection | None:
    """Return which records may answer; None: all."""
    if request.selection is not None or request.condition is None:
        return request.selection
    return view.select(request.condition)


def alive(view: CollectionView, space_view: SpaceView) -> Allowed:
    """Return the positions of live vectors; those of the newest state are remembered with the view."""
    known: Allowed | None = None if view.is_past else space_view.derived.get("alive")
    if known is None:
        hidden = view.hidden(space_view)
        mask = None if hidden is None else ~hidden
        known = Allowed(mask, len(space_view) if mask is None else int(np.count_nonzero(mask)), parts={})
        if not view.is_past:
            space_view.derived["alive"] = known
    return known


def positions_with(view: CollectionView, space_view: SpaceView, rows: npt.NDArray[np.uint64]) -> Bools:
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


def stopper(request: SearchRequest) -> Callable[[], bool] | None:
    deadline, cancel = request.deadline, request.cancel
    if deadline is None and cancel is None:
        return None
    return lambda: (deadline is not None and time.monotonic() > deadline) or (cancel is not None and bool(cancel()))


def check_cancelled(request: SearchRequest) -> None:
    if request.cancel is not None and request.cancel():
        raise CancelledError("the search was cancelled")


def _plan(
    request: SearchRequest, view: CollectionView, allowed: Allowed, facts: Mapping[str, Any], began: float
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
    request: SearchRequest, positions: npt.NDArray[np.int64], scores: npt.NDArray[np.float32], *more: Any
) -> tuple[Any, ...]:
    """Cut an answer, and what else is known of its positions, to the hits that were asked for."""
    if request.min_score is not None:
        keep = scores >= np.float32(request.min_score)
        positions, scores, more = positions[keep], scores[keep], tuple(each[keep] for each in more)
    part = slice(request.offset, request.offset + request.k)
    return positions[part], scores[part], *(each[part] for each in more)


def bare_columns(
    view: CollectionView,
    space_view: SpaceView,
    request: SearchRequest,
    positions: npt.NDArray[np.int64],
    scores: npt.NDArray[np.float32],
) -> HitColumns:
    """Return what `columns` does for one query that includes nothing: ids and scores."""
    ids = view.id_list(space_view.row_list(view.tx, positions))
    nearest = 1.0 if request.space.metric == "cosine" else 0.0
    return HitColumns(ids, scores, nearest, request.space.name, None, None, None, request.origin)


def columns(
    view: CollectionView, space_view: SpaceView, request: SearchRequest, found: Sequence[tuple[Any, ...]]
) -> list[HitColumns]:
    """Return the hits of each query; a record that answers several is looked up once."""
    positions = found[0][0] if len(found) == 1 else np.concatenate([each[0] for each in found])
    rows = space_view.row_list(view.tx, positions)
    stored = {row: view.record(row) for row in rows} if request.include else {}
    ids = {row: record.id for row, record in stored.items()} if request.include else view.ids(rows)
    scores = found[0][1] if len(found) == 1 else np.concatenate([each[1] for each in found])
    nearest = 1.0 if request.space.metric == "cosine" else 0.0
    columns, start = [], 0
    for own_positions, _, *raws in found:
        own, start = slice(start, start + len(own_positions)), start + len(own_positions)
        more = _contents(view, request, [stored[row] for row in rows[own]]) if request.include else {}
        name, origin = request.space.name, request.origin
        if raws:
            more |= {"raws": raws[0], "measured": raws[0]}
        columns.append(HitColumns([ids[row] for row in rows[own]], scores[own], nearest, name, **more, origin=origin))
    return columns


def _contents(view: CollectionView, request: SearchRequest, records: list[StoredRecord]) -> dict[str, Any]:
    """Return the columns of `HitColumns` that were asked for; no two hits share a value."""
    include, space = request.include, request.space
    columns: dict[str, Any] = {}
    if include & {"metadata", "text"}:
        contents = [record.content() for record in records]
        columns["metadata"] = [metadata for metadata, _ in contents] if "metadata" in include else None
        columns["texts"] = [text for _, text in contents] if "text" in include else None
    if "vectors" in include:
        vectors = [view.vector(record, space) for record in records]
        columns["vectors"] = [{} if vector is None else {space.name: vector} for vector in vectors]
    return columns


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


def check_window(k: object, offset: object, *, allow_large: bool) -> tuple[int, int]:
    """Return how many hits are wanted, and how many of the best are skipped, if both can be."""
    wanted = check_k(k, allow_large=allow_large)
    return wanted, offset if type(offset) is int and offset >= 0 else check_count("offset", offset, 0)


def check_cancel(cancel: object) -> None:
    """Refuse what cannot be asked whether to stop."""
    if cancel is not None and not callable(cancel):
        raise ParameterError(
            "cancel is not callable",
            hint="Pass a function without arguments that says when to stop.",
            name="cancel",
            got=repr(cancel),
        )


INCLUDABLE = ("metadata", "text", "vectors")


def check_include(include: Sequence[str]) -> frozenset[str]:
    """Return what hits should carry."""
    if isinstance(include, (tuple, list)) and not include:
        return frozenset()
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
