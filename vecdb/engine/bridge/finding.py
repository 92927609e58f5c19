"""The best positions of one space for queries that are given or were mapped into it, through an index or by a scan."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from vecdb import exact
from vecdb.engine import indexed, parts, search
from vecdb.engine.scanning import scan
from vecdb.engine.scanorder import scan_order, verify
from vecdb.engine.view import CollectionView
from vecdb.registry import PluginRegistry
from vecdb.storage.spaces import SpaceView

Cost: TypeAlias = indexed.Account | exact.ScanFacts


def find(
    view: CollectionView,
    space_view: SpaceView,
    request: search.SearchRequest,
    allowed: search._Allowed,
    wanted: int,
    registry: Callable[[], PluginRegistry],
) -> tuple[list[exact.Found], Cost, tuple[str, ...]]:
    """Return (positions, canonical scores) of the best `wanted` for each query, what that cost, and notes."""
    blocks = scan_order(view, space_view)
    wanted = min(wanted, max(1, allowed.count))
    indexes = view.entry.indexes and not request.exact
    usable = parts.choose(view, request.space, registry()) if indexes else parts.NOTHING
    threads = 1 if request.cancel is not None else request.threads
    stop = search._stopper(request)
    if not usable.parts or not allowed.count:
        verify(view, space_view, allowed.mask, allowed.count)
        found, facts = scan(
            blocks, request.queries, wanted, allowed=allowed.mask, matches=allowed.count, stop=stop, threads=threads
        )
        return found, facts, usable.notes
    question = indexed.Question(
        view,
        space_view,
        blocks,
        request.queries,
        wanted,
        allowed.mask,
        allowed.count,
        request.effort,
        stop,
        request.recall,
        threads,
        allowed.parts,
    )
    answers, account = indexed.search(question, usable)
    return answers, account, (*usable.notes, *account.notes)
