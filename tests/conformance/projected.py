"""A correct approximate index: random projections to a few signs, nothing but candidates, no promise but recall."""

import struct
from dataclasses import dataclass, field

import numpy as np

from vecdb.contracts import Candidates, IndexCapabilities, Param
from vecdb.errors import CancelledError, CorruptionError
from vecdb.types import METRICS

BITS = 64
CAPABILITIES = IndexCapabilities(metrics=frozenset(METRICS), deterministic=True, min_recall_at_10=0.5)


class ProjectedIndex:
    """Keeps one word of signs a vector; `effort` is the number of candidates."""

    def __init__(self, codes, planes, middle, wanted):
        self.codes, self.planes, self.middle, self.wanted = codes, planes, middle, wanted

    def search(self, queries, k, *, allowed, effort, view):
        assert allowed is None
        count = len(self.codes)
        width = min(count, max(k, effort or max(self.wanted, count // 2)))
        codes = (queries.astype(np.float64) - self.middle) @ self.planes > 0
        agreeing = np.stack([(self.codes == code).sum(axis=1) for code in codes]).astype(np.float32)
        order = np.argsort(-agreeing, axis=1, kind="stable")[:, :width]
        return Candidates(order.astype(np.int64), np.take_along_axis(agreeing, order, axis=1))

    def dump(self, blobs):
        blobs.write("shape", struct.pack("<QQI", *self.codes.shape, self.wanted))
        blobs.write("codes", np.ascontiguousarray(np.packbits(self.codes, axis=1)))
        blobs.write("planes", np.ascontiguousarray(np.vstack([self.planes.T, self.middle])))

    def stats(self):
        return {"vectors": len(self.codes), "bits": BITS}


@dataclass(frozen=True)
class ProjectedType:
    """Approximate, of all metrics."""

    name: str = "kit.projected"
    version: int = 1
    capabilities: IndexCapabilities = CAPABILITIES
    parameters: dict = field(
        default_factory=lambda: {"wanted": Param("int", 200, "Candidates at least.", low=1, high=1_000_000)}
    )

    def build(self, view, params, *, seed, progress, cancel):
        rng = np.random.default_rng(seed)
        planes = rng.standard_normal((view.dim, BITS))
        middle = np.zeros(view.dim)
        parts = []
        for positions, vectors in view.chunks(64):
            if cancel():
                raise CancelledError("cancelled")
            parts.append(vectors.astype(np.float64) @ planes > 0)
            progress(int(positions[-1]) + 1, view.count)
        return ProjectedIndex(np.concatenate(parts), planes, middle, params["wanted"])

    def load(self, blobs, view, params):
        if blobs.size("shape") != 20:
            raise CorruptionError("the head is cut", what="index blob", where="shape")
        count, bits, wanted = struct.unpack("<QQI", blobs.read("shape"))
        if (count, bits) != (view.count, BITS) or wanted != params["wanted"]:
            raise CorruptionError("the head does not fit", what="index blob", where="shape")
        codes = np.unpackbits(blobs.array("codes", np.uint8, (view.count, BITS // 8)), axis=1).astype(np.bool_)
        both = blobs.array("planes", np.float64, (BITS + 1, view.dim))
        return ProjectedIndex(codes, np.ascontiguousarray(both[:-1].T), both[-1], wanted)
