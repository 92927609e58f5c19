"""Writes while a migration runs, by others than its loop.

A record that is written with a new vector gets an old one too, where it can, so that a rollback leaves nobody out. The
old encoder is the application's and belongs to its process; who writes elsewhere, or without it, is listed by the
status instead. Vectors that a search has made of old records, and is asked to keep, are the migration's own: a
rollback takes them away again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from vecdb.engine.batch import Batch, SpaceBatch, space_batch
from vecdb.engine.migration.batches import Candidate, Delivery, Wanted
from vecdb.engine.migration.encoders import Encoder
from vecdb.engine.view import CollectionView
from vecdb.storage.idkeys import id_keys
from vecdb.storage.migrations import StoredMigration
from vecdb.types import Id, Record


def completed(batch: Batch, migration: StoredMigration, encoder: Encoder) -> Batch:
    """Return the batch with vectors in the source space for records that it gives a text and a target vector alone.

    Raises
    ------
    EncoderError, DimensionError, DTypeError
        The old encoder failed for all of them, or did not return vectors; nothing is written then.
    """
    given = {part.space.id: set(part.places.tolist()) for part in batch.vectors}
    missing = sorted(given.get(migration.target, set()) - given.get(migration.source, set()))
    places = [place for place in missing if batch.texts is not None and batch.texts[place] is not None]
    if not places:
        return batch
    encoded = encoder.encode([_record(batch, place) for place in places])
    if not encoded.places:
        return batch
    part = space_batch(encoder.space, encoded.vectors, len(encoded.places), False)
    found = np.array([places[place] for place in encoded.places], np.int64)
    kept = [each for each in batch.vectors if each.space.id != migration.source]
    before = next((each for each in batch.vectors if each.space.id == migration.source), None)
    if before is None:
        return replace(batch, vectors=(*kept, replace(part, places=found)))
    joined = replace(
        part,
        places=np.concatenate([before.places, found]),
        vectors=np.concatenate([before.vectors, part.vectors]),
        scales=np.concatenate([before.scales, part.scales]),
        stored=np.concatenate([before.stored, part.stored]),
        errors=np.concatenate([before.errors, part.errors]),
    )
    return replace(batch, vectors=(*kept, joined))


def _record(batch: Batch, place: int) -> Record:
    metadata = batch.metadatas[place] if batch.metadatas is not None else {}
    text = batch.texts[place] if batch.texts is not None else None
    return Record(batch.ids[place], metadata, text, 0)


def made_by_search(
    view: CollectionView, migration: StoredMigration, ids: Sequence[Id], versions: Sequence[int], part: SpaceBatch
) -> tuple[Delivery, list[int]]:
    """Return new vectors of records as a delivery to the migration, and the places of those that it has no part in.

    Parameters
    ----------
    ids, versions : sequence
        The records as they were read; those that changed since are in neither.
    part : SpaceBatch
        One row for each.
    """
    wanted = Wanted(migration.source, migration.target)
    candidates, taken, others = [], [], []
    for place, row in enumerate(view.find_all(id_keys(ids))):
        stored = None if row is None else view.record(row)
        if row is None or stored is None or stored.version != versions[place] or wanted.lacks in stored.refs:
            continue
        if wanted.has not in stored.refs:
            others.append(place)
            continue
        taken.append(place)
        candidates.append(
            Candidate(row, stored.version, stored.refs[wanted.has], Record(ids[place], {}, None, stored.version))
        )
    mine = replace(
        part,
        places=np.arange(len(taken), dtype=np.int64),
        vectors=part.vectors[taken],
        scales=part.scales[taken],
        stored=part.stored[taken],
        errors=part.errors[taken] if len(part.errors) else part.errors,
    )
    return Delivery(candidates, mine, wanted, {}, 0.0, asked=True), others
