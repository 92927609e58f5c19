"""Naming commits: the operations behind `Database.tag` and `Database.untag`.

A migration that is active holds a tag on the state before it, which only its end removes.
"""

from __future__ import annotations

from collections.abc import Callable

from vecdb.engine.reading import missing_tag
from vecdb.errors import ExistsError, StateError
from vecdb.storage.migrations import held_tags
from vecdb.storage.snapshot import Snapshot, check_seq
from vecdb.storage.writetx import WriteTx


def add_tag(name: str, seq: int | None) -> Callable[[WriteTx], int]:
    """Return the operation that names a commit, the newest where `seq` is None; it returns the seq."""

    def operation(write: WriteTx) -> int:
        chosen = write.counters.seq if seq is None else seq
        check_seq(write.counters, chosen)
        if name in write.catalog.tags:
            raise ExistsError(f"tag {name!r} exists", hint="Remove it with untag(name).", kind="tag", name=name)
        write.add_tag(name, chosen)
        return chosen

    return operation


def remove_tag(name: str) -> Callable[[WriteTx], None]:
    """Return the operation that removes a tag."""

    def operation(write: WriteTx) -> None:
        if name not in write.catalog.tags:
            raise missing_tag(name, write.catalog.tags)
        if name in _held(write):
            raise StateError(
                f"tag {name!r} keeps the state before a migration that is active",
                hint="It goes when the migration is finished or rolled back.",
            )
        write.remove_tag(name)

    return operation


def removable(snapshot: Snapshot) -> list[str]:
    """Return the tags that no active migration holds."""
    catalog = snapshot.state.catalog
    held = held_tags(snapshot.tx, [entry.id for entry in catalog.collections.values()])
    return [name for name in catalog.tags if name not in held]


def _held(write: WriteTx) -> set[str]:
    return set(held_tags(write.tx, [entry.id for entry in write.catalog.collections.values()]))
