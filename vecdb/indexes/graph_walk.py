"""Asking a stored graph: one call of the kernel, and proof of whatever it read before its answer is believed.

Nothing is read when an index is opened. Until all of a graph, and of the vectors, was compared with its checksums, the
kernel tells which rows it read; after some searches the rest is compared at once, and no search has to tell any more.
Invariant: what is returned rests on bytes that were verified, or on none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vecdb.contracts.index import Candidates, InPlace, Prepared, VectorView
from vecdb.indexes.graph_layout import StoredGraph

__all__ = ["Habit", "prepared_walk", "walk_graph"]

Bools = npt.NDArray[np.bool_]

_OFTEN: Final = 64
"""So many searches prove what they touched; the next one proves everything."""
_SMALL: Final = 1 << 26
"""Bytes of vectors that are proved at once."""
_EVERYTHING: Final = np.empty(0, np.bool_)
_FOLLOWING: Final = np.empty(0, np.int64)
_FEW: Final = 150
"""So many codes take the time of a step of a walk among allowed rows."""
_MORE: Final = 3
"""Halves of its effort that a look at all codes computes exactly: a walk expands rows that its pool drops later."""
_UNTOLD: Final = np.empty((1, 0), np.int64)


@dataclass(slots=True)
class Habit:
    """How often a graph was asked; threads may count over each other, which does no harm."""

    searches: int = 0


def walk_graph(
    graph: StoredGraph,
    queries: npt.NDArray[np.float32],
    k: int,
    allowed: Bools | None,
    effort: int,
    view: VectorView,
    habit: Habit | None = None,
) -> Candidates:
    """Return the best rows that a walk with a pool of `effort` rows finds; k and effort at most the number of rows.

    Where few rows are allowed, all of their codes are looked at instead, and so many more vectors as a walk would.

    Raises
    ------
    CorruptionError
        Something that was read is damaged.
    """
    whole = _proves_all(graph, view, habit)
    with view.in_place(verify=whole) as here:
        _prove_codes(graph, allowed is not None, whole)
        ask = _asking(graph, k, allowed, effort, here)
        room = 0 if whole else 8 * effort + 256
        trails = np.zeros((len(queries), room), np.int64) if room else np.empty((len(queries), 0), np.int64)
        found = ask(queries, trails)
        if not whole:
            _prove_trails(graph, trails, view)
    return found


def prepared_walk(
    graph: StoredGraph, k: int, allowed: Bools | None, effort: int, view: VectorView, habit: Habit
) -> Prepared | None:
    """Return `walk_graph` of one query with everything else settled; None while not all of the graph was proved."""
    if not _proves_all(graph, view, habit):
        return None
    with view.in_place() as here:
        _prove_codes(graph, allowed is not None, whole=True)
        ask = _asking(graph, k, allowed, effort, here)
    return lambda query: ask(query, _UNTOLD)


def _proves_all(graph: StoredGraph, view: VectorView, habit: Habit | None) -> bool:
    if habit is None:
        return True
    habit.searches += 1
    return habit.searches > _OFTEN or view.count * view.dim * 4 <= _SMALL


def _prove_codes(graph: StoredGraph, masked: bool, whole: bool) -> None:
    """Prove what is read without being told: codes, and all links if that is due."""
    if whole:
        graph.links.verify()
    if whole or masked or graph.layout == "compact":
        graph.records.verify()
    else:
        graph.records.verify_rows(graph.entries)


def _asking(
    graph: StoredGraph, k: int, allowed: Bools | None, effort: int, here: InPlace
) -> Callable[[npt.NDArray[np.float32], npt.NDArray[np.int64]], Candidates]:
    """Return ``ask(queries, trails)``: a walk, or where few rows are allowed a look at all of their codes."""
    listed = None if allowed is None else _listed(allowed, effort)
    if listed is not None:
        effort = min(graph.count, _MORE * effort // 2)
    kernel, plan, size = _desk(graph, k, effort, here, masked=allowed is not None, walks=listed is None)
    chosen = _EVERYTHING if allowed is None else allowed if listed is None else listed
    following = _FOLLOWING if here.places is None else here.places
    fixed = (graph.anchors, graph.book.signs, here.blocks.scan_table, following, graph.maps, chosen, plan)
    held = here.blocks, graph  # what the addresses in those arrays name

    def ask(queries: npt.NDArray[np.float32], trails: npt.NDArray[np.int64]) -> Candidates:
        assert held
        found = Candidates(np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32))
        kernel(queries, *fixed, np.empty(size, np.uint64), *found, trails)
        return found

    return ask


def _listed(allowed: Bools, effort: int) -> npt.NDArray[np.int64] | None:
    """Return the allowed rows if they are so few that looking at all of their codes takes less time than a walk."""
    if len(allowed) > _FEW * effort and int(np.count_nonzero(allowed)) > _FEW * effort:
        return None
    listed = np.flatnonzero(allowed)
    listed.flags.writeable = False
    return listed


def _desk(
    graph: StoredGraph, k: int, effort: int, here: InPlace, *, masked: bool, walks: bool
) -> tuple[Callable[..., None], npt.NDArray[np.int64], int]:
    """Return the kernel, its plan, and the words of scratch; what the last search had, as most are asked alike."""
    wanted = (here.first, here.blocks.half, k, effort, masked, walks)
    last: tuple[Any, Callable[..., None], npt.NDArray[np.int64], int] | None = graph.desk
    if last is None or last[0] != wanted:
        from vecdb.kernels import graph_search  # numba is loaded by now, never by importing this module

        plan = graph.plan.copy()
        plan[2], plan[12], plan[13] = here.first, here.blocks.half, effort
        met = graph.count if masked else 0
        size = graph_search.scratch_words(graph.book.width, len(graph.book.centres), graph.degree, k, effort, met)
        kernel = graph_search.search_graph if walks else graph_search.search_listed
        last = (wanted, kernel, plan, size)
        object.__setattr__(graph, "desk", last)
    return last[1], last[2], last[3]


def _prove_trails(graph: StoredGraph, trails: npt.NDArray[np.int64], view: VectorView) -> None:
    """Prove the rows that a search tells of, or everything if there were more than it could tell."""
    if int(trails[:, 0].max(initial=0)) >= trails.shape[1]:
        graph.links.verify()
        with view.in_place():
            return
    told = np.concatenate([trail[1 : trail[0] + 1] for trail in trails])
    graph.links.verify_rows(np.unique(told >> 1))
    view.verify(np.unique(told[told & 1 == 1] >> 1))
