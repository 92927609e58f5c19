"""What people are shown of indexes: what they cover, what they tell of themselves, and what was measured."""

from __future__ import annotations

import logging

import numpy as np

from vecdb.engine import border
from vecdb.engine.parts import Usable, load_all
from vecdb.engine.recall import as_curve
from vecdb.engine.view import CollectionView
from vecdb.engine.views import find_places
from vecdb.errors import PluginError
from vecdb.registry import PluginRegistry
from vecdb.storage.blobs import stored_bytes_of
from vecdb.storage.indexes import IndexEntry
from vecdb.storage.spaces import SpaceView
from vecdb.types import IndexInfo

log = logging.getLogger("vecdb")


def describe(view: CollectionView, registry: PluginRegistry, number: int | None = None) -> list[IndexInfo]:
    """Return what `Collection.indexes` shows; with `number`, of that index alone."""
    return [_info(view, index, registry) for index in view.entry.indexes if number is None or index.id == number]


def _info(view: CollectionView, index: IndexEntry, registry: PluginRegistry) -> IndexInfo:
    space = next(space for space in view.entry.spaces.values() if space.id == index.space)
    space_view = view.space(space)
    usable = load_all(view, space_view, index, registry)
    facts, problem = _told(usable)
    return IndexInfo(
        space=space.name,
        kind=index.kind,
        params=dict(index.params),
        seed=index.seed,
        available=not usable.notes,
        reason=usable.notes[0] if usable.notes else problem,
        provided_by=usable.parts[0].provided.owner if usable.parts else index.owner,
        coverage=coverage(view, space_view, usable),
        parts=len(index.parts),
        bytes=sum(stored_bytes_of(part.blobs) for part in index.parts),
        stats={**(facts[0] if len(facts) == 1 else {"parts": str(facts)} if facts else {}), **_measured(index)},
        automatic=index.automatic,
    )


def _measured(index: IndexEntry) -> dict[str, int | float | str]:
    """Return what was measured of the largest part, for people."""
    known = [part for part in index.parts if part.measured.curves]
    if not known:
        return {}
    measured = max(known, key=lambda part: part.count).measured
    facts: dict[str, int | float | str] = {}
    if measured.dimension:
        facts["local_dimension"] = measured.dimension / 1_000
    for stored in measured.curves:
        curve = as_curve(stored)
        points = zip(curve.efforts.tolist(), curve.recalls.tolist(), strict=True)
        told = ", ".join(f"{effort}: {recall:.4f}" for effort, recall in points)
        facts[f"recall@{stored.k} ({stored.queries} {stored.source})"] = told
    return facts


def _told(usable: Usable) -> tuple[list[dict[str, int | float | str]], str | None]:
    """Return what the parts tell of themselves, and why they do not: an index can be used without that."""
    try:
        return [border.stats(part.provided, part.index) for part in usable.parts], None
    except PluginError as error:
        log.warning("%s", error)
        return [], error.message


def coverage(view: CollectionView, space_view: SpaceView, usable: Usable) -> float:
    """Return the share of the living vectors that the usable parts of an index cover."""
    live = space_view.counts.live
    if not live:
        return 1.0 if usable.entry is not None and not usable.notes else 0.0
    dead = space_view.dead(view.tx)
    covered = 0
    for each in usable.parts:
        table = find_places(view, space_view, each.part).of(np.arange(each.part.count, dtype=np.int64))
        there = table[table >= 0]
        covered += len(there) - (0 if dead is None else int(np.count_nonzero(dead[there])))
    return covered / live
