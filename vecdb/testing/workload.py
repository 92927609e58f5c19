"""A stream of commits that can be computed twice: once written to a database, once followed in plain Python.

Invariant: step n is a function of the seed, n and the model after n - 1 steps, so two processes agree on what commit n
must hold without talking to each other. Each step is exactly one commit. Used by vecdb/testing/crash.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

import vecdb
from vecdb.types import Record

__all__ = ["COLLECTION", "SPACES", "Entry", "Step", "Workload"]

COLLECTION: Final = "things"
SPACES: Final[Mapping[str, tuple[int, str, str]]] = {
    "small": (8, "cosine", "float32"),
    "half": (24, "dot", "float16"),
    "wide": (1024, "l2", "float32"),
}
"""Space -> (dim, metric, dtype); some 250 vectors of "wide" fill a block, so that blocks are sealed often."""

_MOST: Final = 700
"""Live records beyond which steps delete."""
_IDS: Final = 1_500

Vectors = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Entry:
    """A record as the model knows it."""

    version: int
    metadata: Mapping[str, Any]
    text: str | None
    vectors: Mapping[str, Vectors] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Step:
    """One commit: what to do with a database, and what it must look like afterwards.

    Attributes
    ----------
    number : int
        From 1.
    kind : str
    write : callable
        Does the step in one commit.
    after : mapping of int to Entry
        Every record after the step.
    """

    number: int
    kind: str
    write: Callable[[vecdb.Database], object]
    after: Mapping[int, Entry]


class Workload:
    """The stream of commits of one seed.

    Parameters
    ----------
    seed : int
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.number = 0
        self.model: Mapping[int, Entry] = {}

    def prepare(self, db: vecdb.Database) -> None:
        """Make the collection and its spaces."""
        things = db.create_collection(COLLECTION)
        for name, (dim, metric, dtype) in SPACES.items():
            things.add_space(name, dim=dim, metric=metric, dtype=dtype)  # type: ignore[arg-type]

    def next_step(self) -> Step:
        """Return the step after the ones taken; `take` moves on."""
        rng = np.random.default_rng((self.seed, self.number + 1))
        kinds = _KINDS if len(self.model) < _MOST else _SHRINKING
        kind = kinds[int(rng.integers(len(kinds)))] if self.model else "upsert"
        return _MAKERS[kind](_Draw(rng, self.number + 1, dict(self.model)))

    def take(self, step: Step) -> None:
        """Move the model to the state after `step`."""
        self.number, self.model = step.number, step.after

    def differences(self, db: vecdb.Database) -> list[str]:
        """Compare every record of the database with the model, vectors bit by bit; return what differs."""
        things = db.collection(COLLECTION)
        stored: dict[Any, Record] = {record.id: record for record in things.scan(vectors="all")}
        wrong = [f"record {key!r} is missing" for key in self.model if key not in stored]
        wrong += [f"record {key!r} should not be there" for key in stored if key not in self.model]
        for key in self.model.keys() & stored.keys():
            wrong += (f"record {key!r}: {what}" for what in _unlike(stored[key], self.model[key]))
        if len(things) != len(self.model):
            wrong.append(f"count() is {len(things)}, expected {len(self.model)}")
        even = sum(entry.metadata.get("even") is True for entry in self.model.values())
        if things.count({"even": True}) != even:
            wrong.append(f"count(even) is {things.count({'even': True})}, expected {even}")
        return wrong + self._search_differences(things)

    def _search_differences(self, things: vecdb.Collection) -> list[str]:
        """The nearest neighbours by squared distance must be the model's (drawn data: no ties, wide gaps)."""
        keys = [key for key, entry in self.model.items() if "wide" in entry.vectors]
        if not keys:
            return []
        rows = np.stack([self.model[key].vectors["wide"] for key in keys]).astype(np.float64)
        query = rows[self.number % len(keys)] + 0.001
        nearest = np.argsort(((rows - query) ** 2).sum(axis=1), kind="stable")[:3]
        expected = [keys[place] for place in nearest.tolist()]
        found = things.search(query.astype(np.float32), k=3, space="wide").ids
        return [] if found == expected else [f"search found {found}, expected {expected}"]


def _unlike(record: Record, entry: Entry) -> list[str]:
    facts = {
        "version": (record.version, entry.version),
        "metadata": (record.metadata, dict(entry.metadata)),
        "text": (record.text, entry.text),
        "spaces": (sorted(record.vectors), sorted(entry.vectors)),
    }
    wrong = [f"{name} is {found!r}, expected {wanted!r}" for name, (found, wanted) in facts.items() if found != wanted]
    if not wrong:
        wrong += [
            f"vector in {name} differs"
            for name, vector in entry.vectors.items()
            if record.vectors[name].tobytes() != vector.tobytes()
        ]
    return wrong


# --- the kinds of steps ------------------------------------------------------------------------------------


