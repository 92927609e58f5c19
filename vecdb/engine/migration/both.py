"""Writes while a migration runs: a record that is written with a new vector gets an old one too, where it can.

So that a rollback leaves nobody out. The old encoder is the application's and belongs to its process; who writes
elsewhere, or without it, is listed by the status instead.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vecdb.engine.batch import Batch, space_batch
from vecdb.engine.migration.encoders import Encoder
from vecdb.storage.migrations import StoredMigration
from vecdb.types import Record


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
