"""The numbers by which a batch of vectors is told native or foreign: shift, energies, spread.

Everything is measured on unit rows in float64. A space's `Axes` hold its mean, its *loud* axes (eigenvectors of the
covariance with the largest eigenvalues) and its *quiet* axes (the smallest). Another model's vectors spread their
energy over both alike, whatever they are about; the model's own leave the quiet axes nearly empty even on a topic
never seen. Invariant: a number depends on the rows and the axes alone and is never NaN.
Design: docs/explanation/identity.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = [
    "EVIDENCE",
    "Axes",
    "Floats",
    "axis_count",
    "batch_evidence",
    "effective_rows",
    "fit_axes",
    "row_evidence",
    "unit_rows",
]

Floats: TypeAlias = npt.NDArray[np.float64]

EVIDENCE = ("alignment", "energy", "quiet")
"""Columns of every evidence array; each is high for native and about 0 for foreign vectors."""

LOUD_AXES = 64
QUIET_MAX_DIM = 1024
"""Above this width quiet axes are left out: they need the complete eigendecomposition, a second or more."""
_AXES_BYTES = 8 << 20
_FLOOR = 0.02


@dataclass(frozen=True, slots=True, eq=False)
class Axes:
    """The directions that a space's numbers are measured against.

    Attributes
    ----------
    mean : ndarray of float64, shape (d,)
        Mean of the unit rows.
    loud, quiet : ndarray of float64, shape (k, d) and (q, d)
        Orthonormal rows: most and least variance. The values are those of float32 (loud) and float16 (quiet), so
        that stored axes judge exactly as fitted ones; half precision moves an energy by less than 1e-6.
    direction : ndarray of float64, shape (d,)
        The mean at unit length; zeros where the mean vanishes.
    """

    mean: Floats
    loud: Floats
    quiet: Floats
    direction: Floats

    @classmethod
    def of(cls, mean: npt.NDArray[Any], loud: npt.NDArray[Any], quiet: npt.NDArray[Any]) -> Axes:
        """Return axes rounded to what is stored."""
        mean = np.ascontiguousarray(mean, dtype=np.float64)
        length = float(np.linalg.norm(mean))
        direction = mean / length if length > 1e-9 else np.zeros_like(mean)
        stored = np.ascontiguousarray(loud, dtype=np.float32), np.ascontiguousarray(quiet, dtype=np.float16)
        return cls(mean, stored[0].astype(np.float64), stored[1].astype(np.float64), direction)

    @property
    def dim(self) -> int:
        return int(self.mean.shape[0])


def unit_rows(rows: npt.NDArray[Any]) -> tuple[Floats, Floats]:
    """Return the rows, shape (n, d), at unit length in float64, and their norms; rows of zero norm stay zero."""
    wide = np.asarray(rows, dtype=np.float64)
    scale = np.abs(wide).max(axis=1, initial=0.0)
    wide = wide / np.where(scale > 0, scale, 1.0)[:, None]  # keeps the squares of extreme components in range
    length = np.sqrt(np.einsum("ij,ij->i", wide, wide))
    return wide / np.where(length > 0, length, 1.0)[:, None], length * scale


def axis_count(dim: int) -> int:
    """Return how many loud axes a space of this width keeps: 64, at most a quarter of it, at most 8 MiB."""
    return max(1, min(LOUD_AXES, dim // 4, _AXES_BYTES // (4 * dim)))


def fit_axes(unit: Floats, *, seed: int) -> Axes:
    """Fit mean, loud and quiet axes to unit rows, shape (m, d).

    Up to `QUIET_MAX_DIM` columns the covariance is decomposed completely; above, the loud axes come from randomised
    subspace iteration (Halko, Martinsson and Tropp, SIAM Review 2011, algorithm 4.4), seeded by `seed`.
    """
    mean = unit.mean(axis=0)
    centred = unit - mean
    count = axis_count(unit.shape[1])
    if unit.shape[1] > QUIET_MAX_DIM:
        return Axes.of(mean, _loud_axes(centred, count, seed), np.empty((0, unit.shape[1])))
    vectors = np.linalg.eigh(centred.T @ centred)[1].T
    return Axes.of(mean, vectors[::-1][:count], vectors[:count])


def _loud_axes(centred: Floats, count: int, seed: int) -> Floats:
    width = min(count + 16, *centred.shape)
    block = np.random.default_rng(seed).standard_normal((centred.shape[1], width))
    for _ in range(4):
        block = np.linalg.qr(centred.T @ (centred @ block))[0]
    turn = np.linalg.svd(centred @ block, full_matrices=False)[2]
    return (turn @ block.T)[:count]


def _log_share(part: Floats, total: Floats, count: int, dim: int) -> Floats:
    """Return log of the energy on `count` axes relative to an even spread; 0 where there is nothing to measure."""
    if count == 0:
        return np.zeros_like(total)
    even = count / dim
    share = np.where(total > 1e-12, part / np.maximum(total, 1e-12), even)
    return np.log((share / even + _FLOOR) / (1 + _FLOOR))


def _evidence(alignment: Floats, loud: Floats, quiet: Floats, total: Floats, axes: Axes) -> Floats:
    energy = _log_share(loud, total, len(axes.loud), axes.dim)
    silence = -_log_share(quiet, total, len(axes.quiet), axes.dim)
    return np.stack([alignment, energy, silence], axis=-1)


def batch_evidence(unit: Floats, axes: Axes) -> Floats:
    """Return the three numbers of one batch in the order of `EVIDENCE`, measured around the batch's own mean."""
    mean = unit.mean(axis=0)
    centred = unit - mean
    length = float(np.linalg.norm(mean))
    alignment = float(mean @ axes.direction) / length if length > 1e-9 else 0.0
    loud, quiet = (np.square(centred @ basis.T).sum() for basis in (axes.loud, axes.quiet))
    return _evidence(np.array(alignment), loud, quiet, np.square(centred).sum(), axes)


def row_evidence(unit: Floats, axes: Axes) -> Floats:
    """Return the three numbers of every single row, shape (n, 3), measured beside the direction of the mean."""
    alignment = unit @ axes.direction
    rest = unit - alignment[:, None] * axes.direction
    loud, quiet = (np.square(rest @ basis.T).sum(axis=1) for basis in (axes.loud, axes.quiet))
    return _evidence(alignment, loud, quiet, np.square(rest).sum(axis=1), axes)


def effective_rows(unit: Floats) -> tuple[float, float]:
    """Return how many independent rows a batch amounts to, and its spread (mean squared distance to its mean).

    The first is the participation ratio ``trace(G)^2 / trace(G^2)`` of the centred Gram matrix.
    """
    centred = unit - unit.mean(axis=0)
    gram = centred @ centred.T
    trace, square = float(np.trace(gram)), float(np.square(gram).sum())
    return (trace * trace / square if square > 1e-24 else 0.0), trace / len(unit)
