"""Whether the canary keeps the promise of the transform: the same measure on the rows it was judged on and on new ones.

A transform keeps reference rows that its fit has not seen. On them bridged neighbours agree with native ones to some
degree; the canary's records are a random sample that the fit has not seen either, so they must agree as well. They do
not if the encoder is another model, if it embeds something else than the records' texts, or if the reference rows were
no fair sample of the collection.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from vecdb.engine.mapping import step_map, walk
from vecdb.engine.migration.census import Census, space_numbered
from vecdb.engine.transforms import edges, find_transform
from vecdb.engine.view import CollectionView
from vecdb.engine.views import as_float32
from vecdb.paths.graph import Path, paths, preference
from vecdb.registry import PluginRegistry
from vecdb.storage.idkeys import id_keys
from vecdb.storage.migrations import StoredMigration
from vecdb.storage.transforms import read_pairs
from vecdb.types import Metric, Space

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
NEIGHBOURS: Final = 10
LEAST_ROWS: Final = 40
"""Rows below which nothing is judged: ten neighbours of a few rows agree by chance."""
MOST_ROWS: Final = 512
MARGIN: Final = 0.05
"""What the agreement may fall short of the promise besides its own error."""
_DEVIATIONS: Final = 3.0


def judge(
    view: CollectionView, migration: StoredMigration, census: Census, registry: PluginRegistry
) -> tuple[Mapping[str, float], str]:
    """Return what the canary showed, and why to pause: empty where the promise is kept or there is none."""
    source, target = space_numbered(view, migration.source), space_numbered(view, migration.target)
    path = bridge_of(view, source, target, registry)
    if path is None:
        return {}, ""
    reference = _reference(view, path, source, registry)
    fresh = _canary_rows(view, migration, census, path)
    if reference is None or min(len(fresh), len(reference[0])) < LEAST_ROWS:
        return {}, ""
    count = min(len(fresh), len(reference[0]), MOST_ROWS)
    promised = agreement(view, path, reference[0][:count], reference[1][:count], registry)
    rows = _vectors(view, source, target, census, fresh[:count])
    found = agreement(view, path, *rows, registry)
    return _compared(promised, found)


def _compared(promised: F64, found: F64) -> tuple[Mapping[str, float], str]:
    error = math.sqrt((promised.var() + found.var()) / len(found))
    measured = {
        "promised": float(promised.mean()),
        "found": float(found.mean()),
        "error": error,
        "rows": float(len(found)),
    }
    if measured["found"] >= measured["promised"] - MARGIN - _DEVIATIONS * error:
        return measured, ""
    return measured, (
        f"the canary misses the promise: bridged and native neighbours agree to {found.mean():.2f}, where the "
        f"transform's reference rows said {promised.mean():.2f}; look at the encoder and at the pairs of the fit"
    )


def bridge_of(view: CollectionView, source: Space, target: Space, registry: PluginRegistry) -> Path | None:
    """Return the path by which queries of the target are answered over vectors of the source, None without one."""
    found = list(paths(edges(view.entry, registry), target.name, source.name))
    return min(found, key=preference) if found else None


def agreement(view: CollectionView, path: Path, old: F32, new: F32, registry: PluginRegistry) -> F64:
    """Return for each row which share of its nearest native neighbours are among its bridged ones.

    Parameters
    ----------
    old, new : ndarray of float32, shapes (n, d) and (n, e)
        The same records in the source and in the target space, n > 1.
    """
    spaces = view.entry.spaces
    asked = walk(view, path.query, new, registry) if path.query else new
    stored = walk(view, path.gallery, old, registry) if path.gallery else old
    target = spaces[_start(path, view)]
    meeting = path.query[-1].end if path.query else target.name
    native = _nearest(new, new, target.metric)
    bridged = _nearest(asked, stored, spaces[meeting].metric)
    shared = (native[:, :, None] == bridged[:, None, :]).any(axis=2)
    return np.asarray(shared.mean(axis=1), np.float64)


def _start(path: Path, view: CollectionView) -> str:
    """Return the space that is asked in: where the maps of queries begin, or where those of stored vectors end."""
    return path.query[0].start if path.query else path.gallery[-1].end


def _nearest(queries: F32, rows: F32, metric: Metric) -> npt.NDArray[np.int64]:
    """Return the places of the nearest other rows, shape (n, at most `NEIGHBOURS`)."""
    scores = _scores(queries.astype(np.float64), rows.astype(np.float64), metric)
    np.fill_diagonal(scores, -np.inf)
    return np.argsort(-scores, axis=1, kind="stable")[:, : min(NEIGHBOURS, len(rows) - 1)]


def _scores(queries: F64, rows: F64, metric: Metric) -> F64:
    if metric == "dot":
        return np.asarray(queries @ rows.T)
    if metric == "l2":
        squares = (queries**2).sum(axis=1)[:, None] + (rows**2).sum(axis=1)[None, :]
        return np.asarray(2 * (queries @ rows.T) - squares)
    return np.asarray(_unit(queries) @ _unit(rows).T)


def _unit(rows: F64) -> F64:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(norms > 0, norms, 1.0))


# --- rows -------------------------------------------------------------------------------------------------


def _reference(view: CollectionView, path: Path, source: Space, registry: PluginRegistry) -> tuple[F32, F32] | None:
    """Return reference rows in source and target; those of a chain are not of the same records."""
    steps = (*path.query, *path.gallery)
    if len(steps) != 1:
        return None
    loaded, _ = step_map(view, steps[0], registry)
    if loaded.reference is None:
        return None
    first, second = loaded.reference
    return (first, second) if loaded.source.id == source.id else (second, first)


def _canary_rows(view: CollectionView, migration: StoredMigration, census: Census, path: Path) -> npt.NDArray[np.int64]:
    """Return the places of the canary's records, in random order, without those that a fit has seen."""
    seen = np.zeros(view.next_row, np.bool_)
    seen[fitted_rows(view, {step.edge.key for step in (*path.query, *path.gallery)})] = True
    places = np.flatnonzero(census.canary & ~census.pending & ~census.known & ~seen[census.rows])
    return places[np.argsort(census.noise[places], kind="stable")]


def fitted_rows(view: CollectionView, names: set[str]) -> npt.NDArray[np.int64]:
    """Return the rows of the records that these transforms were fitted on, as far as they are known and still there."""
    found: set[int] = set()
    for name in sorted(names):
        keys = id_keys(read_pairs(view.tx, find_transform(view.entry, name)))
        found.update(row for row in view.find_all(keys) if row is not None)
    return np.array(sorted(found), np.int64)


def _vectors(
    view: CollectionView, source: Space, target: Space, census: Census, places: npt.NDArray[np.int64]
) -> tuple[F32, F32]:
    records = [view.record(row) for row in census.rows[places].tolist()]
    old, new = (
        as_float32(view.space(space).vectors_of(view.tx, [record.refs[space.id] for record in records]))
        for space in (source, target)
    )
    return np.asarray(old, np.float32), np.asarray(new, np.float32)
