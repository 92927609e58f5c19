"""Searching by corrected scores: the exact scan in one pass, or the candidates of an index, corrected and ordered.

Invariant: what is scanned is exact. An index orders by raw scores, so it is asked for `_MORE` times as many candidates,
and whether a row that it left out could have been better is known: none could, if the least raw score among the
candidates plus the largest bias of any row is below the last hit's corrected score.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from vecdb import exact
from vecdb.blocks import VectorBlocks
from vecdb.corrections import Adjustment, Banks, Corrected
from vecdb.engine import parts, search
from vecdb.engine.corrections import images, sharing
from vecdb.engine.corrections.folds import by_fold
from vecdb.engine.corrections.stored import Loaded, find_correction, load_correction
from vecdb.engine.corrections.tables import by_banks, table_of
from vecdb.engine.scanorder import scan_order, verify
from vecdb.engine.view import CollectionView
from vecdb.errors import SpaceMismatchError, StateError
from vecdb.storage.spaces import SpaceView
from vecdb.types import Space

if TYPE_CHECKING:
    from vecdb.engine.bridge.classes import VectorClass
    from vecdb.engine.bridge.folding import RowTable
    from vecdb.registry import PluginRegistry

F32 = npt.NDArray[np.float32]

_MORE: Final = 10
_LEAST: Final = 200
"""Candidates that an index is asked for at least, and for each hit."""


@dataclass(slots=True)
class Cost:
    """What a corrected search did, for the plan."""

    account: Any
    name: str
    candidates: int | None = None
    certain: int | None = None
    queries: int = 1

    @property
    def complete(self) -> bool:
        return bool(self.account is None or self.account.complete)

    @property
    def rows_scanned(self) -> int:
        return 0 if self.account is None else int(self.account.rows_scanned)

    def facts(self) -> dict[str, Any]:
        """Return the same for a plan."""
        known = {"method": "index"} if self.account is None else self.account.facts()
        certain = None if self.certain is None else self.certain / max(1, self.queries)
        return {**known, "correction": self.name, "candidates": self.candidates, "certain": certain}


@dataclass(frozen=True, slots=True, eq=False)
class Corrector:
    """A correction as one search uses it.

    Attributes
    ----------
    loaded : Loaded
    banks : Banks
        As the rows that are searched are asked.
    key : str
        How the banks got there; empty: they are the correction's own.
    """

    loaded: Loaded
    banks: Banks
    key: str = ""
    cost: list[Cost] = field(default_factory=list)

    def across(self, each: VectorClass) -> Corrector:
        """Return the correction for vectors of another space: the bank takes the way that queries take.

        Raises
        ------
        StateError
            The kind compares with stored rows of its own space, or the query was given in another one.
        """
        if each.direct and each.space.id == self.loaded.space.id:
            return self
        kind, params = self.loaded.kind, self.loaded.params
        if not each.walks or each.asked.id != self.loaded.space.id or kind.gallery(params) or kind.dynamic(params):
            raise self._cannot_follow(each, "csls or inverted-softmax")
        key = "+".join(str(walk.loaded.entry.set) for walk in each.walks)
        place = "banks", each.space.id, key
        known: Banks | None = self.loaded.derived.get(place)
        if known is None:
            known = Banks(each.space.metric, each.levels(self.loaded.banks.queries)[-1], self.loaded.banks.gallery[:0])
            self.loaded.derived[place] = known
        return replace(self, banks=known, key=key)

    def folded(self, view: CollectionView, space_view: SpaceView, each: VectorClass, table: RowTable) -> RowTable:
        """Return what is needed of rows that are mapped on the fly, their biases included; errors as in `across`."""
        fold = each.fold
        if fold is None or each.asked.id != self.loaded.space.id or self.loaded.kind.name != "csls":
            raise self._cannot_follow(each, "csls")
        compute = by_fold(view, space_view, self.loaded, each)
        bias = table_of(view, space_view, self.loaded, compute, f"{each.origin} {fold.key}").rows[:, 0]
        return replace(table, bias=bias.astype(np.float64) if table.bias is None else table.bias + bias)

    def _cannot_follow(self, each: VectorClass, kinds: str) -> StateError:
        return StateError(
            f"correction {self.loaded.name!r} of kind {self.loaded.kind.name!r} cannot follow a query of space "
            f"{each.asked.name!r} to vectors of space {each.space.name!r}",
            hint=f"Fit {kinds} in space {each.asked.name!r}, whose bank can follow, or search with spaces='native'.",
        )

    def find(
        self,
        view: CollectionView,
        space_view: SpaceView,
        request: search.SearchRequest,
        allowed: search.Allowed,
        wanted: int,
        registry: Callable[[], PluginRegistry],
    ) -> tuple[list[Corrected], Cost, tuple[str, ...]]:
        """Return the best `wanted` positions of each query with corrected and raw scores, cost, and notes."""
        wanted = min(wanted, max(1, allowed.count))
        if self.loaded.kind.form == "image":
            return images.find(self, view, space_view, request, allowed, wanted, registry)
        adjustment = self._adjustment(view, space_view, request.queries)
        if view.entry.indexes and not request.exact and allowed.count:
            found = self._by_index(view, space_view, request, allowed, wanted, registry, adjustment)
            if found is not None:
                return found
        verify(view, space_view, allowed.mask, allowed.count)
        answers, facts = sharing.scan(
            scan_order(view, space_view),
            request.queries,
            wanted,
            adjustment,
            allowed=allowed.mask,
            matches=allowed.count,
            stop=search.stopper(request),
            threads=1 if request.cancel is not None else request.threads,
        )
        return answers, Cost(facts, self.loaded.name), ()

    def _by_index(
        self,
        view: CollectionView,
        space_view: SpaceView,
        request: search.SearchRequest,
        allowed: search.Allowed,
        wanted: int,
        registry: Callable[[], PluginRegistry],
        adjustment: Adjustment,
    ) -> tuple[list[Corrected], Cost, tuple[str, ...]] | None:
        found = nominated_by_index(view, space_view, request, allowed, wanted, registry)
        if found is None:
            return None
        nominated, account, notes, many = found
        answers = [adjustment.best(query, *found, wanted) for query, found in enumerate(nominated)]
        certain = self._certain(space_view, adjustment, allowed, nominated, answers, many)
        return answers, Cost(account, self.loaded.name, many, certain, len(answers)), notes

    def _certain(
        self,
        space_view: SpaceView,
        adjustment: Adjustment,
        allowed: search.Allowed,
        nominated: list[exact.Found],
        answers: list[Corrected],
        many: int,
    ) -> int | None:
        """Return for how many queries no row that was left out could be better; None: not known of this form."""
        if adjustment.form != "bias" or not len(adjustment.table):
            return None
        bias = adjustment.table[:, 0] if allowed.mask is None else adjustment.table[allowed.mask, 0]
        most = float(bias.max(initial=-np.inf))
        return sum(
            len(raw) < many or float(raw[-1]) + most < float(corrected[-1])
            for (_, raw), (_, corrected, _) in zip(nominated, answers, strict=True)
        )

    def _adjustment(self, view: CollectionView, space_view: SpaceView, queries: F32) -> Adjustment:
        kind, params = self.loaded.kind, self.loaded.params
        table = table_of(view, space_view, self.loaded, by_banks(view, space_view, self.loaded, self.banks), self.key)
        if kind.form == "proximity":
            return Adjustment("proximity", table.rows, None, self._moments(queries))
        return Adjustment("bias", table.rows, table.rows[:, 1] > 0.0 if kind.dynamic(params) else None)

    def _moments(self, queries: F32) -> npt.NDArray[np.float64]:
        """Return mean and deviation of each query's canonical scores with the gallery bank."""
        known: VectorBlocks | None = self.loaded.derived.get("gallery")
        if known is None:
            known = VectorBlocks.from_parts(self.banks.metric, self.banks.gallery.shape[1], [self.banks.gallery])
            self.loaded.derived["gallery"] = known
        everything = np.arange(known.count, dtype=np.int64)
        moments = np.empty((len(queries), 2))
        for place, query in enumerate(queries):
            scores = exact.rescore(known, query, everything, known.count)[1].astype(np.float64)
            mean = float(scores.mean())
            moments[place] = mean, max(float(scores.std()), 1e-6 * (1.0 + abs(mean)))
        return moments


