"""A correct index type with every capability, slow and obvious: what the broken ones of the tests are made from."""

import json
import zlib
from dataclasses import dataclass, field, replace

import numpy as np

from vecdb.contracts import Candidates, EffortCurve, IndexCapabilities, Param
from vecdb.errors import CancelledError, CorruptionError
from vecdb.types import METRICS

EVERYTHING = IndexCapabilities(
    metrics=frozenset(METRICS),
    exact=True,
    filtered=True,
    lists=True,
    complete=True,
    add=True,
    remove=True,
    encodes_segments=True,
    deterministic=True,
    measured=True,
    part_from=100,
    proves=True,
    prepares=True,
    min_recall_at_10=1.0,
)
PARAMETERS = {"step": Param("int", 100, "Vectors read at once.", low=1, high=10_000)}


class PlainIndex:
    """Scores every vector in float64."""

    def __init__(self, rows, metric, alive=None):
        self.rows = rows
        self.metric = metric
        self.alive = np.ones(len(rows), np.bool_) if alive is None else alive

    @classmethod
    def build(cls, view, params, *, seed, progress, cancel):
        return cls(cls.read(view, params, progress, cancel), view.metric)

    @classmethod
    def read(cls, view, params, progress, cancel):
        parts = []
        for positions, vectors in view.chunks(params["step"]):
            if cancel():
                raise CancelledError("cancelled")
            parts.append(vectors)
            progress(int(positions[-1]) + 1, view.count)
        return np.concatenate(parts)

    # --- searching, in steps that faults replace ---

    def search(self, queries, k, *, allowed, effort, view):
        mask = self.alive if allowed is None else self.alive & allowed
        return self.table([self.find(query, k, mask) for query in queries])

    def prepare(self, k, *, allowed, effort, view):
        return lambda query: self.search(query, k, allowed=allowed, effort=effort, view=view)

    def find(self, query, k, mask):
        there = np.flatnonzero(mask)
        scores = self.scores(query, self.rows[there])
        order = np.lexsort((there, -scores))[:k]
        return there[order], scores[order]

    def scores(self, query, rows):
        rows, query = rows.astype(np.float64), query.astype(np.float64)
        if self.metric == "l2":
            return -np.sqrt(np.square(rows - query).sum(axis=1)).astype(np.float32)
        inner = (rows * query).sum(axis=1)
        if self.metric == "cosine":
            inner /= np.sqrt(np.square(rows).sum(axis=1) * np.square(query).sum())
        return inner.astype(np.float32)

    def table(self, found):
        width = max(len(positions) for positions, _ in found)
        positions = np.full((len(found), width), -1, np.int64)
        scores = np.full((len(found), width), -np.inf, np.float32)
        for row, (each, theirs) in enumerate(found):
            positions[row, : len(each)], scores[row, : len(each)] = each, theirs
        return Candidates(positions, scores)

    # --- living ---

    def head(self):
        count, dim = self.rows.shape
        sums = [zlib.crc32(np.ascontiguousarray(part)) for part in (self.rows, self.alive)]
        return json.dumps(["plain", count, dim, *sums]).encode()

    def dump(self, blobs):
        blobs.write("head", self.head())
        blobs.write("rows", self.rows)
        blobs.write("alive", self.alive)

    @classmethod
    def load(cls, blobs, view, params):
        head = blobs.read("head")
        rows = blobs.array("rows", np.float32, (view.count, view.dim))
        alive = blobs.array("alive", np.bool_, (view.count,)).copy()
        index = cls(rows, view.metric, alive)
        if head != PlainIndex.head(index):
            raise CorruptionError("the head does not fit", what="index blob", where="head")
        return index

    def add(self, view, start, *, progress, cancel):
        self.rows = np.concatenate([self.rows, view.gather(np.arange(start, view.count))])
        self.alive = np.concatenate([self.alive, np.ones(view.count - start, np.bool_)])
        progress(view.count, view.count)

    def remove(self, positions):
        self.alive[positions] = False

    def encode_segment(self, view, blobs):
        type(self)(view.gather(np.arange(view.count)), view.metric).dump(blobs)

    def effort_curve(self):
        if len(self.rows) < 100:
            return None
        return EffortCurve(np.array([1, len(self.rows)]), np.ones(2), len(self.rows))

    def problems(self, view):
        return [] if np.array_equal(self.rows, view.gather(np.arange(view.count))) else ["the copies are others"]

    def stats(self):
        return {"vectors": len(self.rows), "alive": float(self.alive.mean()), "metric": self.metric}


@dataclass(frozen=True)
class PlainType:
    """Describes and makes `PlainIndex`, or what a test puts in its place."""

    name: str = "kit.plain"
    version: int = 1
    capabilities: IndexCapabilities = EVERYTHING
    parameters: dict = field(default_factory=lambda: dict(PARAMETERS))
    index: type = PlainIndex

    def build(self, view, params, *, seed, progress, cancel):
        return self.index.build(view, params, seed=seed, progress=progress, cancel=cancel)

    def load(self, blobs, view, params):
        return self.index.load(blobs, view, params)

    def able(self, **changes):
        return replace(self, capabilities=replace(self.capabilities, **changes))
