"""Vectors of a space in order of age, given to the doctor; what it finds, told by records."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from vecdb.engine.doctor import examine
from vecdb.engine.names import check_count
from vecdb.errors import CancelledError
from vecdb.types import CancelCheck, Id, Space
from vecdb.verdicts import Diagnosis

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Protocol

    from vecdb.types import Record

    class Readable(Protocol):
        """What is read of a collection."""

        def scan(self, *, vectors: list[str]) -> Iterator[Record]: ...
        def vector_order(self, space: str) -> list[Id]: ...


def diagnose(collection: Readable, space: Space, seed: int, cancel: CancelCheck | None) -> Diagnosis:
    """Return what one space seems to hold.

    Raises
    ------
    CancelledError
    """
    if cancel is not None and cancel():
        raise CancelledError("the doctor was told to stop")
    ids, rows = _by_age(collection, space)
    found = examine(rows, space.metric, seed=check_count("seed", seed, 0))
    stretches = tuple(
        (each.model, each.stop - each.start, ids[each.start], ids[each.stop - 1])
        for each in found.stretches
        if each.stop > each.start
    )
    return Diagnosis(space.name, len(ids), found.models, stretches, found.mixed, found.note)


def _by_age(collection: Readable, space: Space) -> tuple[list[Id], npt.NDArray[np.float32]]:
    """Return ids and vectors, the oldest first; what is written meanwhile is left out."""
    place = {id: row for row, id in enumerate(collection.vector_order(space.name))}
    rows = np.empty((len(place), space.dim), np.float32)
    there = np.zeros(len(place), bool)
    for record in collection.scan(vectors=[space.name]):
        row = place.get(record.id)
        if row is not None and space.name in record.vectors:
            rows[row], there[row] = record.vectors[space.name], True
    return [id for id, row in place.items() if there[row]], rows[there]
