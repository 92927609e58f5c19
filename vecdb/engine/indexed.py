"""Answering a query through an index, so that nobody can tell from the hits: the same promises as an exact scan.

The parts of an index nominate candidates among the vectors that they cover; whatever they do not cover is scanned;
scores of both come from the canonical routine. Few allowed vectors are scanned instead, which is quicker and exact. A
query for which an index found too few is scanned as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vecdb import exact
from vecdb.blocks import VectorBlocks
from vecdb.engine import border, costs
from vecdb.engine.parts import LoadedPart, Usable
from vecdb.engine.pool import share
from vecdb.engine.recall import DEFAULT, SCAN, Choice, expectation
from vecdb.engine.scanning import scan
from vecdb.engine.scanorder import verify
from vecdb.engine.view import CollectionView
from vecdb.engine.views import PartView, Places, find_places
from vecdb.errors import CorruptionError
from vecdb.kernels import loader
from vecdb.storage.spaces import SpaceView

Bools = npt.NDArray[np.bool_]
Positions = npt.NDArray[np.int64]
Found = tuple[Positions, npt.NDArray[np.float32]]

SCAN_BELOW: Final = 1 << 40
"""More allowed vectors of a part than this are searched for, whatever a scan of them would cost."""
_A_THREAD: Final = 8
"""Queries that a thread is given at least: they take a millisecond, handing them over a tenth of that."""
_NARROW: Final = 0.5
_SLACK: Final = 1.3
"""Of an index that knows no `allowed`, so many times more candidates than would do on average are asked for."""


@dataclass(slots=True)
class Question:
    """What is asked of the parts of an index.

    Attributes
    ----------
    queries : ndarray of float32, shape (q, dim)
    k : int
    mask : ndarray of bool, shape (positions,), or None
        Which positions may be returned; None: all of them.
    count : int
        How many that are.
    effort : int or None
    stop : callable or None
    """

    view: CollectionView
    space_view: SpaceView
    blocks: VectorBlocks
    queries: npt.NDArray[np.float32]
    k: int
    mask: Bools | None
    count: int
    effort: int | None
    stop: Any = None
    recall: float | None = None
    threads: int = 1
    alive: dict[Any, Any] | None = None
    """Remembered of the state where nothing but life decides what is allowed: by part, what of it lives, and routes."""


@dataclass(slots=True)
class Account:
    """What answering cost, for the plan."""

    question: Question
    usable: Usable
    searched: int = 0
    nominated: int = 0
    rows_scanned: int = 0
    completed: int = 0
    complete: bool = True
    kinds: list[str] = field(default_factory=list)
    asked: list[tuple[LoadedPart, Choice]] = field(default_factory=list)
    missed: int = 0
    """Vectors of parts that were scanned because no effort is known to reach the recall that was asked for."""
    notes: list[str] = field(default_factory=list)
    """On parts that turned out to be damaged; they were scanned."""
    short: set[int] = field(default_factory=set)
    """Queries for which some part found fewer than it has, so that another part's candidates may not be the best."""

    def add(self, other: Account) -> None:
        """Take in what it cost to answer other queries of the same question."""
        self.nominated += other.nominated
        self.rows_scanned += other.rows_scanned
        self.completed += other.completed
        self.complete = self.complete and other.complete
        self.notes += [note for note in other.notes if note not in self.notes]

    def facts(self) -> dict[str, Any]:
        """Return what the plan says; `rows_scanned` counts row and query pairs scored exactly by a scan."""
        return {
            "method": "index" if self.kinds else "exact scan",
            "index": self.kinds[0] if self.kinds else None,
            "parts": len(self.kinds),
            "covered": self.searched,
            "nominated": self.nominated,
            "rows_scanned": self.rows_scanned,
            "completed_by_scan": self.completed,
            "complete": self.complete,
            **self._efforts(),
        }

    def _efforts(self) -> dict[str, Any]:
        """Return the largest effort, and the least recall to be expected, with what was asked to measure that."""
        choices = [self._expected(part, choice) for part, choice in self.asked]
        expected = [choice for choice in choices if choice.expected is not None]
        known = len(expected) == len(choices) > 0
        least = min(expected, key=lambda choice: choice.expected or 0.0) if known else None
        return {
            "effort": max((choice.effort for choice in choices if choice.effort is not None), default=None),
            "expected_recall": None if least is None else least.expected,
            "measured_on": None if least is None else least.source,
            "scanned_for_recall": self.missed or None,
        }

    def _expected(self, part: LoadedPart, choice: Choice) -> Choice:
        if choice.expected is not None or choice.effort is None or part.exact:
            return choice
        return expectation(self.usable.curves(part), choice.effort, self.question.k)


