"""What `check` proves of a joint space: whose its rows are, of which side, and that the right vectors made them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from vecdb.engine.joint.following import load_maps, source_of
from vecdb.engine.joint.rows import JointMaps, Side
from vecdb.engine.view import CollectionView
from vecdb.engine.views import as_float32
from vecdb.errors import PluginError, StateError
from vecdb.registry import PluginRegistry
from vecdb.storage.format import StoredRecord, decode_record
from vecdb.storage.joints import JointEntry
from vecdb.storage.records import iterate_rows
from vecdb.storage.snapshot import Snapshot
from vecdb.storage.state import CollectionEntry
from vecdb.types import Space

F32 = npt.NDArray[np.float32]

PROVED: Final = 1_024
"""Rows of a joint space that are made again and compared."""
_ROUNDED: Final = {"float32": 1e-4, "float16": 2e-3, "int8": 2e-2}
"""How far a component may be from what is made again: products of a commit's rows and of others differ in last bits."""


def problems(
    snapshot: Snapshot, entry: CollectionEntry, joint: JointEntry, registry: PluginRegistry | None
) -> Iterator[str]:
    """Yield what is wrong with a joint space; its transform need not be installed."""
    numbers = {space.id: space for space in entry.spaces.values()}
    lost = {joint.space, joint.old, joint.new} - set(numbers)
    if lost or all(each.set != joint.transform for each in entry.transforms):
        yield f"joint space {joint.space} of collection {entry.name!r} has lost a space or its transform"
        return
    view, space = CollectionView(snapshot, entry), numbers[joint.space]
    found = [
        record
        for _, key, value in iterate_rows(snapshot.tx, entry.id)
        if joint.space in (record := decode_record(key, value)).refs
    ]
    orphans = [record for record in found if source_of(joint, record) is None]
    if orphans:
        yield f"{len(orphans)} rows of joint space {space.name!r} are made from vectors that are gone"
        return
    yield from _wrong_sides(view, space, joint, found)
    if registry is not None:
        yield from _unlike(view, space, joint, found, registry)


def _wrong_sides(view: CollectionView, space: Space, joint: JointEntry, found: list[StoredRecord]) -> Iterator[str]:
    if not found:
        return
    wrong = 0
    for start in range(0, len(found), PROVED):
        part = found[start : start + PROVED]
        marks = _stored(view, space, part, space.id)[:, -1]
        wrong += int(np.count_nonzero((marks < 0) != np.array([joint.new in record.refs for record in part])))
    if wrong:
        yield f"{wrong} rows of joint space {space.name!r} are not made from the vector that their record has"


def _unlike(
    view: CollectionView, space: Space, joint: JointEntry, found: list[StoredRecord], registry: PluginRegistry
) -> Iterator[str]:
    """Make some rows again, spread over the records, and compare."""
    try:
        maps = load_maps(view, joint, registry)
    except (PluginError, StateError):
        return  # the transform cannot be used here, which its own check says
    some = found[:: max(1, len(found) // PROVED)]
    for side in ("new", "old"):
        chosen = [record for record in some if (joint.new in record.refs) == (side == "new")]
        if chosen:
            yield from _compared(view, space, maps, "new" if side == "new" else "old", chosen)


def _compared(
    view: CollectionView, space: Space, maps: JointMaps, side: Side, chosen: list[StoredRecord]
) -> Iterator[str]:
    source = maps.new if side == "new" else maps.old
    made = maps.rows(_stored(view, source, chosen, source.id), side)
    apart = np.abs(made - _stored(view, space, chosen, space.id)).max(axis=1)
    wrong = int(np.count_nonzero(apart > _ROUNDED[space.dtype]))
    if wrong:
        yield f"{wrong} of {len(chosen)} {side} rows of joint space {space.name!r} are not the images of their vectors"


def _stored(view: CollectionView, space: Space, records: list[StoredRecord], number: int) -> F32:
    return as_float32(view.space(space).vectors_of(view.tx, [record.refs[number] for record in records]))
