"""One ranked list over native, bridged and folded classes of vectors.

Invariants: each record is answered once; with vectors of one class only nothing is calibrated, so that the ranking is
that of a search of that class, bit for bit; equal calibrated scores go by raw score, then by record row. What cannot be
reached is said in `complete`, never left out in silence. Design: docs/explanation/bridging.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from vecdb.engine import search
from vecdb.engine.bridge import folding, masks, scales
from vecdb.engine.bridge.calibration import RANKED, Curve, Line, by_rank, evidence, expected
from vecdb.engine.bridge.classes import Memory, Reach, VectorClass, memory_of, reach_of
from vecdb.engine.bridge.columns import Ranked
from vecdb.engine.bridge.columns import columns_of as columns_of
from vecdb.engine.view import CollectionView
from vecdb.errors import SpaceMismatchError
from vecdb.registry import PluginRegistry
from vecdb.storage.spaces import SpaceView
from vecdb.types import Hits, Plan, Space

if TYPE_CHECKING:
    from vecdb.engine.guard import Warner
    from vecdb.engine.joint.nominating import Nominator

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Positions = npt.NDArray[np.int64]
Found = tuple[Positions, F32]

_MORE: Final = 4
"""Of a folded class an index is asked for so many times more candidates: its own order is not quite the final one."""


@dataclass(frozen=True, slots=True)
class Bridged:
    """A search over several spaces whose arguments are settled.

    Attributes
    ----------
    request : SearchRequest
        Its space and queries are those of the whole list's scale.
    asked : mapping of str to ndarray of float32, shape (n, dim)
        Queries by the spaces they were given in, the request's own among them.
    among : frozenset of str or None
        Spaces whose vectors may answer.
    strict : bool
        Refuse if some of these cannot be reached.
    calibration : str or None
        None: what was chosen when the transform was stored, else `calibration.USUAL`.
    prior : float
        Added to the calibrated scores of direct classes, in their own unit.
    note : callable
        Told the number of a space and the queries that were mapped into it.
    joint : Nominator or None
    """

    request: search.SearchRequest
    asked: Mapping[str, F32]
    among: frozenset[str] | None = None
    strict: bool = False
    calibration: str | None = None
    prior: float = 0.0
    note: Callable[[int, F32], None] = field(default=lambda space, queries: None)
    joint: Nominator | None = None


@dataclass(frozen=True, slots=True)
class Merged:
    """The lists of all queries before they become hits, why they are not complete, and how they were made."""

    ranked: list[Ranked]
    reason: str | None
    plan: Plan | None


@dataclass(slots=True, eq=False)
class _Part:
    """One class that has something to answer."""

    each: VectorClass
    allowed: search.Allowed
    levels: list[F32] = field(default_factory=list)
    found: list[Found] = field(default_factory=list)
    raws: list[F32] = field(default_factory=list)
    """Scores before correction, where there is one."""
    complete: bool = True
    facts: dict[str, Any] = field(default_factory=dict)


def answer(
    view: CollectionView, asked: Bridged, warn: Warner | None, registry: Callable[[], PluginRegistry]
) -> list[Hits]:
    """Return the hits of each query.

    Raises
    ------
    SpaceMismatchError
        Nothing is reached, or `strict` and not everything.
    """
    parts, hidden, reach = _reached(view, asked, registry())
    if asked.request.correction is not None and len(parts) > 1:
        raise _mixed(asked.request.correction.loaded.name)
    if len(parts) == 1 and parts[0].each.fold is None and not hidden and parts[0].allowed.count and not asked.joint:
        if _is_plain(view, asked.request) and asked.among is None and len(asked.asked) == 1:
            key = view.number, asked.request.space.id
            memory_of(view).alone[key] = (_state(view, registry()), parts[0])
        return _one(view, asked.request, asked.asked, parts[0], warn, registry, asked.note)
    made = _Answer(view, asked, reach, parts, hidden, registry())
    usual = asked.among is None and asked.calibration is None and asked.prior == 0.0 and len(asked.asked) == 1
    if len(parts) > 1 and not hidden and usual and _is_plain(view, asked.request):
        key = view.number, asked.request.space.id
        known = Several(reach, tuple((part.each, part.allowed) for part in parts), made.method(), made.heads())
        memory_of(view).several[key] = (_state(view, registry()), known)
    return made.hits(warn)


def answer_again(
    view: CollectionView,
    request: search.SearchRequest,
    warn: Warner | None,
    registry: Callable[[], PluginRegistry],
    note: Callable[[int, F32], None],
) -> list[Hits] | None:
    """Return what `answer` would, if it is known that one class answers at this state; None: it has to be found out."""
    known = memory_of(view).alone.get((view.number, request.space.id)) if _is_plain(view, request) else None
    if known is not None and known[0] == _state(view, registry()):
        return _one(view, request, {request.space.name: request.queries}, known[1], warn, registry, note)
    found = several(view, request, registry())
    return (
        None
        if found is None or request.correction is not None
        else found.merging(view, request, registry(), note).hits(warn)
    )


def alone(
    view: CollectionView, request: search.SearchRequest, registry: PluginRegistry
) -> tuple[VectorClass, search.Allowed] | None:
    """Return the only class that answers a plain search at this state, and its vectors; None if it is not known."""
    known = memory_of(view).alone.get((view.number, request.space.id)) if _is_plain(view, request) else None
    if known is None or known[0] != _state(view, registry):
        return None
    return known[1].each, known[1].allowed


@dataclass(frozen=True, slots=True)
class Heads:
    """How long the head of each class's list is that `lists` compares, and how far each is believed."""

    sizes: tuple[int, ...]
    trust: tuple[float, ...]

    @classmethod
    def of(cls, counts: Sequence[int]) -> Heads:
        """Return what classes with so many vectors that may answer are due."""
        total = sum(counts)
        sizes = tuple(expected(count, total) for count in counts)
        return cls(sizes, tuple(evidence(counts[0], count, total) for count in counts))