class _Draw:
    """What a step is drawn from."""

    def __init__(self, rng: np.random.Generator, number: int, model: dict[int, Entry]) -> None:
        self.rng = rng
        self.number = number
        self.model = model

    def vectors(self, space: str, count: int) -> Vectors:
        dim, _, dtype = SPACES[space]
        return self.rng.standard_normal((count, dim)).astype(dtype)

    def new_ids(self, count: int) -> list[int]:
        """Ids that may be there already."""
        return [int(key) for key in self.rng.choice(_IDS, count, replace=False)]

    def known_ids(self, most: int) -> list[int]:
        known = sorted(self.model)
        count = min(len(known), int(self.rng.integers(1, most + 1)))
        return [known[place] for place in self.rng.choice(len(known), count, replace=False).tolist()]

    def metadata(self, key: int) -> dict[str, Any]:
        return {"step": self.number, "even": bool(self.rng.integers(2)), "key": key, "group": f"g{key % 7}"}

    def records(self, ids: list[int], spaces: tuple[str, ...]) -> dict[int, Entry]:
        """New records for `ids`, with the versions they will have."""
        rows = {name: self.vectors(name, len(ids)) for name in spaces}
        return {
            key: Entry(
                self.model[key].version + 1 if key in self.model else 1,
                self.metadata(key),
                f"text {self.number} of {key}" if key % 3 else None,
                {name: rows[name][place] for name in spaces},
            )
            for place, key in enumerate(ids)
        }

    def step(self, kind: str, write: Callable[[vecdb.Collection], object]) -> Step:
        return Step(self.number, kind, lambda db: write(db.collection(COLLECTION)), self.model)


def _put(things: vecdb.Collection, records: Mapping[int, Entry]) -> None:
    spaces = sorted({name for entry in records.values() for name in entry.vectors})
    things.upsert(
        list(records),
        vectors={name: np.stack([entry.vectors[name] for entry in records.values()]) for name in spaces},
        metadata=[dict(entry.metadata) for entry in records.values()],
        texts=[entry.text for entry in records.values()],
        trust=True,
    )


def _upsert(draw: _Draw) -> Step:
    ids = draw.new_ids(int(draw.rng.integers(1, 40)))
    spaces = (("small",), ("small", "half"), ("small", "half", "wide"))[int(draw.rng.integers(3))]
    records = draw.records(ids, spaces)
    draw.model.update(records)
    return draw.step("upsert", lambda things: _put(things, records))


def _seal(draw: _Draw) -> Step:
    """A batch that fills a block of the widest space."""
    records = draw.records(draw.new_ids(300), ("wide",))
    draw.model.update(records)
    return draw.step("seal", lambda things: _put(things, records))


def _set_vectors(draw: _Draw) -> Step:
    ids = draw.known_ids(30)
    rows = draw.vectors("half", len(ids))
    for place, key in enumerate(ids):
        old = draw.model[key]
        draw.model[key] = replace(old, version=old.version + 1, vectors={**old.vectors, "half": rows[place]})
    return draw.step("set_vectors", lambda things: things.set_vectors("half", ids, rows, trust=True))


def _set_metadata(draw: _Draw) -> Step:
    ids = draw.known_ids(30)
    values = [draw.metadata(key) for key in ids]
    for key, value in zip(ids, values, strict=True):
        draw.model[key] = replace(draw.model[key], version=draw.model[key].version + 1, metadata=value)
    return draw.step("set_metadata", lambda things: things.set_metadata(ids, values))


def _delete(draw: _Draw) -> Step:
    ids = draw.known_ids(25)
    for key in ids:
        del draw.model[key]
    return draw.step("delete", lambda things: things.delete(ids))


def _delete_where(draw: _Draw) -> Step:
    group = f"g{int(draw.rng.integers(7))}"
    for key in [key for key, entry in draw.model.items() if entry.metadata["group"] == group]:
        del draw.model[key]
    return draw.step("delete_where", lambda things: things.delete(where={"group": group}))


def _transaction(draw: _Draw) -> Step:
    """Several operations that only count together."""
    gone = draw.known_ids(8)
    for key in gone:
        del draw.model[key]
    records = draw.records(draw.new_ids(12), ("small", "wide"))
    draw.model.update(records)
    touched = sorted(records)[:5]
    values = [draw.metadata(key) for key in touched]
    for key, value in zip(touched, values, strict=True):
        draw.model[key] = replace(draw.model[key], version=draw.model[key].version + 1, metadata=value)

    def write(db: vecdb.Database) -> None:
        with db.transaction():
            things = db.collection(COLLECTION)
            things.delete(gone)
            _put(things, records)
            things.set_metadata(touched, values)

    return Step(draw.number, "transaction", write, draw.model)


_MAKERS: Final[Mapping[str, Callable[[_Draw], Step]]] = {
    "upsert": _upsert,
    "seal": _seal,
    "set_vectors": _set_vectors,
    "set_metadata": _set_metadata,
    "delete": _delete,
    "delete_where": _delete_where,
    "transaction": _transaction,
}
_KINDS: Final = ("upsert", "upsert", "upsert", "seal", "set_vectors", "set_metadata", "delete", "transaction")
_SHRINKING: Final = ("delete_where", "delete_where", "delete", "upsert", "transaction", "set_vectors")
