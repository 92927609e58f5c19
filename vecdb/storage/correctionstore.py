"""What a commit does with score corrections: stores their banks and tables, and changes what the catalog says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from vecdb.storage.blobs import BlobData, drop_blobs, write_blobs
from vecdb.storage.corrections import ORDINALS, ROWS, STATE, CorrectionEntry
from vecdb.storage.failpoints import visit
from vecdb.storage.states import pack_state
from vecdb.storage.writetx import WriteTx

Table = tuple[npt.NDArray[np.uint64], npt.NDArray[np.float32]]


def store_correction(
    write: WriteTx, collection: str, entry: CorrectionEntry, state: Mapping[str, Any], table: Table
) -> CorrectionEntry:
    """Store a correction in this commit and add it to the catalog; return its entry, which has its numbers now."""
    number = write.take_set()
    lines = write_blobs(write.tx, number, [BlobData(STATE, memoryview(pack_state(state)))])
    visit("correction.stored")
    stored = _with_table(write, replace(entry, set=number, lines=lines), table)
    owner = write.catalog.collections[collection]
    write.catalog = write.catalog.with_collection(replace(owner, corrections=(*owner.corrections, stored)))
    return stored


def replace_table(write: WriteTx, collection: str, entry: CorrectionEntry, table: Table) -> CorrectionEntry:
    """Store another table of a correction in the place of the one it has."""
    if entry.table:
        drop_blobs(write.tx, entry.table)
    stored = _with_table(write, replace(entry, table=0, rows=0, table_lines=()), table)
    owner = write.catalog.collections[collection]
    changed = tuple(stored if known.set == entry.set else known for known in owner.corrections)
    write.catalog = write.catalog.with_collection(replace(owner, corrections=changed))
    return stored


def remove_corrections(write: WriteTx, collection: str, entries: Sequence[CorrectionEntry]) -> None:
    """Remove corrections with their blobs."""
    owner = write.catalog.collections[collection]
    gone = {entry.set for entry in entries}
    for entry in entries:
        for number in entry.sets:
            drop_blobs(write.tx, number)
    left = tuple(known for known in owner.corrections if known.set not in gone)
    write.catalog = write.catalog.with_collection(replace(owner, corrections=left))


def _with_table(write: WriteTx, entry: CorrectionEntry, table: Table) -> CorrectionEntry:
    ordinals, rows = table
    if not len(ordinals):
        return entry
    number = write.take_set()
    blobs = [
        BlobData(ORDINALS, memoryview(ordinals.astype("<u8").tobytes())),
        BlobData(ROWS, memoryview(np.ascontiguousarray(rows, "<f4").tobytes())),
    ]
    lines = write_blobs(write.tx, number, blobs)
    return replace(entry, table=number, rows=len(ordinals), table_lines=lines)
