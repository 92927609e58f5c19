"""What a commit does with transforms: stores their blobs, and changes what the catalog says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from vecdb.storage.blobs import BlobData, drop_blobs, write_blobs
from vecdb.storage.failpoints import visit
from vecdb.storage.format import pack
from vecdb.storage.idkeys import id_key
from vecdb.storage.states import pack_state
from vecdb.storage.transforms import PAIRS, SOURCE, STATE, TARGET, TransformEntry
from vecdb.storage.writetx import WriteTx
from vecdb.types import Id

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TransformBlobs:
    """What is stored of a transform beside its catalog entry."""

    state: Mapping[str, Any]
    source: F32 | None = None
    target: F32 | None = None
    pairs: Sequence[Id] = ()

    def blobs(self) -> list[BlobData]:
        found = [BlobData(STATE, memoryview(pack_state(self.state)))]
        for name, rows in ((SOURCE, self.source), (TARGET, self.target)):
            if rows is not None:
                found.append(BlobData(name, memoryview(np.ascontiguousarray(rows, "<f4").tobytes())))
        if self.pairs:
            found.append(BlobData(PAIRS, memoryview(pack([id_key(id) for id in self.pairs]))))
        return found


def store_transform(write: WriteTx, collection: str, entry: TransformEntry, blobs: TransformBlobs) -> TransformEntry:
    """Store a transform in this commit and add it to the catalog; return its entry, which has its number now."""
    number = write.take_set()
    lines = write_blobs(write.tx, number, blobs.blobs())
    visit("transform.stored")
    stored = replace(entry, set=number, lines=lines)
    owner = write.catalog.collections[collection]
    write.catalog = write.catalog.with_collection(replace(owner, transforms=(*owner.transforms, stored)))
    return stored


def change_transform(write: WriteTx, collection: str, entry: TransformEntry) -> None:
    """Replace what the catalog says of a transform; its blobs stay."""
    owner = write.catalog.collections[collection]
    changed = tuple(entry if known.set == entry.set else known for known in owner.transforms)
    write.catalog = write.catalog.with_collection(replace(owner, transforms=changed))


def remove_transforms(write: WriteTx, collection: str, entries: Sequence[TransformEntry]) -> None:
    """Remove transforms with their blobs, and joint spaces whose rows they made."""
    owner = write.catalog.collections[collection]
    gone = {entry.set for entry in entries}
    for joint in owner.joints:
        if joint.transform in gone:
            owner = write.drop_joint(owner, joint)
    for number in gone:
        drop_blobs(write.tx, number)
    left = tuple(known for known in owner.transforms if known.set not in gone)
    write.catalog = write.catalog.with_collection(replace(owner, transforms=left))
