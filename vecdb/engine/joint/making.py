"""Adding a joint space to a collection, filling it with rows of the records that are there, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from vecdb.engine.joint.following import Follower, append, refer, source_of
from vecdb.engine.joint.rows import EXTRA, MARK, WEIGHT, new_side
from vecdb.engine.spaces import add_space, make_space
from vecdb.engine.transforms import find_transform, load_transform
from vecdb.engine.view import CollectionView
from vecdb.errors import ParameterError
from vecdb.registry import PluginRegistry
from vecdb.storage.failpoints import visit
from vecdb.storage.format import decode_record
from vecdb.storage.joints import JointEntry, joint_of
from vecdb.storage.records import iterate_rows
from vecdb.storage.snapshot import entry_by_number
from vecdb.storage.writetx import WriteTx
from vecdb.types import Space

Key = tuple[int, str]

FILL_ROWS: Final = 2_048
"""Records of one commit while a joint space is filled."""


def plan_joint(
    view: CollectionView, name: object, transform: object, dtype: Any, registry: PluginRegistry
) -> tuple[Space, JointEntry]:
    """Return a joint space that can be added, its number still to be given.

    Raises
    ------
    UnknownNameError
        There is no such transform.
    ParameterError
        It makes no joint space that keeps new vectors whole, or not of cosine spaces.
    PluginMissingError, StateError
        It cannot be used here.
    """
    entry = find_transform(view.entry, transform)
    if not entry.joint:
        raise ParameterError(
            f"transform {entry.name!r} is of kind {entry.kind!r}, which leads to no joint space",
            hint="Fit one of kind 'bt2' or 'oca'.",
            name="transform",
            got=entry.kind,
            allowed="a joint transform",
        )
    loaded = load_transform(view.snapshot, view.entry, entry, registry)
    new = new_side(loaded)
    old = loaded.source if new.id == loaded.target.id else loaded.target
    model = f"joint space of {old.model or old.name} and {new.model or new.name} by {entry.name}"
    dim = int(loaded.transform.target_dim) + EXTRA
    space = make_space(name, dim, "dot", dtype, model[:1000], "", "document")
    return space, JointEntry(0, old.id, new.id, entry.set, MARK, WEIGHT)


def add_joint(collection: Key, space: Space, joint: JointEntry, transform: str) -> Callable[[WriteTx], Space]:
    """Return the operation that adds a joint space without rows."""
    add = add_space(collection, space)

    def operation(write: WriteTx) -> Space:
        entry = entry_by_number(write.catalog, *collection)
        find_transform(entry, transform)  # it may have been dropped meanwhile
        if any(each.transform == joint.transform for each in entry.joints):
            raise ParameterError(
                f"collection {entry.name!r} has a joint space of transform {transform!r}",
                hint="Drop it first with drop_space().",
                name="transform",
                got=transform,
            )
        added = add(write)
        entry = entry_by_number(write.catalog, *collection)
        joints = (*entry.joints, replace(joint, space=added.id))
        write.catalog = write.catalog.with_collection(replace(entry, joints=joints))
        visit("joint.added")
        return added

    return operation


def fill_some(collection: Key, number: int, start: int, follower: Follower) -> Callable[[WriteTx], int | None]:
    """Return the operation that gives some records their rows in joint space `number`, from record row `start` on.

    It returns where to go on, None behind the last record, or where the space was dropped.
    """

    def operation(write: WriteTx) -> int | None:
        entry = entry_by_number(write.catalog, *collection)
        joint = joint_of(entry.joints, number)
        if joint is None:
            return None
        rows, ends = _waiting(write, entry.id, joint, start)
        if rows:
            _fill(write, collection, joint, rows, follower)
            visit("joint.filled")
        return ends

    return operation


def _waiting(write: WriteTx, collection: int, joint: JointEntry, start: int) -> tuple[list[int], int | None]:
    """Return the next records that wait for a row, and where to go on."""
    found: list[int] = []
    for row, key, value in iterate_rows(write.tx, collection, start):
        record = decode_record(key, value)
        if joint.space not in record.refs and source_of(joint, record) is not None:
            if len(found) == FILL_ROWS:
                return found, row
            found.append(row)
    return found, None


def _fill(write: WriteTx, collection: Key, joint: JointEntry, rows: Sequence[int], follower: Follower) -> None:
    pending = write.pending(entry_by_number(write.catalog, *collection))
    records = []
    for row in rows:
        value, record = write.read(pending, row)
        write.remember(pending, row, value)
        records.append(record)
    maps = follower.maps(write, pending, joint)
    sources = [source_of(joint, record) for record in records]
    ordinals = append(write, pending, joint, rows, sources, maps, follower)
    refer(write, pending, joint, rows, records, ordinals)
    write.note(f"{collection[1]}: {len(rows)} rows of a joint space")


def waiting_in(view: CollectionView, joint: JointEntry) -> int:
    """Return how many records have a vector that their joint row could be made from, and no row."""
    old, new, mine = (_owners(view, number) for number in (joint.old, joint.new, joint.space))
    return len(np.setdiff1d(np.union1d(old, new), mine, assume_unique=True))


def _owners(view: CollectionView, number: int) -> Any:
    space = next(each for each in view.entry.spaces.values() if each.id == number)
    space_view = view.space(space)
    hidden = view.hidden(space_view)
    rows = space_view.rows(view.tx)
    return rows if hidden is None else rows[~hidden]
