"""Storing what corrections keep of rows that came since they were fitted: no other process has to compute it again."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np

from vecdb.engine.corrections.stored import load_correction, put_table
from vecdb.engine.corrections.tables import by_banks, table_of
from vecdb.engine.view import CollectionView
from vecdb.errors import CancelledError
from vecdb.storage.corrections import read_table
from vecdb.storage.snapshot import Snapshot
from vecdb.storage.writetx import WriteTx
from vecdb.types import CancelCheck

Collection = tuple[int, str]
Step = Callable[[WriteTx], bool]


def keep_tables(
    read: Callable[[], AbstractContextManager[Snapshot]],
    maintain: Callable[[Step], bool],
    collection: Collection,
    cancel: CancelCheck | None = None,
) -> int:
    """Store the tables of a collection's corrections that do not know every vector; return how many that were."""
    stored = 0
    for number in _numbers(read, collection):
        if cancel is not None and cancel():
            raise CancelledError("optimize was cancelled; the steps that were done stay done")
        step = _due(read, collection, number)
        if step is not None:
            stored += maintain(step)
    return stored


def _numbers(read: Callable[[], AbstractContextManager[Snapshot]], collection: Collection) -> list[int]:
    with read() as snapshot:
        entries = snapshot.state.catalog.collections.values()
        return [each.set for entry in entries if entry.id == collection[0] for each in entry.corrections]


def _due(read: Callable[[], AbstractContextManager[Snapshot]], collection: Collection, number: int) -> Step | None:
    """Return the step that stores a longer table, None where the stored one knows every vector."""
    with read() as snapshot:
        entries = snapshot.state.catalog.collections.values()
        owner = next((entry for entry in entries if entry.id == collection[0]), None)
        entry = None if owner is None else next((each for each in owner.corrections if each.set == number), None)
        if owner is None or entry is None:
            return None
        view = CollectionView(snapshot, owner)
        loaded = load_correction(snapshot, owner, entry)
        space_view = view.space(loaded.space)
        if not len(space_view) or not loaded.kind.stored:
            return None
        table = table_of(view, space_view, loaded, by_banks(view, space_view, loaded, loaded.banks))
        if bool(np.isin(table.ordinals, read_table(snapshot.tx, entry)[0]).all()):
            return None
    return put_table(collection, number, entry.rows, (table.ordinals, table.rows))
