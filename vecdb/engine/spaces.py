"""Adding, renaming and dropping the spaces of a collection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import numpy as np

from vecdb.engine.names import check_name, check_option
from vecdb.errors import DimensionError, ExistsError, ParameterError, StateError
from vecdb.storage.migrations import active_migration
from vecdb.storage.snapshot import entry_by_number, find_space
from vecdb.storage.state import CollectionEntry
from vecdb.storage.writetx import WriteTx
from vecdb.types import MAX_DIM, METRICS, Space

MAX_SPACES: Final = 255
"""Spaces of one collection: a record counts its references in one byte."""


def make_space(name: object, dim: object, metric: Any, dtype: Any, model: object, revision: object, role: Any) -> Space:
    """Return a space whose values are acceptable."""
    check_name("space", name)
    if isinstance(dim, bool) or not isinstance(dim, (int, np.integer)) or not 1 <= dim <= MAX_DIM:
        raise DimensionError(
            f"dim of space {name!r} is {dim!r}, expected 1 to {MAX_DIM}",
            expected=f"1 to {MAX_DIM}",
            got=dim,
            where="add_space",
        )
    check_option("metric", metric, METRICS)
    check_option("dtype", dtype, ("float32", "float16", "int8"))
    check_option("role", role, ("document", "query", "both"))
    for label, value in (("model", model), ("revision", revision)):
        if not isinstance(value, str) or len(value) > 1000:
            raise ParameterError(
                f"{label} is {value!r}, expected a str of at most 1000 characters", name=label, got=value
            )
    return Space(str(name), int(dim), metric, dtype, str(model), str(revision), role)


def add_space(collection: tuple[int, str], space: Space) -> Callable[[WriteTx], Space]:
    """Return the operation that adds a space."""

    def operation(write: WriteTx) -> Space:
        entry = entry_by_number(write.catalog, *collection)
        _refuse_taken(entry, space.name)
        if len(entry.spaces) >= MAX_SPACES:
            raise ParameterError(
                f"collection {entry.name!r} has {MAX_SPACES} spaces already",
                hint="Drop one, or use another collection.",
                name="name",
                got=space.name,
                allowed=f"at most {MAX_SPACES} spaces",
            )
        added = replace(space, id=write.catalog.next_space)
        write.add_space(entry, added)
        write.note(f"{entry.name}: add space {space.name}")
        return added

    return operation


def rename_space(collection: tuple[int, str], old: str, new: str) -> Callable[[WriteTx], Space]:
    """Return the operation that renames a space."""
    check_name("space", new)

    def operation(write: WriteTx) -> Space:
        entry = entry_by_number(write.catalog, *collection)
        renamed = replace(find_space(entry, old), name=new)
        if new != old:
            _refuse_taken(entry, new)
        spaces = {
            space.name: space for space in (renamed if known.name == old else known for known in entry.spaces.values())
        }
        write.catalog = write.catalog.with_collection(replace(entry, spaces=spaces))
        write.note(f"{entry.name}: rename space {old} to {new}")
        return renamed

    return operation


def drop_space(collection: tuple[int, str], name: str) -> Callable[[WriteTx], None]:
    """Return the operation that drops a space."""

    def operation(write: WriteTx) -> None:
        entry = entry_by_number(write.catalog, *collection)
        space = find_space(entry, name)
        active = active_migration(write.tx, entry.id)
        if active is not None and space.id in (active.source, active.target, active.aim):
            raise StateError(
                f"space {name!r} is part of migration {active.number} of collection {entry.name!r}, which is active",
                hint="Finish it or roll it back first.",
            )
        write.drop_space(entry, space)
        write.note(f"{entry.name}: drop space {name}")

    return operation


def _refuse_taken(entry: CollectionEntry, name: str) -> None:
    if name in entry.spaces:
        raise ExistsError(
            f"collection {entry.name!r} has a space {name!r}",
            hint="A new model, or a new revision, gets a space of its own.",
            kind="space",
            name=name,
        )