def search(question: Question, usable: Usable) -> tuple[list[Found], Account]:
    """Return (positions, canonical scores) of each query, best first, and what it cost."""
    groups = min(question.threads, len(question.queries) // _A_THREAD)
    if groups < 2 or not loader.ready():
        return _answer(question, usable)
    cuts = np.linspace(0, len(question.queries), groups + 1).astype(np.int64).tolist()
    alone = [replace(question, queries=question.queries[start:end], threads=1) for start, end in pairwise(cuts)]
    done = share([partial(_answer, each, usable) for each in alone])
    account = done[0][1]
    for _, other in done[1:]:
        account.add(other)
    return [found for part, _ in done for found in part], account


def _answer(question: Question, usable: Usable) -> tuple[list[Found], Account]:
    account = Account(question, usable)
    picked: list[list[Positions]] = [[] for _ in question.queries]
    rest = _Rest(question)
    for part in usable.parts:
        _ask(question, usable, part, picked, rest, account)
    scanned = _scan(question, rest, account)
    if account.kinds:
        found = _merge(question, picked, scanned)
    else:
        found = [(np.empty(0, np.int64), np.empty(0, np.float32)) if each is None else each for each in scanned]
    if account.short:
        _complete(question, found, sorted(account.short), account)
    return found, account


def _complete(question: Question, found: list[Found], short: list[int], account: Account) -> None:
    """Scan for the queries of which some part found too few."""
    account.completed = len(short)
    verify(question.view, question.space_view, question.mask, question.count)
    whole = _scanned(question, question.queries[short], question.k, question.mask, question.count, account)
    for row, answer in zip(short, whole, strict=True):
        found[row] = answer


class _Rest:
    """The allowed positions that no part answers for."""

    def __init__(self, question: Question) -> None:
        self.mask = question.mask
        self.count = question.count
        self._size = len(question.space_view)
        self._owned = False

    def cover(self, places: Places, count: int, matches: int) -> None:
        self.count -= matches
        if not self.count:
            return
        if self.mask is None:
            self.mask, self._owned = np.ones(self._size, np.bool_), True
        elif not self._owned:
            self.mask, self._owned = self.mask.copy(), True
        if places.table is None:
            self.mask[places.first : places.first + count] = False
        else:
            self.mask[places.table[places.table >= 0]] = False


def _ask(
    question: Question,
    usable: Usable,
    part: LoadedPart,
    picked: list[list[Positions]],
    rest: _Rest,
    account: Account,
) -> None:
    """Let one part nominate, unless a scan of what it covers is the better way."""
    count = part.part.count
    places = find_places(question.view, question.space_view, part.part)
    allowed, matches = allowed_in(question, part, places)
    choice = effort_for(question, usable, part, matches / count if allowed is not None else 1.0)
    ask = how_many(part, question, count, matches, choice.effort, restricted=allowed is not None)
    if not matches or ask is None:
        return
    if choice is SCAN:
        account.missed += count
        return
    account.asked.append((part, choice))
    filtered = part.provided.thing.capabilities.filtered
    try:
        with PartView(question.view, question.space_view, part.part, places) as view:
            answers = border.search(
                part.provided,
                part.index,
                question.queries,
                ask,
                allowed=allowed if filtered else None,
                matches=matches if filtered else count,
                effort=choice.effort,
                view=view,
            )
    except CorruptionError as error:
        if getattr(error, "what", None) != "index blob":
            raise  # the vectors themselves
        account.notes.append(part.spoil(error))
        return
    rest.cover(places, count, matches)
    account.searched += count
    account.kinds.append(part.entry.kind)
    for row, positions in enumerate(answers):
        kept = positions if allowed is None or filtered else positions[allowed[positions]]
        account.nominated += len(kept)
        picked[row].append(places.of(kept))
        if len(kept) < min(question.k, matches):
            account.short.add(row)


def effort_for(question: Question, usable: Usable, part: LoadedPart, share: float) -> Choice:
    """Return the effort to ask a part with, of which so large a share is allowed.

    Recall was measured without conditions. Where one leaves less than half, what it selects may lie far from a query,
    and the effort is that of half the loss, if any is known to have it.
    """
    if question.effort is not None:
        return Choice(question.effort)
    if question.recall is None:
        return DEFAULT
    if share < _NARROW:
        strict = usable.choose(part, 1 - (1 - question.recall) / 2, question.k)
        if strict is not SCAN:
            return strict
    return usable.choose(part, question.recall, question.k)


def scans_all(question: Question, usable: Usable) -> bool:
    """Whether no part would be asked: what is allowed is scanned as a whole."""
    for part in usable.parts:
        count = part.part.count
        allowed, matches = allowed_in(question, part, find_places(question.view, question.space_view, part.part))
        choice = effort_for(question, usable, part, matches / count if allowed is not None else 1.0)
        asked = how_many(part, question, count, matches, choice.effort, restricted=allowed is not None)
        if matches and asked is not None and choice is not SCAN:
            return False
    return True


def allowed_in(question: Question, part: LoadedPart, places: Places) -> tuple[Bools | None, int]:
    """Return which positions of a part may be answers, None for all, and how many that are.

    Without a condition those are the living ones, which stay the same from search to search.
    """
    if question.alive is None:
        allowed = _mask_of(places, part.part.count, question.mask)
        return allowed, part.part.count if allowed is None else int(np.count_nonzero(allowed))
    known: tuple[Places, Bools | None, int] | None = question.alive.get(part.part.set)
    if known is None or known[0] is not places:
        allowed = _mask_of(places, part.part.count, question.mask)
        count = part.part.count if allowed is None else int(np.count_nonzero(allowed))
        known = question.alive[part.part.set] = (places, allowed, count)
    return known[1], known[2]


def _mask_of(places: Places, count: int, mask: Bools | None) -> Bools | None:
    if places.table is None:
        if mask is None:
            return None
        mine: Bools = mask[places.first : places.first + count]
    else:
        there = places.table >= 0
        if mask is None:
            return there if places.gone else None
        mine = there & mask[places.table]
    return None if bool(mine.all()) else mine


def how_many(
    part: LoadedPart, question: Question, count: int, matches: int, effort: int | None, *, restricted: bool
) -> int | None:
    """Return how many candidates to ask for; None where scanning is better."""
    k = question.k
    able, coded = part.provided.thing.capabilities, part.part.coded
    if not restricted:
        chosen = question.effort is None and effort is not None  # by a recall; what the caller says is done
        return None if chosen and costs.is_dear(able, count, question.blocks.row_bytes, effort or 0, coded=coded) else k
    search = costs.search_cost(able, count, matches, question.blocks.dim, effort, coded=coded)
    worth = search / costs.scan_cost(1, question.blocks.row_bytes)
    if matches <= max(min(SCAN_BELOW, worth), 10 * k) or matches < costs.least_share(able, coded=coded) * count:
        return None
    if able.filtered:
        return k
    asked = int(_SLACK * k * count / matches) + 16
    return asked if 4 * asked <= count else None


def _scan(question: Question, rest: _Rest, account: Account) -> Sequence[Found | None]:
    if not rest.count:
        return [None] * len(question.queries)
    verify(question.view, question.space_view, rest.mask, rest.count)
    return _scanned(question, question.queries, min(question.k, rest.count), rest.mask, rest.count, account)


def _scanned(
    question: Question, queries: npt.NDArray[np.float32], k: int, mask: Bools | None, count: int, account: Account
) -> list[Found]:
    found, facts = scan(
        question.blocks, queries, k, allowed=mask, matches=count, stop=question.stop, threads=question.threads
    )
    account.rows_scanned += facts.rows_scanned
    account.complete = account.complete and facts.complete
    return found


def _merge(question: Question, picked: list[list[Positions]], scanned: Sequence[Found | None]) -> list[Found]:
    """Return the best of the nominated candidates, scored canonically, and of what was scanned."""
    nominated = [each[0] if len(each) == 1 else np.concatenate(each) for each in picked]
    everything = nominated[0] if len(nominated) == 1 else np.concatenate(nominated)
    question.space_view.verify_positions(question.view.tx, everything)
    found = exact.rescore_each(question.blocks, question.queries, nominated, question.k)
    return [own if other is None else _best(own, other, question.k) for own, other in zip(found, scanned, strict=True)]


def _best(one: Found, other: Found, k: int) -> Found:
    places = np.concatenate([one[0], other[0]])
    scores = np.concatenate([one[1], other[1]])
    order = np.lexsort((places, -scores))[:k]
    return places[order], scores[order]
