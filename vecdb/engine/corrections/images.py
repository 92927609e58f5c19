"""Searching by images: rows and queries with normal components, compared by cosine.

Images are as large as the vectors; they are made when they are first searched, and kept while the process runs.
Invariant: a corrected score is the canonical cosine of two images, whichever path found the row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vecdb import corrections, exact
from vecdb.blocks import VectorBlocks
from vecdb.engine import scanning, search
from vecdb.engine.corrections import searching
from vecdb.engine.corrections.tables import Table, by_banks, table_of
from vecdb.engine.scanorder import scan_order, verify
from vecdb.engine.view import CollectionView
from vecdb.storage.spaces import SpaceView

if TYPE_CHECKING:
    from vecdb.engine.corrections.searching import Corrector, Cost
    from vecdb.registry import PluginRegistry

F32 = npt.NDArray[np.float32]


def find(
    corrector: Corrector,
    view: CollectionView,
    space_view: SpaceView,
    request: search.SearchRequest,
    allowed: search.Allowed,
    wanted: int,
    registry: Callable[[], PluginRegistry],
) -> tuple[list[corrections.Corrected], Cost, tuple[str, ...]]:
    """Return what `Corrector.find` returns, of a kind whose form is "image"."""
    loaded, banks = corrector.loaded, corrector.banks
    blocks = _blocks(corrector, table_of(view, space_view, loaded, by_banks(view, space_view, loaded, banks)))
    asked = corrections.image_of(banks, corrections.directed(request.queries, banks.metric), "queries")
    cost: Any
    if view.entry.indexes and not request.exact and allowed.count:
        nominated = searching.nominated_by_index(view, space_view, request, allowed, wanted, registry)
        if nominated is not None:
            candidates, cost, notes, many = nominated
            found = exact.rescore_each(blocks, asked, [positions for positions, _ in candidates], wanted)
            answers = _with_raws(view, space_view, request.queries, found)
            return answers, searching.Cost(cost, loaded.name, many), notes
    found, cost = scanning.scan(
        blocks,
        asked,
        wanted,
        allowed=allowed.mask,
        matches=allowed.count,
        stop=search.stopper(request),
        threads=1 if request.cancel is not None else request.threads,
    )
    return _with_raws(view, space_view, request.queries, found), searching.Cost(cost, loaded.name), ()


def _blocks(corrector: Corrector, table: Table) -> VectorBlocks:
    """Return the images of all rows as something to search."""
    place = "images", corrector.key
    known: tuple[Table, VectorBlocks] | None = corrector.loaded.derived.get(place)
    if known is None or known[0] is not table:
        rows = np.ascontiguousarray(table.rows)
        known = table, VectorBlocks.from_parts("cosine", rows.shape[1], [rows] if len(rows) else [])
        corrector.loaded.derived[place] = known
    return known[1]


def _with_raws(
    view: CollectionView, space_view: SpaceView, queries: F32, found: list[exact.Found]
) -> list[corrections.Corrected]:
    """Return answers with the canonical scores of their rows."""
    blocks, answers = scan_order(view, space_view), []
    for query, (positions, scores) in zip(queries, found, strict=True):
        mask = np.zeros(blocks.count, np.bool_)
        mask[positions] = True
        verify(view, space_view, mask, len(positions))
        there, raw = exact.rescore(blocks, query, positions, max(1, len(positions)))
        answers.append((positions, scores, raw[np.argsort(there)[np.argsort(np.argsort(positions))]]))
    return answers
