"""A collection as a commit in the making will leave it: its counts, and what of it was written so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy.typing as npt

from vecdb.storage.state import CollectionEntry, CollectionState, SpaceCounts


class Appended(NamedTuple):
    """Vectors as they were stored in this commit: the number of their space, the first ordinal, a row for each."""

    space: int
    first: int
    vectors: npt.NDArray[Any]


@dataclass(slots=True)
class Pending:
    """A collection as this commit will leave it."""

    entry: CollectionEntry
    before: CollectionState
    next_row: int
    live: int
    delta: int
    spaces: dict[int, SpaceCounts]
    changed: set[int] = field(default_factory=set)
    cost: int = 0
    touched: dict[int, bytes | None] = field(default_factory=dict)
    """Where the collection has joint spaces: rows that were written, and what was stored there before, if anything."""
    appended: list[Appended] = field(default_factory=list)
    """And vectors that were appended, in order."""

    def state(self, version: int) -> CollectionState:
        return CollectionState(version, self.next_row, self.live, self.delta, self.spaces)
