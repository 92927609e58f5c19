"""What a commit does with relevance filters: stores their blobs, and changes what the catalog says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from vecdb.storage.blobs import BlobData, drop_blobs, write_blobs
from vecdb.storage.failpoints import visit
from vecdb.storage.idkeys import id_key
from vecdb.storage.relevance import JUDGED, QUERIES, STATE, FilterEntry, Judgements
from vecdb.storage.states import pack_state
from vecdb.storage.writetx import WriteTx
from vecdb.types import Id

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class FilterBlobs:
    """What is stored of a relevance filter beside its catalog entry."""

    state: Mapping[str, Any]
    queries: F32
    judged: Judgements

    def blobs(self) -> list[BlobData]:
        judged = {
            "relevant": _keys(self.judged.relevant),
            "ignore": _keys(self.judged.ignore),
            "negatives": _keys(self.judged.negatives),
            "groups": np.ascontiguousarray(self.judged.groups, np.int64),
        }
        return [
            BlobData(STATE, memoryview(pack_state(self.state))),
            BlobData(QUERIES, memoryview(np.ascontiguousarray(self.queries, "<f4").tobytes())),
            BlobData(JUDGED, memoryview(pack_state(judged))),
        ]


def _keys(lists: Sequence[Sequence[Id]] | None) -> list[list[bytes]] | None:
    return None if lists is None else [[id_key(id) for id in each] for each in lists]


def store_filter(write: WriteTx, collection: str, entry: FilterEntry, blobs: FilterBlobs) -> FilterEntry:
    """Store a filter in this commit, in the place of one of the same name; return its entry, with its number."""
    number = write.take_set()
    lines = write_blobs(write.tx, number, blobs.blobs())
    visit("relevance.stored")
    stored = replace(entry, set=number, lines=lines)
    owner = write.catalog.collections[collection]
    remove_filters(write, collection, [known for known in owner.filters if known.name == entry.name])
    owner = write.catalog.collections[collection]
    write.catalog = write.catalog.with_collection(replace(owner, filters=(*owner.filters, stored)))
    return stored


def remove_filters(write: WriteTx, collection: str, entries: Sequence[FilterEntry]) -> None:
    """Remove filters with their blobs."""
    owner = write.catalog.collections[collection]
    gone = {entry.set for entry in entries}
    for number in gone:
        drop_blobs(write.tx, number)
    left = tuple(known for known in owner.filters if known.set not in gone)
    write.catalog = write.catalog.with_collection(replace(owner, filters=left))