def nominated_by_index(
    view: CollectionView,
    space_view: SpaceView,
    request: search.SearchRequest,
    allowed: search.Allowed,
    wanted: int,
    registry: Callable[[], PluginRegistry],
) -> tuple[list[exact.Found], Any, tuple[str, ...], int] | None:
    """Return the best candidates by raw score, cost, notes, and how many were asked for; None: there is no index."""
    if not parts.choose(view, request.space, registry()).parts:
        return None
    many = min(max(_MORE * wanted, _LEAST), allowed.count)
    nominated, account, notes = search.find(view, space_view, request, allowed, many, registry)
    return nominated, account, notes, many


def corrector(view: CollectionView, space: Space, name: str) -> Corrector:
    """Return the correction that a search in `space` is to use.

    Raises
    ------
    UnknownNameError
        There is no such correction.
    SpaceMismatchError
        It was fitted with queries of another space.
    """
    entry = find_correction(view.entry, name)
    loaded = load_correction(view.snapshot, view.entry, entry)
    if loaded.space.id != space.id:
        raise SpaceMismatchError(
            f"correction {name!r} was fitted with queries of space {loaded.space.name!r}, "
            f"the query is of space {space.name!r}",
            hint="A space needs a correction with a bank of its own: fit_correction(name, kind, space=..., bank=...).",
            query_space=space.name,
            available=[loaded.space.name],
        )
    return Corrector(loaded, loaded.banks)


def settled(view: CollectionView, request: search.SearchRequest, name: str, more: object) -> search.SearchRequest:
    """Return a request that is corrected; errors as in `corrector`.

    `more` is what else was asked for, two stages or queries in other spaces: `StateError`, if anything was.
    """
    if more:
        raise refuse_mixed(name)
    return request._replace(correction=corrector(view, request.space, name))


def refuse_mixed(name: str) -> StateError:
    """Return the error for a list over several classes of vectors, whose scales a correction would move apart."""
    return StateError(
        f"correction {name!r} cannot be combined with an answer over vectors of several spaces",
        hint="Search with spaces='native', or without a correction until the migration is finished.",
    )