@dataclass(frozen=True, slots=True, eq=False)
class Several:
    """The classes that answer plain searches of one state, none of them out of reach, and by which method.

    Attributes
    ----------
    reach : Reach
    parts : tuple of (VectorClass, Allowed)
    method : str
    """

    reach: Reach
    parts: tuple[tuple[VectorClass, search.Allowed], ...]
    method: str
    heads: Heads

    def merging(
        self,
        view: CollectionView,
        request: search.SearchRequest,
        registry: PluginRegistry,
        note: Callable[[int, F32], None],
    ) -> _Answer:
        """Return what answers a request as these classes do."""
        parts = [_Part(each, allowed) for each, allowed in self.parts]
        asked = Bridged(request, {request.space.name: request.queries}, note=note)
        return _Answer(view, asked, self.reach, parts, {}, registry, self)

    def depths(self, wanted: int) -> list[int]:
        """Return how many candidates of each class a list of `wanted` hits is made of."""
        return (
            [max(wanted, size) for size in self.heads.sizes] if self.method == "lists" else [wanted] * len(self.parts)
        )


def several(view: CollectionView, request: search.SearchRequest, registry: PluginRegistry) -> Several | None:
    """Return the classes that answer a plain search at this state, if it is known that they are several."""
    known = memory_of(view).several.get((view.number, request.space.id)) if _is_plain(view, request) else None
    if known is None or known[0] != _state(view, registry):
        return None
    found: Several = known[1]
    return found


def _is_plain(view: CollectionView, request: search.SearchRequest) -> bool:
    free = request.condition is None and request.selection is None and request.without_row is None
    return free and not view.is_past


def _state(view: CollectionView, registry: PluginRegistry) -> tuple[int, int]:
    return view.snapshot.state.counters.version, registry.changes


