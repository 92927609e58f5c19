"""One metadata field of every record as numbers: records with equal values have equal numbers.

Remembered while a state of the collection is the newest; four bytes a record. Values are equal as in conditions: 1 and
1.0 are, 1 and true are not; lists and dicts are equal as a whole. Records without the field and those where it is null
are alike, as in a GROUP BY of SQL.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from vecdb.engine.view import CollectionView
from vecdb.engine.where.condition import value_at
from vecdb.storage.columns import MISSING
from vecdb.storage.records import read_metadata

Numbers = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Field:
    """A field of all records.

    Attributes
    ----------
    numbers : ndarray of int32, shape (rows,)
        By record row; 0 for those without a value.
    values : list
        By number.
    """

    numbers: Numbers
    values: list[Any]


@dataclass(slots=True)
class _Memory:
    known: dict[tuple[int, str], tuple[Any, Field]] = field(default_factory=dict)

    def keep(self, sets: Container[int]) -> None:
        """Stay: what is known names the columns that it was made of."""

    def unmap(self) -> None:
        """Stay: nothing lies in the map."""


def field_of(view: CollectionView, path: str) -> Field:
    """Return a field of every record at the view's seq."""
    columns = view.snapshot.columns(view.number)
    caches = view.snapshot.state.loaded_indexes
    memory: _Memory = caches.get("fields") or caches.setdefault("fields", _Memory())
    known = memory.known.get((view.number, path))
    if known is None or known[0] is not columns:
        if len(memory.known) > 16:
            memory.known.clear()
        known = memory.known[(view.number, path)] = columns, _current(view, path)
    return known[1] if not view.is_past else _past(view, path, known[1])


def key_of(value: Any) -> Any:
    """Return what values are compared by: equal keys, equal values."""
    kind = type(value)
    if value is MISSING or value is None:
        return None
    if kind is int or kind is float:
        return value if value == value else ("nan",)
    if kind is str:
        return "s", value
    if kind is bool:
        return "b", value
    if isinstance(value, Mapping):
        return "d", tuple(sorted((str(name), key_of(part)) for name, part in value.items()))
    return "l", tuple(key_of(part) for part in value)


class _Numbering:
    """Gives numbers to values in the order in which they come."""

    def __init__(self, values: list[Any]) -> None:
        self.values = values
        self._known = {key_of(value): number for number, value in enumerate(values)}

    def of(self, values: Iterable[Any]) -> list[int]:
        found = []
        for value in values:
            key = key_of(value)
            number = self._known.get(key)
            if number is None:
                number = self._known[key] = len(self.values)
                self.values.append(value)
            found.append(number)
        return found


def _current(view: CollectionView, path: str) -> Field:
    numbers = np.zeros(view.snapshot.counts(view.number).next_row, np.int32)
    numbering, parts = _Numbering([None]), tuple(path.split("."))
    columns = view.snapshot.columns(view.number)
    for chunk in columns.chunks:
        fresh = np.ones(len(chunk.columns), np.bool_) if chunk.fresh is None else chunk.fresh
        rows = chunk.columns.rows[fresh].astype(np.int64)
        if chunk.columns.covers(path):
            values = [value for value, valid in zip(chunk.columns.values(path), fresh.tolist(), strict=True) if valid]
        else:
            values = [value_at(read_metadata(view.tx, view.number, row), parts) for row in rows.tolist()]
        numbers[rows] = numbering.of(values)
    loose = {row: value_at(metadata, parts) for row, (_, metadata) in columns.delta.items()}
    if loose:
        numbers[list(loose)] = numbering.of(loose.values())
    return Field(numbers, numbering.values)


def _past(view: CollectionView, path: str, now: Field) -> Field:
    """Return a field as it was: rows that changed since are read from their pre-images."""
    rows, parts = view.changed_rows(), tuple(path.split("."))
    if not rows:
        return now
    numbering, numbers = _Numbering(list(now.values)), now.numbers.copy()
    numbers[rows] = numbering.of(value_at(view.metadata(row), parts) for row in rows)
    return Field(numbers, numbering.values)
