"""Joint spaces: a contraction M from new to old columns, and the extra columns that keep new vectors whole.

Halmos, "Normal dilations and extensions of operators" (1950): with ``D = (I - M M')^(1/2)`` and ``E = [M, D]`` the rows
of E are orthonormal, so ``<y E, y' E> = <y, y'>`` while the first columns of ``y E`` are ``y M``. An old vector stands
in the first columns as it is and has zeros behind: the storage contract of the basis transformation BT2 (Zhou et al.,
ICCV 2023, section 3). Invariant: old vectors are never changed, and "semi" is claimed only if no column was dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from vecdb.contracts import Affine, FitData, State, Transform, state_array, state_value
from vecdb.contracts.transform import Direction, Isometry
from vecdb.errors import CorruptionError
from vecdb.transforms.affine import AffineMap
from vecdb.transforms.pairs import Rows32, Rows64, checked_rows
from vecdb.transforms.provenance import Facts, facts_of, load_facts

__all__ = ["Dilation", "JointMap", "dilate", "joint_map", "load_joint"]

Side: TypeAlias = Literal["new", "old"]

_FLAT = 1e-9
"""Of ``1 - s^2``: a direction that the contraction keeps to this degree needs no extra column."""
_ROUNDED = 1e-5
"""How far float32 rows of E may be from orthonormal."""


class Dilation(NamedTuple):
    """Rows of E, and the largest ``1 - s^2`` of a dropped column: a bound of what inner products lose."""

    E: Rows64
    dropped: float


def dilate(M: Rows64, columns: int | None = None) -> Dilation:
    """Return the isometric dilation of a contraction.

    Parameters
    ----------
    M : ndarray of float64, shape (d_new, d_old)
        Singular values of at most 1 (larger ones by rounding are cut).
    columns : int, optional
        Extra columns at most; those that matter least are dropped. Default: all that are needed,
        ``#{s < 1} + max(d_new - d_old, 0)``.

    Returns
    -------
    Dilation
        E is float64 of shape (d_new, d_old + a).
    """
    U, values, Vt = np.linalg.svd(M, full_matrices=True)
    kept = np.minimum(values, 1.0)
    lost = np.ones(len(U))
    lost[: len(kept)] = 1.0 - kept * kept
    order = np.argsort(-lost, kind="stable")
    needed = int((lost > _FLAT).sum())
    used = order[: needed if columns is None else min(columns, needed)]
    inside = (U[:, : len(kept)] * kept) @ Vt[: len(kept)]
    E = np.concatenate([inside, U[:, used] * np.sqrt(lost[used])], axis=1)
    return Dilation(E, float(lost[order[len(used)]]) if len(used) < needed else 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class JointMap:
    """One side's way into a joint space; `companion` is the other side's.

    Attributes
    ----------
    E : ndarray of float32, shape (d_new, d_old + a)
    pull : ndarray of float32, shape (d_old,)
        ``<pull, x>`` is added to the score of an old row x: what centring the query would have taken from it.
    side : {"new", "old"}
        "new": ``y E``. "old": x with zeros behind.
    main : bool
        Whether this is the side that was asked for; scores have their row bias there.
    whole : bool
        Whether E has orthonormal rows: no column was dropped.
    fit : mapping
    """

    E: Rows32
    pull: Rows32
    side: Side
    main: bool
    whole: bool
    fit: Facts

    @property
    def old_dim(self) -> int:
        """Columns of the old space."""
        return len(self.pull)

    @property
    def source_dim(self) -> int:
        return int(self.E.shape[0]) if self.side == "new" else self.old_dim

    @property
    def target_dim(self) -> int:
        return int(self.E.shape[1])

    @property
    def direction(self) -> Direction:
        """New vectors are mapped alike whether they are asked or stored; old ones are only stored."""
        return "both" if self.side == "new" else "gallery"

    @property
    def isometry(self) -> Isometry:
        if self.side == "new" and not self.whole:
            return "none"
        return "exact" if self.source_dim == self.target_dim else "semi"

    @property
    def lipschitz(self) -> float:
        return 1.0

    def apply(self, vectors: Rows32) -> Rows32:
        rows = checked_rows(vectors, self.source_dim)
        if self.side == "new":
            mapped: Rows32 = rows @ self.E
            return mapped
        padded = np.zeros((len(rows), self.target_dim), np.float32)
        padded[:, : self.old_dim] = rows
        return padded

    def row_bias(self, vectors: Rows32) -> Rows32:
        """Return what is added to the score of each old row, float32, shape (n,)."""
        bias: Rows32 = checked_rows(vectors, self.old_dim) @ self.pull
        return bias

    def affine(self) -> Affine:
        W = self.E.astype(np.float64) if self.side == "new" else np.eye(self.source_dim, self.target_dim)
        return Affine(W, np.zeros(self.target_dim), row_bias=self.row_bias if self.main else None)

    def inverse(self) -> Transform | None:
        if self.isometry != "exact":
            return None
        back = np.ascontiguousarray(self.E.T if self.side == "new" else np.eye(self.old_dim, dtype=np.float32))
        nothing = np.zeros(back.shape[1], np.float32)
        for array in (back, nothing):
            array.flags.writeable = False
        return AffineMap(back, nothing, nothing, 0.0, self.direction, "exact", 1.0, self.fit, True)

    def companion(self) -> JointMap:
        other: Side = "old" if self.side == "new" else "new"
        return JointMap(self.E, self.pull, other, not self.main, self.whole, self.fit)

    def uncertainty(self, vectors: Rows32) -> None:
        return None

    def state(self) -> State:
        return {
            "E": self.E,
            "pull": self.pull,
            "side": self.side,
            "main": self.main,
            "whole": self.whole,
            "fit": dict(self.fit),
        }


def joint_map(
    found: Dilation, pull: npt.NDArray[np.float64], data: FitData, **chosen: bool | int | float | str
) -> JointMap:
    """Return a dilation as the map of the side that `data` asks for: new vectors for queries, old ones for stored.

    Parameters
    ----------
    found : Dilation
    pull : ndarray of float64, shape (d_old,)
    data : FitData
    **chosen
        What the fit says of itself.
    """
    side: Side = "new" if data.role == "query" else "old"
    arrays = [np.array(array, dtype=np.float32, order="C") for array in (found.E, pull)]
    for array in arrays:
        array.flags.writeable = False
    facts = facts_of(data, extra=found.E.shape[1] - len(pull), dropped=found.dropped, **chosen)
    return JointMap(arrays[0], arrays[1], side, True, found.dropped <= _FLAT, facts)


def load_joint(state: State) -> JointMap:
    """Return the joint map of a stored state.

    Raises
    ------
    CorruptionError
        It is something else, or its rows are not as orthonormal as it says.
    """
    E = state_array(state, "E", np.float32, (None, None))
    pull = state_array(state, "pull", np.float32, (None,))
    if len(pull) > E.shape[1]:
        raise CorruptionError("pull of a stored state is wider than E", what="state", where="pull")
    whole = state_value(state, "whole", bool)
    gram = E.astype(np.float64) @ E.T.astype(np.float64)
    whole_enough = not whole or np.abs(gram - np.eye(len(gram))).max() <= _ROUNDED
    if not whole_enough or float(np.linalg.eigvalsh(gram)[-1]) > 1.0 + len(gram) * _ROUNDED:
        raise CorruptionError("E of a stored state has no orthonormal rows", what="state", where="E")
    return JointMap(E, pull, _side(state), state_value(state, "main", bool), whole, load_facts(state))


def _side(state: State) -> Side:
    found = state_value(state, "side", str)
    if found == "new":
        return "new"
    if found == "old":
        return "old"
    raise CorruptionError(f"side of a stored state is {found!r}", what="state", where="side")