def merge(view: CollectionView, asked: Bridged, registry: PluginRegistry) -> Merged:
    """Return what `answer` makes hits of; errors as there."""
    parts, hidden, reach = _reached(view, asked, registry)
    return _Answer(view, asked, reach, parts, hidden, registry).merged()


def _reached(view: CollectionView, asked: Bridged, known: PluginRegistry) -> tuple[list[_Part], dict[str, int], Reach]:
    """Return the classes that answer, at least one, how many records are not reached, and what is reached at all."""
    request = asked.request
    spaces = [view.entry.spaces[name] for name in asked.asked]
    reach = reach_of(view, spaces, request.space, known, asked.among)
    chosen = search.selected(view, request)
    parts, hidden = _parts(view, asked, reach, chosen)
    if asked.strict and hidden:
        raise _unreachable(request.space, hidden, reach)
    if not parts:
        if hidden and view.space(request.space).counts.live == 0:
            raise _unreachable(request.space, hidden, reach)
        parts = [_Part(_own(reach, request.space), search.Allowed(np.zeros(0, np.bool_), 0))]
    return parts, hidden, reach


def _own(reach: Reach, space: Space) -> VectorClass:
    return next((each for each in reach.classes if each.space.id == space.id), VectorClass(space, space))


def _parts(view: CollectionView, asked: Bridged, reach: Reach, chosen: Any) -> tuple[list[_Part], dict[str, int]]:
    """Return the classes that have something to answer, and how many records of which spaces nothing reaches."""
    rows, decoded = (None, ()) if chosen is None else (chosen.rows, chosen.decoded)
    before: list[SpaceView] = []
    parts: list[_Part] = []
    hidden: dict[str, int] = {}
    for each in reach.classes:
        space_view = view.space(each.space)
        allowed = masks.allowed(view, space_view, before, rows, asked.request.without_row, decoded)
        if allowed.count:
            parts.append(_Part(each, allowed))
        before.append(space_view)
    for space in reach.unreachable:
        space_view = view.space(space)
        count = masks.allowed(view, space_view, before, rows, asked.request.without_row).count
        if count:
            hidden[space.name] = count
    return parts, hidden


def _unreachable(space: Space, hidden: Mapping[str, int], reach: Reach) -> SpaceMismatchError:
    told = ", ".join(f"{count} of space {name!r}" for name, count in hidden.items())
    return SpaceMismatchError(
        f"a query of space {space.name!r} has no path to the vectors of records that have no other: {told}"
        + "".join(f"; {note}" for note in reach.notes),
        hint="Fit a transform with fit_transform(), or search with spaces='native'.",
        query_space=space.name,
        available=[each.space.name for each in reach.classes],
    )


def _one(
    view: CollectionView,
    request: search.SearchRequest,
    asked: Mapping[str, F32],
    part: _Part,
    warn: Warner | None,
    registry: Callable[[], PluginRegistry],
    note: Callable[[int, F32], None],
) -> list[Hits]:
    """Search the only class there is as any space is searched."""
    each = part.each
    queries = each.levels(asked[each.asked.name])[-1]
    if queries is not request.queries:
        note(each.space.id, queries)
        warn = None if warn is None else _of(warn, request.queries.copy())
    alone = request._replace(space=each.space, queries=queries, allowed=part.allowed, origin=each.origin)
    if request.correction is not None:
        alone = alone._replace(correction=request.correction.across(each))
    if request.explain:
        told = {"asked_in": each.asked.name, "origin": each.origin}
        alone = alone._replace(asked={**request.asked, **told})
    return search.search(view, alone, warn, registry)


def _mixed(name: str) -> Exception:
    from vecdb.engine.corrections.searching import refuse_mixed  # few searches are corrected

    return refuse_mixed(name)


def _of(warn: Warner, queries: F32) -> Warner:
    """Say what is to be said of the queries as they were given, not of what they were mapped to."""
    return lambda _: warn(queries)


