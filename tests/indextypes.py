"""Index types for tests: one that answers exactly from copies of the vectors, with any capabilities and faults."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

import vecdb
from vecdb.contracts import Candidates, IndexCapabilities, MappedRows, Param
from vecdb.contracts.blobs import MadeRows
from vecdb.scan_numpy import canonical_scores
from vecdb.types import METRICS


class Copies:
    """Copies of the vectors; `half` looks at every second one only, as an approximate index might."""

    def __init__(self, type_, vectors, gone=None):
        self.type = type_
        self.vectors = vectors
        self.gone = np.zeros(len(vectors), np.bool_) if gone is None else gone

    def search(self, queries, k, *, allowed, effort, view):
        self.type.fault("search", queries=queries, allowed=allowed, view=view, index=self)
        assert view.count == len(self.vectors)
        mask = ~self.gone if allowed is None else allowed & ~self.gone
        if allowed is not None and self.type.capabilities.exact:
            assert not (allowed & self.gone).any(), "what was removed is allowed"
        if self.type.half:
            mask = mask & (np.arange(len(mask)) % 2 == 0)
        rows = np.flatnonzero(mask)
        positions = np.full((len(queries), min(k, len(rows))), -1, np.int64)
        scores = np.full(positions.shape, -np.inf, np.float32)
        for place, query in enumerate(queries):
            found = canonical_scores(view.metric, query, self.vectors[rows]).astype(np.float32)
            order = np.lexsort((rows, -found))[:k]
            positions[place], scores[place] = rows[order], found[order]
        return self.type.answer(Candidates(positions, scores))

    def dump(self, blobs):
        self.type.fault("dump", blobs=blobs)
        blobs.write("vectors", self.vectors)
        blobs.write("gone", self.gone)
        blobs.write("nothing", b"")

    def problems(self, view):
        self.type.fault("problems")
        wrong = (self.vectors != view.gather(np.arange(view.count))).any(axis=1)
        return [f"row {row} is another" for row in np.flatnonzero(wrong).tolist()]

    def stats(self):
        self.type.fault("stats")
        return {"vectors": len(self.vectors), "gone": int(self.gone.sum())}

    def add(self, view, start, *, progress, cancel):
        self.type.fault("add", view=view)
        new = view.gather(np.arange(start, view.count))
        self.vectors = np.concatenate([self.vectors, new])
        self.gone = np.concatenate([self.gone, np.zeros(len(new), np.bool_)])
        progress(view.count, view.count)

    def remove(self, positions):
        self.type.fault("remove")
        self.gone = self.gone.copy()
        self.gone[positions] = True

    def encode_segment(self, view, blobs):
        self.type.fault("encode_segment", view=view)
        Copies(self.type, gathered(view)).dump(blobs)


def gathered(view):
    parts = list(view.chunks(7))
    assert np.array_equal(np.concatenate([positions for positions, _ in parts]), np.arange(view.count))
    return np.concatenate([vectors for _, vectors in parts])


@dataclass
class CopiesType:
    """The type of `Copies`.

    `faults` maps a method to what is called before it with what it was given; `answer` changes what a search returns;
    `calls` counts.
    """

    name: str = "acme.copies"
    capabilities: IndexCapabilities = field(default_factory=lambda: able("exact"))
    version: int = 1
    parameters: dict = field(default_factory=lambda: {"m": Param("int", 3, "A number.", low=1, high=9)})
    half: bool = False
    faults: dict = field(default_factory=dict)
    answer: Any = field(default_factory=lambda: lambda found: found)
    calls: dict = field(default_factory=dict)

    def fault(self, method, **given):
        self.calls[method] = self.calls.get(method, 0) + 1
        if method in self.faults:
            self.faults[method](**given)

    def build(self, view, params, *, seed, progress, cancel):
        self.fault("build", view=view, params=params, seed=seed, progress=progress, cancel=cancel)
        if cancel():
            raise vecdb.CancelledError("the build was cancelled")
        index = Copies(self, gathered(view))
        progress(view.count, view.count)
        return index

    def load(self, blobs, view, params):
        self.fault("load", blobs=blobs, view=view)
        assert blobs.names() == ["vectors", "gone", "nothing"]
        assert blobs.read("nothing") == b""
        vectors = blobs.array("vectors", np.float32, (view.count, view.dim))
        return Copies(self, vectors, blobs.array("gone", np.bool_, (view.count,)))


class MappedCopies(Copies):
    """Copies that stay in the file: a search takes the rows that it looks at, and nothing else is read."""

    def __init__(self, type_, mapped, gone=None):
        super().__init__(type_, mapped.array() if mapped.shift > 60 else np.empty((mapped.count, mapped.width)), gone)
        self.mapped = mapped

    def search(self, queries, k, *, allowed, effort, view):
        looked = np.arange(len(self.gone)) if allowed is None else np.flatnonzero(allowed)
        self.vectors = np.full((self.mapped.count, self.mapped.width), np.nan, np.float32)
        self.vectors[looked] = self.mapped.take(looked)
        return super().search(queries, k, allowed=allowed, effort=effort, view=view)

    def dump(self, blobs):
        blobs.write_rows("vectors", self.mapped.array())
        blobs.write("gone", self.gone)

    def add(self, view, start, *, progress, cancel):
        super().add(view, start, progress=progress, cancel=cancel)
        self.mapped = MappedRows.of(self.vectors)

    def encode_segment(self, view, blobs):
        MappedCopies(self.type, MappedRows.of(gathered(view))).dump(blobs)


class MappedType(CopiesType):
    """The type of `MappedCopies`."""

    def build(self, view, params, *, seed, progress, cancel):
        built = super().build(view, params, seed=seed, progress=progress, cancel=cancel)
        return MappedCopies(self, MappedRows.of(built.vectors))

    def load(self, blobs, view, params):
        rows = blobs.rows("vectors", np.float32, view.dim, view.count)
        return MappedCopies(self, rows, blobs.array("gone", np.bool_, (view.count,)))


class MadeCopies(Copies):
    """Copies whose rows are made when they are stored."""

    def dump(self, blobs):
        blobs.write_rows("vectors", self.type.made(self))
        blobs.write("gone", self.gone)

    def encode_segment(self, view, blobs):
        MadeCopies(self.type, gathered(view)).dump(blobs)


def made_of(index):
    rows = np.ascontiguousarray(index.vectors, np.float32)
    return MadeRows(len(rows), 4 * rows.shape[1], lambda first, stop: rows[first:stop])


@dataclass
class MadeType(CopiesType):
    """The type of `MadeCopies`; `made` says how their rows are made."""

    made: Any = field(default_factory=lambda: made_of)

    def build(self, view, params, *, seed, progress, cancel):
        built = super().build(view, params, seed=seed, progress=progress, cancel=cancel)
        return MadeCopies(self, built.vectors)

    def load(self, blobs, view, params):
        rows = blobs.rows("vectors", np.float32, view.dim, view.count)
        return MadeCopies(self, rows.array(), blobs.array("gone", np.bool_, (view.count,)))


def able(*names, metrics=METRICS, **more):
    """Return capabilities with these switches on."""
    return IndexCapabilities(frozenset(metrics), **{name: True for name in names}, **more)


class Plugin:
    """A plugin that provides types."""

    def __init__(self, *types):
        self.types = types

    @vecdb.hookimpl
    def vecdb_register_index_types(self):
        return list(self.types)


class Listener:
    """A plugin that notes what it is told."""

    def __init__(self):
        self.opened = []
        self.committed = []

    @vecdb.hookimpl
    def vecdb_database_opened(self, database):
        self.opened.append(database)

    @vecdb.hookimpl
    def vecdb_committed(self, database, seq):
        self.committed.append(seq)


def registry(*types, plugins=()):
    """Return a registry with vecdb's own types, these, and nothing that is installed."""
    return vecdb.PluginRegistry([*([Plugin(*types)] if types else []), *plugins], entry_points=False)


