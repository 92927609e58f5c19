"""In which order the records of a migration are embedded: the random canary first, then what the policy says.

The facts that a policy is given are made of what lies in the file, so that a migration that was killed goes on in the
order in which it would have gone on. Rules: docs/reference/backfill-contract.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vecdb.contracts.backfill import BackfillFacts, BackfillPolicy
from vecdb.contracts.params import settle_stored
from vecdb.engine import transformborder as border
from vecdb.engine.migration.census import Census, space_numbered
from vecdb.engine.migration.traffic import traffic
from vecdb.engine.migration.verdict import fitted_rows
from vecdb.engine.pairing import directed
from vecdb.engine.transforms import Loaded, load_transform, unavailable
from vecdb.engine.view import CollectionView
from vecdb.engine.views import as_float32
from vecdb.errors import PluginContractError, StateError
from vecdb.registry import PluginRegistry
from vecdb.storage.migrations import BRIDGING, StoredMigration
from vecdb.types import Metric

F32 = npt.NDArray[np.float32]
NEIGHBOURS: Final = 5
MAX_ANCHORS: Final = 2_048
"""Records that stand for those the transform was fitted on: enough for a distance, and a bounded matrix product."""
_CHUNK: Final = 2_048
MAX_ATTEMPTS: Final = 3
"""After so many a record that cannot be embedded is passed over, until a run with ``retry_failed``."""

Collect = Callable[[CollectionView, StoredMigration, Census, PluginRegistry], npt.NDArray[Any] | None]


def waiting(census: Census, migration: StoredMigration) -> npt.NDArray[np.bool_]:
    """Return which records still wait for a vector and have not failed too often."""
    given_up = [ordinal for ordinal, attempts, _ in migration.failed if attempts >= MAX_ATTEMPTS]
    return census.pending & ~np.isin(census.ordinals, np.array(given_up, np.uint64))


def next_rows(
    view: CollectionView,
    migration: StoredMigration,
    census: Census,
    registry: PluginRegistry,
    collect: Mapping[str, Collect],
) -> npt.NDArray[np.int64]:
    """Return the places in the census that are next, in order: all of the canary, or all that is left."""
    pending = waiting(census, migration)
    if migration.state == BRIDGING:
        chosen = np.flatnonzero(pending & census.canary)
        return chosen[np.argsort(census.noise[chosen], kind="stable")]
    if not pending.any():
        return np.empty(0, np.int64)
    provided = registry.find("backfill policy", migration.policy)
    policy: BackfillPolicy = provided.thing
    facts = _facts(view, migration, census, pending, policy, registry, collect)
    params = settle_stored(f"backfill policy {policy.name!r}", policy.parameters, migration.params)
    found = np.asarray(policy.order(facts, params))
    _check_order(found, pending, provided.plugin, provided.distribution, policy.name)
    return found.astype(np.int64)


def changes_with_traffic(migration: StoredMigration, registry: PluginRegistry) -> bool:
    """Whether the policy is to be asked again after some batches, because searches go on meanwhile."""
    return "traffic" in registry.find("backfill policy", migration.policy).thing.needs


def _check_order(
    found: npt.NDArray[Any], pending: npt.NDArray[np.bool_], plugin: str, distribution: str | None, name: str
) -> None:
    """A policy that leaves out, doubles or invents records would never end, or end too early."""
    right = found.ndim == 1 and found.dtype.kind in "iu"
    if right and np.array_equal(np.sort(found), np.flatnonzero(pending)):
        return
    raise PluginContractError(
        f"backfill policy {name!r} did not return each of {int(pending.sum())} pending records once",
        hint="Its author can find out why with `vecdb check-plugin`; choose another policy meanwhile.",
        plugin=plugin,
        distribution=distribution,
        rule="O1",
        problem="order",
    )


def _facts(
    view: CollectionView,
    migration: StoredMigration,
    census: Census,
    pending: npt.NDArray[np.bool_],
    policy: BackfillPolicy,
    registry: PluginRegistry,
    collect: Mapping[str, Collect],
) -> BackfillFacts:
    known: dict[str, Any] = {}
    for name in sorted(policy.needs):
        known[name] = collect[name](view, migration, census, registry) if name in collect else None
        if known[name] is None:
            raise StateError(
                f"backfill policy {policy.name!r} needs to know {name}, which nothing here says",
                hint="Choose another policy, or fit a transform that predicts its error first.",
            )
    arrays = {"ordinals": census.ordinals, "pending": pending, "noise": census.noise, **known}
    for array in arrays.values():
        array.setflags(write=False)
    return BackfillFacts(**arrays)


# --- novelty ----------------------------------------------------------------------------------------------


def novelty(view: CollectionView, migration: StoredMigration, census: Census, registry: PluginRegistry) -> F32:
    """Return the mean distance of each record to its five nearest among those that transforms were fitted on.

    Where that is not known they are the records that had both vectors before the migration began, and the canary: fits
    are made of the first, or of a random sample like the second. With none of them every record is equally new.
    """
    space = space_numbered(view, migration.source)
    anchors = _anchors(view, migration, census)
    found = np.zeros(len(census.ordinals), np.float32)
    if not len(anchors):
        return found
    space_view = view.space(space)

    def vectors(places: npt.NDArray[np.int64]) -> F32:
        return _comparable(space_view.gather(view.tx, census.positions[places]), space.metric)

    known = vectors(anchors)
    for start in range(0, len(found), _CHUNK):
        places = np.arange(start, min(start + _CHUNK, len(found)), dtype=np.int64)
        found[places] = _mean_distance(vectors(places), known)
    return found


def _anchors(view: CollectionView, migration: StoredMigration, census: Census) -> npt.NDArray[np.int64]:
    """Return the places of records that stand for the fit; of many a random sample, the same each time."""
    between = {migration.source, migration.target}
    names = {each.name for each in view.entry.transforms if {each.source, each.target} == between}
    fitted = np.zeros(view.next_row, np.bool_)
    fitted[fitted_rows(view, names)] = True
    places = np.flatnonzero(fitted[census.rows])
    if not len(places):
        places = np.flatnonzero((census.known | census.canary) & ~census.pending)
    return np.sort(places[np.argsort(census.noise[places], kind="stable")[:MAX_ANCHORS]])


def _comparable(vectors: npt.NDArray[Any], metric: Metric) -> F32:
    given = vectors.astype(np.float32)
    if metric != "cosine":
        return given
    norms = np.linalg.norm(given, axis=1, keepdims=True)
    return np.asarray(given / np.where(norms > 0, norms, 1), np.float32)


def _mean_distance(vectors: F32, anchors: F32) -> F32:
    squared = (
        np.einsum("nd,nd->n", vectors, vectors)[:, None]
        + np.einsum("nd,nd->n", anchors, anchors)[None, :]
        - 2 * (vectors @ anchors.T)
    )
    nearest = np.partition(squared, min(NEIGHBOURS, squared.shape[1]) - 1, axis=1)[:, :NEIGHBOURS]
    return np.asarray(np.sqrt(np.maximum(nearest, 0)).mean(axis=1), np.float32)


# --- uncertainty ------------------------------------------------------------------------------------------


def uncertainty(
    view: CollectionView, migration: StoredMigration, census: Census, registry: PluginRegistry
) -> F32 | None:
    """Return what a transform of stored vectors from source to target predicts of its own error; None without one."""
    for each in view.entry.transforms:
        if (each.source, each.target) != (migration.source, migration.target) or unavailable(each, registry):
            continue
        loaded = load_transform(view.snapshot, view.entry, each, registry)
        found = _predicted(view, loaded, census)
        if found is not None:
            return found
    return None


def _predicted(view: CollectionView, loaded: Loaded, census: Census) -> F32 | None:
    space_view = view.space(loaded.source)
    parts = []
    for start in range(0, len(census.positions), _CHUNK):
        rows = as_float32(space_view.gather(view.tx, census.positions[start : start + _CHUNK]))
        with border.guarded(loaded.provided, "uncertainty"):
            part = loaded.transform.uncertainty(np.ascontiguousarray(directed(rows, loaded.source.metric)))
        if part is None:
            return None
        if np.shape(part) != (len(rows),) or not np.isfinite(part).all():
            raise border.broken(loaded.provided, "C9", "uncertainty is not one finite number for each row")
        parts.append(part.astype(np.float32))
    return np.concatenate(parts) if parts else np.empty(0, np.float32)


COLLECT: Final[Mapping[str, Collect]] = {"novelty": novelty, "traffic": traffic, "uncertainty": uncertainty}
"""How each fact is found."""