class _Answer:
    """Several classes, or one that is folded."""

    def __init__(
        self,
        view: CollectionView,
        asked: Bridged,
        reach: Reach,
        parts: list[_Part],
        hidden: Mapping[str, int],
        registry: PluginRegistry,
        known: Several | None = None,
    ) -> None:
        self._method = None if known is None else known.method
        self._heads = None if known is None else known.heads
        self._began = time.perf_counter()
        self._view = view
        self._asked = asked
        self._request = asked.request
        self._reach = reach
        self._parts = parts
        self._hidden = hidden
        self._registry = registry
        self._known = scales.KnownPairs(view, registry)
        self._memory: Memory = memory_of(view)
        self._total = sum(part.allowed.count for part in parts)

    def merged(self) -> Merged:
        """Return the list of each query."""
        wanted = self._request.k + self._request.offset
        method = self.method()
        for part, size in zip(self._parts, self.heads().sizes, strict=True):
            self._find(part, max(wanted, size) if method == "lists" else wanted)
        search.check_cancelled(self._request)
        ranked = [self._merge(row, method, wanted) for row in range(len(self._request.queries))]
        return Merged(ranked, self._reason(), self._plan(method, ranked) if self._request.explain else None)

    def hits(self, warn: Warner | None) -> list[Hits]:
        """Return the hits of each query."""
        merged = self.merged()
        columns = columns_of(self._view, self._request, merged.ranked)
        said = None if warn is None else search.Warnings(warn, self._request.queries)
        return [
            Hits(
                hits,
                seq=self._view.seq,
                complete=merged.reason is None,
                reason=merged.reason,
                plan=merged.plan,
                warnings=() if said is None else partial(said.of, place),
            )
            for place, hits in enumerate(columns)
        ]

    # --- finding ---

    def _find(self, part: _Part, wanted: int) -> None:
        each = part.each
        part.levels = each.levels(self._asked.asked[each.asked.name])
        if (joint := self._asked.joint) and joint.finds(self._view, self._request, part, wanted, self._registry):
            return
        if not part.allowed.count:
            part.found = [(np.empty(0, np.int64), np.empty(0, np.float32))] * len(self._request.queries)
        elif each.fold is None:
            if each.walks:
                self._asked.note(each.space.id, part.levels[-1])
            request = self._request._replace(space=each.space, queries=part.levels[-1])
            part.found = self._ask(part, request, wanted)
        else:
            self._find_folded(part, each.fold, min(wanted, part.allowed.count))
        if self._request.correction is not None and each.fold is not None:
            part.raws = self._uncorrected(part, each.fold)

    def _find_folded(self, part: _Part, fold: folding.Fold, wanted: int) -> None:
        view, space_view = self._view, self._view.space(part.each.space)
        table = self._memory.tables.of(view, space_view, fold)
        queries, many = part.levels[-1], _MORE * wanted + 100
        if self._request.correction is not None:
            table, many = self._request.correction.folded(view, space_view, part.each, table), 4 * many
        indexed = bool(view.entry.indexes) and not self._request.exact and fold.stored != "l2"
        if not indexed or fold.metric == "l2" or many >= part.allowed.count:
            self._scan_folded(part, fold, table, wanted)
            return
        pulled = np.stack([fold.ordering(query) for query in queries])
        if not pulled.any(axis=1).all():
            self._scan_folded(part, fold, table, wanted)
            return
        request = self._request._replace(space=part.each.space, queries=pulled)
        candidates = self._ask(part, request, many)
        part.found = [
            folding.best_of(view, space_view, fold, table, query, np.sort(positions), wanted)
            for query, (positions, _) in zip(queries, candidates, strict=True)
        ]

    def _uncorrected(self, part: _Part, fold: folding.Fold) -> list[F32]:
        """Return the scores that hits would have without a correction."""
        view, space_view = self._view, self._view.space(part.each.space)
        table, raws = self._memory.tables.of(view, space_view, fold), []
        for query, (places, _) in zip(part.levels[-1], part.found, strict=True):
            raws.append(fold.of_rows(query, folding.rows_at(view, space_view, places), table.take(places)))
        return [raw.astype(np.float32) for raw in raws]

    def _ask(self, part: _Part, request: search.SearchRequest, wanted: int) -> list[Found]:
        view = self._view
        if request.correction is not None and part.each.fold is None:
            corrector = request.correction.across(part.each)
            answers, paid, notes = corrector.find(
                view, view.space(part.each.space), request, part.allowed, wanted, lambda: self._registry
            )
            part.complete, part.facts = paid.complete, {**paid.facts(), "notes": notes}
            part.raws = [raw for _, _, raw in answers]
            return [(positions, corrected) for positions, corrected, _ in answers]
        found, cost, notes = search.find(
            view, view.space(part.each.space), request, part.allowed, wanted, lambda: self._registry
        )
        if cost is not None:
            part.complete, part.facts = cost.complete, {**cost.facts(), "notes": notes}
        return found

    def _scan_folded(self, part: _Part, fold: folding.Fold, table: folding.RowTable, wanted: int) -> None:
        view, space_view, mask = self._view, self._view.space(part.each.space), part.allowed.mask
        places = np.arange(len(space_view), dtype=np.int64) if mask is None else np.flatnonzero(mask)
        stop = search.stopper(self._request)
        part.found, part.complete = folding.scan(
            view, space_view, fold, table, part.levels[-1], places, wanted, stop=stop
        )
        part.facts = {"method": "folded scan", "rows_scanned": len(places) * len(part.levels[-1])}

    # --- calibrating ---

    def of_found(self, found: Sequence[tuple[list[F32], Found]]) -> Ranked:
        """Return the list of one query, of whose candidates each class has found its own: levels, and the best."""
        for part, (levels, best) in zip(self._parts, found, strict=True):
            part.levels, part.found = levels, [best]
        return self._merge(0, self.method(), self._request.k)

    def method(self) -> str:
        """Return how scores are brought on one scale; "" where there is one class only."""
        if self._method is None:
            self._method = self._find_method()
        return self._method

    def heads(self) -> Heads:
        """Return what `lists` compares."""
        if self._heads is None:
            self._heads = Heads.of([part.allowed.count for part in self._parts])
        return self._heads

    def _find_method(self) -> str:
        if len(self._parts) == 1:
            return ""
        method = scales.chosen_method(self._asked.calibration, [part.each for part in self._parts])
        if method in RANKED or method == "none":
            return method
        unknown = any(self._stages(part.each) is None for part in self._parts if not self._is_native(part.each))
        return "rrf" if unknown else method

    def _is_native(self, each: VectorClass) -> bool:
        return each.direct and each.space.id == self._request.space.id

    def _stages(self, each: VectorClass) -> list[scales.Stage] | None:
        """Return the stages of a class; remembered where they are made of nothing but stored reference rows."""
        key = "stages", self._request.space.id
        if key in each.derived:
            found: list[scales.Stage] = each.derived[key]
            return found
        made = scales.stages_of(each, self._request.space, self._known)
        if made is not None and not self._known.sampled and not self._view.is_past:
            each.derived[key] = made
        return made

    def _scale(self, part: _Part, method: str, row: int) -> Callable[[F32], F64]:
        if not method or method == "none" or self._is_native(part.each):
            return Line()
        if method in ("affine", "isotonic"):
            static = self._static(part.each, method)
            if static is not None:
                return static
        stages = self._stages(part.each) or []
        return scales.line_of(stages, part.levels, self._request.queries, row, tail=method == "tail")

    def _static(self, each: VectorClass, method: str) -> Line | Curve | None:
        key = "static", method, self._request.space.id
        if key not in each.derived:
            made = scales.static_scale(each, self._request.space, self._known, method)
            if self._known.sampled:
                return made
            each.derived[key] = made
        found: Line | Curve | None = each.derived[key]
        return found

    def _calibrated(self, row: int, method: str) -> list[F64]:
        """Return the calibrated scores of each class for one query."""
        raws = [part.found[row][1] for part in self._parts]
        if method not in RANKED:
            known = [self._scale(part, method, row)(raw) for part, raw in zip(self._parts, raws, strict=True)]
            return self._levelled(known) if method == "lists" else known
        return [
            by_rank(len(raw), size=part.allowed.count, total=self._total, method=method, first=number == 0)
            for number, (part, raw) in enumerate(zip(self._parts, raws, strict=True))
        ]

    def _levelled(self, scores: list[F64]) -> list[F64]:
        """Shift the classes so that the heads of their lists, as long as their sizes let expect, have equal means.

        Small classes are shifted less: theirs says little, and the reference rows have spoken already.
        """
        known = self.heads()
        heads = [_mean(each[:size]) if len(each) else 0.0 for each, size in zip(scores, known.sizes, strict=True)]
        return [each + share * (heads[0] - head) for each, head, share in zip(scores, heads, known.trust, strict=True)]

    def _merge(self, row: int, method: str, wanted: int) -> Ranked:
        """Return the best of all classes for one query, offset and least score applied."""
        view, scores, rows = self._view, self._calibrated(row, method), []
        for number, part in enumerate(self._parts):
            if self._asked.prior and method and part.each.direct:
                scores[number] = scores[number] + self._asked.prior
            rows.append(view.space(part.each.space).rows_at(view.tx, part.found[row][0]))
        score, record = np.concatenate(scores), np.concatenate(rows)
        raw = np.concatenate([part.raws[row] if part.raws else part.found[row][1] for part in self._parts])
        owner = np.repeat(np.arange(len(rows)), [len(each) for each in rows])
        second = owner if method in RANKED else -raw
        order = np.lexsort((record, second, -score))
        if self._request.min_score is not None:
            order = order[score[order].astype(np.float32) >= np.float32(self._request.min_score)]
        order = order[self._request.offset : wanted]
        classes = [self._parts[number].each for number in owner[order].tolist()]
        return Ranked(record[order].tolist(), score[order].astype(np.float32), raw[order], classes)

    # --- telling ---

    def _reason(self) -> str | None:
        if not all(part.complete for part in self._parts):
            return "the time-out was reached before every vector was looked at"
        if not self._hidden:
            return None
        told = ", ".join(f"{count} records of space {name!r}" for name, count in self._hidden.items())
        return f"no transform leads to {told}"

    def _plan(self, method: str, merged: Sequence[Ranked]) -> Plan:
        request, hits = self._request, max(1, sum(len(each.rows) for each in merged))
        counts = {id(part.each): 0 for part in self._parts}
        for ranked in merged:
            for each in ranked.classes:
                counts[id(each)] += 1
        classes = [
            {
                "space": part.each.space.name,
                "origin": part.each.origin,
                "asked_in": part.each.asked.name,
                "allowed": part.allowed.count,
                "share": counts[id(part.each)] / hits,
                **{name: value for name, value in part.facts.items() if value is not None and value != ()},
            }
            for part in self._parts
        ]
        notes = self._reach.notes
        return Plan(
            {
                "method": "bridged",
                "space": request.space.name,
                "seq": self._view.seq,
                "allowed": self._total,
                "calibration": method or "none needed",
                "classes": classes,
                "shares": _shares(classes),
                **({"notes": notes} if notes else {}),
                **({"unreachable": dict(self._hidden)} if self._hidden else {}),
                **request.asked,
                "seconds": time.perf_counter() - self._began,
            }
        )


def _mean(scores: F64) -> float:
    """Return ``scores.mean()``, the same bits without its checks."""
    return float(np.add.reduce(scores) / len(scores))


def _shares(classes: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the share of each origin among the hits."""
    shares: dict[str, float] = {}
    for each in classes:
        shares[each["origin"]] = shares.get(each["origin"], 0.0) + each["share"]
    return shares
