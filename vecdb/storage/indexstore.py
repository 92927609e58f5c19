"""What a commit does with indexes: stores the blobs of a part, and changes what the catalog says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vecdb.errors import StorageError
from vecdb.storage.blobs import BlobData, lines_of, write_blobs
from vecdb.storage.failpoints import visit
from vecdb.storage.indexes import ORDINALS, IndexEntry, IndexPart, Numbers, drop_parts, find_index, pack_ordinals
from vecdb.storage.staging import settle, staged_set
from vecdb.storage.writetx import WriteTx


def part_blobs(ordinals: Numbers, first: int, stop: int, blobs: Sequence[BlobData]) -> list[BlobData]:
    """Return all that is stored of a part over these ordinals: what its type wrote, and what the engine adds."""
    if len(ordinals) == stop - first:
        return list(blobs)
    return [*blobs, BlobData(ORDINALS, pack_ordinals(ordinals, first, stop))]


def store_part(
    write: WriteTx,
    version: int,
    ordinals: Numbers,
    first: int,
    stop: int,
    blobs: Sequence[BlobData],
    *,
    staged: int = 0,
) -> IndexPart:
    """Store a new part in this commit, unless its blobs are staged already; return what the catalog is to say of it.

    Parameters
    ----------
    write : WriteTx
    version : int
        Of the type's stored form.
    ordinals : ndarray of uint64, shape (n,)
    first, stop : int
        Ordinals that the part accounts for.
    blobs : sequence of BlobData
        All of `part_blobs`.
    staged : int, default 0
        Number of the staged set that holds them; 0: they are stored now.
    """
    if staged and staged != staged_set(write.tx):
        raise StorageError(f"the blobs of set {staged} were staged, but are gone")
    if staged:
        settle(write.tx)
    else:
        write_blobs(write.tx, number := write.take_set(), blobs)
    write.dirty = True
    visit("index.stored")
    return IndexPart(staged or number, version, first, stop, len(ordinals), lines_of(blobs))


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