NONE = vecdb.PluginRegistry(entry_points=False)


def fail(error):
    """Return a fault that raises."""

    def raising(**given):
        raise error

    return raising


DIM = 6


def rows(count, seed=0):
    return np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)


class Case:
    """A database with one space, and types of indexes for it."""

    def __init__(self, path, *types, count=400, metric="l2", **options):
        self.path, self.options, self.types = path, options, types
        self.registry = registry(*types)
        self.db = vecdb.open(path, plugins=self.registry, **options)
        self.c = self.db.create_collection("c")
        self.c.add_space("s", dim=DIM, metric=metric)
        if count:
            self.write(range(count))

    def write(self, ids, seed=0):
        ids = list(ids)
        self.c.upsert(ids, {"s": rows(len(ids), seed)}, metadata=[{"g": each % 10} for each in ids], trust=True)

    def index(self, kind=None):
        return self.c.create_index("s", kind or self.types[0].name)

    def reopen(self, *types, **options):
        self.db.close()
        self.registry = registry(*(types or self.types))
        self.db = vecdb.open(self.path, plugins=self.registry, **{**self.options, **options})
        self.c = self.db.collection("c")

    def same(self, query=None, k=5, **options):
        query = rows(1, 99)[0] if query is None else query
        found = self.c.search(query, k, explain=True, **options)
        wanted = self.c.search(query, k, exact=True, **options)
        assert found.ids == wanted.ids
        assert found.scores.tobytes() == wanted.scores.tobytes()
        for _ in range(2):  # without a plan the search may take the short way
            plain = self.c.search(query, k, **options)
            assert (plain.ids, plain.scores.tobytes()) == (wanted.ids, wanted.scores.tobytes())
        return dict(found.plan)
