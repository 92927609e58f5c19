"""A database as plain values: dicts of records, one state a commit, every rule written once more from its description.

What the stateful machine (vecdb/testing/stateful.py) holds the store against. Nothing here reads a database or shares
code with it: `where`, scores and their order, versions and history are computed from the documented rules alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from vecdb.errors import (
    ConflictError,
    ExistsError,
    RecordExistsError,
    RecordMissingError,
    SpaceMissingError,
    VectorMissingError,
)
from vecdb.types import Id, Metric

__all__ = ["Entry", "ModelSpace", "State", "Write", "holds", "score"]

Vector = npt.NDArray[Any]


# --- values -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ModelSpace:
    """A space; `number` tells one that was dropped and added anew from the first."""

    number: int
    dim: int
    metric: Metric
    dtype: Literal["float32", "float16"] = "float32"

    def vector(self, seed: int) -> Vector:
        """Return the vector of a seed, as stored: small seeds give small integers, so that scores tie."""
        return _vector(seed, self.dim, self.dtype)


@functools.lru_cache(maxsize=256)
def _vector(seed: int, dim: int, dtype: str) -> Vector:
    rng = np.random.default_rng((seed, dim))
    values = rng.integers(-2, 3, dim) if seed < 24 else rng.standard_normal(dim)
    if not values.any():
        values[0] = 1
    vector = np.asarray(values, dtype=dtype)
    vector.setflags(write=False)  # everybody gets the same one
    return vector


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A record at one version. Compared by identity: every write makes a new one.

    Attributes
    ----------
    row : int
        Place in record order.
    vectors : mapping of int to (int, ndarray)
        Number of the space -> ordinal and vector.
    """

    row: int
    version: int
    metadata: Mapping[str, Any]
    text: str | None
    vectors: Mapping[int, tuple[int, Vector]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Write:
    """The arguments of one write, with seeds in the place of vectors.

    Attributes
    ----------
    seeds : mapping of str to sequence of int or None
        Space -> one seed for each id, None where there is no vector.
    """

    ids: Sequence[Id]
    seeds: Mapping[str, Sequence[int | None]] = field(default_factory=dict)
    metadata: Sequence[Mapping[str, Any]] | None = None
    texts: Sequence[str | None] | None = None
    merge: bool = False
    if_version: Sequence[int | None] | None = None


@dataclass(frozen=True, slots=True)
class State:
    """Everything one commit holds. Methods return the next state; errors are those of the store, with other words."""

    records: Mapping[Id, Entry] = field(default_factory=dict)
    spaces: Mapping[str, ModelSpace] = field(default_factory=dict)
    next_row: int = 0
    next_ordinal: Mapping[int, int] = field(default_factory=dict)
    next_space: int = 1

    # --- spaces ---

    def space(self, name: str) -> ModelSpace:
        """Return a space by name."""
        if name not in self.spaces:
            raise SpaceMissingError(f"the model has no space {name!r}", name=name)
        return self.spaces[name]

    def add_space(self, name: str, dim: int, metric: Metric, dtype: Literal["float32", "float16"]) -> State:
        """Add a space."""
        self._refuse_taken(name)
        added = ModelSpace(self.next_space, dim, metric, dtype)
        return replace(self, spaces={**self.spaces, name: added}, next_space=self.next_space + 1)

    def rename_space(self, old: str, new: str) -> State:
        """Give a space another name."""
        self.space(old)
        if new != old:
            self._refuse_taken(new)
        return replace(self, spaces={new if name == old else name: space for name, space in self.spaces.items()})

    def drop_space(self, name: str) -> State:
        """Remove a space; the vectors stay in the entries, where nothing names them."""
        self.space(name)
        return replace(self, spaces={other: space for other, space in self.spaces.items() if other != name})

    def _refuse_taken(self, name: str) -> None:
        if name in self.spaces:
            raise ExistsError(f"the model has a space {name!r}", kind="space", name=name)

    def seen_as_of(self, past: State) -> State:
        """Return what `as_of` shows of a past state: its records, under the spaces of this one."""
        return replace(past, spaces=self.spaces)

    # --- records ---

    def upsert(self, write: Write) -> State:
        """Write records, new or not."""
        vectors = self._vectors(write)
        self._check_versions(write)
        return self._put(write, vectors)

    def insert(self, write: Write) -> State:
        """Write records that must be new."""
        vectors = self._vectors(write)
        there = [key for key in write.ids if key in self.records]
        if there:
            raise RecordExistsError(f"the model has {there}", ids=there)
        return self._put(write, vectors)

    def set_vectors(self, space: str, write: Write) -> State:
        """Give records that must be there a vector."""
        vectors = self._vectors(replace(write, seeds={space: write.seeds[space]}))
        self._require(write.ids)
        return self._put(Write(write.ids, merge=True), vectors)

    def set_metadata(self, write: Write) -> State:
        """Replace or merge the metadata of records that must be there."""
        self._require(write.ids)
        given = write.metadata or [{} for _ in write.ids]
        if write.merge:
            given = [{**self.records[key].metadata, **new} for key, new in zip(write.ids, given, strict=True)]
        entries = {key: self._next(key, metadata=new) for key, new in zip(write.ids, given, strict=True)}
        return replace(self, records={**self.records, **entries})

    def delete(self, ids: Iterable[Id], *, missing_ok: bool = False) -> State:
        """Remove records."""
        gone = set(ids)
        if not missing_ok:
            self._require(gone)
        return replace(self, records={key: entry for key, entry in self.records.items() if key not in gone})

    def matching(self, where: Mapping[str, Any]) -> list[Id]:
        """Return the ids that satisfy a condition, in record order."""
        return [key for key, entry in self.in_order() if holds(where, entry.metadata)]

    def in_order(self) -> list[tuple[Id, Entry]]:
        """Return ids and entries in record order."""
        return sorted(self.records.items(), key=lambda item: item[1].row)

    def _require(self, ids: Iterable[Id]) -> None:
        absent = [key for key in ids if key not in self.records]
        if absent:
            raise RecordMissingError(f"the model has no {absent}", ids=absent)

    def _check_versions(self, write: Write) -> None:
        for key, expected in zip(write.ids, write.if_version or [None] * len(write.ids), strict=True):
            found = self.records[key].version if key in self.records else 0
            if expected is not None and expected != found:
                raise ConflictError(f"the model has version {found} of {key!r}", id=key, expected=expected, found=found)

    def _vectors(self, write: Write) -> dict[int, list[Vector | None]]:
        spaces = {name: self.space(name) for name in write.seeds}
        return {
            spaces[name].number: [None if seed is None else spaces[name].vector(seed) for seed in seeds]
            for name, seeds in write.seeds.items()
        }

    def _put(self, write: Write, vectors: Mapping[int, Sequence[Vector | None]]) -> State:
        ordinals = dict(self.next_ordinal)
        born: list[dict[int, tuple[int, Vector]]] = [{} for _ in write.ids]
        for number, column in vectors.items():
            for place, vector in enumerate(column):
                if vector is not None:
                    born[place][number] = (ordinals.get(number, 0), vector)
                    ordinals[number] = ordinals.get(number, 0) + 1
        records, next_row = dict(self.records), self.next_row
        for place, key in enumerate(write.ids):
            records[key] = self._written(write, place, next_row, born[place])
            next_row += key not in self.records
        return replace(self, records=records, next_row=next_row, next_ordinal=ordinals)

    def _written(self, write: Write, place: int, new_row: int, born: Mapping[int, tuple[int, Vector]]) -> Entry:
        """Return the record that a write makes of what there was; with `merge` what is not given stays."""
        old = self.records.get(write.ids[place])
        metadata = dict(write.metadata[place]) if write.metadata is not None else {}
        text = write.texts[place] if write.texts is not None else None
        if old is None:
            return Entry(new_row, 1, metadata, text, born)
        if not write.merge:
            return Entry(old.row, old.version + 1, metadata, text, born)
        kept_text = text if text is not None else old.text
        return Entry(old.row, old.version + 1, {**old.metadata, **metadata}, kept_text, {**old.vectors, **born})

    def _next(self, key: Id, **changes: Any) -> Entry:
        return replace(self.records[key], version=self.records[key].version + 1, **changes)

    # --- search ---

    def search(
        self, space: str, query: Vector, where: Mapping[str, Any] | None = None, without: Id | None = None
    ) -> list[tuple[Id, np.float32]]:
        """Return every id with a vector in `space` and its score, best first; ties by age of the vector."""
        chosen = self.space(space)
        found = [
            (entry.vectors[chosen.number][0], key, score(chosen.metric, query, entry.vectors[chosen.number][1]))
            for key, entry in self.records.items()
            if chosen.number in entry.vectors and key != without
            if where is None or holds(where, entry.metadata)
        ]
        return [(key, value) for _, key, value in sorted(found, key=lambda item: (-item[2], item[0]))]

    def vector(self, key: Id, space: str) -> Vector:
        """Return the vector that ``like=key`` searches from."""
        chosen = self.space(space)
        self._require([key])
        if chosen.number not in self.records[key].vectors:
            raise VectorMissingError(f"the model has no vector of {key!r} in {space!r}", id=key, space=space)
        return self.records[key].vectors[chosen.number][1]


# --- scores -----------------------------------------------------------------------------------------------


def score(metric: Metric, query: Vector, row: Vector) -> np.float32:
    """Return the documented score: float64 sums in eight interleaved lanes, rounded to float32 at the end."""
    q, x = query.astype(np.float32).astype(np.float64), row.astype(np.float64)
    if metric == "l2":
        return np.float32(0.0 - np.sqrt(_sum((q - x) ** 2)))
    inner = _sum(q * x)
    if metric == "dot":
        return np.float32(inner + 0.0)
    norms = np.sqrt(_sum(q * q)) * np.sqrt(_sum(x * x))
    return np.float32(min(1.0, max(-1.0, inner / norms)) + 0.0 if norms > 0 else 0.0)


def _sum(products: npt.NDArray[np.float64]) -> np.float64:
    lanes = np.zeros((-(-len(products) // 8), 8))
    lanes.reshape(-1)[: len(products)] = products
    a, b, c, d, e, f, g, h = np.cumsum(lanes, axis=0)[-1]
    return np.float64(((a + e) + (c + g)) + ((b + f) + (d + h)))


# --- where ------------------------------------------------------------------------------------------------

_NOTHING = object()


def holds(where: Mapping[str, Any], metadata: Mapping[str, Any]) -> bool:
    """Say whether a record with this metadata satisfies a condition."""
    for key, value in where.items():
        if key == "$and":
            good = all(holds(part, metadata) for part in value)
        elif key == "$or":
            good = any(holds(part, metadata) for part in value)
        elif key == "$not":
            good = not holds(value, metadata)
        else:
            good = _field_holds(_at(metadata, key), value if isinstance(value, Mapping) else {"$eq": value})
        if not good:
            return False
    return True


def _at(metadata: Any, path: str) -> Any:
    for part in path.split("."):
        if not isinstance(metadata, Mapping) or part not in metadata:
            return _NOTHING
        metadata = metadata[part]
    return metadata


def _field_holds(found: Any, tests: Mapping[str, Any]) -> bool:
    return all(_passes(found, operator, operand) for operator, operand in tests.items())


def _passes(found: Any, operator: str, operand: Any) -> bool:
    if operator == "$exists":
        return (found is not _NOTHING) is operand
    if operator in ("$ne", "$nin", "$not"):
        return not _passes_positive(found, operator, operand)
    return found is not _NOTHING and _passes_positive(found, operator, operand)


def _passes_positive(found: Any, operator: str, operand: Any) -> bool:
    """Answer an operator, the negative ones as what they negate."""
    if operator == "$not":
        return _field_holds(found, operand)
    if found is _NOTHING:
        return False
    if operator in ("$in", "$nin"):
        return any(_passes_positive(found, "$eq", one) for one in operand)
    if operator == "$contains":
        if isinstance(found, str):
            return isinstance(operand, str) and operand in found
        return isinstance(found, list) and any(_compare("$eq", member, operand) for member in found)
    members = found if isinstance(found, list) else [found]
    return any(_compare("$eq" if operator == "$ne" else operator, member, operand) for member in members)


_ORDERS: Mapping[str, Callable[[Any, Any], bool]] = {
    "$eq": lambda left, right: bool(left == right),
    "$gt": lambda left, right: bool(left > right),
    "$gte": lambda left, right: bool(left >= right),
    "$lt": lambda left, right: bool(left < right),
    "$lte": lambda left, right: bool(left <= right),
}


def _compare(operator: str, left: Any, right: Any) -> bool:
    if left is None or right is None:
        return operator == "$eq" and left is right
    return _kind(left) == _kind(right) != "other" and _ORDERS[operator](left, right)


def _kind(value: Any) -> str:
    return {bool: "bool", int: "number", float: "number", str: "str"}.get(type(value), "other")
