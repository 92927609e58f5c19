"""What a commit does with indexes: stores the blobs of a part, and changes what the catalog says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vecdb.storage.blobs import BlobData, write_blobs
from vecdb.storage.failpoints import visit
from vecdb.storage.indexes import ORDINALS, IndexEntry, IndexPart, Numbers, drop_parts, find_index, pack_ordinals
from vecdb.storage.writetx import WriteTx


def store_part(
    write: WriteTx, version: int, ordinals: Numbers, first: int, stop: int, blobs: Sequence[BlobData]
) -> IndexPart:
    """Store the blobs of a new part in this commit and return what the catalog is to say of it."""
    number = write.take_set()
    items = list(blobs)
    if len(ordinals) != stop - first:
        items.append(BlobData(ORDINALS, pack_ordinals(ordinals, first, stop)))
    lines = write_blobs(write.tx, number, items)
    write.dirty = True
    visit("index.stored")
    return IndexPart(number, version, first, stop, len(ordinals), lines)


def put_index(write: WriteTx, collection: str, index: IndexEntry) -> None:
    """Add an index to the catalog, or replace what the catalog says of it; blobs no longer named are removed."""
    entry = write.catalog.collections[collection]
    before = find_index(entry.indexes, index.id)
    kept = {part.set for part in index.parts}
    if before is not None:
        drop_parts(write.tx, [part for part in before.parts if part.set not in kept])
    others = tuple(other for other in entry.indexes if other.id != index.id)
    write.catalog = write.catalog.with_collection(replace(entry, indexes=(*others, index)))


def remove_index(write: WriteTx, collection: str, index: IndexEntry) -> None:
    """Remove an index with its blobs."""
    entry = write.catalog.collections[collection]
    drop_parts(write.tx, index.parts)
    others = tuple(other for other in entry.indexes if other.id != index.id)
    write.catalog = write.catalog.with_collection(replace(entry, indexes=others))
