"""An adapter without a library: an exact scan that can be told to lose rows, to fail, and to be missing."""

from __future__ import annotations

from typing import Any

import numpy as np

from tools.bench.compare.peers.base import Attributes, Ids, Peer, Setting, Variant
from tools.bench.compare.sets import F32, Condition, K

DISTRIBUTIONS = ("no-such-distribution",)


def version() -> str:
    return "1.0"


class Fake(Peer):
    """A setting is how many of the best ten are returned; ``"broken"`` fails."""

    def build(self, rows: F32, attributes: Attributes) -> None:
        if self.params.get("fails"):
            raise ValueError("cannot build that")
        print("a library that prints")
        np.save(self.folder / "rows.npy", rows)

    def open(self, dim: int) -> None:
        self._rows = np.load(self.folder / "rows.npy")
        self._allowed: Any = None

    def aim(self, setting: Setting) -> None:
        if setting == "broken":
            raise ValueError("a setting that fails")
        self._keep = setting

    def one(self, query: F32) -> Ids:
        scores = self._rows @ query
        if self._allowed is not None and not self.params.get("leaks"):
            scores = np.where(self._allowed, scores, -np.inf)
        best = np.argsort(-scores, kind="stable")[: self._keep]
        return best[np.isfinite(scores[best])]

    def only(self, condition: Condition | None, attributes: Attributes) -> None:
        self._allowed = None if condition is None else attributes[condition.attribute] < condition.below

    def insert(self, first: int, rows: F32, attributes: Attributes) -> None:
        self._rows = np.vstack([self._rows, rows])
        np.save(self.folder / "rows.npy", self._rows)


PEER = Fake
VARIANTS = (
    Variant("whole", settings=(5, 8, K), asked=(9,), filtered=(K,)),
    Variant("unbuildable", build={"fails": True}, settings=(5,)),
    Variant("breaks", build={"breaks": True}, settings=(5, "broken", 8)),
    Variant("leaks", build={"leaks": True}, settings=(K,)),
)
