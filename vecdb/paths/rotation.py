"""Several exact isometries as one: an orthogonal matrix that was brought back to the nearest one at every step.

Invariant: the matrix is float32, read-only and orthogonal to its precision. It is made when needed and never stored;
its parts are. Design: docs/reference/transforms.md, "Chains of versions".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from vecdb.contracts import Affine, State
from vecdb.contracts.transform import Direction, checked_rows
from vecdb.errors import StateError

__all__ = ["Rotation", "refuse_state"]

Rows32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Rotation:
    """``f(x) = x W`` with W orthogonal.

    Attributes
    ----------
    W : ndarray of float32, shape (d, d)
    direction : {"query", "gallery", "both"}
    """

    W: Rows32
    direction: Direction

    isometry: Literal["exact"] = "exact"
    lipschitz: float = 1.0

    @property
    def source_dim(self) -> int:
        return int(self.W.shape[0])

    @property
    def target_dim(self) -> int:
        return int(self.W.shape[1])

    def apply(self, vectors: Rows32) -> Rows32:
        turned: Rows32 = checked_rows(vectors, self.source_dim) @ self.W
        return turned

    def affine(self) -> Affine:
        return Affine(self.W.astype(np.float64), np.zeros(self.target_dim))

    def inverse(self) -> Rotation:
        back = np.ascontiguousarray(self.W.T)
        back.flags.writeable = False
        turned: dict[Direction, Direction] = {"query": "gallery", "gallery": "query", "both": "both"}
        return Rotation(back, turned[self.direction])

    def companion(self) -> None:
        return None

    def uncertainty(self, vectors: Rows32) -> None:
        return None

    def state(self) -> State:
        """Refuse, as `Chain.state` does."""
        raise refuse_state()


def refuse_state() -> StateError:
    """Return the error of asking a composed map for its state: the path is found again when it is needed."""
    return StateError(
        "a chain of transforms is not stored; its parts are", hint="Store each part, and compose them when asked."
    )
